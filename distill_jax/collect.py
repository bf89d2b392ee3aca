"""Adds finished runs to a study.

    python -m distill_jax.collect results/STUDY WORKDIR...

results/README.md describes studies.
"""

import argparse
import pathlib
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from distill_jax.archive import Curve, Run, in_turn, read_curves, read_runs, write_study
from distill_jax.errors import UserError
from distill_jax.fields import flatten
from distill_jax.files import read_json, read_jsonl

SIDE_RESULTS = ("data", "linear_probe", "linear_probe_*", "ensemble")  # files beside summary.json, each a prefix of columns


def collect(study: pathlib.Path, workdirs: Sequence[pathlib.Path]) -> None:
    """Adds finished runs to a study; see `read_workdirs` for their names.

    Raises:
      UserError: a run is damaged, unfinished, or already in the study.
    """
    found = [(folder, run, curve) for folder in workdirs for run, curve, _ in read_workdirs(folder)]
    with in_turn(study):
        runs = read_runs(study) if (study / "runs.csv").exists() else []
        curves = read_curves(study) if runs else {}
        known = {run[:3] for run in runs}
        for folder, run, curve in found:
            if run[:3] in known:
                raise UserError(
                    f"{folder}: {study} already has a run {run.path} with seed {run.seed}; rename the workdir, or choose another study"
                )
            known.add(run[:3])
            runs.append(run)
            curves[run[:3]] = curve
        write_study(study, runs, curves)


def read_workdirs(folder: pathlib.Path) -> list[tuple[Run, Curve, pathlib.Path]]:
    """Reads the finished runs in a folder, each with its curve and its own folder.

    The folder is a workdir, named after itself, or a folder of workdirs, named by their paths below it.

    Args:
      folder: a trailing seed_N is not part of a name: a/seed_0 and a/seed_1 are two seeds of the variant "a".

    Raises:
      UserError: there is no run, one is unfinished, or a file is damaged.
    """
    root = folder.resolve()
    workdirs = list(find_workdirs(root))
    if not workdirs:
        raise UserError(f"{folder}: no finished run here; give workdirs, or a folder of workdirs")
    runs = []
    for workdir in workdirs:
        named = workdir.parent if re.fullmatch(r"seed_\d+", workdir.name) else workdir
        runs += read_workdir(workdir, named.relative_to(root).as_posix() if root in named.parents else named.name)
    return runs


def find_workdirs(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """The topmost workdirs in a folder, ordered by name; without studies, exported networks, and tries of a comparison that diverged."""
    if (folder / "runs.csv").exists() or (folder / "diverged.json").exists():
        return
    if (folder / "config.json").exists() or (folder / "summary.json").exists():
        if (folder / "summary.json").exists() or "model_type" not in read_json(folder / "config.json"):  # of Hugging Face's layout
            yield folder
        return
    for child in sorted(path for path in folder.glob("*") if path.is_dir()):
        yield from find_workdirs(child)


def read_workdir(folder: pathlib.Path, variant: str, stage: str = "", seed: int | None = None) -> Iterator[tuple[Run, Curve, pathlib.Path]]:
    """Reads a workdir, with its seeds and stages."""
    if not (folder / "summary.json").exists():
        raise UserError(f"{folder}: not finished, as it has no summary.json; repeat its command until it finishes")
    config, summary = flatten(read_json(folder / "config.json")), read_json(folder / "summary.json")
    seed = config.get("seed") if seed is None else seed
    beside = side_results(folder)
    if isinstance(summary.get("runs"), list):
        if "ensemble.members" in beside and len(beside["ensemble.members"]) != len(summary["runs"]):
            raise UserError(f"{folder / 'ensemble.json'}: is not of all {len(summary['runs'])} seeds; repeat --mode=ensemble, or remove it")
        yield Run(variant, stage, None, config, beside), [], folder
        for child in seed_folders(folder, summary["runs"]):
            yield from read_workdir(child, variant, stage)
    elif "stages" in summary:
        yield Run(variant, stage, seed, config, beside), [], folder
        for name in stage_names(folder, summary):
            yield from read_workdir(folder / name, variant, name, seed)
    elif "train_accuracy" not in summary:
        raise UserError(f"{folder / 'summary.json'}: not the summary of a run; restore the file or repeat the run")
    else:
        curve = read_jsonl(folder / "metrics.jsonl", is_finished=True)
        yield Run(variant, stage, seed, config, leaf_results(summary) | beside), curve, folder


def seed_folders(folder: pathlib.Path, summaries: Sequence[Any]) -> list[pathlib.Path]:
    folders = sorted(folder.glob("seed_*/"), key=lambda path: (len(path.name), path.name))
    if len(folders) < len(summaries):
        raise UserError(f"{folder}: summary.json has {len(summaries)} seeds, but only {len(folders)} have a folder; restore the rest")
    return folders


def stage_names(folder: pathlib.Path, summary: dict[str, Any]) -> list[str]:
    try:
        return [stage["stage"] for stage in summary["stages"]]
    except (TypeError, KeyError) as error:
        raise UserError(f"{folder / 'summary.json'}: its stages have no names; restore the file or repeat the run") from error


def leaf_results(summary: dict[str, Any]) -> dict[str, Any]:
    """A run's summary as columns. The seed comes from the config."""
    versions = {"versions": summary["versions"]} if "versions" in summary else {}
    return columns({name: value for name, value in summary.items() if name not in ("seed", "versions")}) | versions


def side_results(folder: pathlib.Path) -> dict[str, Any]:
    """The results in the other files of a workdir, as columns, and the networks that it used, with their hashes."""
    used = {name: folder / f"{name}.json" for name in ("teachers", "initial")}
    results = {name: read_json(path) for name, path in used.items() if path.exists()}
    for path in (path for name in SIDE_RESULTS for path in sorted(folder.glob(f"{name}.json"))):
        results |= columns({path.stem: read_json(path)})
    return results


def columns(content: dict[str, Any]) -> dict[str, Any]:
    """Results as columns, without lists of strings: the names of a thousand classes belong to the data."""
    return {
        name: value for name, value in flatten(content).items() if not (isinstance(value, list) and value and isinstance(value[0], str))
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m distill_jax.collect", description="Adds finished runs to a study.")
    parser.add_argument("study", type=pathlib.Path, help="the study's folder; created if new")
    parser.add_argument("workdirs", type=pathlib.Path, nargs="+", help="workdirs, or folders of workdirs")
    options = parser.parse_args(arguments)
    try:
        collect(options.study, options.workdirs)
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()

"""Compares methods under one budget: each arm is tuned with the same number of tries, then trained on the same fresh seeds.

    python -m distill_jax.compare configs/comparison_cifar100.py --workdir=runs/comparison --config.data.dir=DIR
    python -m distill_jax.compare configs/comparison_cifar100.py --workdir=runs/comparison --config.data.dir=DIR --arms=cosine,sd_t2

The file has get_config(), which all arms share, and get_arms(), which describes them by name, the baseline first:

    def get_arms():
        tries = [{"optimizer": {"weight_decay": decay}} for decay in (1e-4, 5e-4)]
        return {"cosine": ({}, tries), "sd": ({"schedule": {"cycles": 2}, "method": {"name": "snapshot"}}, tries)}

An arm is a pair: its changes to the config, and its tries, each a further change; a change of method.name, model.name or stages.name drops
the options of the old one. Every try is trained with the config's seed and evaluated on data.validation_examples. Tries that diverge are
dropped; the one that is best at the last epoch is retrained without a validation set (but on data.train_examples images as before, if that
is set), with the seeds after that one. An arm may be a family of stages, whose last stage counts. teachers=("arm:NAME",) stands for the
network of an earlier arm: of its best try during tuning, of the same seed afterwards.

Each run is an ordinary one in WORKDIR/<arm>/try_<n> or WORKDIR/<arm>/final, which record their teachers' folders: do not move WORKDIR.
Repeat the command to resume. Finished runs are not repeated, so adding an arm or seeds trains only what is new. If a try added later turns
out best, you are asked to remove the arm's final runs first. WORKDIR/study has the tables, in the form that results/README.md describes.
"""

import argparse
import pathlib
import re
import shlex
from collections.abc import Sequence

from ml_collections import ConfigDict

from distill_jax import command_line, comparison_checks, compilation, configuration, logs, processes, sharding, study, trained, workdir
from distill_jax.comparison import Arm, Comparison, best_try, final_config, folder_of_try, tuning_config, wanted
from distill_jax.comparison_tables import write_tables
from distill_jax.errors import Diverged, UserError, prefixed
from distill_jax.files import read_json

USED = {"teachers.json": "the teacher of its final runs", "initial.json": "from which its final runs started"}


def compare(config: ConfigDict, arms: dict[str, Arm], root: pathlib.Path, only: Sequence[str] = ()) -> None:
    """Tunes and trains the arms, or those named in `only`, and writes the tables of all finished ones.

    Args:
      config: of the tries; `seeds` is the number of final runs of each arm.
      arms: by name, the baseline first; see `read_arms`.
      root: the workdir.
      only: names of the arms to train; () for all.

    Raises:
      UserError: bad input; or the loss is not finite, in a final run or in all tries of an arm.
      Interrupted: by SIGTERM or SIGINT, after saving.
    """
    comparison = Comparison(config, arms, root.expanduser())
    comparison_checks.check(comparison, only)
    for name in wanted(arms, only):
        with prefixed(f"arm {name}"):
            if len(arms[name].tries) > 1:
                tune(comparison, name)
            check_final(comparison, name)
            train_final(comparison, name)
        study_folder = shlex.quote(str(comparison.root / "study"))
        plots = f"{study_folder} has this table; plots: python -m distill_jax.report {study_folder} --html {study_folder}/report.html"
        table = write_tables(comparison)
        logs.say(f"{table}\n{plots}" if table else f"no table yet: not all runs of the arms that teach {name} are finished")


def tune(comparison: Comparison, name: str) -> None:
    """Trains the tries of an arm. One that diverges is dropped, and diverged.json in its folder records that for the next time.

    Raises:
      UserError: all of them diverge.
    """
    tries = [folder_of_try(comparison, name, attempt) for attempt in range(len(comparison.arms[name].tries))]
    for attempt, folder in enumerate(tries):
        if workdir.is_claimed(folder):
            check_same(folder, configuration.of_workdir(folder), tuning_config(comparison, name, attempt))
        if not workdir.exists(folder / "diverged.json"):
            try:
                train(tuning_config(comparison, name, attempt), folder)
            except Diverged as error:
                logs.say(f"{folder}: {error}")
                workdir.write_json(folder / "diverged.json", {"error": str(error)})
    if all(workdir.exists(folder / "diverged.json") for folder in tries):
        raise UserError(f"all its tries diverged; remove {comparison.root / name} and lower their optimizer.learning_rate")


def train_final(comparison: Comparison, name: str) -> None:
    """Trains the final runs of an arm.

    Raises:
      UserError: one of them diverges.
    """
    folder = comparison.root / name
    try:
        train(final_config(comparison, name, best_try(comparison, name)), folder / "final")
    except Diverged as error:
        logs.say(f"{folder / 'final'}: {error}")
        raise UserError(f"a final run diverged; remove {folder} and lower its optimizer.learning_rate") from error


def train(config: ConfigDict, folder: pathlib.Path) -> None:
    logs.say(f"== {folder}")
    study.train(config, folder)


def read_arms(path: str) -> dict[str, Arm]:
    """The arms of a config's file.

    Raises:
      UserError: it has none, or they do not have the form described above.
    """
    given = configuration.call(path, "get_arms")
    if not isinstance(given, dict) or not given:
        raise UserError(f"{path}: has no function get_arms() that returns the arms by name")
    for name, arm in given.items():
        if not (isinstance(name, str) and re.fullmatch(r"\w[\w+-]*", name)) or name == "study":
            raise UserError(f"{path}: {name!r} cannot be an arm's folder; use letters, digits and _")
        is_pair = isinstance(arm, tuple) and len(arm) == 2 and isinstance(arm[1], list | tuple)
        if not (is_pair and all(isinstance(change, dict) for change in (arm[0], *arm[1]))):
            raise UserError(f"{path}: arm {name} must be a pair: a dict of changes, and a list of such dicts, the tries")
    arms = {name: Arm(*arm) for name, arm in given.items()}
    counts = {name: len(arm.tries) for name, arm in arms.items()}
    if min(counts.values()) < 1 or len(set(counts.values())) > 1:
        raise UserError(f"{path}: all arms must have the same number of tries, at least one; they have {counts}")
    return arms


def check_final(comparison: Comparison, name: str) -> None:
    """Raises UserError if an arm's final runs are not of its best try (one added later may be best), or used networks since retrained."""
    folder, best = comparison.root / name / "final", best_try(comparison, name)
    if not workdir.is_claimed(folder):
        return
    theirs, again = configuration.of_workdir(folder), f"remove {folder} to retrain them"
    configs = [final_config(comparison, name, attempt) for attempt in range(len(comparison.arms[name].tries))]
    same = [not configuration.differences(theirs.to_dict(), config) for config in configs]
    if any(same) and not same[best]:
        raise UserError(f"its final runs are not of its best try, try_{best}; {again}")
    check_same(folder, theirs, configs[best])
    for path in sorted(path for name in USED for stage in ("", "*/") for path in folder.glob(f"seed_*/{stage}{name}")):
        for network, recorded in read_json(path).items():
            place = trained.resolve(network, path.parent)
            if workdir.exists(pathlib.Path(place, "summary.json")) and recorded not in trained.recorded_hashes(trained.find(place)):
                raise UserError(f"{network}, {USED[path.name]}, has been retrained since; {again}")


def check_same(folder: pathlib.Path, theirs: ConfigDict, config: ConfigDict) -> None:
    """Raises UserError if the config of the runs in a folder, `theirs`, differs from `config`."""
    if differing := configuration.differences(theirs.to_dict(), config):
        described = "; ".join(differing)
        raise UserError(f"{folder} has runs of another config: {described}. Restore it, or remove the folder to retrain them")


# The command line


def parse(arguments: Sequence[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """The command line: its own options, and the config's overrides."""
    parser = argparse.ArgumentParser(
        prog="python -m distill_jax.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Fields of the config are set as in run.py: --config.FIELD=VALUE.",
        allow_abbrev=False,
    )
    parser.add_argument("config", help="a file with get_config() and get_arms()")
    parser.add_argument("--workdir", required=True, help="folder for all runs and the tables")
    parser.add_argument("--arms", default="", help="train only these, separated by commas; default: all")
    options, overrides = parser.parse_known_args(arguments)
    for argument in overrides:
        if not command_line.OVERRIDE.fullmatch(argument):
            parser.error(f"unknown argument {argument!r}; set fields with --config.FIELD=VALUE")
    return options, overrides


def check_devices() -> None:
    """Raises UserError if this process is one of several, or has no device."""
    if processes.is_cluster():
        raise UserError("a comparison takes a single process on one host; start it once, without srun, or once for each of --arms")
    sharding.check_backend()


def main(arguments: Sequence[str] | None = None) -> None:
    options, overrides = parse(arguments)
    command_line.make_streams_safe()
    with command_line.errors_in_one_line():
        command_line.import_jax()
        check_devices()
        compilation.keep_programs()
        config, root = command_line.read_config([f"--config={options.config}", *overrides], "train", options.workdir)
        compare(config, read_arms(options.config), root, [name for name in options.arms.split(",") if name])


if __name__ == "__main__":
    main()

"""Compares methods under one budget: each arm is tuned with the same number of tries, then trained on the same fresh seeds.

    python -m distill_jax.compare configs/comparison_cifar100.py --workdir=runs/comparison --config.data.dir=DIR
    python -m distill_jax.compare configs/comparison_cifar100.py --workdir=runs/comparison --config.data.dir=DIR --arms=cosine,sd_t2

The file has get_config(), which all arms share, and get_arms(), which describes them by name, the baseline first:

    def get_arms():
        tries = [{"optimizer": {"weight_decay": decay}} for decay in (1e-4, 5e-4)]
        return {"cosine": ({}, tries), "sd": ({"schedule": {"cycles": 2}, "method": {"name": "snapshot"}}, tries)}

An arm is a pair: its changes to the config, and its tries, each a further change; a change of method.name, model.name or stages.name drops
the options of the old one. Every try is trained with the config's seed and evaluated on data.validation_examples; one that diverges is
out, and the best at its last epoch is trained with the whole training set on the seeds after that one. An arm may be a family of stages,
whose last stage counts. teachers=("arm:NAME",) stands for the network of an earlier arm: during tuning that of its best try, afterwards
that of its first seed.

Each run is an ordinary one in WORKDIR/<arm>/try_<n> or WORKDIR/<arm>/final. Repeat the command to resume. Finished runs are not repeated,
so a new arm, or more seeds, train only those. If a try added later turns out best, you are asked to remove the arm's final runs first.
WORKDIR/study has the tables, in the form of results/README.md.
"""

import argparse
import json
import pathlib
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from distill_jax import checks, collect, command_line, configuration, experiment, fields, given, logs, report, stages, study, workdir
from distill_jax.archive import write_study
from distill_jax.errors import Diverged, UserError
from distill_jax.tasks import TASKS

ARM = "arm:"
FURTHER = {"accuracy": {"test NLL, nats": "test_nll", "ECE, %": "test_ece"}, "ap50": {"test AP, %": "test_ap"}}  # columns, by metric


class Arm(NamedTuple):
    """One row of the comparison."""

    changes: dict[str, Any]  # to the config
    tries: Sequence[dict[str, Any]]  # further changes to choose from


class Comparison(NamedTuple):
    """What is compared, and where."""

    config: ConfigDict  # of the tries; `seeds` is the number of final seeds
    arms: dict[str, Arm]  # the baseline first
    root: pathlib.Path


def compare(config: ConfigDict, arms: dict[str, Arm], root: pathlib.Path, only: Sequence[str] = ()) -> None:
    """Tunes and trains the arms, or those named in `only`, and writes the tables of all finished ones.

    Raises:
      UserError: bad input; or the loss is not finite, in a final run or in all tries of an arm.
      Interrupted: by SIGTERM or SIGINT, after saving.
    """
    comparison = Comparison(config, arms, root.expanduser())
    check(comparison, only)
    for name in wanted(arms, only):
        if len(arms[name].tries) > 1:
            tune(comparison, name)
            check_final(comparison, name)
        train(final_config(comparison, name, best_try(comparison, name)), comparison.root / name / "final")
        logs.say(write_tables(comparison))
        study_folder = shlex.quote(str(comparison.root / "study"))
        logs.say(f"{study_folder} has this table; plots: python -m distill_jax.report {study_folder} --html {study_folder}/report.html")


def wanted(arms: dict[str, Arm], only: Sequence[str]) -> list[str]:
    """The arms to train, each after those that teach it."""
    return [name for name in arms if not only or name in only]


def tune(comparison: Comparison, name: str) -> None:
    """Trains the tries of an arm. One that diverges is out; diverged.json in its folder says so when the command is repeated.

    Raises:
      UserError: all of them diverge.
    """
    tries = [folder_of_try(comparison, name, attempt) for attempt in range(len(comparison.arms[name].tries))]
    for attempt, folder in enumerate(tries):
        if not workdir.exists(folder / "diverged.json"):
            try:
                train(tuning_config(comparison, name, attempt), folder)
            except Diverged as error:
                logs.say(f"{folder}: {error}")
                workdir.write_json(folder / "diverged.json", {"error": str(error)})
    if not any(workdir.exists(folder / "summary.json") for folder in tries):
        raise UserError(f"arm {name}: all its tries diverged; remove {comparison.root / name} and lower their optimizer.learning_rate")


def train(config: ConfigDict, folder: pathlib.Path) -> None:
    logs.say(f"== {folder}")
    study.train(config, folder)


# What is trained


def tuning_config(comparison: Comparison, name: str, attempt: int) -> ConfigDict:
    """The config of one try of an arm."""
    return changed(comparison, name, attempt, {"seeds": 1}, "tuning")


def final_config(comparison: Comparison, name: str, attempt: int) -> ConfigDict:
    """The config of an arm's final runs: a try on the whole training set, with seeds that no try has seen."""
    return changed(comparison, name, attempt, {"seed": comparison.config.seed + 1, "data": {"validation_examples": 0}}, "final")


def changed(comparison: Comparison, name: str, attempt: int, last: dict[str, Any], phase: str) -> ConfigDict:
    arm, config = comparison.arms[name], comparison.config.to_dict()
    for changes in (arm.changes, arm.tries[attempt], last):
        config = stages.merged(without_old_options(config, changes), changes)
    config = ConfigDict(config)
    config.teachers = tuple(str(folder_of_teacher(comparison, teacher, phase)) for teacher in stages.as_tuple(config.get("teachers")))
    return config


def without_old_options(config: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The config without the options of a method, network or family whose name the changes replace; the same as on the command line."""
    named = {part: changes[part]["name"] for part in checks.OPTIONS if isinstance(changes.get(part), dict) and "name" in changes[part]}
    return config | {part: {"name": name} for part, name in named.items() if name != config[part].get("name")}


def folder_of_teacher(comparison: Comparison, teacher: str, phase: str) -> pathlib.Path:
    """The workdir that an entry of `teachers` stands for. No teacher of a try has seen the validation set."""
    name = teacher.removeprefix(ARM)
    if name == teacher:
        return pathlib.Path(teacher)
    if phase == "tuning":
        return folder_of_try(comparison, name, best_try(comparison, name))
    return comparison.root / name / "final" / f"seed_{comparison.config.seed + 1}"


def folder_of_try(comparison: Comparison, name: str, attempt: int) -> pathlib.Path:
    return comparison.root / name / f"try_{attempt}"


def best_try(comparison: Comparison, name: str) -> int:
    """Of the finished tries, that with the best validation result after its last epoch; 0 if there is none."""
    summaries = [summary_of_try(comparison, name, attempt) for attempt in range(len(comparison.arms[name].tries))]
    results = [summary.get(f"validation_{metric(comparison)}", -1.0) for summary in summaries]
    return results.index(max(results))


def summary_of_try(comparison: Comparison, name: str, attempt: int) -> dict[str, Any]:
    """The summary of a try; {} if it is unfinished or diverged."""
    folder = folder_of_try(comparison, name, attempt)
    return workdir.load_summary(folder) if (folder / "summary.json").exists() else {}


def metric(comparison: Comparison) -> str:
    """The result that counts, after the split's name."""
    return TASKS[comparison.config.data.task].metric


# What is checked before anything is trained


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


def check(comparison: Comparison, only: Sequence[str]) -> None:
    """Raises UserError if an arm in `only` is unknown, or a run that is wanted cannot be trained."""
    arms, loaded = comparison.arms, {}
    for name in only:
        if name not in arms:
            raise UserError(f"--arms: there is no arm {name!r}; there are {', '.join(arms)}{fields.did_you_mean(name, arms)}")
    checks.check(comparison.config)
    if comparison.config.seeds < 2:
        raise UserError(f"seeds is {comparison.config.seeds}; a comparison takes two or more")
    if len(next(iter(arms.values())).tries) > 1 and not comparison.config.data.validation_examples:
        raise UserError("data.validation_examples is 0; choosing among tries takes a validation set")
    for name in wanted(arms, only):
        with study.naming_stage(name, "arm"):
            check_teachers(comparison, name, only)
            is_finished = bool(summary_of(comparison, name))
            for attempt in range(len(arms[name].tries)):
                config = final_config(comparison, name, attempt)
                check_runs(config, loaded)
                if not is_finished:
                    check_networks(config, comparison.root)


def check_teachers(comparison: Comparison, name: str, only: Sequence[str]) -> None:
    """Raises UserError unless the arms that teach an arm are earlier ones and will be finished by then."""
    arms = comparison.arms
    earlier = list(arms)[: list(arms).index(name)]
    for teacher in teaching_arms(arms[name]):
        if teacher not in earlier:
            raise UserError(f"{ARM}{teacher} is not an earlier arm; earlier arms: {', '.join(earlier) or 'none'}")
        if teacher not in wanted(arms, only) and not (folder_of_teacher(comparison, ARM + teacher, "final") / "summary.json").exists():
            raise UserError(f"{ARM}{teacher} is not finished; add {teacher} to --arms")


def check_runs(config: ConfigDict, loaded: dict[str, experiment.Data]) -> None:
    """Checks all that depends on neither the network nor its teachers; study.train checks the rest."""
    checks.check(config)
    for job in study.make_jobs(config, pathlib.Path("final")):
        with study.naming_stage(job.stage):
            checks.check(job.config)
            key = json.dumps(job.config.data.to_dict())
            data = loaded[key] = loaded.get(key) or experiment.load_data(job.config)
            plan, _ = experiment.make_plan(job.config, data)
            experiment.make_method(job.config, data, plan, apply=None)


def check_networks(config: ConfigDict, root: pathlib.Path) -> None:
    """Raises UserError unless the given networks are there, but for those that earlier stages, or as teachers earlier arms, will train."""
    for job in study.make_jobs(config, pathlib.Path("final")):
        initial = "" if job.config.initial.startswith(stages.STAGE) else job.config.initial
        teachers = [name for name in job.config.teachers if not (name.startswith(stages.STAGE) or pathlib.Path(name).is_relative_to(root))]
        networks = ConfigDict(job.config.to_dict() | {"initial": initial, "teachers": tuple(teachers)})
        with study.naming_stage(job.stage):
            given.read(networks, pathlib.Path(), {}, needs_initial=True, needs_teachers=True)


def check_final(comparison: Comparison, name: str) -> None:
    """Raises UserError if an arm has final runs of another try than its best one, which may have been added since."""
    folder, best = comparison.root / name / "final", best_try(comparison, name)
    try:
        configuration.check_claim(folder, final_config(comparison, name, best))
    except UserError as error:
        raise UserError(f"arm {name}: its final runs are not of its best try, try_{best}; remove {folder} to train them again") from error


# What is written


def write_tables(comparison: Comparison) -> str:
    """Writes WORKDIR/study from the arms that have all final seeds; returns the table of their results."""
    runs, curves = [], {}
    done = {name: summary for name in comparison.arms if (summary := summary_of(comparison, name))}
    chosen = {name: arm._replace(tries=[arm.tries[best_try(comparison, name)]]) for name, arm in comparison.arms.items()}
    for name in done:
        total = cost(comparison, chosen, name)
        attempts = [number for number in range(len(comparison.arms[name].tries)) if summary_of_try(comparison, name, number)]
        folders = [*(folder_of_try(comparison, name, number) for number in attempts), comparison.root / name / "final"]
        for run, curve, _ in (each for folder in folders for each in collect.read_workdirs(folder)):
            variant = name if run.variant == "final" else f"{name}/{run.variant}"
            results = run.results | (total if variant == name and not run.stage and run.seed is not None else {})
            runs.append(run._replace(variant=variant, results=results))
            curves[runs[-1][:3]] = curve
    folder = comparison.root / "study"
    write_study(folder, runs, curves)
    are_tuned = len(comparison.arms[next(iter(done))].tries) > 1
    declared = [results_table(comparison, done)] + ([tries_table(comparison, done)] if are_tuned else [])
    tables = [report.table(runs, each) for each in declared]
    texts = [f"<!-- table\n{json.dumps(each, indent=1)}\n-->\n{table}\n<!-- end -->" for each, table in zip(declared, tables, strict=True)]
    workdir.write_text(folder / "README.md", "\n\n".join(["# A comparison of methods", *texts]) + "\n")
    return tables[0]


def summary_of(comparison: Comparison, name: str) -> dict[str, Any]:
    """The summary of an arm's final runs; {} if a seed is missing."""
    folder = comparison.root / name / "final"
    summary = workdir.load_summary(folder) if (folder / "summary.json").exists() else {}
    return summary if len(summary.get("seeds", ())) == comparison.config.seeds else {}


def results_table(comparison: Comparison, done: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Declares the table of the final runs; see report.py. Its rows name the runs with the metrics, then those with the cost."""
    baseline, name = next(iter(comparison.arms)), metric(comparison)
    difference = {f"difference to {baseline}": f"test_{name} minus {baseline}"} if baseline in done and len(done) > 1 else {}
    columns = {"seeds": "seeds", "train accuracy, %": "train_accuracy", f"test {name}, %": f"test_{name}", **difference}
    columns |= FURTHER.get(name, {})
    if name == "accuracy" and next(iter(done.values())).get("num_classes") == 2:
        columns |= {"Matthews correlation": "test_matthews"}
    columns |= {"steps": "total_steps of {1}", "forward passes": "total_forward_passes of {1}"}
    return {
        "corner": "arm",
        "rows": {name: f"{last_stage(name, summary['runs'][0])} {name}" for name, summary in done.items()},
        "columns": columns,
    }


def tries_table(comparison: Comparison, done: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Declares the table of the tries: a row per arm, a column per try."""
    tries = [[settings_of(attempt) for attempt in comparison.arms[name].tries] for name in done]
    titles = [texts[0] if len(set(texts)) == 1 else f"try {number}" for number, texts in enumerate(zip(*tries, strict=True))]
    rows = {}
    for name, texts in zip(done, tries, strict=True):
        paths = [last_stage(f"{name}/try_{number}", summary_of_try(comparison, name, number)) for number in range(len(texts))]
        rows[f"{name}: {texts[best_try(comparison, name)]}"] = " ".join(paths)
    finished = [number for number in range(len(titles)) if any(summary_of_try(comparison, name, number) for name in done)]
    result = f"validation_{metric(comparison)}"
    return {
        "corner": f"arm: its best try by validation {metric(comparison)}, %",
        "rows": rows,
        "columns": {titles[number]: f"{result} of {{{number}}}" for number in finished},
    }


def settings_of(changes: dict[str, Any]) -> str:
    return ", ".join(f"{field}={value}" for field, value in fields.flatten(changes).items()) or "as it is"


def last_stage(path: str, summary: dict[str, Any]) -> str:
    """The path of the run whose metrics count."""
    return f"{path}/{summary['stages'][-1]['stage']}" if "stages" in summary else path


def cost(comparison: Comparison, chosen: dict[str, Arm], name: str) -> dict[str, int]:
    """What an arm's result takes: the steps, and the samples passed forward through any network in training, of one run of each of its
    stages, of the arms that teach it, and of those that teach them. `chosen` are the arms, each with its best try alone."""
    total = {"total_steps": 0, "total_forward_passes": 0}
    for needed in with_teachers(chosen, name):
        run = workdir.load_summary(comparison.root / needed / "final")["runs"][0]
        for stage in run.get("stages", [run]):
            total = {part: count + stage[part.removeprefix("total_")] for part, count in total.items()}
    return total


def with_teachers(arms: dict[str, Arm], name: str) -> set[str]:
    """An arm and all arms that its result depends on."""
    return {name}.union(*(with_teachers(arms, teacher) for teacher in teaching_arms(arms[name])))


def teaching_arms(arm: Arm) -> list[str]:
    """The arms that teach an arm in any of its tries."""
    teachers = [teacher for attempt in arm.tries for teacher in stages.as_tuple((arm.changes | attempt).get("teachers"))]
    return [teacher.removeprefix(ARM) for teacher in dict.fromkeys(teachers) if str(teacher).startswith(ARM)]


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


def main(arguments: Sequence[str] | None = None) -> None:
    options, overrides = parse(arguments)
    command_line.make_output_safe()
    with command_line.errors_in_one_line():
        command_line.import_jax()
        config, root = command_line.read_config([f"--config={options.config}", *overrides], "train", options.workdir)
        compare(config, read_arms(options.config), root, [name for name in options.arms.split(",") if name])


if __name__ == "__main__":
    main()

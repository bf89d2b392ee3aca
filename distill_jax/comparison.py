"""What a comparison consists of: its arms, the configs and folders of their runs, and which of them teach others. See compare.py."""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from distill_jax import checks, configuration, stages, workdir
from distill_jax.tasks import TASKS

ARM = "arm:"


class Arm(NamedTuple):
    """One row of the comparison."""

    changes: dict[str, Any]  # to the config
    tries: Sequence[dict[str, Any]]  # further changes to choose from


class Comparison(NamedTuple):
    """What is compared, and where."""

    config: ConfigDict  # of the tries; `seeds` is the number of final seeds
    arms: dict[str, Arm]  # the baseline first
    root: pathlib.Path


def wanted(arms: dict[str, Arm], only: Sequence[str]) -> list[str]:
    """The arms to train, each after those that teach it."""
    return [name for name in arms if not only or name in only]


def tuning_config(comparison: Comparison, name: str, attempt: int) -> ConfigDict:
    """The config of one try of an arm."""
    return changed(comparison, name, attempt, {"seeds": 1}, "tuning")


def final_config(comparison: Comparison, name: str, attempt: int) -> ConfigDict:
    """The config of an arm's final runs: a try without a validation set, with seeds that no try has seen."""
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
    """The workdir that an entry of `teachers` stands for; for a family, its last stage's. No try's teacher has seen the validation set."""
    name = teacher.removeprefix(ARM)
    if name == teacher:
        return pathlib.Path(teacher)
    best = best_try(comparison, name)
    final = comparison.root / name / "final" / "seed_{seed}"
    folder = folder_of_try(comparison, name, best) if phase == "tuning" else final
    return folder.absolute() / list(stages.expand(changed(comparison, name, best, {"seeds": 1}, phase)))[-1]


def folder_of_try(comparison: Comparison, name: str, attempt: int) -> pathlib.Path:
    return comparison.root / name / f"try_{attempt}"


def best_try(comparison: Comparison, name: str) -> int:
    """The finished try with the best validation result after its last epoch; 0 if there is none."""
    summaries = [summary_of_try(comparison, name, attempt) for attempt in range(len(comparison.arms[name].tries))]
    results = [summary.get(f"validation_{metric(comparison)}", -1.0) for summary in summaries]
    return results.index(max(results))


def summary_of_try(comparison: Comparison, name: str, attempt: int) -> dict[str, Any]:
    """The summary of a try; {} if it is unfinished, diverged, or of another config."""
    return finished(folder_of_try(comparison, name, attempt), tuning_config(comparison, name, attempt))


def metric(comparison: Comparison) -> str:
    """The result that counts, after the split's name."""
    return TASKS[comparison.config.data.task].metric


def summary_of(comparison: Comparison, name: str) -> dict[str, Any]:
    """The summary of an arm's final runs; {} if a seed is missing, or they are of another config or try."""
    summary = finished(comparison.root / name / "final", final_config(comparison, name, best_try(comparison, name)))
    return summary if len(summary.get("seeds", ())) == comparison.config.seeds else {}


def finished(folder: pathlib.Path, config: ConfigDict) -> dict[str, Any]:
    """The summary of the finished runs of a config; {} if there are none in the folder."""
    if not (folder / "summary.json").exists() or configuration.differences(configuration.of_workdir(folder).to_dict(), config):
        return {}
    return workdir.load_summary(folder)


def with_teachers(arms: dict[str, Arm], name: str) -> set[str]:
    """An arm and all arms that its result depends on."""
    return {name}.union(*(with_teachers(arms, teacher) for teacher in teaching_arms(arms[name])))


def teaching_arms(arm: Arm) -> list[str]:
    """The arms that teach an arm in any of its tries."""
    teachers = [teacher for attempt in arm.tries for teacher in stages.as_tuple((arm.changes | attempt).get("teachers"))]
    return [teacher.removeprefix(ARM) for teacher in dict.fromkeys(teachers) if str(teacher).startswith(ARM)]

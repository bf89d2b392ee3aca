"""Reads what a report shows: runs and studies, as lines of figures, grouped by the data that they were tested on."""

import math
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from distill_jax import predictions
from distill_jax.archive import Curve, Run, read_curves, read_runs
from distill_jax.collect import read_workdirs
from distill_jax.errors import UserError
from distill_jax.results import main_result, validation_name

MOST = 8  # lines in one figure: as many as there are colours
NEEDED = ("train_accuracy", "epochs", "steps")  # besides the result that counts
OPTIONAL = ("test_nll", "test_ece", "num_params", "wall_seconds")
MAIN = ("miou", "ap50", "accuracy")  # the metrics that the plots show; a task has one or two of them
CURVES = (
    "step", "learning_rate", "loss_ce", "loss_teacher", "train_accuracy", *(f"test_{metric}" for metric in MAIN), "test_nll",
    "teacher_agreement", "teacher_entropy",
)  # fmt: skip


class Line(NamedTuple):
    """All seeds of a run: one line in figures."""

    variant: str
    stage: str  # "" for a run that is not a stage of a family
    runs: dict[int, Run]  # by seed, as are the next two
    curves: dict[int, Curve]
    predictions: dict[int, dict[str, Any]]  # of the seeds that have a predictions.json

    @property
    def name(self) -> str:
        return next(iter(self.runs.values())).path


class Comparison(NamedTuple):
    """Lines that were tested on the same data."""

    dataset: str
    split: str  # test or validation
    lines: list[Line]


class Source(NamedTuple):
    """A study, or all workdirs that were given."""

    title: str
    folders: list[pathlib.Path]
    is_study: bool
    runs: list[Run]  # those of families and sets of seeds included
    comparisons: list[Comparison]


def read(folders: Sequence[pathlib.Path]) -> list[Source]:
    """The studies among the folders, one by one, then all workdirs together.

    Raises:
      UserError: a run is unfinished, two have the same name, or a file is missing or damaged.
    """
    studies = [folder for folder in folders if (folder / "runs.csv").exists()]
    workdirs = [folder for folder in folders if folder not in studies]
    sources = [read_study(folder) for folder in studies]
    return sources + ([read_all_workdirs(workdirs)] if workdirs else [])


def read_study(folder: pathlib.Path) -> Source:
    runs, curves = read_runs(folder), read_curves(folder)
    places = {run[:3]: folder / "curves.csv.gz" for run in runs}
    return Source(folder.resolve().name, [folder], True, runs, compare(runs, curves, {}, places))


def read_all_workdirs(folders: Sequence[pathlib.Path]) -> Source:
    runs, curves, places, said = [], {}, {}, {}
    for folder in folders:
        for run, curve, place in read_workdirs(folder):
            if run[:3] in places:
                raise UserError(f"{place}: {places[run[:3]].parent} is also called {run.path}; rename one of them")
            runs.append(run)
            curves[run[:3]], places[run[:3]] = curve, place / "metrics.jsonl"
            if content := predictions.read(place):
                said[run[:3]] = content
    return Source(some(list(dict.fromkeys(run.variant for run in runs))), list(folders), False, runs, compare(runs, curves, said, places))


def compare(runs: Sequence[Run], curves: dict[tuple, Curve], said: dict[tuple, Any], places: dict[tuple, pathlib.Path]) -> list[Comparison]:
    """Groups the runs that have metrics by their test data, and their seeds into lines.

    Args:
      runs: in order.
      curves: by (variant, stage, seed), as are the next two.
      said: the contents of predictions.json.
      places: where a curve was read from, for messages.

    Raises:
      UserError: a run has no curve, or its result or its curve is not made of numbers.
    """
    grouped: dict[tuple, dict[str, Line]] = {}
    for run in runs:
        if "train_accuracy" not in run.results or run.seed is None:
            continue
        place = places[run[:3]]
        needed = (*NEEDED, main_result(run.results))
        check_numbers(place.with_name("runs.csv" if place.suffix == ".gz" else "summary.json"), run.results, needed, OPTIONAL)
        curve = curves.get(run[:3], [])
        if not curve and place.suffix != ".gz":  # studies keep some runs, such as those of a search, without their curves
            raise UserError(f"{place}: missing or empty; restore the file, or leave this run out")
        for row in curve:
            check_numbers(place, row, ("step",), CURVES)
        lines = grouped.setdefault(test_data(run), {})
        line = lines.setdefault(run.path, Line(run.variant, run.stage, {}, {}, {}))
        line.runs[run.seed], line.curves[run.seed] = run, curve
        if run[:3] in said:
            line.predictions[run.seed] = said[run[:3]]
    if not grouped:
        raise UserError(f"{next(iter(places.values())).parent if places else 'study'}: has no run with metrics")
    return [Comparison(dataset, split, list(lines.values())) for (dataset, split, _), lines in grouped.items()]


def test_data(run: Run) -> tuple[str, str, str]:
    """What must be equal for two results to be comparable: the data set, the split, and the hash of that split if it was recorded."""
    return str(run.results.get("dataset", "")), str(run.results.get("evaluated_on", "test")), str(run.results.get("data.test_sha256", ""))


def check_numbers(path: pathlib.Path, values: dict[str, Any], needed: Iterable[str], optional: Iterable[str]) -> None:
    for name in (*needed, *optional):
        value = value_of(values, name)
        missing = value is None
        if (missing and name in needed) or not (missing or isinstance(value, int | float) and math.isfinite(value)):
            raise UserError(f"{path}: {name} is {value!r} instead of a number; restore the file, or leave this run out")


def value_of(values: dict[str, Any], name: str) -> Any:
    """A metric, or the one on validation data that stands for it; None if there is neither."""
    return values.get(name, values.get(validation_name(name)))


def some(names: Sequence[str]) -> str:
    """The first of many names, as text."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def groups(lines: Sequence[Line]) -> list[tuple[str, list[Line]]]:
    """The lines of each figure, under a name: the stages of a family, or all runs without stages, at most `MOST` at once."""
    families: dict[str, list[Line]] = {}
    for line in lines:
        families.setdefault(line.variant if line.stage else "", []).append(line)
    parts = []
    for name, members in families.items():
        size = math.ceil(len(members) / math.ceil(len(members) / MOST))
        chunks = [members[start : start + size] for start in range(0, len(members), size)]
        several = len(chunks) > 1
        parts += [(" ".join(filter(None, (name, f"part {count}" if several else ""))), chunk) for count, chunk in enumerate(chunks, 1)]
    return parts

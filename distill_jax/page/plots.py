"""What a plot shows, as plain numbers, and the numbers that several plots need. Fractions are in per cent here."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from distill_jax.page.comparisons import Line, groups, value_of

MOST_POINTS = 200  # of a curve


class Point(NamedTuple):
    """x and y are numbers, or an index into the plot's categories."""

    x: float
    y: float
    spread: float | None = None  # of the value, in its unit
    label: str = ""  # what the point is, if x does not say it
    each: tuple[float, ...] = ()  # the values of the seeds, to be shown as dots


class Series(NamedTuple):
    name: str
    colour: int  # 0..MOST - 1
    points: list[Point]


class Panel(NamedTuple):
    label: str  # of the axis of values, with its unit
    series: list[Series]
    kind: str = "curve"  # curve: a line with a band; path: a line with error bars; points: error bars alone
    marks: tuple[float, ...] = ()  # x of vertical lines
    diagonal: bool = False  # with y = x for comparison


class Plot(NamedTuple):
    """Panels above each other that share their x axis or, if `rows`, one panel with its categories as rows."""

    key: str  # of its file
    title: str
    caption: str
    x: str  # label of the x axis, with its unit
    panels: list[Panel]
    categories: tuple[str, ...] = ()
    rows: bool = False
    log_x: bool = False


# Numbers


def percent(value: float) -> float:
    return 100 * value


def same(value: float) -> float:
    return value


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and standard deviation (n - 1); the latter is None for a single value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def result(line: Line, name: str, scale: Callable[[float], float] = percent) -> tuple[float, float | None, tuple[float, ...]] | None:
    """Mean, spread and values of a metric over the seeds that have it."""
    values = [value_of(run.results, name) for run in line.runs.values()]
    values = tuple(scale(value) for value in values if value is not None)
    return (*mean_and_spread(values), values) if values else None


def curve(line: Line, name: str, scale: Callable[[float], float] = percent) -> list[Point]:
    """A metric at the ends of epochs: its mean and spread over the seeds, at most `MOST_POINTS` points."""
    steps_per_epoch = epoch_length(line)
    values: dict[int, list[float]] = {}
    for lines in line.curves.values():
        at = {row["step"]: value_of(row, name) for row in lines if row["step"] % steps_per_epoch == 0}
        for step, value in at.items():
            if value is not None:
                values.setdefault(step, []).append(scale(value))
    points = [Point(step / steps_per_epoch, *mean_and_spread(values[step])) for step in sorted(values)]
    chosen = np.unique(np.linspace(0, len(points) - 1, min(len(points), MOST_POINTS)).round().astype(int))
    return [points[index] for index in chosen]


def cycle_ends(lines: Iterable[Line]) -> tuple[float, ...]:
    """The epochs at which the cycles of all lines that have several end, without the last; () if they differ."""
    found = {ends for line in lines if (ends := own_cycle_ends(line))}
    return found.pop() if len(found) == 1 else ()


def own_cycle_ends(line: Line) -> tuple[float, ...]:
    steps_per_epoch, rows = epoch_length(line), next(iter(line.curves.values()))
    cycles = {row["step"] / steps_per_epoch: row.get("cycle", 1) for row in rows if row["step"] % steps_per_epoch == 0}
    epochs = sorted(cycles)
    return tuple(before for before, after in zip(epochs, epochs[1:], strict=False) if cycles[after] != cycles[before])


def epoch_length(line: Line) -> float:
    """Steps per epoch."""
    results = next(iter(line.runs.values())).results
    return results["steps"] / results["epochs"]


def seeds_of(lines: Sequence[Line]) -> str:
    counts = sorted({len(line.runs) for line in lines})
    number = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
    return f"{number} seed{'s' * (counts[-1] > 1)}"


def spread_of(lines: Sequence[Line], shape: str) -> str:
    """The sentence about means and spreads."""
    if all(len(line.runs) == 1 for line in lines):
        return "One seed."
    return f"Mean of {seeds_of(lines)}; {shape} show one standard deviation (n − 1)."


def colours(lines: Sequence[Line]) -> dict[str, int]:
    """The colour of each line by name: its place among those that it is drawn with."""
    return {line.name: place for _, part in groups(lines) for place, line in enumerate(part)}


# Names


def label_of(line: Line) -> str:
    """The name of a line in a figure of its group, whose title names the family."""
    return line.stage or line.name


def class_name(said: dict[str, Any], label: int) -> str:
    name = said["classes"][label] if label < len(said["classes"]) else str(label)
    return name.encode(errors="replace").decode()  # a folder's may not be UTF-8


def sentence(text: str) -> str:
    return text[:1].upper() + text[1:]

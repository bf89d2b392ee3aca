"""What a report's plots show, as plain numbers; `drawing.py` draws them.

Every function takes lines of a comparison and returns the plots for which they have data. Fractions are in per cent here.
"""

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from distill_jax.comparisons import MOST, Comparison, Line, Source, groups, value_of
from distill_jax.stages import densely_guided

MOST_POINTS = 200  # of a curve
MOST_ROWS = 40  # of a plot with a row for each line
MOST_CLASSES = 12  # shown at either end of the accuracies by class
MOST_PAIRS = 15


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


def of_sources(sources: Sequence[Source]) -> list[Plot]:
    """All plots, with keys that tell the sources and their data sets apart."""
    shown = []
    for source in sources:
        for comparison in source.comparisons:
            parts = [source.title] * (len(sources) > 1) + [f"{comparison.dataset} {comparison.split}"] * (len(source.comparisons) > 1)
            every = overview(comparison) + [
                plot for name, lines in groups(comparison.lines) for plot in of_group(name, lines, comparison.split)
            ]
            shown += [plot._replace(key="-".join([*parts, plot.key])) for plot in every]
    return shown


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


# One comparison


def overview(comparison: Comparison) -> list[Plot]:
    """Results, positions in families, and cost."""
    split = comparison.split
    metrics = (
        ("accuracy", f"{split} accuracy", "%", "test_accuracy", percent),
        ("nll", f"{split} NLL", "nats", "test_nll", same),
        ("ece", f"{split} ECE", "%", "test_ece", percent),
    )
    if len(comparison.lines) == 1:
        return []
    plots = [plot for metric in metrics for plot in results(comparison, *metric)]
    return plots + generations(comparison) + paths(comparison) + costs(comparison)


def results(comparison: Comparison, key: str, title: str, unit: str, name: str, scale: Callable[[float], float]) -> list[Plot]:
    """A metric after the last epoch, one row per line."""
    found = [(line, result(line, name, scale)) for line in comparison.lines]
    found = [(line, values) for line, values in found if values]
    colour, plots = colours(comparison.lines), []
    is_one_family = len({line.variant for line in comparison.lines}) == 1
    for start in range(0, len(found), MOST_ROWS):
        part = found[start : start + MOST_ROWS]
        series = [
            Series(line.name, colour[line.name], [Point(row, mean, spread, "", each)])
            for row, (line, (mean, spread, each)) in enumerate(part)
        ]
        lines = [line for line, _ in part]
        caption = f"{sentence(title)} after the last epoch. {spread_of(lines, 'bars')}" + (
            " Small dots are the seeds." if any(len(line.runs) > 1 for line in lines) else ""
        )
        names = tuple(label_of(line) if is_one_family else line.name for line in lines)
        panel = Panel(f"{title}, {unit}", series, "points")
        plots.append(Plot(f"{key}{suffix(start, MOST_ROWS)}", sentence(title), caption, panel.label, [panel], names, rows=True))
    return plots


def generations(comparison: Comparison) -> list[Plot]:
    """Accuracy of each generation, one line per family."""
    families: dict[str, list[Line]] = {}
    for line in comparison.lines:
        if line.stage.startswith("generation_") and line.stage.removeprefix("generation_").isdecimal():
            families.setdefault(line.variant, []).append(line)
    plots = []
    for start in range(0, len(families), MOST):
        part = dict(list(families.items())[start : start + MOST])
        series = [
            Series(name, colour, [Point(int(line.stage.removeprefix("generation_")), *result(line, "test_accuracy")[:2]) for line in lines])
            for colour, (name, lines) in enumerate(part.items())
        ]
        every = [line for lines in part.values() for line in lines]
        caption = (
            f"{sentence(comparison.split)} accuracy of each generation; generation 0 learns from labels, each later one also from the one "
            f"before. {spread_of(every, 'bars')}"
        )
        panel = Panel(f"{comparison.split} accuracy, %", series, "path")
        numbers = tuple(str(m) for m in range(1 + max(int(point.x) for each in series for point in each.points)))
        plots.append(Plot(f"generations{suffix(start, MOST)}", "Accuracy against generation", caption, "generation", [panel], numbers))
    return plots


def paths(comparison: Comparison) -> list[Plot]:
    """Accuracy along each path of assistants, one line per method."""
    plots = []
    for variant in dict.fromkeys(line.variant for line in comparison.lines):
        stages = {line.stage: line for line in comparison.lines if line.variant == variant and line.stage}
        networks = networks_of(stages)
        names = {method: path_names(method, networks) for method in densely_guided.VARIANTS} if len(networks) > 1 else {}
        if not names or not set(stages) <= {name for each in names.values() for name in each.values()}:
            continue
        series = []
        for colour, (method, title) in enumerate(densely_guided.VARIANTS.items()):
            if names[method][len(networks) - 1] in stages:
                own = [(k, stages[name]) for k, name in names[method].items() if name in stages]
                series.append(Series(title, colour, [Point(k, *result(line, "test_accuracy")[:2]) for k, line in own]))
        if not series:
            continue
        caption = (
            f"{sentence(comparison.split)} accuracy of the networks on the path from the teacher to the student, by method. All share the "
            f"teacher, and KD has no assistants. {spread_of(list(stages.values()), 'bars')}"
        )
        panel = Panel(f"{comparison.split} accuracy, %", series, "path")
        plots.append(
            Plot(f"path-{variant}", f"Accuracy along the path, {variant}", caption, "network, from teacher to student", [panel], networks)
        )
    return plots


def networks_of(stages: dict[str, Line]) -> tuple[str, ...]:
    """The networks of a family, in the order in which they teach: by the largest number of networks that any run of theirs builds on."""
    builds_on: dict[str, int] = {}
    for line in stages.values():
        network = str(next(iter(line.runs.values())).results.get("model", ""))
        builds_on[network] = max(builds_on.get(network, 0), len(needed_by(line, stages)))
    return tuple(sorted(builds_on, key=builds_on.get))


def path_names(method: str, networks: Sequence[str]) -> dict[int, str]:
    """The stages on a method's path, by position: KD goes from teacher to student at once, stochastic DGKD has DGKD's assistants."""
    last = len(networks) - 1
    assistants = {"kd": [], "stochastic": [("dgkd", k) for k in range(1, last)]}.get(method, [(method, k) for k in range(1, last)])
    return {k: densely_guided.stage_name(each, networks, k) for each, k in [(method, 0), *assistants, (method, last)]}


def costs(comparison: Comparison) -> list[Plot]:
    """Accuracy against training time, one colour per family or run."""
    clusters: dict[str, list[Line]] = {}
    for line in comparison.lines:
        if minutes(line, comparison.lines):
            clusters.setdefault(line.variant, []).append(line)
    plots = []
    for start in range(0, len(clusters), MOST):
        part = dict(list(clusters.items())[start : start + MOST])
        series = [
            Series(name, colour, [Point(minutes(line, comparison.lines), *result(line, "test_accuracy")[:2], line.name) for line in lines])
            for colour, (name, lines) in enumerate(part.items())
        ]
        every = [line for lines in part.values() for line in lines]
        times = [point.x for each in series for point in each.points]
        caption = (
            f"{sentence(comparison.split)} accuracy against the time to train a network and, in a family, all networks that teach it. "
            f"Wall time depends on the machine and its load. {spread_of(every, 'bars')}"
        )
        panel = Panel(f"{comparison.split} accuracy, %", series, "points")
        label = "training time with teachers, minutes"
        is_wide = max(times) > 8 * min(times)
        plots.append(Plot(f"cost{suffix(start, MOST)}", "Accuracy against cost", caption, label, [panel], log_x=is_wide))
    return plots


def minutes(line: Line, lines: Sequence[Line]) -> float | None:
    """Mean training time of a network and the stages that teach it, directly or not; None if one was not recorded."""
    stages = {other.stage: other for other in lines if other.variant == line.variant}
    times = [result(each, "wall_seconds", lambda seconds: seconds / 60) for each in needed_by(line, stages).values()]
    return sum(mean for mean, _, _ in times) if all(times) else None


def needed_by(line: Line, stages: dict[str, Line]) -> dict[str, Line]:
    """A stage and all stages that teach it, directly or not, by name."""
    needed, todo = {}, [line]
    while todo:
        each = todo.pop()
        needed[each.stage] = each
        todo += [stages[teacher] for teacher in teachers_of(each) if teacher in stages and teacher not in needed]
    return needed


def teachers_of(line: Line) -> list[str]:
    """The names of the stages that teach a line."""
    given = next(iter(line.runs.values())).config.get("teachers") or ()
    return [name.removeprefix("stage:") for name in given if isinstance(name, str)] if isinstance(given, list | tuple) else []


# One group of lines


def of_group(name: str, lines: Sequence[Line], split: str) -> list[Plot]:
    """Curves, and what predictions.json has to say."""
    makers = (accuracies, losses, agreements, reliabilities, class_accuracies, confusions)
    plots = [plot for make in makers if (plot := make(lines, split))]
    return [plot._replace(key=f"{plot.key}-{name}" if name else plot.key, title=f"{plot.title}, {name}" if name else plot.title)
            for plot in plots]  # fmt: skip


def label_of(line: Line) -> str:
    """The name of a line in a figure of its group, whose title names the family."""
    return line.stage or line.name


def curves_panel(label: str, lines: Sequence[Line], name: str, scale: Callable[[float], float] = same) -> Panel:
    series = [Series(label_of(line), colour, curve(line, name, scale)) for colour, line in enumerate(lines)]
    return Panel(label, [each for each in series if each.points], marks=cycle_ends(lines))


def with_series(panels: Iterable[Panel]) -> list[Panel]:
    return [panel for panel in panels if panel.series]


def accuracies(lines: Sequence[Line], split: str) -> Plot | None:
    panels = with_series([
        curves_panel(f"{split} accuracy, %", lines, "test_accuracy", percent),
        curves_panel("train accuracy, %", lines, "train_accuracy", percent),
        curves_panel("learning rate", lines, "learning_rate"),
    ])  # fmt: skip
    ends = " Dotted lines mark ends of cycles." if cycle_ends(lines) else ""
    caption = f"{sentence(split)} and training accuracy, and the learning rate. {spread_of(lines, 'bands')}{ends}"
    return Plot("curves", "Accuracy and learning rate", caption, "epoch", panels) if panels else None


def losses(lines: Sequence[Line], split: str) -> Plot | None:
    teacher = curves_panel("teacher's term", lines, "loss_teacher")
    taught = [series for series in teacher.series if any(point.y for point in series.points)]
    panels = with_series([
        curves_panel("cross-entropy, nats", lines, "loss_ce"),
        teacher._replace(series=taught),
        curves_panel(f"{split} NLL, nats", lines, "test_nll"),
    ])  # fmt: skip
    caption = (
        f"The two parts of the training loss, before their weights{'' if taught else ' (nothing has a teacher here)'}, and the {split} "
        f"negative log-likelihood. {spread_of(lines, 'bands')}"
    )
    return Plot("loss", "Loss: cross-entropy and teacher", caption, "epoch", panels) if panels else None


def agreements(lines: Sequence[Line], split: str) -> Plot | None:
    panels = with_series([
        curves_panel("agreement, %", lines, "teacher_agreement", percent),
        curves_panel("entropy, nats", lines, "teacher_entropy"),
    ])  # fmt: skip
    caption = f"{sentence(split)} samples on which student and teacher have the same top class, and the mean entropy of the teacher."
    return Plot("agreement", "Agreement with the teacher", f"{caption} {spread_of(lines, 'bands')}", "epoch", panels) if panels else None


def reliabilities(lines: Sequence[Line], split: str) -> Plot | None:
    """Accuracy against confidence; the seeds' bins are pooled."""
    diagram, share = [], []
    for colour, line in enumerate(lines):
        if not line.predictions:
            continue
        counts, confidence, accuracy = pooled_bins(line)
        mean, spread, _ = result(line, "test_ece") or (calibration_error(counts, confidence, accuracy), None, ())
        name = f"{label_of(line)}, ECE {mean:.1f}{'' if spread is None else f' ± {spread:.1f}'} %"
        some = np.flatnonzero(counts)
        x, y, shares = 100 * confidence, 100 * accuracy, 100 * counts / counts.sum()
        diagram.append(Series(name, colour, [Point(x[k], y[k], None, f"{counts[k]:.0f} samples") for k in some]))
        share.append(Series(name, colour, [Point(x[k], shares[k]) for k in some]))
    if not diagram:
        return None
    caption = (
        f"Accuracy of the {split} samples in each of 15 bins of confidence, and the share of the samples there. On the dashed diagonal a "
        "network is as often right as it says; ECE is the mean distance from it. The bins of all seeds are pooled."
    )
    panels = [Panel("accuracy, %", diagram, "path", diagonal=True), Panel("samples, %", share, "path")]
    return Plot("reliability", "Reliability", caption, "confidence, %", panels)


def pooled_bins(line: Line) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number of samples, mean confidence and accuracy in each bin, over all seeds."""
    bins = [said["reliability"] for said in line.predictions.values()]
    counts = np.array([each["examples"] for each in bins], float)
    total = np.maximum(counts.sum(axis=0), 1)
    mean_of = [(counts * np.array([each[name] for each in bins])).sum(axis=0) / total for name in ("confidence", "accuracy")]
    return counts.sum(axis=0), *mean_of


def calibration_error(counts: np.ndarray, confidence: np.ndarray, accuracy: np.ndarray) -> float:
    return float(100 * (counts * np.abs(accuracy - confidence)).sum() / counts.sum())


def pooled_confusion(line: Line) -> dict[tuple[int, int], int]:
    """Samples by (label, predicted class), over all seeds."""
    pooled: dict[tuple[int, int], int] = {}
    for said in line.predictions.values():
        for label, predicted, count in said["confusion"]:
            pooled[label, predicted] = pooled.get((label, predicted), 0) + count
    return pooled


def class_counts(confusion: dict[tuple[int, int], int]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for (label, _), count in confusion.items():
        counts[label] = counts.get(label, 0) + count
    return counts


def class_name(said: dict[str, Any], label: int) -> str:
    return said["classes"][label] if label < len(said["classes"]) else str(label)


def names_of(lines: Sequence[Line]) -> Callable[[int], str]:
    said = next(said for line in lines for said in line.predictions.values())
    return lambda label: class_name(said, label)


def class_accuracies(lines: Sequence[Line], split: str) -> Plot | None:
    """One row per class; of many classes the worst and the best."""
    confusions = {line.name: pooled_confusion(line) for line in lines if line.predictions}
    if not confusions:
        return None
    accuracy = {
        name: {label: 100 * confusion.get((label, label), 0) / count for label, count in class_counts(confusion).items()}
        for name, confusion in confusions.items()
    }
    classes = sorted(set.intersection(*(set(each) for each in accuracy.values())))
    mean = {label: statistics.fmean(each[label] for each in accuracy.values()) for label in classes}
    many = len(classes) > 2 * MOST_CLASSES
    if many:
        ranked = sorted(classes, key=mean.get)
        classes = ranked[:MOST_CLASSES] + ranked[-MOST_CLASSES:]
    name_of = names_of(lines)
    series = [
        Series(label_of(line), colour, [Point(row, accuracy[line.name][label]) for row, label in enumerate(classes)])
        for colour, line in enumerate(lines)
        if line.name in accuracy
    ]
    which = f"the {MOST_CLASSES} hardest and the {MOST_CLASSES} easiest of {len(mean)} classes" if many else "every class"
    label = f"{split} accuracy, %"
    caption = f"{sentence(split)} accuracy of {which}, over all seeds."
    names = tuple(name_of(label) for label in classes)
    return Plot("classes", "Accuracy by class", caption, label, [Panel(label, series, "points")], names, rows=True)


def confusions(lines: Sequence[Line], split: str) -> Plot | None:
    """The pairs of classes that are confused most often, by the mean over the lines."""
    shares = {}
    for line in lines:
        if line.predictions:
            confusion = pooled_confusion(line)
            counts = class_counts(confusion)
            shares[line.name] = {pair: 100 * n / counts[pair[0]] for pair, n in confusion.items() if pair[0] != pair[1]}
    pairs = {pair for each in shares.values() for pair in each}
    if not pairs:
        return None
    mean = {pair: statistics.fmean(each.get(pair, 0.0) for each in shares.values()) for pair in pairs}
    top = sorted(pairs, key=lambda pair: (-mean[pair], pair))[:MOST_PAIRS]
    name_of = names_of(lines)
    series = [
        Series(label_of(line), colour, [Point(row, shares[line.name].get(pair, 0.0)) for row, pair in enumerate(top)])
        for colour, line in enumerate(lines)
        if line.name in shares
    ]
    label = f"share of the class's {split} samples, %"
    caption = "The most confused pairs: label → prediction, as a share of the samples with that label, over all seeds."
    categories = tuple(f"{name_of(label)} → {name_of(predicted)}" for label, predicted in top)
    return Plot("confused", "Most confused pairs", caption, label, [Panel(label, series, "points")], categories, rows=True)


def sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def suffix(start: int, size: int) -> str:
    return f"-{start // size + 1}" if start else ""

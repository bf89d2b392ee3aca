"""Plots of a whole comparison: results, accuracy against generation, path and cost."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from distill_jax.page.comparisons import MAIN, MOST, Comparison, Line
from distill_jax.page.plots import Panel, Plot, Point, Series, colours, label_of, percent, result, same, sentence, spread_of
from distill_jax.results import spelled
from distill_jax.stages import densely_guided

MOST_ROWS = 40  # of a plot with a row for each line


def overview(comparison: Comparison) -> list[Plot]:
    """Results, positions in families, and cost."""
    split = comparison.split
    metrics = (
        *((metric, f"{split} {spelled(metric)}", "%", f"test_{metric}", percent) for metric in MAIN),
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
    for suffix, part in in_parts(found, MOST_ROWS):
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
        plots.append(Plot(f"{key}{suffix}", sentence(title), caption, panel.label, [panel], names, rows=True))
    return plots


def generations(comparison: Comparison) -> list[Plot]:
    """Accuracy of each generation, one line per family."""
    families: dict[str, list[Line]] = {}
    for line in comparison.lines:
        if line.stage.startswith("generation_") and line.stage.removeprefix("generation_").isdecimal():
            families.setdefault(line.variant, []).append(line)
    plots = []
    for suffix, part in in_parts(list(families.items()), MOST):
        series = [
            Series(name, colour, [Point(int(line.stage.removeprefix("generation_")), *result(line, "test_accuracy")[:2]) for line in lines])
            for colour, (name, lines) in enumerate(part)
        ]
        every = [line for _, lines in part for line in lines]
        caption = (
            f"{sentence(comparison.split)} accuracy of each generation; generation 0 learns from labels, each later one also from the one "
            f"before. {spread_of(every, 'bars')}"
        )
        panel = Panel(f"{comparison.split} accuracy, %", series, "path")
        numbers = tuple(str(m) for m in range(1 + max(int(point.x) for each in series for point in each.points)))
        plots.append(Plot(f"generations{suffix}", "Accuracy against generation", caption, "generation", [panel], numbers))
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
        if minutes(line, comparison.lines) and result(line, "test_accuracy"):
            clusters.setdefault(line.variant, []).append(line)
    plots = []
    for suffix, part in in_parts(list(clusters.items()), MOST):
        series = [
            Series(name, colour, [Point(minutes(line, comparison.lines), *result(line, "test_accuracy")[:2], line.name) for line in lines])
            for colour, (name, lines) in enumerate(part)
        ]
        every = [line for _, lines in part for line in lines]
        times = [point.x for each in series for point in each.points]
        caption = (
            f"{sentence(comparison.split)} accuracy against the time to train a network and, in a family, all networks that teach it. "
            "Networks taught by those of other runs are left out. "
            f"Wall time depends on the machine and its load. {spread_of(every, 'bars')}"
        )
        panel = Panel(f"{comparison.split} accuracy, %", series, "points")
        label = "training time with teachers, minutes"
        is_wide = max(times) > 8 * min(times)
        plots.append(Plot(f"cost{suffix}", "Accuracy against cost", caption, label, [panel], log_x=is_wide))
    return plots


def minutes(line: Line, lines: Sequence[Line]) -> float | None:
    """Mean training time of a network and the stages that teach it, directly or not; None if one was not recorded or is no stage."""
    stages = {other.stage: other for other in lines if other.variant == line.variant}
    needed = needed_by(line, stages)
    if any(teacher not in stages for each in needed.values() for teacher in teachers_of(each)):
        return None
    times = [result(each, "wall_seconds", lambda seconds: seconds / 60) for each in needed.values()]
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


def in_parts(items: Sequence[Any], size: int) -> Iterator[tuple[str, Sequence[Any]]]:
    """Items by the plot that shows them, with what tells its key from that of the first."""
    for start in range(0, len(items), size):
        yield f"-{start // size + 1}" if start else "", items[start : start + size]

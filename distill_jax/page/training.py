"""Plots of a group of lines: how they trained."""

from collections.abc import Callable, Iterable, Sequence

from distill_jax.page import predicted
from distill_jax.page.comparisons import MAIN, Line
from distill_jax.page.plots import Panel, Plot, Series, curve, cycle_ends, label_of, percent, same, sentence, spread_of
from distill_jax.results import spelled


def of_group(name: str, lines: Sequence[Line], split: str) -> list[Plot]:
    """Curves, and what predictions.json has to say."""
    makers = (accuracies, losses, agreements, predicted.reliabilities, predicted.class_accuracies, predicted.confusions)
    plots = [plot for make in makers if (plot := make(lines, split))]
    return [plot._replace(key=f"{plot.key}-{name}" if name else plot.key, title=f"{plot.title}, {name}" if name else plot.title)
            for plot in plots]  # fmt: skip


def curves_panel(label: str, lines: Sequence[Line], name: str, scale: Callable[[float], float] = same) -> Panel:
    series = [Series(label_of(line), colour, curve(line, name, scale)) for colour, line in enumerate(lines)]
    return Panel(label, [each for each in series if each.points], marks=cycle_ends(lines))


def with_series(panels: Iterable[Panel]) -> list[Panel]:
    return [panel for panel in panels if panel.series]


def accuracies(lines: Sequence[Line], split: str) -> Plot | None:
    panels = with_series([
        *(curves_panel(f"{split} {spelled(metric)}, %", lines, f"test_{metric}", percent) for metric in MAIN),
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

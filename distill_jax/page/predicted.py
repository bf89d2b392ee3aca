"""Plots of a group of lines: what their networks predict for the test set, according to predictions.json."""

import statistics
from collections.abc import Callable, Sequence

import numpy as np

from distill_jax.page.comparisons import Line
from distill_jax.page.plots import Panel, Plot, Point, Series, class_name, label_of, result, sentence

MOST_CLASSES = 12  # shown at either end of the accuracies by class
MOST_PAIRS = 15


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
        f"Accuracy of the {split} samples in each of 15 bins of confidence, and the share of the samples there. On the dashed diagonal, "
        "accuracy equals confidence; ECE is the mean distance from it. The bins of all seeds are pooled."
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

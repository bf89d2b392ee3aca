"""Statistics over seeds, and Markdown tables of results."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

SPELLED = {"miou": "mIoU", "ap50": "AP50", "ap": "AP"}  # the metrics of other tasks than classification, as people write them


def summarise_seeds(summaries: list[dict[str, Any]]) -> dict[str, Any]:
    """Averages the summaries of runs that differ only in their seeds.

    Returns:
      The mean of each result, its standard deviation (n - 1) as <name>_std, the seeds, and the summaries themselves under "runs". Other
      values are kept if all runs agree. For a family, "stages" holds the same for each stage, and the seeds are those of the first
      stage.
    """
    first = summaries[0]
    measured = [name for name in first if all(isinstance(run.get(name), float) for run in summaries)]
    apart = ("seed", "params_sha256", "snapshot_ensemble", "stages", *measured)
    summary = {name: value for name, value in first.items() if name not in apart and all(run.get(name) == value for run in summaries)}
    summary["seeds"] = [run["stages"][0]["seed"] if "stages" in run else run["seed"] for run in summaries]
    for name in measured:
        values = [run[name] for run in summaries]
        summary[name] = statistics.mean(values)
        summary[f"{name}_std"] = statistics.stdev(values)
    if "stages" in first:
        summary["stages"] = [summarise_seeds(list(stage)) for stage in zip(*(run["stages"] for run in summaries), strict=True)]
    return summary | {"runs": summaries}


def paired_difference(values: dict[int, float], baseline: dict[int, float]) -> tuple[float, float | None]:
    """The mean over seeds of values - baseline, and its standard error, which is None for a single seed.

    Raises:
      ValueError: the seeds differ.
    """
    if values.keys() != baseline.keys():
        raise ValueError(f"seeds {sorted(values)} cannot be paired with seeds {sorted(baseline)}")
    differences = [values[seed] - baseline[seed] for seed in values]
    error = statistics.stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else None
    return statistics.mean(differences), error


def main_result(summary: dict[str, Any]) -> str:
    """The name of the result that counts, such as test_accuracy; test_miou for segmentation."""
    return f"test_{summary.get('metric', 'accuracy')}"


def title(summary: dict[str, Any]) -> str:
    """A column's header for the result that counts, such as "test accuracy, %"; names the split that the run was evaluated on."""
    return f"{summary.get('evaluated_on', 'test')} {spelled(summary.get('metric', 'accuracy'))}, %"


def spelled(metric: str) -> str:
    """A metric, without the split's name, as people write it."""
    return SPELLED.get(metric, metric)


def percents(summary: dict[str, Any], *names: str) -> list[str]:
    return [number(summary, name, 2, 100) for name in names]


def number(summary: dict[str, Any], name: str, digits: int, factor: float = 1) -> str:
    """Formats a result, with its standard deviation if the summary covers several seeds; - if there is no such result.

    A run evaluated on validation data has validation_accuracy instead of test_accuracy; `name` finds either.
    """
    name = name if name in summary else validation_name(name)
    if name not in summary:
        return "-"
    return plus_minus(summary[name], summary.get(f"{name}_std"), digits, factor)


def plus_minus(value: float, spread: float | None, digits: int, factor: float = 1) -> str:
    return f"{factor * value:.{digits}f}" + ("" if spread is None else f" ± {factor * spread:.{digits}f}")


def validation_name(name: str) -> str:
    return name.replace("test_", "validation_")


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, ["---"] * len(header), *rows])

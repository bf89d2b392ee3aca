"""Tables from the summaries of finished runs.

    python -m distill_jax.report results/cifar100_sd_cpu/*

prints a Markdown table, a row for each folder that has a summary.json, or whose sub-folders have one for each seed.
"""

import pathlib
import sys
from typing import Any

from distill_jax import logs
from distill_jax.summary import summarise_seeds
from distill_jax.tables import number, percents

HEADER = """\
| run | seeds | train accuracy, % | test accuracy, last epoch, % | best epoch, % | test NLL, nats | ECE, % | snapshots' ensemble, % |
|---|---|---|---|---|---|---|---|"""


def read_summaries(folder: pathlib.Path) -> list[dict[str, Any]]:
    """The summaries of a run's seeds, or of its only one."""
    paths = sorted(folder.glob("seed_*/summary.json")) or sorted(folder.glob("summary.json"))
    return [logs.read_json(path) for path in paths]


def row(name: str, summaries: list[dict[str, Any]]) -> str:
    """A line of the table: mean and, with several seeds, standard deviation (n - 1)."""

    runs = [run | {"ensemble": run["snapshot_ensemble"]["test_accuracy"]} if "snapshot_ensemble" in run else run for run in summaries]
    summary = summarise_seeds(runs) if len(runs) > 1 else runs[0]
    cells = percents(summary, "train_accuracy", "test_accuracy", "best_test_accuracy")
    cells += [number(summary, "test_nll", 3), *percents(summary, "test_ece", "ensemble")]
    return f"| {name} | {len(runs)} | " + " | ".join(cells) + " |"


def main(folders: list[str]) -> None:
    """Prints the table of the folders."""
    if not folders:
        sys.exit(__doc__)
    print(HEADER)
    for folder in map(pathlib.Path, folders):
        summaries = read_summaries(folder)
        if not summaries:
            sys.exit(f"error: {folder} has no summary.json, neither its own nor one for each seed")
        print(row(folder.name, summaries))


if __name__ == "__main__":
    main(sys.argv[1:])

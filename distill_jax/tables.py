"""Markdown tables of results, for people: per cent, and mean ± standard deviation where a summary is of several seeds."""

from collections.abc import Sequence
from typing import Any


def percents(summary: dict[str, Any], *names: str) -> list[str]:
    return [number(summary, name, 2, 100) for name in names]


def number(summary: dict[str, Any], name: str, digits: int, factor: float = 1) -> str:
    """A result for people, with its standard deviation where the summary is one of several seeds; - where it has none."""
    if name not in summary:
        return "-"
    deviation = f" ± {factor * summary[name + '_std']:.{digits}f}" if name + "_std" in summary else ""
    return f"{factor * summary[name]:.{digits}f}{deviation}"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, ["---"] * len(header), *rows])

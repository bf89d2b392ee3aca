"""The plots as files for papers."""

import pathlib
import re
from collections.abc import Sequence

import matplotlib

from distill_jax.errors import UserError
from distill_jax.page import overview, training
from distill_jax.page.comparisons import Source, groups
from distill_jax.page.drawing import STYLE, draw
from distill_jax.page.plots import Plot


def of_sources(sources: Sequence[Source]) -> list[Plot]:
    """All plots, with keys that tell the sources and their data sets apart."""
    shown = []
    for source in sources:
        for comparison in source.comparisons:
            parts = [source.title] * (len(sources) > 1) + [f"{comparison.dataset} {comparison.split}"] * (len(source.comparisons) > 1)
            every = overview.overview(comparison) + [
                plot for name, lines in groups(comparison.lines) for plot in training.of_group(name, lines, comparison.split)
            ]
            shown += [plot._replace(key="-".join([*parts, plot.key])) for plot in every]
    return shown


def save(plots: Sequence[Plot], folder: pathlib.Path) -> list[pathlib.Path]:
    """Writes each plot as SVG and PNG, and all captions to captions.md; returns the paths.

    Raises:
      UserError: the folder cannot be written.
    """
    paths, captions = [], []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for plot in plots:
            figure, name = draw(plot), file_name(plot.key)
            with matplotlib.rc_context(STYLE):
                for ending, options in (("svg", {"metadata": {"Date": None}}), ("png", {"dpi": 200})):
                    paths.append(folder / f"{name}.{ending}")
                    figure.savefig(paths[-1], facecolor="white", **options)
            captions.append(f"**{name}** {plot.title}. {plot.caption}\n")
        paths.append(folder / "captions.md")
        paths[-1].write_text("\n".join(captions), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror or error}); choose another folder with --plots") from error
    return paths


def file_name(key: str) -> str:
    return re.sub(r"[^\w.-]+", "_", key).strip("._")[:120]

"""Draws plots with matplotlib: figures, and SVG inside a page."""

import io
import json
import re
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from distill_jax.page.plots import Panel, Plot, Series

WIDTH = 3.9  # inches, of every plot; 72 units of SVG each
LINE = 0.145  # inches, the height of a line of text
PALETTE = ("#0072b2", "#d55e00", "#00805f", "#aa4499", "#997700", "#3399cc", "#555555", "#882255")
INK, MUTED, GRID = "#1b1f24", "#59636e", "#d1d9e0"
VARIABLES = {colour: f"c{place}" for place, colour in enumerate(PALETTE)} | {INK: "ink", MUTED: "muted", GRID: "grid"}  # of style.css
MARKERS = "os^DvPX*"
MINOR = ("learning rate", "samples, %")  # labels of low panels
NICE = (1, 2, 5, 10)  # steps between ticks, times a power of ten
FEW = 25  # points of a curve that all get a marker; longer curves have about eight
STYLE = {
    "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "xtick.labelsize": 7.5, "ytick.labelsize": 7.5, "legend.fontsize": 7.5,
    "axes.facecolor": "none", "axes.edgecolor": MUTED, "axes.labelcolor": INK, "text.color": INK, "xtick.color": MUTED,
    "ytick.color": MUTED, "xtick.labelcolor": INK, "ytick.labelcolor": INK, "grid.color": GRID, "axes.grid": True, "grid.linewidth": 0.6,
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6, "lines.linewidth": 1.4, "axes.axisbelow": True,
    "legend.frameon": False, "legend.handlelength": 1.8, "svg.fonttype": "none", "svg.hashsalt": "distill_jax", "figure.dpi": 72,
    "text.parse_math": False,
}  # fmt: skip


# Figures


def draw(plot: Plot) -> Figure:
    """The figure of a plot, with its legend above the data."""
    with matplotlib.rc_context(STYLE):
        named = legend_entries(plot)
        columns = 1 if max(map(len, named), default=0) > 21 else 2
        top = 0.1 + (LINE * -(-len(named) // columns) if named else 0)
        heights = panel_heights(plot)
        bottom, gap, left, right = 0.46, 0.16, left_margin(plot), 0.16
        height = top + sum(heights) + gap * (len(heights) - 1) + bottom
        figure = Figure(figsize=(WIDTH, height))
        edge, all_axes = height - top, []
        for panel, panel_height in zip(plot.panels, heights, strict=True):
            box = (left / WIDTH, (edge - panel_height) / height, (WIDTH - left - right) / WIDTH, panel_height / height)
            axes = figure.add_axes(box, sharex=all_axes[0] if all_axes else None)
            (draw_rows if plot.rows else draw_panel)(axes, plot, panel)
            all_axes.append(axes)
            edge -= panel_height + gap
        for axes in all_axes[:-1]:
            axes.tick_params(labelbottom=False)
        all_axes[-1].set_xlabel(plot.x)
        figure.align_ylabels(all_axes)
        if named:
            corner = (left / WIDTH - 0.02, 1 - 0.03 / height)
            figure.legend(named.values(), named, loc="upper left", ncols=columns, bbox_to_anchor=corner, borderaxespad=0, borderpad=0.2,
                          labelspacing=0.25, columnspacing=1.2)  # fmt: skip
        return figure


def panel_heights(plot: Plot) -> list[float]:
    """In inches; the first panel is the main one."""
    if plot.rows:
        return [0.12 + 0.165 * len(plot.categories)]
    if len(plot.panels) == 1:
        return [2.1]
    return [1.8 if plot.panels[0].diagonal else 1.35, *(0.6 if panel.label in MINOR else 1.0 for panel in plot.panels[1:])]


def left_margin(plot: Plot) -> float:
    """In inches: room for the names of the rows, or for numbers and a label."""
    return 0.16 + 0.062 * max(len(short(name)) for name in plot.categories) if plot.rows else 0.64


def short(name: str) -> str:
    return name if len(name) <= 27 else f"{name[:12]}…{name[-14:]}"


def legend_entries(plot: Plot) -> dict[str, Any]:
    """A handle for each series, by name; none where the rows are the series, or if there is only one."""
    if plot.rows and all(len(series.points) == 1 for series in plot.panels[0].series):
        return {}
    named = {series.name: series.colour for panel in plot.panels for series in panel.series}
    return {
        short_series(name): matplotlib.lines.Line2D([], [], color=PALETTE[colour], marker=MARKERS[colour], markersize=4)
        for name, colour in named.items()
    }


def short_series(name: str) -> str:
    return name if len(name) <= 46 else f"{name[:25]}…{name[-20:]}"


def draw_panel(axes: Axes, plot: Plot, panel: Panel) -> None:
    axes.set_ylabel(panel.label)
    if plot.log_x:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
    for mark in panel.marks:
        axes.axvline(mark, color=MUTED, linewidth=0.8, linestyle=":", zorder=1)
    if panel.diagonal:
        axes.plot([0, 100], [0, 100], color=MUTED, linewidth=0.8, linestyle="--", zorder=1)
    for series in panel.series:
        draw_series(axes, panel.kind, series, shift_of(plot, panel, series))
    if plot.categories:
        axes.set_xticks(range(len(plot.categories)), [short(name) for name in plot.categories])
        axes.set_xlim(-0.3, len(plot.categories) - 0.7)
    elif not plot.log_x:
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=NICE, integer=plot.x == "epoch"))
    if plot.x == "epoch":
        axes.set_xlim(left=0)
    axes.yaxis.set_major_locator(MaxNLocator(3 if panel.label in MINOR else 5, steps=NICE))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.margins(y=0.08)


def shift_of(plot: Plot, panel: Panel, series: Series) -> float:
    """How far to move a series along the categories, so that several in one category stand beside each other."""
    if not plot.categories or all(len(each.points) == 1 for each in panel.series):
        return 0.0
    return (0.1 if plot.rows else 0.06) * (panel.series.index(series) - (len(panel.series) - 1) / 2)


def draw_series(axes: Axes, kind: str, series: Series, shift: float) -> None:
    colour, marker = PALETTE[series.colour], MARKERS[series.colour]
    x, y = [point.x + shift for point in series.points], [point.y for point in series.points]
    spreads = [point.spread or 0.0 for point in series.points]
    if kind == "curve" and len(x) > 1:
        every = 1 if len(x) <= FEW else (series.colour, max(len(x) // 8, 1))
        axes.plot(x, y, color=colour, marker=marker, markersize=3.2, markevery=every)
        if any(spreads):
            lower, upper = ([value + sign * spread for value, spread in zip(y, spreads, strict=True)] for sign in (-1, 1))
            axes.fill_between(x, lower, upper, color=colour, alpha=0.16, linewidth=0)
        return
    axes.errorbar(x, y, yerr=spreads if any(spreads) else None, color=colour, marker=marker, markersize=4, elinewidth=1, capsize=2,
                  linestyle="-" if kind == "path" else "none", linewidth=1.2)  # fmt: skip


def draw_rows(axes: Axes, plot: Plot, panel: Panel) -> None:
    """Values to the right, categories downwards."""
    for series in panel.series:
        colour = PALETTE[series.colour]
        for point in series.points:
            axes.plot(point.each, [point.x] * len(point.each), linestyle="none", marker=".", markersize=4, color=colour, alpha=0.45)
        shift = shift_of(plot, panel, series)
        rows, values = [point.x + shift for point in series.points], [point.y for point in series.points]
        spreads = [point.spread or 0.0 for point in series.points]
        axes.errorbar(values, rows, xerr=spreads if any(spreads) else None, color=colour, marker=MARKERS[series.colour], markersize=4.5,
                      elinewidth=1.2, capsize=2.5, linestyle="none")  # fmt: skip
    axes.set_yticks(range(len(plot.categories)), [short(name) for name in plot.categories])
    axes.set_ylim(len(plot.categories) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=NICE))
    axes.margins(x=0.06)


# Inside a page


def inline_svg(plot: Plot) -> tuple[str, list[dict[str, Any]]]:
    """An <svg> whose colours are the page's variables, and the data that its pointer shows.

    Returns:
      The element, and for each panel {"label", "series": [{"name", "colour", "points": [[x, y, what, value, spread], ...]}]}, where x and
      y are in the coordinates of the element, and `what` is the text of a point's x.
    """
    figure = draw(plot)
    file = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(file, format="svg", facecolor="none", metadata={"Date": None, "Creator": None, "Type": None, "Format": None})
    return clean(file.getvalue()), positions(figure, plot)


def clean(svg: str) -> str:
    """matplotlib's file without what a page does not need: prolog, metadata, style sheet, fonts, names of groups, digits."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="[A-Za-z]\w*_\d+"', "", svg)
    svg = re.sub(r"<svg [^>]*viewBox=\"([^\"]*)\"[^>]*>", r'<svg viewBox="\1" aria-hidden="true" focusable="false">', svg, count=1)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", svg)
    svg = re.sub(r"font-family: [^;\"]*;?", "", svg)
    svg = re.sub(r' transform="rotate\(-0 [^"]*"|<g/>|<defs>\s*</defs>|(?<=<g>)\s*<path [^>]*style="fill: none"/>', "", svg)
    svg = re.sub(r"<g>\s*</g>", "", svg)
    svg = re.sub(r' d="[^"]*"', lambda path: re.sub(r"\s*\n(z)?\s*", r"\1", path[0]), svg)
    svg = re.sub(r"<[^>]+>", lambda tag: re.sub(r"\d+\.\d{3,}", two_digits, tag[0]), svg)  # but not in the text of labels
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return re.sub(r"\s*\n\s*", "\n", svg).strip()


def two_digits(found: re.Match) -> str:
    return f"{float(found[0]):.2f}".rstrip("0").rstrip(".")


def positions(figure: Figure, plot: Plot) -> list[dict[str, Any]]:
    height = figure.get_figheight() * 72
    panels = []
    for axes, panel in zip(figure.axes, plot.panels, strict=True):
        series = []
        for each in panel.series:
            shift = shift_of(plot, panel, each)
            moved = [(point.x + shift, point.y) for point in each.points]
            places = axes.transData.transform([(y, x) for x, y in moved] if plot.rows else moved)
            points = [
                [round(x, 1), round(height - y, 1), what(plot, point), number(point.y), number(point.spread)]
                for (x, y), point in zip(places * 72 / figure.dpi, each.points, strict=True)
            ]
            series.append({"name": each.name, "colour": each.colour, "points": points})
        panels.append({"label": panel.label, "series": series})
    return panels


def what(plot: Plot, point: Any) -> str:
    """The text of a point's x: its category or number, and its label if it has one."""
    x = plot.categories[int(point.x)] if plot.categories else f"{point.x:.4g}"
    return f"{x} ({point.label})" if point.label else x


def number(value: float | None) -> float | None:
    """With four digits, as JSON would otherwise write seventeen."""
    return None if value is None else float(f"{value:.4g}")


def describe(plot: Plot) -> str:
    """The text alternative of a plot: what it shows, and the last value of each series."""
    panel = plot.panels[0]
    ends = []
    for series in panel.series:
        point = series.points[-1]
        spread = "" if point.spread is None else f" ± {point.spread:.3g}"
        ends.append(f"{series.name} {point.y:.4g}{spread} at {what(plot, point)}")
    return f"{plot.title}. {panel.label} against {plot.x}. {'; '.join(ends)}."


def as_json(panels: list[dict[str, Any]]) -> str:
    """JSON that can stand inside a <script> element."""
    return json.dumps(panels, separators=(",", ":"), ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")

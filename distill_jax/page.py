"""One HTML page about runs and studies: opens from disk, and needs no network.

The plots are SVG whose colours are variables of the page, so that they follow its light or dark style; page.js shows their numbers.
"""

import html
import itertools
import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from distill_jax import drawing, plots, report
from distill_jax.archive import Run, nest
from distill_jax.comparisons import Comparison, Line, Source, groups, value_of
from distill_jax.plots import Plot
from distill_jax.results import markdown, paired_difference, plus_minus

HERE = pathlib.Path(__file__).parent
DIFFERENCES = {"accuracy, points": ("test_accuracy", 2, 100), "NLL, nats": ("test_nll", 3, 1), "ECE, points": ("test_ece", 2, 100)}
PROVENANCE = ("commit", "device", "params_sha256")
SHOWN_CLASSES = 4  # of a sample, for each network

text = html.escape


def build(sources: Sequence[Source]) -> str:
    """The page.

    Raises:
      UserError: a table of a study cannot be made.
    """
    title = f"{sources[0].title}: results" if len(sources) == 1 else "Results"
    numbers = itertools.count(1)
    sections = [section_of(source, f"source-{place}", numbers) for place, source in enumerate(sources, 1)]
    links = "".join(f'<li><a href="#source-{place}">{text(source.title)}</a></li>' for place, source in enumerate(sources, 1))
    contents = f'<nav aria-label="Contents"><ul>{links}</ul></nav>' if len(sources) > 1 else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{text(title)}</title>
<link rel="icon" href="data:,">
<style>
{(HERE / "page.css").read_text(encoding="utf-8")}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the results</a>
<header>
<h1>{text(title)}</h1>
<p class="note">Point at a plot for its numbers, or select it and use the arrow keys. ± is the standard deviation over seeds (n − 1); in
differences, the standard error of the mean over paired seeds.</p>
{contents}
</header>
<main id="main">
{"".join(sections)}
</main>
<footer><p class="note">Made by <code>python -m distill_jax.report</code>.</p></footer>
<script>
{(HERE / "page.js").read_text(encoding="utf-8")}</script>
</body>
</html>
"""


def section_of(source: Source, anchor: str, numbers: Iterable[int]) -> str:
    """A study, or all workdirs."""
    parts = [f"<h2>{text(source.title)}</h2>"]
    several = len(source.comparisons) > 1
    if several:
        parts.append(f'<p class="note">{text(several_data_sets(source))}</p>')
    parts.append("<h3>Tables</h3>" + "".join(html_table(rows) for rows in tables(source)))
    for comparison in source.comparisons:
        parts.append(of_comparison(comparison, several, numbers))
    parts.append(configuration(source.runs))
    parts.append(provenance([run for run in source.runs if "train_accuracy" in run.results]))
    return f'<section id="{anchor}">\n{"".join(parts)}</section>\n'


def several_data_sets(source: Source) -> str:
    names = ", ".join(f"{each.dataset} ({each.split})" for each in source.comparisons)
    return f"{source.title}: runs of {len(source.comparisons)} different test sets, each in its own section, not compared: {names}"


def of_comparison(comparison: Comparison, several: bool, numbers: Iterable[int]) -> str:
    name = f"{comparison.dataset}, {comparison.split} set"
    parts = [f"<h3>{text(name if several else 'Overview')}</h3>", gallery(plots.overview(comparison), numbers)]
    if len(comparison.lines) > 1:
        parts.append(html_table(difference_table(comparison.lines), f"Paired differences to {comparison.lines[0].name}"))
    for group, lines in groups(comparison.lines):
        heading = " ".join(filter(None, (group or "Training", f"({comparison.dataset})" if several else "")))
        parts.append(f"<h3>{text(heading)}</h3>" + gallery(plots.of_group(group, lines, comparison.split), numbers))
        parts.append(samples(lines))
    silent = [line.name for line in comparison.lines if not line.predictions]
    if silent:
        parts.append(
            f'<p class="note">No reliability diagram, classes or samples for {text(short_list(silent))}: these need the predictions.json '
            "that a run's workdir has; studies and older workdirs have none.</p>"
        )
    return "".join(parts)


def short_list(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


# Plots


def gallery(shown: Iterable[Plot], numbers: Iterable[int]) -> str:
    figures = "".join(figure(plot, next(numbers)) for plot in shown)
    return f'<div class="plots">\n{figures}</div>\n' if figures else ""


def figure(plot: Plot, number: int) -> str:
    svg, panels = drawing.inline_svg(plot)
    return f"""<figure data-plot="{text(plot.key)}" data-x="{text(plot.x)}" aria-labelledby="plot-{number}">
<h4 id="plot-{number}">{text(plot.title)}</h4>
<div class="chart" tabindex="0" role="img" aria-label="{text(drawing.describe(plot))}">{svg}<div class="tip" role="status"></div></div>
<figcaption>{text(plot.caption)}</figcaption>
<details><summary>Numbers</summary><div class="scroll" tabindex="0"></div></details>
<script type="application/json">{drawing.as_json(panels)}</script>
</figure>
"""


# Tables


def tables(source: Source) -> list[str]:
    """The tables that the report prints, and one of all stages if there are families; Markdown."""
    printed = [report.report(source.folders)] if not source.is_study else [table for _, table in report.study_tables(source.folders[0])]
    if not source.is_study and any(run.stage for run in source.runs):
        printed.append(report.table(source.runs, report.declare_all(source.runs)))
    return printed


def html_table(rows: str, caption: str = "", kind: str = "") -> str:
    """A Markdown table as HTML that scrolls in a box of its own."""
    header, _, *body = [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in rows.splitlines()]
    head = "".join(f'<th scope="col">{text(cell)}</th>' for cell in header)
    lines = [f'<tr><th scope="row">{text(cells[0])}</th>' + "".join(f"<td>{text(cell)}</td>" for cell in cells[1:]) + "</tr>" for cells in body]
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{text(caption or "Table")}"><table class="{kind}">'
        + (f"<caption>{text(caption)}</caption>" if caption else "")
        + f"<thead><tr>{head}</tr></thead>\n<tbody>{''.join(lines)}</tbody></table></div>\n"
    )


def difference_table(lines: Sequence[Line]) -> str:
    """Each line minus the first: mean over paired seeds ± its standard error; - if the seeds differ. Markdown."""
    rows = []
    for line in lines[1:]:
        cells = [difference(line, lines[0], *each) for each in DIFFERENCES.values()]
        rows.append([line.name, str(len(line.runs)), *cells])
    return markdown(["run", "seeds", *DIFFERENCES], rows)


def difference(line: Line, baseline: Line, name: str, digits: int, factor: float) -> str:
    values, theirs = (
        {seed: value for seed, run in each.runs.items() if (value := value_of(run.results, name)) is not None} for each in (line, baseline)
    )
    if not values or values.keys() != theirs.keys():
        return "-"
    return plus_minus(*paired_difference(values, theirs), digits, factor)


# Samples


def samples(lines: Sequence[Line]) -> str:
    """The same test samples, with what each network and its teacher say of them; of the first seed that recorded them."""
    said = [(plots.label_of(line), next(iter(line.predictions.values()))) for line in lines if line.predictions]
    if not said:
        return ""
    first = said[0][1]
    items = []
    for place, sample in enumerate(first["samples"]):
        rows = []
        for name, content in said:
            for speaker, suffix in (("student", ""), ("teacher", ": teacher")):
                if place < len(content["samples"]) and speaker in content["samples"][place]:
                    rows.append(opinion(f"{name}{suffix}", content, content["samples"][place][speaker], sample["label"]))
        items.append(f"<li>{shown_input(first, sample)}<table><tbody>{''.join(rows)}</tbody></table></li>")
    return (
        "<h3>What the networks say of test samples</h3><p class='note'>The most probable classes, in per cent; the label in bold. "
        "The classes after the first are what a teacher adds to a label. One seed of each run.</p>"
        f'<ul class="samples">{"".join(items)}</ul>'
    )


def shown_input(said: dict[str, Any], sample: dict[str, Any]) -> str:
    label = text(plots.class_name(said, sample["label"]))
    if "image" in sample:
        return f'<img src="{text(sample["image"])}" alt="A test image of class {label}"><h4>{label}</h4>'
    return f"<h4>{label}</h4><blockquote>{text(sample['text'])}</blockquote>"


def opinion(name: str, said: dict[str, Any], classes: Sequence[Sequence[float]], label: int) -> str:
    cells = []
    for predicted, probability in classes[:SHOWN_CLASSES]:
        kind = ' class="right"' if predicted == label else ""
        bar = f'<span class="bar" style="width:{100 * min(max(probability, 0), 1):.1f}%"></span>'
        cells.append(f"<td{kind}>{text(plots.class_name(said, int(predicted)))} {100 * probability:.3g}{bar}</td>")
    return f'<tr><th scope="row">{text(name)}</th>{"".join(cells)}</tr>'


# Configs and provenance


def configuration(runs: Sequence[Run]) -> str:
    """The config that all runs share, and the fields in which they differ."""
    trained = [run for run in runs if "train_accuracy" in run.results]
    first = trained[0].config
    shared = {name: value for name, value in first.items() if all(run.config.get(name) == value for run in trained)}
    ignored = {"seed", "seeds"}
    names = dict.fromkeys(name for run in trained for name in run.config if name not in shared and name not in ignored)
    differing = {}
    for run in trained:
        differing.setdefault(run.path, [run.path, *(cell(run.config.get(name)) for name in names)])
    table = html_table(markdown(["run", *names], list(differing.values())), "Fields that differ", "text") if names else ""
    return (
        f"<h3>Config</h3>{table}<details><summary>Fields that all runs share</summary>"
        f"<pre>{text(json.dumps(nest(shared), indent=2, ensure_ascii=False))}</pre></details>\n"
    )


def cell(value: Any) -> str:
    return "" if value is None else " ".join(str(value).replace("|", "¦").split())


def provenance(runs: Sequence[Run]) -> str:
    """Where each run was made, and the hash of its weights."""
    rows = [[run.path, str(run.seed), *(cell(run.results.get(name))[:16] for name in PROVENANCE), versions(run)] for run in runs]
    table = html_table(markdown(["run", "seed", "commit", "device", "params_sha256", "versions"], rows), "Provenance", "text")
    return f"<details><summary>Provenance of {len(runs)} runs</summary>{table}</details>\n"


def versions(run: Run) -> str:
    found = run.results.get("versions")
    return ", ".join(f"{name} {cell(version)}" for name, version in found.items()) if isinstance(found, dict) else ""

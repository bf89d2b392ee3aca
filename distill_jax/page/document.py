"""One HTML page about runs and studies: opens from disk, and needs no network.

The plots are SVG whose colours are variables of the page, so that they follow its light or dark style; script.js shows their numbers.
"""

import html
import itertools
import json
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

from distill_jax import report
from distill_jax.archive import Run, nest, shared_config
from distill_jax.page import drawing, overview, samples, training
from distill_jax.page.comparisons import Comparison, Line, Source, groups, some, value_of
from distill_jax.page.plots import Plot
from distill_jax.results import SPELLED, markdown, paired_difference, plus_minus

HERE = pathlib.Path(__file__).parent
DIFFERENCES = {  # name, digits, factor
    **{f"{name}, points": (f"test_{metric}", 2, 100) for metric, name in SPELLED.items()},
    "accuracy, points": ("test_accuracy", 2, 100),
    "NLL, nats": ("test_nll", 3, 1),
    "ECE, points": ("test_ece", 2, 100),
}
PROVENANCE = ("commit", "device", "params_sha256")

text = html.escape


def build(sources: Sequence[Source]) -> str:
    """The page.

    Raises:
      UserError: a table of a study cannot be made.
    """
    title = f"Results: {some([source.title for source in sources])}"
    numbers = itertools.count(1)
    sections = [section_of(source, f"source-{place}", numbers) for place, source in enumerate(sources, 1)]
    links = "".join(f'<li><a href="#source-{place}">{text(source.title)}</a></li>' for place, source in enumerate(sources, 1))
    contents = f'<nav aria-label="Contents"><ul>{links}</ul></nav>' if len(sources) > 1 else ""
    body, styles = with_classes("".join(sections))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{text(title)}</title>
<link rel="icon" href="data:,">
<style>
{(HERE / "style.css").read_text(encoding="utf-8")}{styles}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the results</a>
<header>
<h1>Results</h1>
<p class="note">Hover over a plot for its numbers, or select it and use the arrow keys. ± is the standard deviation over seeds (n − 1);
in differences, the standard error of the mean over paired seeds.</p>
{contents}
</header>
<main id="main">
{body}
</main>
<footer><p class="note">Made by <code>python -m distill_jax.report</code>.</p></footer>
<script>
{(HERE / "script.js").read_text(encoding="utf-8")}</script>
</body>
</html>
"""


def with_classes(body: str) -> tuple[str, str]:
    """Replaces the style attributes of the plots, which repeat a few styles thousands of times, by classes; and the rules of these."""
    attribute = re.compile(r' style="((?:fill|stroke|font|opacity|clip)[^"]*)"')
    classes = {style: f"s{place}" for place, style in enumerate(dict.fromkeys(attribute.findall(body)))}
    rules = "".join(f".{name} {{ {style} }}\n" for style, name in classes.items())
    return attribute.sub(lambda found: f' class="{classes[found[1]]}"', body), rules


def section_of(source: Source, anchor: str, numbers: Iterable[int]) -> str:
    """A study, or all workdirs."""
    printed = tables(source)  # first, as it checks the README.md
    headline, claim = headlines(source)
    parts = [f"<h2>{text(headline)}</h2>", f"<p><strong>{text(claim)}</strong></p>" if claim else ""]
    several = len(source.comparisons) > 1
    if several:
        parts.append(f'<p class="note">{text(several_data_sets(source))}</p>')
    parts += [summary(comparison, several, numbers) for comparison in source.comparisons]
    parts.append("<h3>Tables</h3>" + "".join(html_table(rows, caption) for caption, rows in printed))
    parts += [details(comparison, several, numbers) for comparison in source.comparisons]
    parts.append(configuration(source.runs))
    parts.append(provenance([run for run in source.runs if "train_accuracy" in run.results]))
    return f'<section id="{anchor}">\n{"".join(parts)}</section>\n'


def headlines(source: Source) -> tuple[str, str]:
    """The title of a study's README.md and, if it opens with one in bold, its finding."""
    readme = source.folders[0] / "README.md"
    if not source.is_study or not readme.exists():
        return source.title, ""
    title, _, rest = readme.read_text(encoding="utf-8").removeprefix("# ").partition("\n")
    finding = re.match(r"\s*\*\*(.+?)\*\*\s*\n", rest)
    return title, finding[1] if finding else ""


def several_data_sets(source: Source) -> str:
    names = ", ".join(f"{each.dataset} ({each.split})" for each in source.comparisons)
    return f"{source.title}: runs of {len(source.comparisons)} different test sets, each in its own section, not compared: {names}"


def summary(comparison: Comparison, several: bool, numbers: Iterable[int]) -> str:
    """The results of all lines; nothing for a single one."""
    if len(comparison.lines) == 1:
        return ""
    heading = f"Overview: {comparison.dataset}, {comparison.split} set" if several else "Overview"
    differences = html_table(difference_table(comparison.lines), f"Paired differences to {baseline_of(comparison.lines).name}")
    return f"<h3>{text(heading)}</h3>{gallery(overview.overview(comparison), numbers)}{differences}"


def details(comparison: Comparison, several: bool, numbers: Iterable[int]) -> str:
    """The training of each group of lines, and what its networks predict for the test set."""
    parts = []
    for group, lines in groups(comparison.lines):
        heading = (group or "Training") + (f" ({comparison.dataset}, {comparison.split} set)" if several else "")
        figures = gallery(training.of_group(group, lines, comparison.split), numbers)
        parts.append(f"<h3>{text(heading)}</h3>{figures}" if figures else "")
    parts.append(samples.gallery(comparison.lines))
    silent = [line.name for line in comparison.lines if not line.predictions and classifies(line)]
    if silent:
        parts.append(
            f'<p class="note">No reliability diagram, classes or samples for {text(some(silent))}: these need the predictions.json '
            "that a run's workdir has; studies and older workdirs have none.</p>"
        )
    return "".join(parts)


def classifies(line: Line) -> bool:
    return next(iter(line.runs.values())).results.get("task", "classification") == "classification"


# Plots


def gallery(shown: Iterable[Plot], numbers: Iterable[int]) -> str:
    figures = "".join(figure(plot, next(numbers)) for plot in shown)
    return f'<div class="plots">\n{figures}</div>\n' if figures else ""


def figure(plot: Plot, number: int) -> str:
    svg, panels = drawing.inline_svg(plot)
    return f"""<figure data-plot="{text(plot.key)}" data-x="{text(plot.x)}" aria-labelledby="plot-{number}">
<h4 id="plot-{number}">{text(plot.title)}</h4>
<div class="chart"><div class="drawing" tabindex="0" role="img" aria-label="{text(drawing.describe(plot))}">{svg}</div>
<div class="tip" role="status"></div></div>
<figcaption>{text(plot.caption)}</figcaption>
<details><summary>Numbers</summary><div class="scroll" tabindex="0"></div></details>
<script type="application/json">{drawing.as_json(panels)}</script>
</figure>
"""


# Tables


def tables(source: Source) -> list[tuple[str, str]]:
    """Captions and tables, in Markdown: those that the report prints; for families and folders of workdirs, also one of all runs."""
    if source.is_study:
        return [("", table) for _, table in report.study_tables(source.folders[0])]
    are_workdirs = all((folder / "summary.json").exists() or any(folder.glob("seed_*/summary.json")) for folder in source.folders)
    printed = [("Results; of a family, those of its last stage", report.report(source.folders))] if are_workdirs else []
    if not are_workdirs or any(run.stage for run in source.runs):
        printed.append(("All runs", report.table(source.runs, report.declare_all(source.runs))))
    return printed


def html_table(rows: str, caption: str = "", kind: str = "") -> str:
    """A Markdown table as HTML that scrolls in a box of its own."""
    header, _, *body = [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in rows.splitlines()]
    head = "".join(f'<th scope="col">{text(cell)}</th>' for cell in header)
    lines = [f'<tr><th scope="row">{text(first)}</th>{"".join(f"<td>{text(cell)}</td>" for cell in rest)}</tr>' for first, *rest in body]
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{text(caption or "Table")}"><table class="{kind}">'
        + (f"<caption>{text(caption)}</caption>" if caption else "")
        + f"<thead><tr>{head}</tr></thead>\n<tbody>{''.join(lines)}</tbody></table></div>\n"
    )


def baseline_of(lines: Sequence[Line]) -> Line:
    """The first line that learns from labels alone, or else the first."""
    return next((line for line in lines if next(iter(line.runs.values())).results.get("method") == "supervised"), lines[0])


def difference_table(lines: Sequence[Line]) -> str:
    """Each line minus the baseline, in the metrics that this has: mean over the seeds that both have ± its standard error; - if there are
    none. Markdown."""
    baseline, rows = baseline_of(lines), []
    has = next(iter(baseline.runs.values())).results
    columns = {title: each for title, each in DIFFERENCES.items() if value_of(has, each[0]) is not None}
    for line in lines:
        if line is not baseline:
            cells = [difference(line, baseline, *each) for each in columns.values()]
            rows.append([line.name, str(len(line.runs.keys() & baseline.runs.keys())), *cells])
    return markdown(["run", "shared seeds", *columns], rows)


def difference(line: Line, baseline: Line, name: str, digits: int, factor: float) -> str:
    seeds = [seed for seed in line.runs if seed in baseline.runs]
    values, theirs = ({seed: value_of(each.runs[seed].results, name) for seed in seeds} for each in (line, baseline))
    if not seeds or None in (*values.values(), *theirs.values()):
        return "-"
    return plus_minus(*paired_difference(values, theirs), digits, factor)


# Configs and provenance


def configuration(runs: Sequence[Run]) -> str:
    """The config that all runs share, and the fields in which they differ."""
    trained = [run for run in runs if "train_accuracy" in run.results]
    shared = shared_config(trained)
    ignored = {"seed", "seeds"}
    names = dict.fromkeys(name for run in trained for name in run.config if name not in shared and name not in ignored)
    differing = {}
    for run in trained:
        differing.setdefault(run.path, [run.path, *(cell(run.config.get(name)) for name in names)])
    table = html_table(markdown(["run", *names], list(differing.values())), "Fields that differ", "text")
    return (
        "<h3>Config and provenance</h3>\n"
        + (f"<details><summary>Fields that differ</summary>{table}</details>\n" if names else "")
        + f"<details><summary>Fields that all runs share</summary>"
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

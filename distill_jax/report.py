"""Prints the tables of studies and of finished runs, and draws them.

    python -m distill_jax.report results/STUDY                  # the tables of the study's README.md, recomputed from its runs.csv
    python -m distill_jax.report WORKDIR...                     # one row per workdir
    python -m distill_jax.report WORKDIR... --html report.html  # a page with plots instead; it needs no network
    python -m distill_jax.report WORKDIR... --plots DIR         # the same plots as SVG and PNG files, with captions.md

A study's README.md declares each of its tables in a comment above it:

    <!-- table
    {"rows": {"two cycles": "cycles", "SD": "sd"},
     "columns": {"test accuracy, %": "test_accuracy", "minus one cosine": "test_accuracy minus cosine", "NLL": "test_nll:2 of {0}"}}
    -->
    (the table)
    <!-- end -->

A cell has the form METRIC[:DIGITS] [of PATH] [minus PATH]. A path is VARIANT or VARIANT/STAGE, as in runs.csv; {0}, {1}, ... are the words
of the row, and the default path is {0}; "a or b" is the first of the two that has runs. A cell shows the mean ± the standard deviation
(n - 1) over the seeds; with "minus", the mean of the differences between equal seeds ± its standard error.
"""

import argparse
import json
import pathlib
import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from distill_jax.archive import Run, read_runs
from distill_jax.errors import UserError
from distill_jax.files import read_json
from distill_jax.results import (
    SPELLED,
    main_result,
    markdown,
    number,
    paired_difference,
    percents,
    plus_minus,
    summarise_seeds,
    validation_name,
)

HEADER = [
    "run", "seeds", "train accuracy, %", "test accuracy, last epoch, %", "best epoch, %", "test NLL, nats", "ECE, %",
    "snapshots' ensemble, %",
]  # fmt: skip
TASKS = {f"test_{metric}": f"test {name}, %" for metric, name in SPELLED.items()}  # results of other tasks
SHOWN = ("train_accuracy", "test_accuracy", "best_test_accuracy", "test_nll", "test_ece")  # of a summary
TABLE = re.compile(r"<!-- table\n(.*?)\n-->\n(.*?)<!-- end -->", re.DOTALL)
CELL = re.compile(r"(?P<metric>[\w.]+)(:(?P<digits>\d))?( of (?P<of>.+?))?( minus (?P<minus>.+))?")
PER_CENT = ("accuracy", "top5", "ece", "agreement", "miou", "ap", "ap50", "ap75", "11point")  # fractions, shown in per cent with two digits
DIGITS = {"secondary_score": 4, "per_second": 0, "seconds": 0}  # of other metrics; the default is three

Values = dict[int, Any]  # a result by seed


# Studies


def study_tables(study: pathlib.Path) -> list[tuple[str, str]]:
    """The tables of a study's README.md, each as written there and as computed from runs.csv. Without a README, one table of all runs.

    Raises:
      UserError: a file is damaged, or a table asks for runs that do not exist.
    """
    runs, readme = read_runs(study), study / "README.md"
    try:
        text = readme.read_text(encoding="utf-8") if readme.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{readme}: cannot be read ({error}); restore the file") from error
    found = TABLE.findall(text)
    if len(found) != text.count("<!-- table"):
        raise UserError(f"{readme}: a table's comment does not end with --> on a line of its own, or <!-- end --> is missing")
    if not found:
        return [("", table(runs, declare_all(runs)))]
    tables = []
    for count, (declaration, stands) in enumerate(found, start=1):
        try:
            tables.append((stands.strip(), table(runs, json.loads(declaration))))
        except (ValueError, KeyError, AttributeError, IndexError, TypeError) as error:
            raise UserError(f"{readme}: table {count}: {error}") from error
    return tables


def declare_all(runs: Sequence[Run]) -> dict[str, Any]:
    """Declares a table with one row per run that has metrics."""
    shown_runs = [run for run in runs if "train_accuracy" in run.results]
    paths = {run.path + marked(run.results): [run.path] for run in shown_runs}  # one word each, whatever their names
    cells = ["seeds", *SHOWN, "snapshot_ensemble.test_accuracy"]
    columns = dict(zip(HEADER[1:], cells, strict=True)) | {title: metric for metric, title in TASKS.items()}
    shown = {title: cell for title, cell in columns.items() if cell == "seeds" or any(values_of(runs, path, cell) for path in paths)}
    return {"rows": paths, "columns": shown}


def table(runs: Sequence[Run], declared: dict[str, Any]) -> str:
    """A Markdown table as declared.

    Raises:
      ValueError: a row or column is empty, or runs to be compared have different seeds.
    """
    rows, columns = declared["rows"], declared["columns"]
    words = {row: given.split() if isinstance(given, str) else given for row, given in rows.items()}
    cells = {(row, title): show(runs, cell, words[row]) for row in rows for title, cell in columns.items()}
    for name, axis in [*((row, 0) for row in rows), *((title, 1) for title in columns)]:
        if all(text == "-" for key, text in cells.items() if key[axis] == name):
            raise ValueError(f"no run has a value for {name!r}")
    header = [declared.get("corner", "run"), *columns]
    return markdown(header, [[row, *(cells[row, title] for title in columns)] for row in rows])


def show(runs: Sequence[Run], cell: str, words: Sequence[str]) -> str:
    """The text of a cell; - if no run has the metric, or if the cell would compare a run with itself."""
    parts = CELL.fullmatch(cell)
    if not parts:
        raise ValueError(f"{cell!r} does not have the form METRIC[:DIGITS] [of PATH] [minus PATH]")
    metric = parts["metric"]
    digits, factor = form(metric, parts["digits"])
    path, values = first_with(runs, (parts["of"] or "{0}").format(*words), metric)
    if not values:
        return "-"
    if not parts["minus"]:
        return show_values(metric, values, digits, factor)
    other, baseline = first_with(runs, parts["minus"].format(*words), metric)
    if not baseline:
        raise ValueError(f"{cell!r}: no run to subtract")
    if on_validation(runs, path, metric) != on_validation(runs, other, metric):
        raise ValueError(f"{cell!r}: one is evaluated on validation data, the other on test data")
    return "-" if path == other else plus_minus(*paired_difference(values, baseline), digits, factor)


def show_values(metric: str, values: Values, digits: int, factor: float) -> str:
    """Floats as mean ± standard deviation; integers and strings as they are, provided that all seeds agree."""
    if metric == "seeds":
        return str(len(values))
    if all(isinstance(value, float) for value in values.values()):
        spread = statistics.stdev(values.values()) if len(values) > 1 else None
        return plus_minus(statistics.mean(values.values()), spread, digits, factor)
    value, *others = values.values()
    if any(other != value for other in others):
        raise ValueError(f"{metric} is {value} for one seed and {others} for others")
    return f"{value:,}" if isinstance(value, int) else str(value)


def form(metric: str, digits: str | None) -> tuple[int, float]:
    """The number of digits to show for a metric, and the factor to multiply it by."""
    if metric.endswith(PER_CENT):
        return int(digits or 2), 100
    return int(digits or next((count for end, count in DIGITS.items() if metric.endswith(end)), 3)), 1


def first_with(runs: Sequence[Run], paths: str, metric: str) -> tuple[str, Values]:
    """The first of some paths that has a metric, and its values by seed."""
    found = ((path, values_of(runs, path, metric)) for path in paths.split(" or "))
    return next(((path, values) for path, values in found if values), ("", {}))


def values_of(runs: Sequence[Run], path: str, metric: str) -> Values:
    rows = {run.seed: run.results for run in runs if run.path == path and run.seed is not None}
    if metric == "seeds":
        return {seed: seed for seed, results in rows.items() if "train_accuracy" in results}
    names = (metric, validation_name(metric))
    return {seed: results[name] for seed, results in rows.items() for name in names if name in results}


def on_validation(runs: Sequence[Run], path: str, metric: str) -> bool:
    return any(validation_name(metric) in run.results for run in runs if run.path == path)


# Workdirs


def read_summaries(folder: pathlib.Path) -> list[dict[str, Any]]:
    """The summaries of a run's seeds, or the only one.

    Raises:
      UserError: there is none, or one is damaged.
    """
    paths = sorted(folder.glob("seed_*/summary.json")) or [folder / "summary.json"]
    if not paths[0].exists():
        raise UserError(f"{folder}: no summary.json here or in folders seed_*, and no runs.csv; give finished runs or studies")
    return [summary for path in paths for summary in own_summaries(path)]


def own_summaries(path: pathlib.Path) -> list[dict[str, Any]]:
    """The summaries in a file: one, or one per seed if the seeds have no folders of their own.

    Raises:
      UserError: the file is not the summary of a run.
    """
    content = read_json(path)
    summaries = content.get("runs", [content])
    if not (isinstance(summaries, list) and summaries and all(is_summary(summary) for summary in summaries)):
        raise UserError(f"{path}: not the summary of a run; restore the file or repeat the run")
    return summaries


def is_summary(summary: Any) -> bool:
    """Whether it has what a row shows, in the right types."""
    if not (isinstance(summary, dict) and isinstance(summary.get("seed"), int) and isinstance(summary.get("snapshot_ensemble", {}), dict)):
        return False
    shown = [summary[name] for metric in SHOWN for name in (metric, validation_name(metric)) if name in summary]
    result = main_result(summary)
    has_result = result in summary or validation_name(result) in summary
    return has_result and all(isinstance(value, float) for value in shown)


def marked(summary: Mapping[str, Any]) -> str:
    """What a row's name ends with."""
    return " (validation)" if summary.get("evaluated_on") == "validation" else ""


def row(name: str, summaries: list[dict[str, Any]]) -> list[str]:
    """A row of the table: mean and, with several seeds, standard deviation (n - 1); -: no such result."""
    runs = []
    for summary in summaries:
        shown = {metric: value for metric, value in summary.items() if metric not in ("snapshot_ensemble", "stages")}
        runs.append(shown | {f"ensemble_{metric}": value for metric, value in summary.get("snapshot_ensemble", {}).items()})
    summary = summarise_seeds(runs) if len(runs) > 1 else runs[0]
    cells = percents(summary, "train_accuracy", "test_accuracy", "best_test_accuracy")
    cells += [number(summary, "test_nll", 3), *percents(summary, "test_ece", "ensemble_test_accuracy", *TASKS)]
    return [name + marked(summary), str(len(runs)), *cells]


def report(folders: Sequence[pathlib.Path]) -> str:
    """The tables of the studies, then one table of all workdirs."""
    studies = [folder for folder in folders if (folder / "runs.csv").exists()]
    workdirs = [folder for folder in folders if folder not in studies]
    texts = [text for study in studies for _, text in study_tables(study)]
    if workdirs:
        found = {folder: read_summaries(folder) for folder in workdirs}
        rows = [row(folder.name, summaries) for folder, summaries in found.items()]
        columns = [cells for cells in zip([*HEADER, *TASKS.values()], *rows, strict=True) if set(cells[1:]) != {"-"}]
        header, *rows = zip(*columns, strict=True)
        texts.append(markdown(header, rows))
    return "\n\n".join(texts)


def write_plots(folders: Sequence[pathlib.Path], page_path: pathlib.Path | None, plots_folder: pathlib.Path | None) -> None:
    """Writes the page, the plots, or both, and prints where they are.

    Raises:
      UserError: a run is unfinished or damaged, or the output cannot be written.
    """
    from distill_jax.page import comparisons, document, export  # here, since tables do not need matplotlib

    sources = comparisons.read(folders)
    for source in sources:
        if len(source.comparisons) > 1:
            print(f"note: {document.several_data_sets(source)}")
    if page_path:
        content = document.build(sources)
        try:
            page_path.parent.mkdir(parents=True, exist_ok=True)
            page_path.write_text(content, encoding="utf-8")
        except OSError as error:
            raise UserError(f"{page_path}: cannot be written ({error.strerror or error}); choose another file with --html") from error
        print(f"{page_path}: {len(content.encode()) / 1e6:.1f} MB; open it in a browser")
    if plots_folder:
        paths = export.save(export.of_sources(sources), plots_folder)
        print(f"{plots_folder}: {len(paths) - 1} files, and captions.md")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m distill_jax.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", metavar="FOLDER", type=pathlib.Path, nargs="+", help="a study, or the workdir of a finished run")
    parser.add_argument("--html", metavar="FILE", type=pathlib.Path, help="write a page of plots and tables")
    parser.add_argument("--plots", metavar="DIR", type=pathlib.Path, help="write the plots as SVG and PNG files")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    options = make_parser().parse_args(arguments)
    try:
        if options.html or options.plots:
            write_plots(options.folders, options.html, options.plots)
        else:
            print(report(options.folders))
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()

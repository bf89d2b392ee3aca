"""The study that a comparison writes: its runs, and the tables of their results. See compare.py."""

import json
from collections.abc import Mapping
from typing import Any

from distill_jax import collect, fields, report, workdir
from distill_jax.archive import in_turn, write_study
from distill_jax.comparison import Comparison, best_try, folder_of_try, metric, summary_of, summary_of_try, with_teachers
from distill_jax.results import spelled

FURTHER = {  # columns, by metric
    "accuracy": {"test NLL, nats": "test_nll", "ECE, %": "test_ece"},
    "ap50": {f"test {spelled('ap')}, %": "test_ap"},
}


def write_tables(comparison: Comparison) -> str:
    """Writes WORKDIR/study from the arms that have all final seeds; returns the table of their results, with the names of the other arms
    below it, or "" if there are none yet.

    Each process that trains some of the arms calls it in the end. One at a time reads the runs, so the last to write has them all.
    """
    with in_turn(comparison.root / "study"):
        return _write_tables(comparison)


def _write_tables(comparison: Comparison) -> str:
    runs, curves = [], {}
    done = {name: summary_of(comparison, name) for name in comparison.arms if is_done(comparison, name)}
    if not done:
        return ""
    chosen = {name: arm._replace(tries=[arm.tries[best_try(comparison, name)]]) for name, arm in comparison.arms.items()}
    for name in done:
        total = cost(comparison._replace(arms=chosen), name)
        attempts = [number for number in range(len(comparison.arms[name].tries)) if summary_of_try(comparison, name, number)]
        folders = [*(folder_of_try(comparison, name, number) for number in attempts), comparison.root / name / "final"]
        for run, curve, _ in (each for folder in folders for each in collect.read_workdirs(folder)):
            variant = name if run.variant == "final" else f"{name}/{run.variant}"
            results = run.results | (total if variant == name and not run.stage and run.seed is not None else {})
            runs.append(run._replace(variant=variant, results=results))
            if variant == name:
                curves[runs[-1][:3]] = curve
    folder = comparison.root / "study"
    write_study(folder, runs, curves)
    are_tuned = len(comparison.arms[next(iter(done))].tries) > 1
    declared = [results_table(comparison, done)] + ([tries_table(comparison, done)] if are_tuned else [])
    tables = [report.table(runs, each) for each in declared]
    texts = [f"<!-- table\n{json.dumps(each, indent=1)}\n-->\n{table}\n<!-- end -->" for each, table in zip(declared, tables, strict=True)]
    workdir.write_text(folder / "README.md", "\n\n".join(["# A comparison of methods", *texts]) + "\n")
    left_out = [name for name in comparison.arms if name not in done]
    return tables[0] + (f"\nnot in this table, since not finished with this config: {', '.join(left_out)}" if left_out else "")


def is_done(comparison: Comparison, name: str) -> bool:
    """Whether an arm, a try that it was chosen from, and all arms that teach it are finished."""
    tries = range(len(comparison.arms[name].tries))
    is_chosen = len(tries) == 1 or any(summary_of_try(comparison, name, attempt) for attempt in tries)
    return is_chosen and all(summary_of(comparison, needed) for needed in with_teachers(comparison.arms, name))


def results_table(comparison: Comparison, done: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Declares the table of the final runs; see report.py. Its rows name the runs with the metrics, then those with the cost."""
    baseline, name = next(iter(comparison.arms)), metric(comparison)
    difference = {}
    if baseline in done and len(done) > 1:
        difference = {f"difference to {baseline}": f"test_{name} minus {last_stage(baseline, done[baseline]['runs'][0])}"}
    columns = {"seeds": "seeds", "train accuracy, %": "train_accuracy", f"test {spelled(name)}, %": f"test_{name}", **difference}
    columns |= FURTHER.get(name, {})
    if name == "accuracy" and next(iter(done.values())).get("num_classes") == 2:
        columns |= {"Matthews correlation": "test_matthews"}
    columns |= {"steps": "total_steps of {1}", "forward passes": "total_forward_passes of {1}"}
    return {
        "corner": "arm",
        "rows": {name: f"{last_stage(name, summary['runs'][0])} {name}" for name, summary in done.items()},
        "columns": columns,
    }


def tries_table(comparison: Comparison, done: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Declares the table of the tries: a row per arm, a column per try."""
    tries = [[settings_of(attempt) for attempt in comparison.arms[name].tries] for name in done]
    titles = [texts[0] if len(set(texts)) == 1 else f"try {number}" for number, texts in enumerate(zip(*tries, strict=True))]
    titles = titles if len(set(titles)) == len(titles) else [f"try {number}" for number in range(len(titles))]
    rows = {}
    for name, texts in zip(done, tries, strict=True):
        paths = [last_stage(f"{name}/try_{number}", summary_of_try(comparison, name, number)) for number in range(len(texts))]
        rows[f"{name}: {texts[best_try(comparison, name)]}"] = " ".join(paths)
    shown = [number for number in range(len(titles)) if any(summary_of_try(comparison, name, number) for name in done)]
    result = f"validation_{metric(comparison)}"
    return {
        "corner": f"arm: its best try by validation {spelled(metric(comparison))}, %",
        "rows": rows,
        "columns": {titles[number]: f"{result} of {{{number}}}" for number in shown},
    }


def settings_of(changes: dict[str, Any]) -> str:
    return ", ".join(f"{field}={value}" for field, value in fields.flatten(changes).items()) or "as it is"


def last_stage(path: str, summary: dict[str, Any]) -> str:
    """The path of the run whose metrics count."""
    return f"{path}/{summary['stages'][-1]['stage']}" if "stages" in summary else path


def cost(comparison: Comparison, name: str) -> dict[str, int]:
    """The cost of an arm's result: steps, and samples passed forward through any network in training, summed over one run of each of its
    stages, of the arms that teach it, and of those that teach them. Each arm must have only its best try."""
    total = {"total_steps": 0, "total_forward_passes": 0}
    for needed in with_teachers(comparison.arms, name):
        run = workdir.load_summary(comparison.root / needed / "final")["runs"][0]
        for stage in run.get("stages", [run]):
            total = {part: count + stage[part.removeprefix("total_")] for part, count in total.items()}
    return total

"""The page and the files of plots: their numbers, their size, what they say of bad input, and how a real browser shows them."""

import html
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import xml.etree.ElementTree as ElementTree

import matplotlib
import numpy as np
import pytest
from helpers import ROOT, refused, write, write_run

from distill_jax import report, results
from distill_jax.page import comparisons, document, drawing, export, overview, plots, predicted

STUDIES = sorted(path.parent for path in (ROOT / "results").glob("*/runs.csv"))
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def write_runs(root, names, seeds=(0, 1), epochs=4):
    """Workdirs of finished runs with two cycles and a test evaluation every other epoch."""
    rng, folders = np.random.default_rng(0), []
    for name in names:
        for seed in seeds:
            folder = root / name / f"seed_{seed}"
            own = {"epochs": epochs, "steps": 5 * epochs, "dataset": "digits", "test_accuracy": 0.5 + 0.1 * rng.random(),
                   "test_nll": 1 + rng.random(), "wall_seconds": 60.0 * (seed + 1), "commit": "abc", "model": "resnet8"}  # fmt: skip
            write_run(folder, seed, **own)
            lines = [
                {"step": 5 * epoch, "epoch": epoch, "cycle": 1 + (epoch > epochs // 2), "learning_rate": 0.1 / epoch, "loss_ce": 1 / epoch}
                | {"loss_teacher": 0.1 * epoch, "train_accuracy": epoch / epochs, "loss": 1.0}
                | ({"test_accuracy": (epoch + seed) / 2 / epochs, "test_nll": 1.0, "teacher_agreement": 0.5} if epoch % 2 == 0 else {})
                for epoch in range(1, epochs + 1)
            ]
            write(folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in [{"step": 3, "train_accuracy": 0.9}, *lines]))
        folders.append(root / name)
    return folders


def build(folders):
    return document.build(comparisons.read([pathlib.Path(folder) for folder in folders]))


def figures(content):
    """The plots of a page by key: (attributes and text, the data of their points)."""
    found = {}
    for key, body in re.findall(r'<figure data-plot="([^"]*)"(.*?)</figure>', content, re.DOTALL):
        found[html.unescape(key)] = body, json.loads(re.search(r'<script type="application/json">(.*?)</script>', body, re.DOTALL)[1])
    return found


def cells(table):
    """The cells of an HTML table, row by row."""
    return [[html.unescape(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)] for row in re.findall(r"<tr>(.*?)</tr>", table)]


@pytest.fixture(scope="module")
def studies_page():
    """The page of all studies, without the drawings: matplotlib takes a tenth of a second for each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "inline_svg", lambda plot: ("", []))
        return build(STUDIES)


# Numbers


def test_a_curve_is_the_mean_of_the_seeds(tmp_path):
    (source,) = comparisons.read(write_runs(tmp_path, ["sd"]))
    (line,) = source.comparisons[0].lines
    points = plots.curve(line, "test_accuracy")
    assert [point.x for point in points] == [2, 4]
    assert points[0].y == pytest.approx(100 * (2 / 8 + 3 / 8) / 2) and points[0].spread == pytest.approx(
        100 * statistics.stdev([2 / 8, 3 / 8])
    )
    assert plots.cycle_ends([line]) == (2,)
    assert len(plots.curve(line, "train_accuracy")) == 4  # the line within an epoch is not one of them


def test_long_curves_are_thinned_and_keep_their_ends(tmp_path):
    (source,) = comparisons.read(write_runs(tmp_path, ["sd"], seeds=(0,), epochs=1000))
    points = plots.curve(source.comparisons[0].lines[0], "train_accuracy")
    assert len(points) == plots.MOST_POINTS and (points[0].x, points[-1].x) == (1, 1000)


def test_the_shown_numbers_are_those_of_the_study(studies_page):
    (source,) = comparisons.read([ROOT / "results" / "sd_cifar100_cpu"])
    shown = figures(document.build([source]))
    rows = {series["name"]: series["points"][0] for series in shown["accuracy"][1][0]["series"]}
    for line in source.comparisons[0].lines:
        values = [100 * run.results["test_accuracy"] for run in line.runs.values()]
        assert rows[line.name][3:] == [pytest.approx(statistics.mean(values), rel=1e-3), pytest.approx(statistics.stdev(values), rel=1e-3)]
    assert {"accuracy", "nll", "ece", "cost", "curves", "loss", "agreement"} == set(shown)
    assert set(shown) < set(figures(studies_page)) and studies_page.count("<figure") > 80


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.name)
def test_the_pages_tables_are_the_reports(study, studies_page):
    shown = [cells(table) for table in re.findall(r"<table.*?</table>", studies_page, re.DOTALL)]
    for _, markdown in report.study_tables(study):
        header, _, *body = [line.strip("| ").split(" | ") for line in markdown.splitlines()]
        assert [header, *body] in shown


def test_differences_are_those_of_the_committed_function(studies_page):
    (source,) = comparisons.read([ROOT / "results" / "sd_cifar100_cpu"])
    lines = {line.name: line for line in source.comparisons[0].lines}
    row = next(row for row in document.difference_table(source.comparisons[0].lines).splitlines() if row.startswith("| sd |"))
    values, baseline = ({seed: run.results["test_nll"] for seed, run in lines[name].runs.items()} for name in ("sd", "cosine"))
    assert row.split(" | ")[3] == results.plus_minus(*results.paired_difference(values, baseline), 3)
    assert "Paired differences to cosine" in studies_page


def test_differences_are_over_shared_seeds(tmp_path):
    (first,), (second,) = write_runs(tmp_path, ["one"], (0, 1)), write_runs(tmp_path, ["two"], (1, 2))
    (source,) = comparisons.read([first, second])
    one, two = source.comparisons[0].lines
    difference = 100 * (two.runs[1].results["test_accuracy"] - one.runs[1].results["test_accuracy"])
    assert document.difference_table([one, two]).splitlines()[-1].startswith(f"| two | 1 | {difference:.2f} | ")


def test_a_comparison_of_detectors_is_in_their_metrics(tmp_path):
    folders = write_runs(tmp_path, ["one", "two"])
    for number, folder in enumerate(path for each in folders for path in each.glob("seed_*")):
        results = json.loads((folder / "summary.json").read_text())
        results = {name: value for name, value in results.items() if not name.startswith("test_")}
        write(folder / "summary.json", results | {"task": "detection", "metric": "ap50", "test_ap50": 0.5 + number / 9, "test_ap": 0.25})
    page = build(folders)
    assert "AP50, points" in page and "AP, points" in page
    assert ">NLL, nats<" not in page and "No reliability diagram" not in page


def test_the_costs_of_a_stage_include_its_teachers():
    (source,) = comparisons.read([ROOT / "results" / "tolerant_cifar100_cpu"])
    lines = {line.name: line for line in source.comparisons[0].lines}
    own = [statistics.mean(run.results["wall_seconds"] for run in lines[f"strict/generation_{m}"].runs.values()) / 60 for m in range(3)]
    assert overview.minutes(lines["strict/generation_0"], list(lines.values())) == pytest.approx(own[0])
    assert overview.minutes(lines["strict/generation_2"], list(lines.values())) == pytest.approx(sum(own))


def test_the_cost_of_a_teacher_outside_the_family_is_not_known():
    (source,) = comparisons.read([ROOT / "results" / "comparison_cifar100_cpu"])
    lines = [line for each in source.comparisons for line in each.lines]
    taught, alone = (next(line for line in lines if line.name == f"80_epochs/{name}") for name in ("tf_kd_self", "cosine"))
    assert overview.minutes(taught, lines) is None and overview.minutes(alone, lines) > 0


def test_paths_follow_the_teachers():
    (source,) = comparisons.read([ROOT / "results" / "dgkd_cifar100_cpu"])
    code, paper = overview.paths(source.comparisons[0])
    assert code.categories == paper.categories == ("plain6", "plain6_cifar10", "plain4_cifar10", "plain2_cifar10")
    series = {each.name: each.points for each in paper.panels[0].series}
    assert [round(point.y, 2) for point in series["DGKD"]] == [17.57, 18.27, 17.90, 17.26]  # the README's table
    assert [point.x for point in series["KD"]] == [0, 3]
    assert series["stochastic DGKD"][2] == series["DGKD"][2] and round(series["stochastic DGKD"][3].y, 2) == 17.07


def test_generations_are_those_of_the_readme():
    (source,) = comparisons.read([ROOT / "results" / "tolerant_cifar100_cpu"])
    (plot,) = overview.generations(source.comparisons[0])
    series = {each.name: [(round(point.y, 2), round(point.spread, 2)) for point in each.points] for each in plot.panels[0].series}
    assert series["strict"] == [(17.29, 0.48), (18.68, 0.33), (18.70, 0.17), (18.42, 0.77)]


def test_bins_and_confusions_are_pooled_over_seeds(finished, tmp_path):
    for seed in (0, 1):
        shutil.copytree(finished[0], tmp_path / "sd" / f"seed_{seed}")
        config = json.loads((finished[0] / "config.json").read_text())
        write(tmp_path / "sd" / f"seed_{seed}" / "config.json", config | {"seed": seed})
    (source,) = comparisons.read([tmp_path / "sd"])
    (line,) = source.comparisons[0].lines
    once = line.predictions[0]
    counts, confidence, accuracy = predicted.pooled_bins(line)
    assert counts.tolist() == [2 * count for count in once["reliability"]["examples"]]
    np.testing.assert_allclose(accuracy, once["reliability"]["accuracy"])
    assert predicted.calibration_error(counts, confidence, accuracy) == pytest.approx(100 * finished[1]["test_ece"])
    assert predicted.pooled_confusion(line) == {(label, predicted): 2 * count for label, predicted, count in once["confusion"]}
    shown = figures(document.build([source]))
    by_class = {what: value for _, _, what, value, _ in shown["classes"][1][0]["series"][0]["points"]}
    classes = predicted.class_counts(predicted.pooled_confusion(line))
    right = {label: 200 * count / classes[label] for label, predicted, count in once["confusion"] if label == predicted}
    assert by_class == {str(label): pytest.approx(right.get(label, 0), rel=1e-3) for label in range(10)}
    assert re.search(r"ECE [\d.]+ ± 0.0 %", shown["reliability"][0])


# The page


def test_a_page_stands_alone(finished, finished_family, tmp_path):
    """It loads nothing, and shows every kind of plot and what the networks say of samples."""
    folder = shutil.copytree(finished[0], tmp_path / "sd")
    content = build([folder, finished_family[0]])
    assert not re.search(r"(?:src|href)=[\"'](?!#|data:)|@import|url\((?!#)", content)
    kinds = {key.split("-")[0] for key in figures(content)}
    assert kinds == {"accuracy", "nll", "ece", "generations", "cost", "curves", "loss", "agreement", "reliability", "classes", "confused"}
    assert content.count('<img src="data:image/png;base64,') == 12 and "sd: teacher" in content
    assert "params_sha256" in content and finished[1]["params_sha256"][:16] in content
    for body, _ in figures(content).values():
        assert 'role="img" aria-label="' in body and "<figcaption>" in body and "<h4 id=" in body


def test_names_are_no_markup(tmp_path):
    folders = write_runs(tmp_path, ["<script>alert(1)</script>".replace("/", "-"), "a & b"])
    content = build(folders)
    assert "<script>alert" not in content and "&lt;script&gt;alert(1)" in content and "a &amp; b" in content
    assert figures(content)["curves"][1][0]["series"][0]["name"].startswith("<script>")


def test_names_are_no_mathematics_and_need_not_be_utf_8(finished, tmp_path):
    folder = shutil.copytree(finished[0], tmp_path / "sd")
    said = json.loads((folder / "predictions.json").read_text())
    names = ["b$\\frac", "100%_$", "caf\udce9", *said["classes"][3:]]
    write(folder / "predictions.json", said | {"classes": names})
    content = build([folder])
    assert "b$\\frac" in content and "caf?" in content and content.encode()


def test_twenty_runs_take_less_than_three_megabytes(finished, tmp_path):
    folders = write_runs(tmp_path, [f"run_{number}" for number in range(20)], seeds=(0, 1, 2), epochs=164)
    for folder in folders:
        for seed in folder.iterdir():
            shutil.copy(finished[0] / "predictions.json", seed)
    assert len(build(folders).encode()) < 3e6


def test_runs_without_predictions_are_told(studies_page, finished):
    assert "No reliability diagram, classes or samples for cosine, cycles" in studies_page
    assert "No reliability diagram" not in build([finished[0]])


def test_different_data_sets_have_sections_of_their_own(tmp_path, capsys):
    folders = write_runs(tmp_path, ["one"])
    write_run(tmp_path / "two", dataset="cifar100", epochs=1, steps=1)
    write(tmp_path / "two" / "metrics.jsonl", '{"step": 1, "train_accuracy": 0.5}\n')
    report.main([*map(str, folders), str(tmp_path / "two"), "--html", str(tmp_path / "page.html")])
    said = capsys.readouterr().out.splitlines()
    assert said[0] == (
        "note: one, two: runs of 2 different test sets, each in its own section, not compared: digits (test), cifar100 (test)"
    )
    assert "page.html: 0." in said[1] and "Paired differences" not in (tmp_path / "page.html").read_text()


def test_a_folder_of_workdirs_is_all_of_them(tmp_path):
    write_runs(tmp_path / "runs", ["one", "two"])
    content = build([tmp_path / "runs"])
    (table,) = re.findall(r'aria-label="All runs">(.*?</table>)', content, re.DOTALL)
    assert [row[:2] for row in cells(table)[1:]] == [["one", "2"], ["two", "2"]]


def test_labels_keep_their_digits():
    shown = drawing.clean('<?xml?>\n<svg width="1" viewBox="0 0 1 1"><text x="1.23456">0.00125</text></svg>')
    assert shown == '<svg viewBox="0 0 1 1" aria-hidden="true" focusable="false"><text x="1.23">0.00125</text></svg>'


# Bad input


def draw(folder, tmp_path):
    return lambda: report.main([str(folder), "--html", str(tmp_path / "out" / "page.html")])


def test_bad_input_is_told_in_one_line(tmp_path):
    (run,) = write_runs(tmp_path, ["sd"])
    seed = run / "seed_1"
    kept = (seed / "metrics.jsonl").read_text()
    for damage, message in (("", "seed_1/metrics.jsonl: missing or empty"), ('{"step": 1\n{"st', "metrics.jsonl is damaged: line 1"),
                            ('{"step": 1, "loss_ce": "high"}', "metrics.jsonl: loss_ce is 'high' instead of a number"),
                            ('{"train_accuracy": 1.0}', "metrics.jsonl is damaged: line 1"),
                            ('{"step": 1, "test_accuracy": NaN}', "test_accuracy is nan instead of a number")):  # fmt: skip
        write(seed / "metrics.jsonl", damage)
        refused(draw(run, tmp_path), message)
    (seed / "metrics.jsonl").unlink()
    refused(draw(run, tmp_path), "seed_1/metrics.jsonl: missing or empty")
    write(seed / "metrics.jsonl", kept)
    write(seed / "predictions.json", '{"classes": 3}')
    refused(draw(run, tmp_path), "seed_1/predictions.json is damaged")
    (seed / "predictions.json").unlink()
    summary = json.loads((seed / "summary.json").read_text())
    write(seed / "summary.json", summary | {"epochs": "many"})
    refused(draw(run, tmp_path), "seed_1/summary.json: epochs is 'many' instead of a number")
    (seed / "summary.json").unlink()
    refused(draw(run, tmp_path), "seed_1: not finished, as it has no summary.json; repeat its command")
    refused(draw(tmp_path / "nothing", tmp_path), "no finished run here")
    assert not (tmp_path / "out").exists()


def test_two_runs_of_one_name_are_told(tmp_path):
    folders = [*write_runs(tmp_path / "a", ["sd"]), *write_runs(tmp_path / "b", ["sd"])]
    refused(lambda: report.main([*map(str, folders), "--html", str(tmp_path / "page.html")]), "is also called sd")


def test_output_that_cannot_be_written_is_told(tmp_path):
    (run,) = write_runs(tmp_path, ["sd"])
    write(tmp_path / "file", "")
    refused(lambda: report.main([str(run), "--html", str(tmp_path / "file" / "page.html")]), "page.html: cannot be written")
    refused(lambda: report.main([str(run), "--plots", str(tmp_path / "file" / "plots")]), "choose another folder with --plots")


@pytest.mark.parametrize("name", ["runs.csv", "curves.csv.gz", "config.json"])
def test_a_damaged_study_is_told(name, tmp_path):
    study = shutil.copytree(ROOT / "results" / "streaming_sd_cpu", tmp_path / "study")
    (study / name).write_bytes(b"\xff\xfe\x00")
    refused(draw(study, tmp_path), name)


# Files


def test_plots_as_files(tmp_path, capsys):
    report.main([str(ROOT / "results" / "sd_cifar100_cpu"), "--plots", str(tmp_path)])
    names = {"accuracy", "nll", "ece", "cost", "curves", "loss", "agreement"}
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.{ending}" for name in names for ending in ("svg", "png")} | {
        "captions.md"
    }
    assert "14 files" in capsys.readouterr().out
    for name in names:
        texts = "".join(ElementTree.parse(tmp_path / f"{name}.svg").getroot().itertext())
        assert "var(--" not in (tmp_path / f"{name}.svg").read_text() and ("%" in texts or "nats" in texts)
    assert "**curves** Accuracy and learning rate. Test and training accuracy" in (tmp_path / "captions.md").read_text()


def test_the_readmes_picture_is_drawn_by_its_command(tmp_path):
    """By the same version of matplotlib, byte for byte."""
    text = (ROOT / "docs" / "README.md").read_text()
    picture, study, name = re.search(r"`(\S+\.svg)`.*?report (results/\S+) --plots plots`.*?`plots/(\S+\.svg)`", text, re.DOTALL).groups()
    assert f"(docs/{picture})" in (ROOT / "README.md").read_text()
    export.save([plot for plot in export.of_sources(comparisons.read([ROOT / study])) if f"{plot.key}.svg" == name], tmp_path)
    committed = (ROOT / "docs" / picture).read_text()
    assert len(committed) < 100_000
    if f"Matplotlib v{matplotlib.__version__}," not in committed:
        pytest.skip(f"the picture was drawn by another version than {matplotlib.__version__}")
    assert (tmp_path / name).read_text() == committed


# In a browser

PROBE = """<script>
const errors = [];
addEventListener("error", (event) => errors.push(event.message));
addEventListener("load", () => {
  const figures = [...document.querySelectorAll("figure[data-plot]")];
  const sizes = (figure) => [...figure.querySelectorAll("svg path, svg use")].map((each) => each.getBoundingClientRect());
  const drawn = (figure) => figure.querySelector("svg").getBoundingClientRect().height > 50
    && sizes(figure).filter((box) => box.width > 20 || box.height > 20).length > 4;
  const chart = figures[0].querySelector(".drawing");
  const tip = figures[0].querySelector(".tip");
  chart.focus();
  const key = (name) => chart.dispatchEvent(new KeyboardEvent("keydown", { key: name, cancelable: true }));
  key("ArrowRight");
  const byKey = tip.textContent;
  key("Escape");
  const [x, y] = JSON.parse(figures[0].querySelector("script").textContent)[0].series[0].points[0];
  const box = chart.querySelector("svg").getBoundingClientRect();
  const scale = box.width / chart.querySelector("svg").viewBox.baseVal.width;
  chart.dispatchEvent(new PointerEvent("pointermove", { clientX: box.left + x * scale + 2, clientY: box.top + y * scale + 2 }));
  const byPointer = tip.textContent;
  const details = figures[0].querySelector("details");
  details.open = true;
  setTimeout(() => {
    parent.postMessage({
      errors, plots: figures.length, drawn: figures.filter(drawn).length, byKey, byPointer, width: innerWidth,
      overflow: document.documentElement.scrollWidth, background: getComputedStyle(document.body).backgroundColor,
      ink: getComputedStyle(document.querySelector("svg text")).fill, rows: details.querySelectorAll("tbody tr").length,
    }, "*");
  }, 300);
});
</script>"""


FRAME = """<!DOCTYPE html><style>:root { color-scheme: light dark }</style>
<script>addEventListener("message", (event) => { document.documentElement.dataset.probe = JSON.stringify(event.data); });</script>
<iframe src="probed.html" width="WIDTH" height="900"></iframe>"""  # a window cannot be as narrow as a phone


def seen(path, folder, width, dark):
    """What a page looks like in headless Chromium: the probe's findings, and the messages of its console."""
    (folder / "probed.html").write_text(path.read_text().replace("<head>", f"<head>{PROBE}", 1))
    (folder / "frame.html").write_text(FRAME.replace("WIDTH", str(width)))
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", f"--user-data-dir={folder / 'profile'}",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--virtual-time-budget=5000", "--enable-logging=stderr",
        "--dump-dom", f"file://{folder / 'frame.html'}",
    ]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ | {"HOME": str(folder)})
    console = [line for line in result.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(html.unescape(re.search(r'data-probe="([^"]*)"', result.stdout)[1])), console


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium found: apt-get install chromium")
def test_a_browser_shows_every_plot(finished, finished_family, tmp_path):
    path = tmp_path / "page.html"
    report.main([str(finished[0]), str(finished_family[0]), str(ROOT / "results" / "dgkd_cifar100_cpu"), "--html", str(path)])
    looks = [seen(path, tmp_path, width, dark) for width, dark in ((1400, False), (360, False), (360, True))]
    for (found, console), width in zip(looks, (1400, 360, 360), strict=True):
        assert found["errors"] == console == []
        assert found["plots"] == found["drawn"] > 20
        assert found["width"] == width and found["overflow"] <= width
        assert found["byKey"] == found["byPointer"] and "test accuracy, %: 1" in found["byKey"]
        assert found["rows"] == 19
    light, dark = looks[1][0], looks[2][0]
    assert light["background"] == "rgb(255, 255, 255)" and light["ink"] == "rgb(27, 31, 36)"
    assert dark["background"] == "rgb(15, 18, 22)" and dark["ink"] == "rgb(230, 237, 243)"

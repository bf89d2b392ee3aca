"""The benchmarks run; their measurements are not tested."""

import runpy
import sys
from types import SimpleNamespace

import pytest
from helpers import ROOT

from distill_jax import archive

BENCHMARKS = ROOT / "benchmarks"


def speeds(monkeypatch, model, *options):
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    main = runpy.run_path(str(BENCHMARKS / "throughput.py"))["main"]
    table = main([f"--model={model}", "--batch_size=8", "--steps=1", "--repeats=1", *options])
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    return {name: float(median) for name, median, *_ in rows}


def test_every_methods_step_is_timed(monkeypatch):
    measured = speeds(monkeypatch, "plain2_cifar10")
    methods = ["supervised", "SD, cycle 1", "SD, cycle >= 2", "LSTSD"]
    assert list(measured) == methods
    assert min(measured.values()) > 0


def test_every_case_has_a_row(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    module = runpy.run_path(str(BENCHMARKS / "speed.py"))
    timed = {name: module["METHODS"][name] for name in ("supervised", "SD, cycle >= 2", "DGKD, guides: 3, forward")}
    monkeypatch.setitem(module["main"].__globals__, "METHODS", timed)  # the others would compile for longer
    arguments = ["--models=plain2_cifar10", "--dtypes=float32", "--batch_size=8", "--steps=1", "--repeats=1", f"--out={tmp_path}"]
    rows = list(archive.from_csv(module["main"](arguments), ("model", "dtype", "method")))
    assert [row["method"] for row in rows] == list(timed)
    assert rows[0]["time_over_supervised"] == 1 and all(row["images_per_second"] > 0 for row in rows)
    of_teacher, of_guides = (row["argument_bytes"] - rows[0]["argument_bytes"] for row in rows[1:])
    assert of_guides == 3 * of_teacher > 0
    assert rows[0]["versions"]["jax"] and module["random_data"]("text_cnn").dataset.vocabulary_size > 0


def test_pytorch_is_timed_too(monkeypatch):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    assert speeds(monkeypatch, "resnet8", "--torch")["supervised, PyTorch"] > 0


def test_what_a_table_costs(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = runpy.run_path(str(BENCHMARKS / "sample_table.py"))
    report = module["main"](["--devices=1", "--rows=1000000", "--classes=3", "--batch_size=8", "--repeats=2"])
    assert "memory per device: 24.8 MiB" in report and report.count("collectives none") == 2


def test_collectives_are_counted_in_bytes():
    text = """
  %a = f32[256,10]{1,0} all-reduce(f32[256,10]{1,0} %x), channel_id=1
  %b = (s32[64]{0}, f32[2,3]{1,0}) all-gather-start(%y), channel_id=2
  %c = f32[999]{0} add(%all-reduce, %z)
"""
    found = runpy.run_path(str(BENCHMARKS / "collectives.py"))["collective_bytes"](SimpleNamespace(as_text=lambda: text))
    assert found == {"all-reduce": 10240, "all-gather": 280}


def test_the_twin_is_of_the_same_size(monkeypatch):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import torch_resnet

    assert sum(weight.numel() for weight in torch_resnet.ResNet(20, 10).parameters()) == 269_722


def test_what_crosses_between_devices():
    module = runpy.run_path(str(BENCHMARKS / "collectives.py"))
    assert module["ring_bytes"]({"all-reduce": 800, "all-gather": 80}, 4) == 2 * 600 + 60
    assert module["ring_bytes"]({"all-reduce": 800}, 1) == 0


def test_one_device_sends_nothing(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    main = runpy.run_path(str(BENCHMARKS / "scaling.py"))["main"]
    monkeypatch.setitem(main.__globals__, "METHODS", {"LSTSD": ("long_short_term", 1)})
    table = main(["--devices", "1", "--model=plain2_cifar10", "--batch_size=8", "--steps=0"])
    assert table.splitlines()[2:] == ["| 1 | LSTSD | - | 0 | 0 | 0 | 0 |"]


def test_the_loader_on_a_folder_of_jpegs(tmp_path):
    runpy.run_path(str(BENCHMARKS / "jpeg_folder.py"))["main"](
        [f"--out={tmp_path}", "--name=digits", "--classes=2", "--train=12", "--test=4", "--sizes", "20", "40"]
    )
    assert len(list(tmp_path.glob("train/class_00[01]/*.JPEG"))) == 12 and len(list(tmp_path.glob("val/*/*.JPEG"))) == 4
    report = runpy.run_path(str(BENCHMARKS / "loader.py"))["main"]([str(tmp_path), "--image_size=16", "--batch_size=4", "--repeats=2"])
    assert "images/s (median of 2" in report


RUN = """
import json, pathlib, time
workdir = pathlib.Path({workdir!r})
workdir.mkdir(parents=True, exist_ok=True)
done, interrupted = workdir / "metrics.jsonl", (workdir / "metrics.jsonl").exists()
for step in range(1, 30):
    done.open("a").write(json.dumps({{"step": step, "loss": 0}}) + chr(10))
    time.sleep(0.02)
(workdir / "summary.json").write_text(json.dumps({{"params_sha256": "other" if interrupted and {forgetful} else "same"}}))
"""


@pytest.mark.parametrize("forgetful", [False, True])
def test_the_soak_tells_a_run_that_a_kill_changed(monkeypatch, forgetful):
    module = runpy.run_path(str(BENCHMARKS / "faults.py"))

    def command(name, workdir):
        return [sys.executable, "-c", RUN.format(workdir=str(workdir), forgetful=forgetful)]

    monkeypatch.setitem(module["start"].__globals__, "command", command)
    arguments = ["--kills=2", "--methods", "SD"]
    if forgetful:
        with pytest.raises(SystemExit, match="error: 1 of 1 methods had a run that differs from its twin"):
            module["main"](arguments)
    else:
        row = module["main"](arguments).splitlines()[-1]
        assert int(row.split("|")[4]) == 2 and row.endswith("| yes |")

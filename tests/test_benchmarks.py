"""The benchmark runs; what it measures is not for a test."""

import pathlib
import runpy
import sys
from types import SimpleNamespace

import pytest

BENCHMARKS = pathlib.Path(__file__).parent.parent / "benchmarks"


def speeds(monkeypatch, model, *options):
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    main = runpy.run_path(str(BENCHMARKS / "throughput.py"))["main"]
    table = main([f"--model={model}", "--batch_size=8", "--steps=1", "--repeats=1", *options])
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    return {name: float(median) for name, median, *_ in rows}


def test_every_methods_step_is_timed(monkeypatch):
    measured = speeds(monkeypatch, "small_cnn", "--guides=1")
    methods = ["supervised", "SD, cycle 1", "SD, cycle >= 2", "LSTSD", "DGKD, guides: 1, forward", "DGKD, guides: 1, table"]
    assert list(measured) == methods
    assert min(measured.values()) > 0


def test_pytorch_is_timed_too(monkeypatch):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    assert speeds(monkeypatch, "resnet8", "--torch")["supervised, PyTorch"] > 0


def test_what_a_table_costs():
    module = runpy.run_path(str(BENCHMARKS / "sample_table.py"))
    report = module["main"](["--devices=1", "--rows=1000000", "--classes=3", "--batch_size=8", "--repeats=2"])
    assert "memory a device: 24.8 MiB" in report and report.count("collectives none") == 2


def test_collectives_are_counted_in_bytes():
    text = """
  %a = f32[256,10]{1,0} all-reduce(f32[256,10]{1,0} %x), channel_id=1
  %b = (s32[64]{0}, f32[2,3]{1,0}) all-gather-start(%y), channel_id=2
  %c = f32[999]{0} add(%all-reduce, %z)
"""
    found = runpy.run_path(str(BENCHMARKS / "sample_table.py"))["collective_bytes"](SimpleNamespace(as_text=lambda: text))
    assert found == {"all-reduce": 10240, "all-gather": 280}


def test_the_twin_is_of_the_same_size(monkeypatch):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import torch_resnet

    assert sum(weight.numel() for weight in torch_resnet.ResNet(20, 10).parameters()) == 269_722

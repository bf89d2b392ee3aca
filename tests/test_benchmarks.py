"""The benchmark runs; what it measures is not for a test."""

import pathlib
import runpy
import sys

import pytest

BENCHMARKS = pathlib.Path(__file__).parent.parent / "benchmarks"


def speeds(monkeypatch, *options):
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    main = runpy.run_path(str(BENCHMARKS / "throughput.py"))["main"]
    table = main(["--model=resnet8", "--batch_size=8", "--steps=1", "--repeats=1", *options])
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    return {name: float(median) for name, median, *_ in rows}


def test_every_step_is_timed_also_pytorch(monkeypatch):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    measured = speeds(monkeypatch, "--torch")
    assert list(measured) == ["supervised", "SD, cycle 1", "SD, cycle >= 2", "LSTSD", "supervised, PyTorch"]
    assert min(measured.values()) > 0


def test_the_twin_is_of_the_same_size(monkeypatch):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import torch_resnet

    assert sum(weight.numel() for weight in torch_resnet.ResNet(20, 10).parameters()) == 269_722

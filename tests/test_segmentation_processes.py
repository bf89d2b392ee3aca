"""Segmentation by two processes of two devices each, killed and resumed, against one process with one device."""

import os

import numpy as np
import pytest
from helpers import ROOT, build, read_lines, run
from scenes_helpers import write_masks
from test_processes import finish, free_port, launch

from distill_jax import command_line, files

FIELDS = {
    "model.name": "scenes_helpers:Pixels", "data.image_size": 32, "data.void": 255, "epochs": 2, "eval_every": 1, "checkpoint_every": 1,
    "schedule.cycles": 2, "method.name": "snapshot", "log_every": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    fields = FIELDS | {"data.name": write_masks(tmp_path_factory.mktemp("masks"), train=17, test=5)}
    config = ROOT / "configs" / "camvid_segmentation.py"
    return [f"--config={config}", *(f"--config.{name}={value}" for name, value in fields.items())]


def launch_two(folder, arguments):
    coordinator = f"--coordinator=127.0.0.1:{free_port()}"
    return [launch(folder, *arguments, coordinator, "--processes=2", f"--process={process}") for process in (0, 1)]


def test_two_processes_of_two_devices_do_as_one_device(arguments, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "tests"), str(ROOT), os.environ.get("PYTHONPATH", "")]))
    said = finish(*launch_two(tmp_path / "two", arguments))
    config, folder = command_line.read_config(arguments, "train", str(tmp_path / "one"))
    one = run(build(config), 0, folder)
    two = files.read_json(tmp_path / "two" / "summary.json")
    assert f"test miou {two['test_miou']:.2%}" in said[0] and "miou" not in said[1]
    for name in ("loss", "loss_teacher", "test_accuracy"):
        curves = [[line[name] for line in read_lines(tmp_path / each) if name in line] for each in ("two", "one")]
        np.testing.assert_allclose(*curves, rtol=0.01)
    assert two["test_miou"] == pytest.approx(one["test_miou"], abs=0.01) and two["teacher_miou"] > 0
    assert len(list((tmp_path / "two" / "pictures").iterdir())) == 8

"""run.py as a process: one line for each mistake, closed outputs, interruptions."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from helpers import ROOT, TINY

from distill_jax import (
    report,
    trained,
)


def call(*arguments, environment=None, **options):
    command = [sys.executable, str(ROOT / "run.py"), *TINY, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ | (environment or {}), **options)


@pytest.mark.parametrize(
    ("arguments", "environment", "line"),
    [
        (["--config.epochs=0"], {}, "epochs is 0; it must lie in [1, 1000000]"),
        (["--mode=fly"], {}, "flag --mode=fly: value should be one of <train|eval|ensemble|features|linear_probe|predict|export>"),
        (["stray"], {}, "unknown argument 'stray'; set fields with --config.FIELD=VALUE"),
        (["--processes=2", "--process=1"], {}, "--processes and --process also need --coordinator"),
        ([], {"JAX_PLATFORMS": "cuda"}, "JAX finds no device: none of JAX_PLATFORMS='cuda'; check JAX_PLATFORMS and"),
        ([], {"JAX_NUM_CPU_DEVICES": "0"}, "JAX finds no device: Unable to initialize backend 'cpu'"),
        ([], {"JAX_NUM_CPU_DEVICES": "x"}, 'JAX cannot be imported: Invalid value "x" for JAX flag jax_num_cpu_devices'),
    ],
)
def test_the_program_says_one_line(tmp_path, arguments, environment, line):
    result = call(f"--workdir={tmp_path}/run", *arguments, environment=environment)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert result.stderr.startswith(f"error: {line}")
    assert not (tmp_path / "run").exists()


def test_traceback_shows_where():
    result = call("--traceback", "--config.epochs=0")
    assert "Traceback (most recent call last)" in result.stderr and "in check_range" in result.stderr
    assert result.stderr.splitlines()[-1] == "error: epochs is 0; it must lie in [1, 1000000]"


def test_outputs_may_be_closed(tmp_path):
    """A file that got the number of a closed output would receive what is printed there."""
    program = f'"{sys.executable}" "{ROOT}/run.py" --workdir="{tmp_path}/run"'
    train = subprocess.run(["bash", "-c", f"{program} {' '.join(TINY)} --config.model.name=plain2_cifar10 >&- 2>&-"])
    assert train.returncode == 0
    assert trained.load(tmp_path / "run").summary["test_accuracy"] > 0.1, "all files of the run are whole"
    evaluate = subprocess.run(["bash", "-c", f"{program} --mode=eval | head -1; exit ${{PIPESTATUS[0]}}"], capture_output=True, text=True)
    assert evaluate.stderr == "error: the output was closed; repeat the command to resume a run from its last checkpoint\n"
    assert evaluate.returncode == 1 and evaluate.stdout.startswith("digits: 200 train, 360 test")


def test_class_names_need_no_utf8(tmp_path):
    images, labels = np.zeros((40, 8, 8), np.uint8), np.arange(40) % 2
    arrays = {f"{part}_{name}": value for part in ("train", "test") for name, value in {"images": images, "labels": labels}.items()}
    np.savez(tmp_path / "set.npz", **arrays, class_names=np.array(["\u00fc", "\u4e2d"]))
    odd = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    result = call(f"--config.data.name=npz:{tmp_path}/set.npz", "--config.data.train_examples=39", environment=odd)
    assert result.stdout.endswith("39 train, 40 test, 2 classes: \\xfc, \\u4e2d; 1 cpu device\n")
    assert result.stderr == "error: batch_size is 40, but the training set has only 39 examples\n"


@pytest.mark.parametrize(("seconds", "times"), [(0.5, 1), (1.2, 2), (2.5, 2)])
def test_ctrl_c_ends_with_one_line_at_any_time(tmp_path, seconds, times):
    """During the import of JAX, and while the data is read and the step compiled. The train step is too large to finish by then."""
    arguments = [f"--workdir={tmp_path}/run", "--config.model.name=resnet56", "--config.epochs=500"]
    environment = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), *TINY, *arguments], stderr=subprocess.PIPE, text=True, env=environment
    )
    time.sleep(seconds)
    for _ in range(times):
        process.send_signal(signal.SIGINT)
        time.sleep(0.02)
    try:
        said = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert process.returncode == 130
    assert said == "error: interrupted; repeat the command to resume a run from its last checkpoint\n"


def test_a_report_of_no_workdir(tmp_path):
    with pytest.raises(SystemExit, match="no summary.json"):
        report.main([str(tmp_path)])

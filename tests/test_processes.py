"""Several processes that train together: two of four CPU devices each, on this machine's loopback."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from conftest import make_config
from test_run import ROOT, TINY

from configs import sd_lstsd_digits
from distill_jax import checkpoints, evaluate, logs, networks, processes, train
from distill_jax.methods.base import variables
from distill_jax.program import predict_test

ARGUMENTS = [
    f"--config={ROOT / 'configs' / 'sd_lstsd_digits.py'}", *TINY,
    "--config.epochs=2", "--config.model.name=plain2_cifar10", "--config.method.long_short_term.generation_epochs=1",
]  # fmt: skip
SECONDS = 90  # a process that has not ended by then is killed, and its test fails


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def launch(workdir, *arguments, devices=4):
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices), "XLA_FLAGS": "--xla_backend_optimization_level=0"}  # compiles faster
    command = [sys.executable, str(ROOT / "run.py"), f"--workdir={workdir}", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def launch_two(workdir):
    coordinator = f"--coordinator=127.0.0.1:{free_port()}"
    return [launch(workdir, *ARGUMENTS, coordinator, "--processes=2", f"--process={process}") for process in (0, 1)]


def finish(*pair):
    """What each said, once all have ended."""
    try:
        return [process.communicate(timeout=SECONDS)[0] for process in pair]
    finally:
        for process in pair:
            process.kill()


def wait_for(condition, *pair):
    deadline = time.monotonic() + SECONDS
    while not condition() and time.monotonic() < deadline and all(process.poll() is None for process in pair):
        time.sleep(0.02)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """An undisturbed run of two processes: its workdir, and what each said."""
    workdir = tmp_path_factory.mktemp("two")
    said = finish(*launch_two(workdir))
    return workdir, said


@pytest.fixture(scope="module")
def eight(tmp_path_factory):
    """The same run by one process of eight devices: its workdir."""
    workdir = tmp_path_factory.mktemp("eight")
    finish(launch(workdir, *ARGUMENTS, devices=8))
    return workdir


@pytest.fixture(scope="module")
def program():
    """The same run on the one device of this process."""
    return train.build(config())


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A run of two processes that was killed in the middle of an epoch: its workdir."""
    workdir = tmp_path_factory.mktemp("killed")
    pair = launch_two(workdir)
    wait_for(lambda: len(logs.read_jsonl(workdir / "metrics.jsonl")) >= 4, *pair)
    pair[1].send_signal(signal.SIGKILL)
    pair[0].send_signal(signal.SIGKILL)
    finish(*pair)
    assert pair[1].returncode == -signal.SIGKILL and not (workdir / "summary.json").exists()
    assert (workdir / "checkpoints" / "5").is_dir()
    return workdir


def config():
    digits = sd_lstsd_digits.get_config()
    digits.method.long_short_term.generation_epochs = 1
    ours = make_config(epochs=2, model__name="plain2_cifar10")
    ours.method = digits.method
    return ours


def curve(workdir, name):
    return [line[name] for line in logs.read_jsonl(workdir / "metrics.jsonl") if name in line]


def test_one_process_speaks(two):
    workdir, (first, second) = two
    summary = logs.read_json(workdir / "summary.json")
    assert f"{workdir}: test accuracy {summary['test_accuracy']:.2%}" in first
    assert "epoch" not in second and "accuracy" not in second
    assert curve(workdir, "step") == [2, 4, 5, 6, 8, 10], "each line is there once"
    assert len(list(workdir.glob("events.out.*"))) == 1


def test_two_processes_do_as_one_of_eight_devices(two, eight):
    for name in ("loss", "loss_teacher", "test_nll"):
        np.testing.assert_allclose(curve(two[0], name), curve(eight, name), rtol=1e-3)
    np.testing.assert_allclose(curve(two[0], "loss")[2], curve(eight, "loss")[2], rtol=1e-5)


def test_eight_devices_do_as_one_and_hand_their_tables_over(eight, program, tmp_path):
    """BatchNorm's means are those of the whole batch, so that only the order of the sums differs."""
    train.run(program, 0, tmp_path)
    for name in ("loss", "loss_teacher", "test_nll"):
        np.testing.assert_allclose(curve(eight, name), curve(tmp_path, name), rtol=0.02)
    np.testing.assert_allclose(curve(eight, "loss")[2], curve(tmp_path, "loss")[2], rtol=1e-4)
    managers = [checkpoints.open_manager(workdir / "checkpoints") for workdir in (tmp_path, eight)]
    (one, _, step), (from_eight, _, same_step) = [train.start(program, tmp_path, jax.random.key(0), manager) for manager in managers]
    assert step == same_step == 10
    (snapshot, table), (its_snapshot, its_table) = one.teacher, from_eight.teacher
    assert np.array_equal(table.has_long, its_table.has_long) and table.has_long.sum() == 200
    np.testing.assert_allclose(table.long, its_table.long, atol=0.05)
    jax.tree.map(lambda *leaves: np.testing.assert_allclose(*leaves, atol=0.05), snapshot, its_snapshot)


def test_their_evaluation_is_exact(two, program):
    summary = logs.read_json(two[0] / "summary.json")
    network = networks.load(networks.find(two[0]), program.mesh)
    logits = predict_test(program, program.predict, variables(network))
    metrics = evaluate.classification_metrics(logits, program.dataset.test["label"])
    assert metrics["test_accuracy"] == summary["test_accuracy"] and len(logits) == 360
    assert metrics["test_nll"] == pytest.approx(summary["test_nll"], rel=1e-5)


def test_killed_and_started_again_they_end_the_same(two, killed, tmp_path):
    workdir = shutil.copytree(killed, tmp_path / "again")
    first, _ = finish(*launch_two(workdir))
    assert "resuming after step 5" in first and "saved on" not in first
    assert logs.read_json(workdir / "summary.json")["params_sha256"] == logs.read_json(two[0] / "summary.json")["params_sha256"]


def test_they_may_go_on_with_other_devices(two, killed, program, tmp_path, capsys):
    workdir = shutil.copytree(killed, tmp_path / "one")
    train.run(program, 0, workdir)
    said = capsys.readouterr().out
    assert "saved on 8 x cpu, processes: 2; goes on on 1 x cpu, processes: 1: from here on close to, but no longer bit for bit" in said
    for name in ("loss", "loss_teacher", "test_nll"):
        np.testing.assert_allclose(curve(two[0], name), curve(workdir, name), rtol=0.02)


def test_one_that_gets_sigterm_stops_both_after_the_same_step(two, tmp_path):
    pair = launch_two(tmp_path)
    wait_for(lambda: len(logs.read_jsonl(tmp_path / "metrics.jsonl")) >= 1, *pair)
    pair[1].send_signal(signal.SIGTERM)
    first, _ = finish(*pair)
    assert "stopped by SIGTERM; saved after step" in first
    assert [process.returncode for process in pair] == [128 + signal.SIGTERM] * 2


def test_one_that_never_joins():
    start = time.monotonic()
    process = launch("nowhere", f"--coordinator=127.0.0.1:{free_port()}", "--processes=2", "--process=0", "--join_timeout=2")
    (said,) = finish(process)
    assert process.returncode == 1 and time.monotonic() - start < 60
    assert "for 2 s, and not all have joined; start them all, or allow more with --join_timeout" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--distributed"],
            "error: --distributed: coordinator_address should be defined; give --coordinator (with a port that is free), --proc",
        ),
        (["--coordinator=here"], "error: --coordinator is 'here'; it must be the address and a free port of process 0, HOST:PORT"),
        (["--distributed", "--mode=features"], "error: --mode=features is for one process"),
    ],
)
def test_bad_flags_are_told_in_one_line(arguments, message):
    (said,) = finish(launch("nowhere", *arguments))
    assert said.startswith(message) and len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("environment", "cluster"),
    [
        ({}, False),
        ({"SLURM_STEP_NUM_TASKS": "1"}, False),
        ({"SLURM_STEP_NUM_TASKS": "8"}, True),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"TPU_WORKER_HOSTNAMES": "t0,t1"}, True),
    ],
)
def test_a_cluster_is_noticed(monkeypatch, environment, cluster):
    for name in ("SLURM_STEP_NUM_TASKS", "TPU_WORKER_HOSTNAMES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert processes.is_cluster() == cluster

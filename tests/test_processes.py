"""Multiple processes that train together: two with two CPU devices each, over this machine's loopback."""

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
from helpers import ROOT, TINY, build, make_config, read_lines, run

from configs import sd_lstsd_digits
from distill_jax import checkpoints, evaluate, files, processes, sharding, trained
from distill_jax import start as starting

ARGUMENTS = [
    f"--config={ROOT / 'configs' / 'sd_lstsd_digits.py'}", *TINY,
    "--config.epochs=2", "--config.model.name=plain2_cifar10", "--config.method.long_short_term.generation_epochs=1",
]  # fmt: skip
SECONDS = 90  # a process that is still running by then is killed, and its test fails


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def launch(folder, *arguments, devices=2):
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices)}
    command = [sys.executable, str(ROOT / "run.py"), f"--workdir={folder}", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def launch_two(folder):
    coordinator = f"--coordinator=127.0.0.1:{free_port()}"
    return [launch(folder, *ARGUMENTS, coordinator, "--processes=2", f"--process={process}") for process in (0, 1)]


def finish(*pair):
    """The output of each process, once all have ended."""
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
    """An uninterrupted run of two processes: its workdir, and the output of each."""
    folder = tmp_path_factory.mktemp("two")
    said = finish(*launch_two(folder))
    return folder, said


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    """The same run in one process with four devices: its workdir."""
    folder = tmp_path_factory.mktemp("four")
    finish(launch(folder, *ARGUMENTS, devices=4))
    return folder


@pytest.fixture(scope="module")
def exp():
    """The same run on the one device of this process."""
    return build(config())


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A run of two processes that was killed mid-epoch: its workdir."""
    folder = tmp_path_factory.mktemp("killed")
    pair = launch_two(folder)
    wait_for(lambda: len(read_lines(folder)) >= 4, *pair)
    pair[1].send_signal(signal.SIGKILL)
    pair[0].send_signal(signal.SIGKILL)
    finish(*pair)
    assert pair[1].returncode == -signal.SIGKILL and not (folder / "summary.json").exists()
    assert (folder / "checkpoints" / "5").is_dir()
    return folder


def config():
    digits = sd_lstsd_digits.get_config()
    digits.method.long_short_term.generation_epochs = 1
    ours = make_config(epochs=2, model__name="plain2_cifar10")
    ours.method = digits.method
    return ours


def curve(folder, name):
    return [line[name] for line in read_lines(folder) if name in line]


def test_one_process_speaks(two):
    folder, (first, second) = two
    summary = files.read_json(folder / "summary.json")
    assert f"{folder}: test accuracy {summary['test_accuracy']:.2%}" in first
    assert "epoch" not in second and "accuracy" not in second
    assert curve(folder, "step") == [2, 4, 5, 6, 8, 10], "each line is there once"
    assert len(list(folder.glob("events.out.*"))) == 1


def test_two_processes_do_as_one_of_four_devices(two, four):
    for name in ("loss", "loss_teacher", "test_nll"):
        np.testing.assert_allclose(curve(two[0], name), curve(four, name), rtol=1e-3)
    np.testing.assert_allclose(curve(two[0], "loss")[2], curve(four, "loss")[2], rtol=1e-5)


def test_four_devices_do_as_one_and_hand_their_tables_over(four, exp, tmp_path):
    """BatchNorm's means are those of the whole batch, so only the order of summation differs."""
    run(exp, 0, tmp_path)
    for name in ("loss", "loss_teacher", "test_nll"):
        np.testing.assert_allclose(curve(four, name), curve(tmp_path, name), rtol=0.02)
    np.testing.assert_allclose(curve(four, "loss")[2], curve(tmp_path, "loss")[2], rtol=1e-4)
    managers = [checkpoints.open_manager(folder / "checkpoints") for folder in (tmp_path, four)]
    (one, _, step), (from_four, _, same_step) = [
        starting.init_or_restore(exp, tmp_path, jax.random.key(0), manager) for manager in managers
    ]
    assert step == same_step == 10
    (snapshot, table), (its_snapshot, its_table) = one.teacher, from_four.teacher
    assert np.array_equal(table.has_long, its_table.has_long) and table.has_long.sum() == 200
    np.testing.assert_allclose(table.long, its_table.long, atol=0.05)
    jax.tree.map(lambda *leaves: np.testing.assert_allclose(*leaves, atol=0.05), snapshot, its_snapshot)


def test_their_evaluation_is_exact(two, exp):
    summary = files.read_json(two[0] / "summary.json")
    logits = exp.predict(trained.load(two[0]).variables)
    metrics = evaluate.classification_metrics(logits, exp.data.dataset.test["label"])
    assert metrics["test_accuracy"] == summary["test_accuracy"] and len(logits) == 360
    assert metrics["test_nll"] == pytest.approx(summary["test_nll"], rel=1e-5)


def test_killed_and_started_again_they_end_the_same(two, killed, tmp_path):
    folder = shutil.copytree(killed, tmp_path / "again")
    first, _ = finish(*launch_two(folder))
    assert "resuming after step 5" in first and "saved on" not in first
    assert files.read_json(folder / "summary.json")["params_sha256"] == files.read_json(two[0] / "summary.json")["params_sha256"]


def test_they_may_go_on_with_other_devices(two, killed, exp, tmp_path, capsys):
    folder = shutil.copytree(killed, tmp_path / "one")
    run(exp, 0, folder)
    said = capsys.readouterr().out
    assert "the checkpoint was saved on 4 x cpu, processes: 2; this run continues on 1 x cpu, processes: 1, so its results" in said
    assert "close to those of an uninterrupted run, but not bit-identical" in said
    for name in ("loss", "loss_teacher", "test_nll"):
        np.testing.assert_allclose(curve(two[0], name), curve(folder, name), rtol=0.02)


def test_one_that_gets_sigterm_stops_both_after_the_same_step(two, tmp_path):
    pair = launch_two(tmp_path)
    wait_for(lambda: len(read_lines(tmp_path)) >= 1, *pair)
    pair[1].send_signal(signal.SIGTERM)
    first, _ = finish(*pair)
    assert "stopped by SIGTERM; saved after step" in first
    assert [process.returncode for process in pair] == [128 + signal.SIGTERM] * 2


def test_one_that_never_joins():
    start = time.monotonic()
    process = launch("nowhere", f"--coordinator=127.0.0.1:{free_port()}", "--processes=2", "--process=0", "--join_timeout=2")
    (said,) = finish(process)
    assert process.returncode == 1 and time.monotonic() - start < 60
    assert "for 2 s, but not all joined; start them all, or wait longer with --join_timeout" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--distributed"],
            "error: --distributed: coordinator_address should be defined; set --coordinator (with a free port), --proc",
        ),
        (["--coordinator=here"], "error: --coordinator is 'here'; it must be the address and a free port of process 0, HOST:PORT"),
        (["--processes=2", "--process=1"], "error: --processes and --process also need --coordinator: the address and a free port"),
        (["--distributed", "--mode=features"], "error: --mode=features takes a single process"),
    ],
)
def test_bad_flags_are_told_in_one_line(arguments, message):
    (said,) = finish(launch("nowhere", *arguments))
    assert said.startswith(message) and len(said.splitlines()) == 1


def test_only_the_loop_asks_jax_whether_to_stop(monkeypatch, tmp_path):
    """JAX counts the questions: one of orbax's, with the number of a step, would make it ignore the next signal."""
    asked = []
    monkeypatch.setattr(processes.multihost_utils, "reached_preemption_sync_point", asked.append)
    checkpoints.save(checkpoints.open_manager(tmp_path), 100, {"x": jax.numpy.zeros(3)})
    assert not asked and (tmp_path / "100").is_dir()


def test_a_signal_in_the_last_evaluation_of_a_run_stops_the_next_one(monkeypatch):
    """JAX stops all processes at the same call number: the one after the last that any of them has made."""
    asked, agreed = [], []
    monkeypatch.setattr(processes, "are_several", lambda: True)
    monkeypatch.setattr(processes.multihost_utils, "reached_preemption_sync_point", lambda number: asked.append(number) or number in agreed)
    with processes.preemption() as asked_to_stop:
        assert [asked_to_stop() for _ in range(3)] == [0, 0, 0]
    agreed.append(asked[-1] + 1)
    with processes.preemption() as asked_to_stop:
        assert [asked_to_stop(), asked_to_stop()] == [signal.SIGTERM, 0]
    assert len(set(asked)) == 5


@pytest.mark.parametrize(
    ("flags", "joins"),
    [
        ((None, None, None, None), False),
        ((True, None, None, None), True),
        ((None, "here:1", None, None), True),
        ((None, None, 2, None), True),
        ((None, None, None, 0), True),
        ((False, "here:1", 2, 0), False),
    ],
)
def test_flags_go_before_the_environment(monkeypatch, flags, joins):
    monkeypatch.setattr(processes, "is_cluster", lambda: False)
    assert processes.is_one_of_several(*flags) == joins
    monkeypatch.setattr(processes, "is_cluster", lambda: True)
    assert processes.is_one_of_several(*flags) == (flags[0] is not False)


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


@pytest.mark.parametrize(
    ("environment", "gpus"),
    [
        ({"SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NUM_NODES": "4", "CUDA_VISIBLE_DEVICES": "0,1"}, []),  # all of its node's
        ({"SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NUM_NODES": "4", "CUDA_VISIBLE_DEVICES": "0,1"}, None),  # one of its node's
        ({"SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NUM_NODES": "4", "CUDA_VISIBLE_DEVICES": "1"}, []),  # its own
        ({"SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NUM_NODES": "4", "JAX_LOCAL_DEVICE_IDS": "0"}, None),
        ({}, None),
    ],
)
def test_the_gpus_of_a_task(monkeypatch, environment, gpus):
    for name in ("SLURM_STEP_NUM_TASKS", "SLURM_STEP_NUM_NODES", "CUDA_VISIBLE_DEVICES", "JAX_LOCAL_DEVICE_IDS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert processes.own_gpus() == gpus


class Gpu:
    """XLA gives each host of GPUs a slice_index of its own."""

    platform, device_kind = "gpu", "H200"

    def __init__(self, number):
        self.id = self.slice_index = self.process_index = number


def test_a_mesh_has_the_gpus_of_several_hosts():
    """jax.make_mesh refuses them."""
    gpus = [Gpu(0), Gpu(1)]
    assert sharding.make_mesh(gpus).devices.tolist() == gpus

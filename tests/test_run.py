"""Whole runs: what they leave behind, and that they survive what happens to them."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from conftest import make_config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from distill_jax import checkpoints, configuration, logs, train
from distill_jax.errors import Interrupted, UserError

ROOT = pathlib.Path(__file__).parent.parent
STEPS = 20
TINY = [
    "--config.epochs=4", "--config.batch_size=40", "--config.eval_every=1", "--config.checkpoint_every=1", "--config.log_every=2",
    "--config.data.train_examples=200", "--config.schedule.cycles=2",
]  # fmt: skip


class Crash(Exception):
    pass


def act_at(program, step, action):
    """The program, with an action before one of its train steps."""

    def train_step(state, *args):
        if int(state.step) == step:
            action()
        return program.train_step(state, *args)

    return program._replace(train_step=train_step)


def crash():
    raise Crash


def test_a_run_leaves_what_others_build_on(finished):
    workdir, summary = finished
    assert {"config.json", "metrics.jsonl", "checkpoints", "snapshots", "summary.json"} <= {path.name for path in workdir.iterdir()}
    assert summary == json.loads((workdir / "summary.json").read_text())
    assert {"method", "model", "dataset", "seed", "epochs", "steps", "num_params", "test_accuracy", "best_test_accuracy", "test_nll",
            "test_ece", "images_per_second", "wall_seconds", "params_sha256"} <= summary.keys()  # fmt: skip
    assert (summary["steps"], summary["num_params"], summary["method"]) == (STEPS, 24058, "snapshot")
    lines = logs.read_jsonl(workdir / "metrics.jsonl")
    assert [line["step"] for line in lines] == [2, 4, 5, 6, 8, 10, 12, 14, 15, 16, 18, 20]
    ends = [line for line in lines if line["step"] % 5 == 0]
    assert [(line["epoch"], line["cycle"]) for line in ends] == [(1, 1), (2, 1), (3, 2), (4, 2)]
    assert ["teacher_agreement" in line for line in ends] == [False, False, True, True]
    assert [line["loss_teacher"] > 0 for line in ends] == [False, False, True, True]
    assert ends[-1]["test_accuracy"] == summary["test_accuracy"]
    assert summary["best_test_accuracy"] == max(line["test_accuracy"] for line in ends)


def test_tensorboard_has_the_curves(finished):
    workdir, _ = finished
    events = EventAccumulator(str(workdir), size_guidance={"tensors": 0}).Reload()
    lines = logs.read_jsonl(workdir / "metrics.jsonl")
    curve = [(event.step, float(make_ndarray(event.tensor_proto))) for event in events.Tensors("loss")]
    assert curve == [(line["step"], pytest.approx(line["loss"], rel=1e-6)) for line in lines]


def test_the_ensemble_is_of_the_cycles_networks(finished, program):
    workdir, summary = finished
    like = train.variables(program.init(jax.random.key(0)))
    last = checkpoints.load_weights(workdir / "snapshots" / "epoch_4", like)
    assert checkpoints.params_sha256(last["params"]) == summary["params_sha256"]
    assert summary["snapshot_ensemble"]["members_test_accuracy"][-1] == summary["test_accuracy"]
    assert len(summary["snapshot_ensemble"]["members_test_accuracy"]) == 2


def test_a_finished_run_is_not_repeated(finished, program, capsys):
    workdir, summary = finished
    broken = act_at(program, 0, crash)
    assert train.run(broken, 0, workdir) == summary
    assert "finished before" in capsys.readouterr().out


@pytest.mark.parametrize("step", [3, 5, 13, 19])
def test_a_crash_changes_nothing_in_the_end(finished, program, tmp_path, step):
    with pytest.raises(Crash):
        train.run(act_at(program, step, crash), 0, tmp_path)
    summary = train.run(program, 0, tmp_path)
    assert summary["params_sha256"] == finished[1]["params_sha256"]
    same = ("step", "loss", "train_accuracy", "test_nll", "teacher_agreement")
    theirs, ours = (
        [[line.get(name) for name in same] for line in logs.read_jsonl(folder / "metrics.jsonl")] for folder in (finished[0], tmp_path)
    )
    assert theirs == ours


@pytest.mark.parametrize("step", [7, 9, 14])
def test_sigterm_saves_in_the_middle_of_an_epoch(finished, program, tmp_path, step):
    with pytest.raises(Interrupted, match=f"stopped by SIGTERM; saved after step {step + 1}. The same command resumes"):
        train.run(act_at(program, step, lambda: os.kill(os.getpid(), signal.SIGTERM)), 0, tmp_path)
    seen = []
    summary = train.run(act_at(program, step + 1, lambda: seen.append("resumed here")), 0, tmp_path)
    assert seen == ["resumed here"]
    assert summary["params_sha256"] == finished[1]["params_sha256"]
    assert summary["train_accuracy"] == finished[1]["train_accuracy"]


def test_sigkill_and_the_same_command_again(finished, tmp_path):
    command = [sys.executable, str(ROOT / "run.py"), f"--workdir={tmp_path}", *TINY]
    victim = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(logs.read_jsonl(tmp_path / "metrics.jsonl")) < 8 and time.monotonic() < deadline and victim.poll() is None:
        time.sleep(0.005)
    victim.kill()
    assert victim.wait() == -signal.SIGKILL
    assert not (tmp_path / "summary.json").exists()
    summary = train.train(make_config(), tmp_path)
    assert summary["params_sha256"] == finished[1]["params_sha256"]


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_checkpoint_is_set_aside(finished, program, tmp_path, capsys, damage):
    with pytest.raises(Crash):
        train.run(act_at(program, 17, crash), 0, tmp_path)
    newest = tmp_path / "checkpoints" / "15"
    victim = max((path for path in newest.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = victim.read_bytes()
    if damage == "flip":
        victim.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    elif damage == "cut":
        victim.write_bytes(content[: len(content) // 2])
    else:
        victim.unlink()
    summary = train.run(program, 0, tmp_path)
    said = capsys.readouterr().out
    assert f"checkpoint {newest} is damaged" in said and "resuming after step 10" in said
    assert summary["params_sha256"] == finished[1]["params_sha256"]
    assert (tmp_path / "damaged" / "15-0").is_dir()


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    program = train.build(make_config(optimizer__learning_rate=1e30))
    with pytest.raises(UserError, match=r"loss is not finite: it went wrong in steps \d to \d\."):
        train.run(program, 0, tmp_path)
    assert not (tmp_path / "summary.json").exists()


def test_parameters_that_are_not_finite_are_not_saved(program, tmp_path):
    def poisoned(state, *args):
        state, *rest = program.train_step(state, *args)
        if int(state.step) == 10:
            state = state.replace(params=jax.tree.map(lambda leaf: leaf * np.nan, state.params))
        return state, *rest

    with pytest.raises(UserError, match="parameter is not finite after step 10"):
        train.run(program._replace(train_step=poisoned), 0, tmp_path)
    manager = checkpoints.open_manager(tmp_path / "checkpoints")
    assert checkpoints.latest_step(manager) == 5


def test_a_workdir_belongs_to_its_config(finished, tmp_path):
    workdir = shutil.copytree(finished[0], tmp_path / "copy")
    with pytest.raises(UserError, match=r"batch_size is 40 there and 50 here; method.temperature is 2.0 there and 3.0 here"):
        train.train(make_config(batch_size=50, method__temperature=3.0), workdir)
    assert train.train(make_config(log_every=7, data__dir="/elsewhere"), workdir) == finished[1]


def test_two_runs_in_one_workdir(tmp_path):
    config = make_config(epochs=1, schedule__cycles=1)
    with configuration.exclusive(tmp_path):
        with pytest.raises(UserError, match="is in use by another run"):
            train.train(config, tmp_path)
    assert train.train(config, tmp_path)["steps"] == 5


def test_seeds_share_one_compilation(finished, tmp_path, monkeypatch):
    built = []
    build = train.build
    monkeypatch.setattr(train, "build", lambda *arguments: built.append(build(*arguments)) or built[-1])
    summary = train.train(make_config(seeds=2), tmp_path)
    assert len(built) == 1
    assert built[0].train_step._cache_size() == 2
    first, second = summary["runs"]
    assert first["params_sha256"] == finished[1]["params_sha256"] != second["params_sha256"]
    accuracies = [first["test_accuracy"], second["test_accuracy"]]
    assert summary["test_accuracy"] == pytest.approx(np.mean(accuracies))
    assert summary["test_accuracy_std"] == pytest.approx(np.std(accuracies, ddof=1))
    assert summary["seeds"] == [0, 1] and (tmp_path / "seed_1" / "summary.json").exists()
    result = train.evaluate_checkpoint(make_config(seeds=2), tmp_path)
    assert [run["test_accuracy"] for run in result["runs"]] == accuracies


def test_evaluation_of_a_checkpoint(finished):
    workdir, summary = finished
    result = train.evaluate_checkpoint(make_config(), workdir)
    assert result == json.loads((workdir / "eval.json").read_text())
    assert result["step"] == STEPS
    assert all(result[name] == summary[name] for name in ("test_accuracy", "test_top5", "test_nll", "test_ece"))


def test_evaluation_without_a_checkpoint(tmp_path):
    with pytest.raises(UserError, match="has no checkpoint to evaluate"):
        train.evaluate_checkpoint(make_config(), tmp_path)


def test_a_workdir_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file/run cannot be written"):
        configuration.claim(tmp_path / "file" / "run", make_config())


def test_bfloat16_learns(tmp_path):
    config = make_config(dtype="bfloat16", method__name="supervised")
    del config.method["temperature"], config.method["symmetric"]
    program = train.build(config)
    summary = train.run(program, 0, tmp_path)
    assert summary["test_accuracy"] > 0.25
    state = program.init(jax.random.key(0))
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves((state.params, state.batch_stats)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epochs": 0}, "epochs is 0; it must be at least 1"),
        ({"seed": -1}, "seed is -1"),
        ({"batch_size": 300}, "batch_size is 300, but the training set has only 200 examples"),
        ({"data__train_examples": 5000}, "data.train_examples is 5000"),
        ({"optimizer__learning_rate": 0.0}, "optimizer.learning_rate is 0.0; it must be positive"),
        ({"optimizer__momentum": 1.5}, "optimizer.momentum is 1.5"),
        ({"schedule__cycles": 9}, "schedule.cycles is 9"),
        ({"model__name": "resnet21"}, "model.name is 'resnet21'; known: "),
        ({"model__shortcut": "pad"}, "model.shortcut is no field of small_cnn"),
        ({"dtype": "float16"}, "dtype is 'float16'; known: float32, bfloat16"),
        ({"data__name": "cifar"}, "data.name 'cifar' is not known"),
    ],
)
def test_bad_fields_are_named(fields, message):
    with pytest.raises(UserError, match=message):
        train.build(make_config(**fields))


def test_a_full_disk_costs_only_the_steps_since_the_last_checkpoint(finished, tmp_path):
    limit = ["bash", "-c", 'ulimit -f 20 && exec "$@"', "bash"]  # KiB a file: what a full disk does to a checkpoint
    command = [*limit, sys.executable, str(ROOT / "run.py"), f"--workdir={tmp_path}", *TINY]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr == (
        f"error: {tmp_path}/checkpoints/5 cannot be saved: File too large. The same command goes on from the checkpoint before it\n"
    )
    assert train.train(make_config(), tmp_path)["params_sha256"] == finished[1]["params_sha256"]

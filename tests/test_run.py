"""Whole runs: what they write, and that they survive interruptions."""

import concurrent.futures
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
from helpers import ROOT, STEPS, TINY, Crash, act_at, build, crash, damage, make_config, read_events, read_lines, run
from ml_collections import ConfigDict

from distill_jax import checkpoints, configuration, experiment, jobs, study, trained, workdir
from distill_jax.errors import Diverged, Interrupted, UserError


def test_a_run_leaves_what_others_build_on(finished):
    folder, summary = finished
    assert {"config.json", "metrics.jsonl", "checkpoints", "snapshots", "summary.json"} <= {path.name for path in folder.iterdir()}
    assert summary == json.loads((folder / "summary.json").read_text())
    assert {"method", "model", "dataset", "seed", "epochs", "steps", "num_params", "test_accuracy", "best_test_accuracy", "test_nll",
            "test_ece", "images_per_second", "wall_seconds", "params_sha256"} <= summary.keys()  # fmt: skip
    assert (summary["steps"], summary["num_params"], summary["method"]) == (STEPS, 24058, "snapshot")
    lines = read_lines(folder)
    assert [line["step"] for line in lines] == [2, 4, 5, 6, 8, 10, 12, 14, 15, 16, 18, 20]
    ends = [line for line in lines if line["step"] % 5 == 0]
    assert [(line["epoch"], line["cycle"]) for line in ends] == [(1, 1), (2, 1), (3, 2), (4, 2)]
    assert ["teacher_agreement" in line for line in ends] == [False, False, True, True]
    assert [line["loss_teacher"] > 0 for line in ends] == [False, False, True, True]
    assert ends[-1]["test_accuracy"] == summary["test_accuracy"]
    assert summary["best_test_accuracy"] == max(line["test_accuracy"] for line in ends)


def check_events(folder):
    """TensorBoard has the points of metrics.jsonl, without duplicate or missing steps."""
    lines = read_lines(folder)
    for name in ("loss", "test_accuracy"):
        assert read_events(folder, name) == [(line["step"], pytest.approx(line[name], rel=1e-6)) for line in lines if name in line]


def test_tensorboard_has_the_curves(finished):
    check_events(finished[0])


def test_the_ensemble_is_of_the_cycles_networks(finished, exp):
    folder, summary = finished
    last = checkpoints.load_weights(folder / "snapshots" / "epoch_4", exp.init(jax.random.key(0)).network)
    assert checkpoints.sha256(last["params"]) == summary["params_sha256"]
    assert checkpoints.sha256(last) == summary["weights_sha256"]
    assert summary["snapshot_ensemble"]["members_test_accuracy"][-1] == summary["test_accuracy"]
    assert len(summary["snapshot_ensemble"]["members_test_accuracy"]) == 2


def test_a_finished_run_is_not_repeated(finished, exp, capsys):
    folder, summary = finished
    broken = act_at(exp, 0, crash)
    assert run(broken, 0, folder) == summary
    assert "already finished" in capsys.readouterr().out


@pytest.mark.parametrize("step", [3, 5, 13, 19])
def test_a_crash_changes_nothing_in_the_end(finished, exp, tmp_path, step):
    with pytest.raises(Crash):
        run(act_at(exp, step, crash), 0, tmp_path)
    summary = run(exp, 0, tmp_path)
    assert summary["params_sha256"] == finished[1]["params_sha256"]
    same = ("step", "loss", "train_accuracy", "test_nll", "teacher_agreement")
    theirs, ours = ([[line.get(name) for name in same] for line in read_lines(folder)] for folder in (finished[0], tmp_path))
    assert theirs == ours


def test_points_after_the_last_checkpoint_vanish_on_resume(exp, tmp_path):
    with pytest.raises(Crash):
        run(act_at(exp, 15, crash), 0, tmp_path)
    check_events(tmp_path)
    shutil.rmtree(tmp_path / "checkpoints" / "15")
    assert [step for step, _ in read_events(tmp_path, "loss")][-3:] == [12, 14, 15]
    with pytest.raises(Crash):
        run(act_at(exp, 11, crash), 0, tmp_path)
    assert [step for step, _ in read_events(tmp_path, "loss")] == [2, 4, 5, 6, 8, 10]
    run(exp, 0, tmp_path)
    check_events(tmp_path)
    assert len(read_events(tmp_path, "loss")) == 12


def test_sigterm_loses_no_line_of_the_log(finished, exp, tmp_path):
    """Step 8 is one of those that are logged; its line is written with the next step, or on leaving."""
    with pytest.raises(Interrupted):
        run(act_at(exp, 7, lambda: os.kill(os.getpid(), signal.SIGTERM)), 0, tmp_path)
    assert [line["step"] for line in read_lines(tmp_path)] == [2, 4, 5, 6, 8]


def test_a_run_may_train_in_any_thread(finished, exp, tmp_path):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert pool.submit(run, exp, 0, tmp_path).result()["params_sha256"] == finished[1]["params_sha256"]


@pytest.mark.parametrize(("lost", "said"), [(0, "metrics.jsonl lacks the line of epoch 1"), (1, "metrics.jsonl is damaged: line 2 is not")])
def test_a_log_with_a_hole_is_refused(exp, tmp_path, lost, said):
    with pytest.raises(Crash):
        run(act_at(exp, 13, crash), 0, tmp_path)
    path = tmp_path / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[5:]) if lost == 0 else "".join([lines[0], lines[1][:20] + "\n", *lines[2:]]))
    before = path.read_bytes()
    with pytest.raises(UserError, match=said):
        run(exp, 0, tmp_path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("step", [7, 9, 14])
def test_sigterm_saves_in_the_middle_of_an_epoch(finished, exp, tmp_path, step):
    with pytest.raises(Interrupted, match=f"stopped by SIGTERM; saved after step {step + 1}. Repeat the command to resume"):
        run(act_at(exp, step, lambda: os.kill(os.getpid(), signal.SIGTERM)), 0, tmp_path)
    seen = []
    summary = run(act_at(exp, step + 1, lambda: seen.append("resumed here")), 0, tmp_path)
    assert seen == ["resumed here"]
    assert summary["params_sha256"] == finished[1]["params_sha256"]
    assert summary["train_accuracy"] == finished[1]["train_accuracy"]


def test_sigkill_and_the_same_command_again(finished, tmp_path):
    command = [sys.executable, str(ROOT / "run.py"), f"--workdir={tmp_path}", *TINY]
    victim = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(read_lines(tmp_path)) < 8 and time.monotonic() < deadline and victim.poll() is None:
        time.sleep(0.005)
    victim.kill()
    assert victim.wait() == -signal.SIGKILL
    assert not (tmp_path / "summary.json").exists()
    summary = study.train(make_config(), tmp_path)
    assert summary["params_sha256"] == finished[1]["params_sha256"]
    check_events(tmp_path)


@pytest.mark.parametrize("how", ["flip", "cut", "remove"])
def test_a_damaged_checkpoint_is_set_aside(finished, exp, tmp_path, capsys, how):
    with pytest.raises(Crash):
        run(act_at(exp, 17, crash), 0, tmp_path)
    newest = tmp_path / "checkpoints" / "15"
    damage(newest, how)
    summary = run(exp, 0, tmp_path)
    said = capsys.readouterr().out
    assert f"checkpoint {newest} is damaged" in said and "resuming after step 10" in said
    assert summary["params_sha256"] == finished[1]["params_sha256"]
    assert (tmp_path / "damaged" / "15-0").is_dir()


def test_a_run_without_an_intact_checkpoint(finished, exp, tmp_path, capsys):
    """A single one may be that of a run killed while it saved its first. The log of a longer run is not overwritten."""
    folder = shutil.copytree(finished[0], tmp_path / "copy")
    (folder / "summary.json").unlink()
    for step in (15, 20):
        damage(folder / "checkpoints" / str(step), "cut")
    with pytest.raises(UserError, match=r"copy/checkpoints: all checkpoints are damaged; restore them, or delete the folder to train from"):
        run(exp, 0, folder)
    assert len(read_lines(folder)) == 12 and not (folder / "damaged").exists()
    shutil.rmtree(folder / "checkpoints" / "20")
    assert run(exp, 0, folder)["params_sha256"] == finished[1]["params_sha256"]
    assert "checkpoints/15 is damaged or unfinished; moved to" in (said := capsys.readouterr().out) and "from the beginning" in said


def test_sigterm_while_a_run_saves_its_end_stops_before_the_next(finished, exp, tmp_path, monkeypatch):
    folder = shutil.copytree(finished[0], tmp_path / "copy")
    (folder / "summary.json").unlink()
    monkeypatch.setattr("distill_jax.loop.summary.write", lambda *arguments: os.kill(os.getpid(), signal.SIGTERM) or {"test_accuracy": 0.5})
    job = jobs.make_job("", 0, folder, make_config())
    with pytest.raises(Interrupted, match="stopped by SIGTERM; this run has ended. Repeat the command for the others"):
        study.run(exp, job, later_steps=5)
    assert study.run(exp, job, later_steps=0) == {"test_accuracy": 0.5}


@pytest.mark.parametrize("how", ["flip", "cut", "remove"])
def test_damaged_weights_of_a_finished_run_are_noticed(finished, exp, tmp_path, how):
    folder = shutil.copytree(finished[0], tmp_path / "copy")
    weights = folder / "snapshots" / "epoch_4"
    damage(weights, how)
    with pytest.raises(UserError, match=f"^{weights} is damaged; delete it and repeat that run's command"):
        trained.load(folder)
    shutil.rmtree(weights)
    with pytest.raises(UserError, match=f"^{weights} is missing; repeat that run's command"):
        trained.load(folder)
    run(act_at(exp, 0, crash), 0, folder)  # as both messages say; it rewrites them without another step
    assert checkpoints.sha256(trained.load(folder).variables) == finished[1]["weights_sha256"]


def test_weights_of_another_epoch_are_noticed(finished, tmp_path):
    """Their files are intact, but the weights are not those recorded in the summary."""
    folder = shutil.copytree(finished[0], tmp_path / "copy")
    shutil.rmtree(folder / "snapshots" / "epoch_4")
    shutil.copytree(folder / "snapshots" / "epoch_2", folder / "snapshots" / "epoch_4")
    with pytest.raises(UserError, match="epoch_4: not the weights recorded in the run's summary.json; retrain that network"):
        trained.load(folder)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    exp = build(make_config(optimizer__learning_rate=1e30))
    with pytest.raises(Diverged, match=r"loss is not finite; this began in steps \d to \d; .* try a lower optimizer.learning_rate"):
        run(exp, 0, tmp_path)
    assert not (tmp_path / "summary.json").exists()


def test_the_commit_of_a_run_is_that_which_it_began_with(exp, tmp_path, monkeypatch):
    found = {"commit": "first"}
    monkeypatch.setattr("distill_jax.summary.provenance", lambda: dict(found))
    assert run(act_at(exp, 3, lambda: found.update(commit="second")), 0, tmp_path)["commit"] == "first"


def test_parameters_that_are_not_finite_are_not_saved(exp, tmp_path):
    def poisoned(state, *args):
        state, *rest = exp.train_step(state, *args)
        if int(state.step) == 10:
            state = state.replace(params=jax.tree.map(lambda leaf: leaf * np.nan, state.params))
        return state, *rest

    with pytest.raises(Diverged, match="parameter is not finite after step 10"):
        run(exp._replace(train_step=poisoned), 0, tmp_path)
    manager = checkpoints.open_manager(tmp_path / "checkpoints")
    assert checkpoints.latest_step(manager) == 5


def test_a_workdir_belongs_to_its_config(finished, tmp_path):
    folder = shutil.copytree(finished[0], tmp_path / "copy")
    with pytest.raises(UserError, match=r"batch_size is 40 there and 50 here; method.temperature is 2.0 there and 3.0 here"):
        study.train(make_config(batch_size=50, method__temperature=3.0), folder)
    assert study.train(make_config(log_every=7, data__dir="/elsewhere"), folder) == finished[1]


def test_two_runs_in_one_workdir(exp, tmp_path):
    with workdir.exclusive(tmp_path):
        with pytest.raises(UserError, match="is in use by another run"):
            run(act_at(exp, 0, crash), 0, tmp_path)
    assert run(exp, 0, tmp_path)["steps"] == STEPS


def test_a_workdir_that_another_run_claims_while_this_one_prepares(exp, tmp_path):
    workdir.claim(tmp_path, configuration.recorded(make_config(batch_size=50)))
    with pytest.raises(UserError, match="belongs to another config: batch_size is 50 there and 40 here"):
        run(act_at(exp, 0, crash), 0, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "lock"}


def test_seeds_share_one_compilation(finished, tmp_path, monkeypatch):
    built = []
    build = experiment.build
    monkeypatch.setattr(experiment, "build", lambda *arguments: built.append(build(*arguments)) or built[-1])
    summary = study.train(make_config(seeds=2), tmp_path)
    assert len(built) == 1
    assert built[0].train_step._cache_size() == 2
    first, second = summary["runs"]
    assert first["params_sha256"] == finished[1]["params_sha256"] != second["params_sha256"]
    accuracies = [first["test_accuracy"], second["test_accuracy"]]
    assert summary["test_accuracy"] == pytest.approx(np.mean(accuracies))
    assert summary["test_accuracy_std"] == pytest.approx(np.std(accuracies, ddof=1))
    assert summary["seeds"] == [0, 1] and (tmp_path / "seed_1" / "summary.json").exists()
    result = study.evaluate(make_config(seeds=2), tmp_path)
    assert [run["test_accuracy"] for run in result["runs"]] == accuracies


def test_a_trace_of_some_steps(finished, exp, tmp_path, capsys):
    """A run that has fewer steps, as here, is traced until its end."""
    job = jobs.make_job("", 0, tmp_path, make_config())
    assert study.run(exp, job, profile=100)["params_sha256"] == finished[1]["params_sha256"]
    (trace,) = tmp_path.glob("profile/plugins/profile/*/*.xplane.pb")
    assert b"train_step" in trace.read_bytes()
    assert f"trace of 15 steps: pip install xprof; tensorboard --logdir={tmp_path}" in capsys.readouterr().out


def test_evaluation_of_a_checkpoint(finished):
    folder, summary = finished
    result = study.evaluate(make_config(), folder)
    assert result == json.loads((folder / "eval.json").read_text())
    assert result["step"] == STEPS
    assert all(result[name] == summary[name] for name in ("test_accuracy", "test_top5", "test_nll", "test_ece"))


def test_evaluation_leaves_alone_what_the_run_is_writing(finished, tmp_path, capsys):
    folder = pathlib.Path(shutil.copytree(finished[0], tmp_path / "copy"))
    shutil.copytree(folder / "checkpoints" / "20", folder / "checkpoints" / "25")
    (folder / "checkpoints" / "25" / "manifest.json").unlink()  # written last
    assert study.evaluate(make_config(), folder)["test_accuracy"] == finished[1]["test_accuracy"]
    assert (folder / "checkpoints" / "25").exists() and not (folder / "damaged").exists()
    assert "damaged" not in capsys.readouterr().out


def test_results_on_validation_data_are_named_so(tmp_path, capsys):
    config = make_config(epochs=2, data__validation_examples=100, method=ConfigDict({"name": "patriarch"}))
    summary = study.train(config, tmp_path)
    result = study.evaluate(config, tmp_path)
    last = read_lines(tmp_path)[-1]
    assert summary["evaluated_on"] == "validation"
    assert summary["validation_accuracy"] == last["validation_accuracy"] == result["validation_accuracy"]
    assert f"{tmp_path}: validation accuracy" in capsys.readouterr().out
    for names in (last, summary, summary["snapshot_ensemble"], result):
        assert not [name for name in names if "test" in name]
    assert last["loss_teacher"] == 0 and last["loss"] != last["loss_ce"], "the patriarch has a regularizer, but no teacher"


def test_evaluation_without_a_checkpoint(tmp_path):
    with pytest.raises(UserError, match="has no checkpoint to evaluate"):
        study.evaluate(make_config(), tmp_path)


def test_a_workdir_that_cannot_be_made(exp, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file/run cannot be written"):
        run(exp, 0, tmp_path / "file" / "run")


def test_bfloat16_learns(tmp_path):
    exp = build(make_config(dtype="bfloat16", method=ConfigDict({"name": "supervised"})))
    summary = run(exp, 0, tmp_path)
    assert summary["test_accuracy"] > 0.25
    state = exp.init(jax.random.key(0))
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves((state.params, state.batch_stats)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epochs": 0}, r"^epochs is 0; it must lie in \[1, 1000000\]"),
        ({"seed": -1}, "^seed is -1"),
        ({"batch_size": 300}, "^batch_size is 300, but the training set has only 200 examples"),
        ({"data__train_examples": 5000}, "^data.train_examples is 5000"),
        ({"optimizer__learning_rate": 0.0}, "^optimizer.learning_rate is 0.0; it must be positive"),
        ({"optimizer__momentum": 1.5}, "^optimizer.momentum is 1.5"),
        ({"schedule__cycles": 9}, "^schedule.cycles is 9"),
        ({"model__name": "resnet21"}, "^model.name is 'resnet21'; known: "),
        ({"model__shortcut": "pad"}, "^model.shortcut is not an option of network small_cnn, which has: filters"),
        ({"dtype": "float16"}, "^dtype is 'float16'; known: float32, bfloat16"),
        ({"data__name": "cifar"}, "^data.name 'cifar' is not known"),
    ],
)
def test_bad_fields_are_named(fields, message, tmp_path):
    with pytest.raises(UserError, match=message):
        study.train(make_config(**fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_reason_of_a_failed_save_is_the_systems(tmp_path):
    with pytest.raises(UserError, match="/5 cannot be saved: No space left on device. Repeat the command"):
        with checkpoints.told_if_not_saved(tmp_path / "5"):
            raise ValueError(
                "Error writing: file 4: No space left on device [spec='{\"driver\": \"zarr\"}'] [os_error_code='28'] [source='a:3']"
            )


def test_a_full_disk_costs_only_the_steps_since_the_last_checkpoint(finished, tmp_path):
    limit = ["bash", "-c", 'ulimit -f 20 && exec "$@"', "bash"]  # KiB per file: simulates a full disk
    command = [*limit, sys.executable, str(ROOT / "run.py"), f"--workdir={tmp_path}", *TINY]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr == (
        f"error: {tmp_path}/checkpoints/5 cannot be saved: File too large. Repeat the command to continue from the previous checkpoint\n"
    )
    assert study.train(make_config(), tmp_path)["params_sha256"] == finished[1]["params_sha256"]

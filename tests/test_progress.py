"""What a terminal shows during a run and after it."""

import contextlib
import shlex
import time

import jax
import numpy as np
import pytest
from helpers import family_config

from distill_jax import logs, report, sharding, state, study
from distill_jax.plan import Plan


@pytest.fixture
def shown(monkeypatch):
    """The texts of the progress line."""
    texts = []
    monkeypatch.setattr(logs, "show_progress", texts.append)
    return texts


def test_the_line_moves_within_an_epoch(shown, monkeypatch, tmp_path):
    monkeypatch.setattr(logs, "MOVES_EVERY", 0.0)
    plan = Plan(2, 50, 40, (2,), np.full(100, 0.1), "test")
    metrics = state.empty_metrics(sharding.make_mesh())
    with contextlib.closing(logs.RunLog(tmp_path, plan, 1000, 0, steps_after=900)) as log:
        for _ in range(3):
            log.after_step(metrics)
        assert [text.split("  ")[:2] for text in shown] == [["epoch 1/2", f"step {step}/50 of the epoch"] for step in (2, 3)]
        assert all(" left, about " in text and text.endswith(" for all runs") for text in shown)


def test_the_time_left_is_of_all_runs(tmp_path, monkeypatch):
    seconds = []
    monkeypatch.setattr(logs, "duration", seconds.append)
    plan = Plan(2, 50, 40, (2,), np.full(100, 0.1), "test")
    with contextlib.closing(logs.RunLog(tmp_path, plan, 1000, 0, steps_after=900)) as log:
        log._timed = (10, time.perf_counter() - 50)  # a second for each of the steps 11 to 60
        log._time_left(60)
        assert sorted(seconds) == [pytest.approx(40, rel=0.01), pytest.approx(940, rel=0.01)]


def test_steps_of_later_runs_are_those_of_unfinished_ones(finished_family, tmp_path):
    done, fresh = (study.prepare(family_config(), folder) for folder in (finished_family[0], tmp_path))
    assert [study.steps_after(done)[number] for number in (0, 1, 2)] == [0, 0, 0]
    assert [study.steps_after(fresh)[number] for number in (0, 1, 3)] == [30, 20, 0]


def test_compilation_is_told_and_timed(shown, capsys):
    def train_step(x):
        return x + 1

    with logs.announced_compilation():
        jax.jit(train_step)(1.0)
        assert "compiling the train step ..." in shown  # JAX still sends these events
        jax.monitoring.record_event_duration_secs(logs.COMPILING[0], 2.0, fun_name="train_step")
        jax.monitoring.record_event_duration_secs(logs.COMPILING[2], 4.0, fun_name="jit(train_step)")
        assert "compiled the train step in 6 s\n" in capsys.readouterr().out
    jax.monitoring.record_event_duration_secs(logs.COMPILING[2], 9.0, fun_name="jit(train_step)")
    assert not capsys.readouterr().out


def test_the_end_says_where_to_look(finished_family, capsys):
    folder = finished_family[0]
    study.train(family_config(), folder)
    *_, table, plots, last = capsys.readouterr().out.splitlines()
    assert table == f"{folder / 'table.md'} has this table" and last.startswith(f"{folder}: test accuracy ")
    report.main(shlex.split(plots.removeprefix("plots: python -m distill_jax.report ")))
    assert (folder / "report.html").read_text().startswith("<!DOCTYPE html>")
    (folder / "report.html").unlink()

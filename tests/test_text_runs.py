"""Every method runs on sentences as on images."""

import numpy as np
import pytest
from ml_collections import ConfigDict
from test_run import Crash, act_at, crash

from configs import lstsd_trec, text_trec
from distill_jax import logs, train
from distill_jax.errors import UserError

NOUNS = {0: ["cat", "dog", "owl", "hen"], 1: ["car", "bus", "tram", "ship"], 2: ["oak", "fir", "elm", "yew"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Sentences of three classes, told by one word each."""
    folder = tmp_path_factory.mktemp("sentences")
    rng = np.random.default_rng(0)
    for name, rows in (("train", 160), ("test", 40)):
        labels = rng.integers(0, 3, rows)
        lines = [
            f"{label} the {rng.choice(['old', 'new', 'red'])} {rng.choice(NOUNS[label])} {'is here ' * rng.integers(1, 4)}"
            for label in labels
        ]
        (folder / name).write_text("\n".join(lines) + "\n")
    return folder


def text_config(folder, source=lstsd_trec, **fields):
    config = source.get_config()
    changes = {"epochs": 6, "batch_size": 32, "checkpoint_every": 2, "optimizer__learning_rate": 0.01}
    data = {"data__dir": str(folder), "data__name": "text:train", "data__text__test": "test", "model__feature_maps": 8, "model__width": 16}
    for name, value in (changes | data | fields).items():
        config.update_from_flattened_dict({name.replace("__", "."): value})
    return config


def test_sample_distillation_learns_and_resumes_with_dropout(folder, tmp_path):
    program = train.build(text_config(folder, method__generation_epochs=2))
    whole = train.run(program, 0, tmp_path / "whole")
    assert whole["test_accuracy"] > 0.9
    assert (tmp_path / "whole" / "tokenizer.json").read_text() == program.dataset.tokenizer
    with pytest.raises(Crash):
        train.run(act_at(program, 23, crash), 0, tmp_path / "broken")
    assert train.run(program, 0, tmp_path / "broken")["params_sha256"] == whole["params_sha256"]
    lines = logs.read_jsonl(tmp_path / "whole" / "metrics.jsonl")
    assert lines[0]["loss_teacher"] == 0 and lines[1]["loss_teacher"] > 0


def test_snapshots_and_teachers_of_sentences(folder, tmp_path):
    config = text_config(folder, text_trec, schedule__cycles=2)
    config.method = ConfigDict({"name": "snapshot"})
    summary = train.train(config, tmp_path / "teacher")
    assert summary["test_accuracy"] > 0.9 and len(summary["snapshot_ensemble"]["members_test_accuracy"]) == 2
    student = text_config(folder, text_trec, epochs=2, model__name="transformer", model__feature_maps=0, model__layers=1, model__heads=2)
    student.method = ConfigDict({"name": "distillation"})
    student.teachers = (str(tmp_path / "teacher"),)
    assert train.train(student, tmp_path / "student")["teacher_agreement"] > 0.3
    student.data.text.vocabulary_size = 12
    with pytest.raises(UserError, match="has another vocabulary than text:train here"):
        train.build(student)

"""Every method, and every use of a trained network, works on sentences as on images."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from helpers import Crash, act_at, build, crash, run, text_config, with_fields
from ml_collections import ConfigDict
from scipy.special import softmax

import distill_jax
from configs import lstsd_trec
from distill_jax import files, study, trained, transfer
from distill_jax.data import load_config, tokenization
from distill_jax.errors import UserError


def test_sample_distillation_learns_and_resumes_with_dropout(sentences, tmp_path):
    exp = build(text_config(sentences, lstsd_trec, method__generation_epochs=2))
    whole = run(exp, 0, tmp_path / "whole")
    assert whole["test_accuracy"] > 0.9
    assert (tmp_path / "whole" / "tokenizer.json").read_text() == exp.data.dataset.tokenizer
    with pytest.raises(Crash):
        run(act_at(exp, 23, crash), 0, tmp_path / "broken")
    assert run(exp, 0, tmp_path / "broken")["params_sha256"] == whole["params_sha256"]
    lines = files.read_jsonl(tmp_path / "whole" / "metrics.jsonl")
    assert lines[0]["loss_teacher"] == 0 and lines[1]["loss_teacher"] > 0


def test_snapshots_and_teachers_of_sentences(sentences, finished_text, tmp_path):
    folder, summary = finished_text
    assert summary["test_accuracy"] > 0.9 and len(summary["snapshot_ensemble"]["members_test_accuracy"]) == 2
    student = text_config(sentences, epochs=2, model={"name": "transformer", "width": 16, "layers": 1, "heads": 2})
    student = with_fields(student, method=ConfigDict({"name": "distillation"}), teachers=(str(folder),))
    assert study.train(student, tmp_path / "student")["teacher_agreement"] > 0.3
    student.data.text.vocabulary_size = 12
    with pytest.raises(UserError, match="has a different vocabulary from text:train here"):
        study.train(student, tmp_path / "other_words")
    assert not (tmp_path / "other_words").exists()


def test_weights_of_other_words_are_no_start(finished_text, sentences, tmp_path):
    """The same number of words, so that all shapes agree."""
    folder = pathlib.Path(shutil.copytree(sentences, tmp_path / "sentences"))
    for name in ("train", "test"):
        (folder / name).write_text((folder / name).read_text().replace("cat", "yak"))
    same = text_config(sentences, epochs=1, initial=str(finished_text[0]))
    assert study.prepare(same, tmp_path / "run").jobs
    other = text_config(folder, epochs=1, initial=str(finished_text[0]))
    with pytest.raises(UserError, match="^initial: .* has a different vocabulary from text:train"):
        study.prepare(other, tmp_path / "run")


def test_sentences_are_read_with_the_runs_own_words(finished_text, sentences):
    folder, summary = finished_text
    network = distill_jax.load(folder)
    lines = [line.split(" ", 1) for line in (sentences / "test").read_text().splitlines()]
    probabilities = network.predict([sentence for _, sentence in lines])
    dataset = load_config(text_config(sentences).data)
    np.testing.assert_allclose(probabilities, softmax(network.map(trained.forward, dataset.test, 64), axis=1), rtol=1e-5, atol=1e-7)
    assert (probabilities.argmax(axis=1) == dataset.test["label"]).mean() == summary["test_accuracy"]
    assert network.predict(["a cat", "a dog"]).shape == (2, 3) and network.features(["a cat"]).shape[0] == 1
    tokens = tokenization.encode_sentences((folder / "tokenizer.json").read_text(), ["the tram is here"])
    np.testing.assert_array_equal(
        network.predict(["the tram is here"]), jax.nn.softmax(network.map(trained.forward, {"tokens": tokens}, 1))
    )


@pytest.mark.parametrize("inputs", ["a cat", [], [3], 3, None, np.zeros((1, 8, 8, 1), np.uint8), [["a", "b", "c"]], [("a", 3)]])
def test_what_are_no_sentences_is_told(finished_text, inputs):
    with pytest.raises(UserError, match="sentence") as caught:
        distill_jax.load(finished_text[0]).predict(inputs)
    assert "\n" not in str(caught.value)


def test_a_text_run_without_its_tokenizer_is_told(finished_text, tmp_path):
    folder = shutil.copytree(finished_text[0], tmp_path / "run")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="tokenizer.json cannot be read"):
        distill_jax.load(folder)


@pytest.fixture
def other_sentences(tmp_path):
    """Sentences with the same words and some new ones, at different frequencies: a vocabulary fitted to them would have different ids."""
    for name in ("train", "test"):
        lines = [f"{number % 2} a zebra is here here the {noun}" for number, noun in enumerate(("yew", "elm", "cat", "bus", "fir", "tram"))]
        (tmp_path / name).write_text("\n".join(lines * 3) + "\n")
    return tmp_path


def test_features_of_other_sentences_are_of_the_runs_own_words(finished_text, other_sentences):
    folder, config = finished_text[0], text_config(other_sentences, batch_size=4)
    arrays = np.load(transfer.features(config, folder))
    lines = [line.split(" ", 1)[1] for line in (other_sentences / "train").read_text().splitlines()]
    network = distill_jax.load(folder)
    np.testing.assert_allclose(arrays["train_features"], network.features(lines), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(arrays["train_labels"], np.arange(18) % 6 % 2)

    own = load_config(config.data).train["tokens"]
    used = load_config(config.data, tokenizer=(folder / "tokenizer.json").read_text()).train["tokens"]
    np.testing.assert_array_equal(used, tokenization.encode_sentences((folder / "tokenizer.json").read_text(), lines))
    assert own.shape != used.shape or (own != used).any(), "the test could tell"


def test_a_linear_probe_of_other_sentences(finished_text, other_sentences):
    folder = finished_text[0]
    result = transfer.linear_probe(text_config(other_sentences, batch_size=4), folder)
    assert result["num_features"] == distill_jax.load(folder).features(["a cat"]).shape[1]
    assert result == json.loads((folder / "linear_probe_text_train.json").read_text())


def test_an_ensemble_of_sentences(finished_text, sentences, tmp_path):
    folder, summary = finished_text
    result = transfer.ensemble(text_config(sentences), tmp_path, [str(folder)])
    assert result["test_accuracy"] == summary["test_accuracy"]
    assert result["test_nll"] == pytest.approx(summary["test_nll"], rel=1e-5)


def test_a_network_of_sentences_refuses_images(finished_text, tmp_path):
    config = text_config(tmp_path, data__name="digits")
    with pytest.raises(UserError, match="digits has no sentences"):
        transfer.features(config, finished_text[0])

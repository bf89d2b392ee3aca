"""What a run records of its predictions, against scikit-learn and numbers computed by hand."""

import base64
import io
import json

import numpy as np
import pytest
from helpers import build, make_config, with_fields
from PIL import Image
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix

from distill_jax import evaluate, predictions, trained
from distill_jax.data import Dataset
from distill_jax.errors import UserError
from distill_jax.page import comparisons, document


@pytest.fixture(scope="module")
def logits():
    return 2 * np.random.default_rng(0).standard_normal((300, 12)).astype(np.float32)


@pytest.fixture(scope="module")
def dataset():
    rng = np.random.default_rng(1)
    rows = {"image": rng.integers(0, 256, (300, 8, 8, 3), np.uint8), "label": rng.integers(0, 12, 300).astype(np.int32)}
    return Dataset("noise", 12, rows, rows, classes=tuple(f"class {label}" for label in range(12)))


def test_the_confusion_is_scikit_learns(dataset, logits):
    content = predictions.summarise(dataset, logits)
    dense = np.zeros((12, 12), int)
    for label, predicted, count in content["confusion"]:
        dense[label, predicted] = count
    np.testing.assert_array_equal(dense, confusion_matrix(dataset.test["label"], logits.argmax(axis=1), labels=range(12)))
    assert all(count > 0 for _, _, count in content["confusion"])


def test_the_bins_are_scikit_learns_and_give_the_calibration_error(dataset, logits):
    labels = dataset.test["label"]
    counts, confidence, accuracy = (np.array(values) for values in predictions.summarise(dataset, logits)["reliability"].values())
    log_probs = evaluate.log_softmax(logits)
    some = counts > 0
    theirs = calibration_curve(logits.argmax(axis=1) == labels, np.exp(log_probs.max(axis=1)), n_bins=15)
    np.testing.assert_allclose(accuracy[some], theirs[0])
    np.testing.assert_allclose(confidence[some], theirs[1])
    ece = (counts * np.abs(accuracy - confidence)).sum() / counts.sum()
    assert ece == pytest.approx(evaluate.classification_metrics(logits, labels)["test_ece"]) and counts.sum() == 300


def test_bins_by_hand():
    counts, confidence, correct = evaluate.reliability(np.array([0.05, 0.2, 0.21, 1.0]), np.array([True, False, True, True]), bins=5)
    assert counts.tolist() == [2, 1, 0, 0, 1]  # 0.2 belongs to the first bin, (0, 0.2]
    assert confidence.tolist() == [0.25, 0.21, 0, 0, 1] and correct.tolist() == [1, 1, 0, 0, 1]


def test_samples_are_the_same_for_every_network_and_spread_over_the_classes(dataset, logits):
    one, other = predictions.summarise(dataset, logits)["samples"], predictions.summarise(dataset, -logits, logits)["samples"]
    assert [sample["image"] for sample in one] == [sample["image"] for sample in other]
    assert len({sample["label"] for sample in one}) >= 9  # of twelve, as the classes differ in size
    assert "teacher" not in one[0] and other[0]["teacher"] == one[0]["student"]
    row = predictions.sample_rows(dataset.test["label"])[0]
    probabilities = np.exp(evaluate.log_softmax(logits[row][None]))[0]
    assert [label for label, _ in one[0]["student"]] == np.argsort(-probabilities)[:5].tolist()
    assert one[0]["student"][0][1] == pytest.approx(probabilities.max(), rel=1e-3)
    picture = Image.open(io.BytesIO(base64.b64decode(one[0]["image"].removeprefix("data:image/png;base64,"))))
    np.testing.assert_array_equal(np.asarray(picture), dataset.test["image"][row])


def test_large_grey_images_and_few_samples(logits):
    rows = {"image": np.zeros((3, 200, 100, 1), np.uint8), "label": np.arange(3, dtype=np.int32)}
    samples = predictions.summarise(Dataset("grey", 12, rows, rows), logits[:3])["samples"]
    picture = Image.open(io.BytesIO(base64.b64decode(samples[0]["image"].partition(",")[2])))
    assert len(samples) == 3 and picture.size == (32, 64) and picture.mode == "L"


def test_a_run_records_its_last_evaluation(finished, exp):
    folder, summary = finished
    content = predictions.read(folder)
    counts, confidence, accuracy = (np.array(content["reliability"][name]) for name in ("examples", "confidence", "accuracy"))
    assert (counts * np.abs(confidence - accuracy)).sum() / counts.sum() == pytest.approx(summary["test_ece"])
    right = sum(count for label, predicted, count in content["confusion"] if label == predicted)
    assert right / counts.sum() == pytest.approx(summary["test_accuracy"])
    assert all("teacher" in sample for sample in content["samples"])  # the snapshot
    network = trained.load(folder)
    row = predictions.sample_rows(exp.data.dataset.test["label"])[3]
    said = content["samples"][3]["student"]
    assert network.predict(exp.data.dataset.test["image"][row : row + 1])[0, said[0][0]] == pytest.approx(said[0][1], abs=1e-3)
    assert (folder / "predictions.json").stat().st_size < 20_000


def test_a_run_on_sentences_records_them(finished_text):
    samples = predictions.read(finished_text[0])["samples"]
    assert len(samples) == 12 and all(sample["text"].startswith("the ") and "[PAD]" not in sample["text"] for sample in samples)
    assert document.build(comparisons.read([finished_text[0]])).count("<blockquote>the ") == 12


def test_streamed_images_are_recorded(photographs):
    fields = {"data__name": f"folder:{photographs}", "data__image_size": 16, "data__crop_padding": 0, "batch_size": 20}
    exp = build(with_fields(make_config(), **fields, data__train_examples=0))
    shown = predictions.summarise(exp.data.dataset, np.zeros((34, 2), np.float32))
    assert shown["classes"] == ["china", "flower"] and len({sample["image"] for sample in shown["samples"]}) == 12


@pytest.mark.parametrize(
    "damage",
    [
        {"reliability": {}}, {"reliability": {"examples": [1], "confidence": [1], "accuracy": [1]}}, {"confusion": [[1, 2]]},
        {"confusion": "abc"}, {"confusion": [[0, -1, 2]]}, {"confusion": []}, {"classes": [1]}, {"samples": [1]},
        {"samples": [{"label": 1}]}, {"samples": [{"label": 1, "image": "https://example.com/x.png"}]},
        {"samples": [{"label": "x", "text": "a"}]}, {"samples": [{"label": 1, "text": "a", "student": [1]}]},
    ],
)  # fmt: skip
def test_a_damaged_file_is_named(damage, finished, tmp_path):
    content = json.loads((finished[0] / "predictions.json").read_text())
    (tmp_path / "predictions.json").write_text(json.dumps(content | damage))
    with pytest.raises(UserError, match="predictions.json is damaged") as caught:
        predictions.read(tmp_path)
    assert "\n" not in str(caught.value)


def test_runs_without_the_file_have_none(tmp_path):
    assert predictions.read(tmp_path) is None

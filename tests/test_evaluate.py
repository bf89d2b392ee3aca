"""Metrics against scikit-learn and hand-computed numbers."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import log_loss, matthews_corrcoef, top_k_accuracy_score

from distill_jax import evaluate


@pytest.fixture(scope="module")
def predictions():
    rng = np.random.default_rng(0)
    return 2 * rng.standard_normal((300, 12)).astype(np.float32), rng.integers(0, 12, 300)


def test_metrics_agree_with_scikit_learn(predictions):
    logits, labels = predictions
    metrics = evaluate.classification_metrics(logits, labels)
    classes = np.arange(12)
    assert metrics["test_accuracy"] == pytest.approx((logits.argmax(axis=1) == labels).mean())
    assert metrics["test_top5"] == pytest.approx(top_k_accuracy_score(labels, logits, k=5, labels=classes))
    assert metrics["test_nll"] == pytest.approx(log_loss(labels, softmax(logits.astype(float), axis=1), labels=classes))


def test_an_ensemble_whose_members_rule_a_class_out():
    np.testing.assert_allclose(evaluate.ensemble([np.array([[0.0, 2000.0]])] * 2), [[-2000, 0]])


@pytest.mark.parametrize("classes", [2, 12])
def test_matthews_correlation_agrees_with_scikit_learn(predictions, classes):
    logits, labels = predictions[0][:, :classes], predictions[1] % classes
    ours = evaluate.classification_metrics(logits, labels)["test_matthews"]
    assert ours == pytest.approx(matthews_corrcoef(labels, logits.argmax(axis=1))) and ours != 0
    assert evaluate.classification_metrics(np.eye(classes)[labels], labels)["test_matthews"] == pytest.approx(1)
    assert evaluate.classification_metrics(np.eye(classes)[[0] * 300], labels)["test_matthews"] == 0


def test_metrics_have_the_name_of_their_split(predictions):
    test, validation = (evaluate.classification_metrics(*predictions, split) for split in ("test", "validation"))
    assert {name.replace("validation_", "test_"): value for name, value in validation.items()} == test
    assert all(name.startswith("validation_") for name in [*validation, *evaluate.score_profile(predictions[0], "validation")])


def test_ece_by_hand():
    # Two bins of four: three at confidence 0.6 with one hit, one at 0.9 that is a hit: (3 * |1/3 - 0.6| + |1 - 0.9|) / 4.
    confidence, correct = np.array([0.6, 0.6, 0.6, 0.9]), np.array([True, False, False, True])
    assert evaluate.expected_calibration_error(confidence, correct, bins=4) == pytest.approx((3 * (0.6 - 1 / 3) + 0.1) / 4)


def test_ece_takes_a_bin_with_its_upper_edge():
    assert evaluate.expected_calibration_error(np.array([0.5, 1.0, 0.0]), np.array([True, True, False]), bins=2) == pytest.approx(0.5 / 3)


def test_top5_of_few_classes_is_one():
    assert evaluate.classification_metrics(np.zeros((4, 3)), np.zeros(4, int))["test_top5"] == 1


def test_ensemble_is_the_mean_of_probabilities(predictions):
    logits, _ = predictions
    others = logits[::-1]
    mean = (softmax(logits.astype(float), axis=1) + softmax(others.astype(float), axis=1)) / 2
    np.testing.assert_allclose(np.exp(evaluate.ensemble([logits, others])), mean, rtol=1e-6)
    np.testing.assert_allclose(evaluate.ensemble([logits]), evaluate.log_softmax(logits), rtol=1e-6, atol=1e-9)


def test_agreement_counts_equal_answers():
    assert evaluate.agreement(np.eye(4), np.eye(4)[[0, 1, 3, 3]]) == 0.75

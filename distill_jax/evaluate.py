"""Metrics of predictions: accuracy, likelihood, calibration, agreement."""

from collections.abc import Sequence

import numpy as np

ECE_BINS = 15
PROFILE_K = 5  # number of classes in a score profile, including the first; the default K of the top-score difference


def classification_metrics(log_probs_NxC: np.ndarray, labels_N: np.ndarray, split: str = "test") -> dict[str, float]:
    """Accuracy, top-5 accuracy, negative log-likelihood and expected calibration error of predictions.

    Args:
      log_probs_NxC: log-probabilities or logits; they are normalised here.
      labels_N: integers in [0, C).
      split: the split predicted, "test" or "validation"; the names of the metrics begin with it.

    Returns:
      test_accuracy: fraction in 0..1. Ties go to the lower class.
      test_top5: fraction of samples with fewer than five classes strictly above the label's (1 if C <= 5).
      test_nll: mean negative log-likelihood, in nats.
      test_matthews: Matthews correlation of predictions and labels, in -1..1; of several classes, R_K (Gorodkin, 2004). 0 if all
        predictions or all labels are of one class.
      test_ece: expected calibration error of the top probability in `ECE_BINS` bins of equal width, in 0..1 (Guo et al., "On
        Calibration of Modern Neural Networks", ICML 2017, equation 3).
    """
    log_probs_NxC, labels_N = log_softmax(log_probs_NxC), np.asarray(labels_N)
    label_log_probs_N = np.take_along_axis(log_probs_NxC, labels_N[:, None], axis=1)[:, 0]
    correct_N = np.argmax(log_probs_NxC, axis=1) == labels_N
    return {
        f"{split}_accuracy": float(correct_N.mean()),
        f"{split}_top5": float(((log_probs_NxC > label_log_probs_N[:, None]).sum(axis=1) < 5).mean()),
        f"{split}_nll": float(-label_log_probs_N.mean()),
        f"{split}_matthews": matthews_correlation(np.argmax(log_probs_NxC, axis=1), labels_N),
        f"{split}_ece": expected_calibration_error(np.exp(log_probs_NxC.max(axis=1)), correct_N),
    }


def matthews_correlation(predicted_N: np.ndarray, labels_N: np.ndarray) -> float:
    """See `classification_metrics`."""
    classes = 1 + int(max(predicted_N.max(), labels_N.max()))
    predicted_C, labels_C = (np.bincount(each, minlength=classes).astype(float) for each in (predicted_N, labels_N))
    count = len(labels_N)
    covariance = count * (predicted_N == labels_N).sum() - predicted_C @ labels_C
    spread = np.sqrt(count**2 - predicted_C @ predicted_C) * np.sqrt(count**2 - labels_C @ labels_C)
    return float(covariance / spread) if spread else 0.0


def score_profile(logits_NxC: np.ndarray, split: str = "test") -> dict[str, float]:
    """How strict predictions are, in 0..1: test_top_score, the mean of the largest probability; test_secondary_score, that of the next ones
    up to the `PROFILE_K`-th."""
    probs_NxK = np.sort(np.exp(log_softmax(logits_NxC)), axis=1)[:, ::-1][:, :PROFILE_K]
    return {f"{split}_top_score": float(probs_NxK[:, 0].mean()), f"{split}_secondary_score": float(probs_NxK[:, 1:].mean())}


def mean_entropy(logits_NxC: np.ndarray) -> float:
    """Mean entropy of the predictions, in nats."""
    log_probs_NxC = log_softmax(logits_NxC)
    return float(-(np.exp(log_probs_NxC) * log_probs_NxC).sum(axis=1).mean())


def expected_calibration_error(confidence_N: np.ndarray, correct_N: np.ndarray, bins: int = ECE_BINS) -> float:
    """Mean over the samples of |accuracy - mean confidence| in their bin, in 0..1; the bins are (k/bins, (k+1)/bins]."""
    _, confidence, correct = reliability(confidence_N, correct_N, bins)
    return float(np.abs(correct - confidence).sum() / len(confidence_N))


def reliability(confidence_N: np.ndarray, correct_N: np.ndarray, bins: int = ECE_BINS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The bins of `expected_calibration_error`: in each, the number of samples, the sum of their confidences, and how many are correct."""
    bin_N = np.clip(np.ceil(confidence_N * bins).astype(int) - 1, 0, bins - 1)
    return tuple(np.bincount(bin_N, weights=weights_N, minlength=bins) for weights_N in (None, confidence_N, correct_N))


def agreement(logits_NxC: np.ndarray, teacher_logits_NxC: np.ndarray) -> float:
    """Fraction of samples, in 0..1, on which both have the same arg-max."""
    return float((logits_NxC.argmax(axis=1) == teacher_logits_NxC.argmax(axis=1)).mean())


def ensemble(members: Sequence[np.ndarray]) -> np.ndarray:
    """Log of the members' mean probabilities, [N, C], from each member's logits, [N, C]."""
    return np.logaddexp.reduce([log_softmax(logits) for logits in members]) - np.log(len(members))


def log_softmax(logits_NxC: np.ndarray) -> np.ndarray:
    """Over the classes, in float64."""
    shifted = logits_NxC.astype(np.float64) - logits_NxC.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))

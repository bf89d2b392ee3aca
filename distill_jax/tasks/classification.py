"""One label for each image or sentence."""

import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from distill_jax import evaluate, predictions
from distill_jax.data import Dataset
from distill_jax.tasks.base import Task, of_losses


def metrics(
    logits_NxC: np.ndarray, dataset: Dataset, teacher_logits_NxC: np.ndarray | None, folder: pathlib.Path | None = None
) -> dict[str, float]:
    """Accuracy, likelihood, calibration and score profile; given a teacher's logits, also their agreement and the teacher's entropy.

    With a folder, writes predictions.json there.
    """
    if folder:
        predictions.write(folder, dataset, logits_NxC, teacher_logits_NxC)
    split = dataset.evaluated_on
    found = evaluate.classification_metrics(logits_NxC, np.asarray(dataset.test["label"]), split) | evaluate.score_profile(
        logits_NxC, split
    )
    if teacher_logits_NxC is not None:
        found["teacher_agreement"] = evaluate.agreement(logits_NxC, teacher_logits_NxC)
        found["teacher_entropy"] = evaluate.mean_entropy(teacher_logits_NxC)
    return found


def ensemble(members: Sequence[np.ndarray], dataset: Dataset) -> dict[str, Any]:
    """Accuracy, likelihood and calibration of the mean probabilities of several networks, given their logits; and each one's accuracy."""
    labels, split = dataset.test["label"], dataset.evaluated_on
    accuracies = [evaluate.classification_metrics(logits_NxC, labels, split)[f"{split}_accuracy"] for logits_NxC in members]
    together = evaluate.classification_metrics(evaluate.ensemble(members), labels, split)
    return {**together, f"members_{split}_accuracy": accuracies}


TASK = Task(
    metric="accuracy",
    outputs=lambda num_classes, input_shape: jax.ShapeDtypeStruct((1, num_classes), jnp.float32),
    labels=lambda batch: batch["label"],
    predict=lambda logits_BxC, batch: logits_BxC,
    evaluate=metrics,
    measure=lambda losses, logits_BxC, labels_B: of_losses(losses, logits_BxC, labels_B) | {"logits": logits_BxC, "labels": labels_B},
    ensemble=ensemble,
)

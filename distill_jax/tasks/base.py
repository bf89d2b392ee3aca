"""The definition of a task: what a network's outputs and the labels mean. What teachers add is up to the method.

A task is a record of functions, like a method. The step calls `labels`, `loss` and `measure`, the evaluation `predict` (both jitted), and
then, on the host, `evaluate`.
"""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from clu import metrics
from flax import struct
from ml_collections import ConfigDict

from distill_jax.data import Dataset
from distill_jax.methods.base import Losses, Method

Outputs = Any  # of a network for one batch: logits [B, C] or [B, H, W, C], or a pytree of arrays [B, ...]
Labels = Any  # of one batch, as the loss takes them: int32 [B] or [B, H, W], or a pytree
Predictions = Any  # of a whole split: a pytree of numpy arrays [N, ...]


@struct.dataclass
class TrainMetrics(metrics.Collection):
    """Means over the steps since the start of the epoch. They accumulate on the device; the host fetches them to log."""

    loss: metrics.Average.from_output("loss")
    loss_ce: metrics.Average.from_output("loss_ce")
    loss_teacher: metrics.Average.from_output("loss_teacher")
    train_accuracy: metrics.Accuracy


class LossFn(Protocol):
    def __call__(self, method: Method, outputs: Outputs, labels: Labels, signal: Any, *maps: Any) -> Losses:
        """A batch's loss. `method` adds its teachers' terms; `maps` are the student's feature maps, for methods that take them."""


class EvaluateFn(Protocol):
    def __call__(
        self, predictions: Predictions, dataset: Dataset, teacher: Predictions | None, folder: pathlib.Path | None
    ) -> dict[str, float]:
        """The metrics of predictions of dataset.test; names begin with dataset.evaluated_on, or with teacher.

        With a folder, a workdir, also writes there the predictions in more detail: which class is mistaken for which, and the like.
        """


def method_loss(method: Method, outputs: Outputs, labels: Labels, signal: Any, *maps: Any) -> Losses:
    return method.loss(outputs, labels, signal, *maps)


def accept(config: ConfigDict, method: Method) -> None:
    """A `check` for tasks that work with every method."""
    del config, method


def of_losses(losses: Losses, outputs: Outputs, labels: Labels) -> dict[str, jax.Array]:
    """The losses by the names that they have in a log."""
    del outputs, labels
    return {"loss": losses.loss, "loss_ce": losses.ce, "loss_teacher": losses.teacher}


class Task(NamedTuple):
    """What outputs and labels mean."""

    metric: str  # the result that counts, without the split's name: "accuracy" for test_accuracy
    outputs: Callable[[int, tuple[int, ...]], Any]  # (num_classes, input_shape) -> shapes and dtypes for one sample
    labels: Callable[[dict[str, jax.Array]], Labels]  # (batch) -> what `loss` takes
    predict: Callable[[Outputs, dict[str, jax.Array]], Any]  # (outputs, batch) -> a pytree of arrays [B, ...], one row per sample
    evaluate: EvaluateFn
    loss: LossFn = method_loss
    measure: Callable[[Losses, Outputs, Labels], dict[str, jax.Array]] = of_losses  # what `train_metrics` are made from
    train_metrics: type[metrics.Collection] = TrainMetrics
    check: Callable[[ConfigDict, Method], None] = accept  # raises UserError if a method does not support the task
    ensemble: Callable[[Sequence[Predictions], Dataset], dict[str, Any]] | None = None  # the metrics of several networks' mean prediction,
    # and the result of each; None if predictions have no mean
    show: Callable[[Outputs, dict[str, jax.Array]], Any] | None = None  # like `predict`: what `draw` takes
    draw: Callable[[dict[str, np.ndarray], Any, Dataset, int], np.ndarray] | None = None  # (sample, its row of `show`, dataset, its row
    # in dataset.test) -> a picture, uint8 [H, W, 3]

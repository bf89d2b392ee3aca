"""A class for each pixel. Outputs are logits [B, H, W, C], labels int32 [B, H, W], negative for unlabelled pixels.

The metric is the mean intersection over union (mIoU) of the whole set, at the images' own size: a letterboxed image's logits are resampled
(bilinear) at the pixels of the image, and the arg-max is counted in one confusion matrix.
"""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from clu import metrics as clu_metrics
from flax import struct
from ml_collections import ConfigDict
from PIL import Image

from distill_jax import drawing, losses, workdir
from distill_jax.data import Dataset, affine
from distill_jax.data.scenes import VOID
from distill_jax.errors import UserError
from distill_jax.methods.base import Losses, Method
from distill_jax.tasks.base import Task, of_losses

STEP = 256  # pixels: sides of the programs for images of any size are multiples of this, so that few are compiled


@struct.dataclass
class PixelMetrics(clu_metrics.Collection):
    """Like `TrainMetrics`; the accuracy is that of the labelled pixels."""

    loss: clu_metrics.Average.from_output("loss")
    loss_ce: clu_metrics.Average.from_output("loss_ce")
    loss_teacher: clu_metrics.Average.from_output("loss_teacher")
    train_accuracy: clu_metrics.Average.from_output("accuracy")


def labels(batch: dict[str, jax.Array]) -> jax.Array:
    classes = batch["label"].astype(jnp.int32)
    return jnp.where(classes == VOID, -1, classes)


def measure(parts: Losses, logits_BxHxWxC: jax.Array, labels_BxHxW: jax.Array) -> dict[str, jax.Array]:
    correct = (logits_BxHxWxC.argmax(axis=-1) == labels_BxHxW).astype(jnp.float32)
    return of_losses(parts, logits_BxHxWxC, labels_BxHxW) | {"accuracy": losses.mean(correct, labels_BxHxW)}


@functools.partial(jax.jit, static_argnames="shape")
def at_own_size(logits_SxSxC: jax.Array, size: jax.Array, target: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Resamples (bilinear) a letterboxed image's logits at its own pixels.

    Args:
      logits_SxSxC: of the canvas.
      size: int32 [2], height and width of the image.
      target: int32 [2], those on the canvas.
      shape: (H, W) of the result, static.

    Returns:
      [H, W, C]; the image is in the upper left corner, and what lies beyond it has no meaning.
    """
    for axis, length in enumerate(shape):
        where = (jnp.arange(length) + 0.5) * target[axis] / size[axis] - 0.5
        where = jnp.clip(where, 0, target[axis] - 1)
        low = jnp.floor(where).astype(jnp.int32)
        high, weight = jnp.minimum(low + 1, target[axis] - 1), where - low
        weight = jnp.expand_dims(weight, [1 - axis, 2])
        take = [jnp.take(logits_SxSxC, index, axis=axis) for index in (low, high)]
        logits_SxSxC = take[0] * (1 - weight) + take[1] * weight
    return logits_SxSxC


def of_one_size(logits_NxSxSxC: np.ndarray, height: int, width: int) -> np.ndarray:
    """The logits of letterboxed images of one size at their own pixels, [N, height, width, C]."""
    target = affine.letterbox(width, height, logits_NxSxSxC.shape[1]).target[::-1]
    return np.stack([at_own_size(logits, (height, width), target, (height, width)) for logits in logits_NxSxSxC])


@functools.partial(jax.jit, static_argnames="shape")
def best_class(logits_SxSxC: jax.Array, size: jax.Array, target: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """The arg-max of `at_own_size`, int32 [H, W]. XLA fuses the two: the logits of all classes are never held at this size."""
    return at_own_size(logits_SxSxC, size, target, shape).argmax(axis=-1)


def mask_of_size(logits_SxSxC: np.ndarray, height: int, width: int) -> np.ndarray:
    """The `best_class` of each pixel of a letterboxed image of this size, int32 [height, width]."""
    target = affine.letterbox(width, height, len(logits_SxSxC)).target[::-1]
    shape = tuple(-(-side // STEP) * STEP for side in (height, width))
    return np.asarray(best_class(logits_SxSxC, (height, width), target, shape))[:height, :width]


def confusion(logits_BxSxSxC: jax.Array, batch: dict[str, jax.Array]) -> jax.Array:
    """[label, predicted class]: the number of pixels of each image at its own size, int32 [B, C, C], without unlabelled ones."""
    num_classes = logits_BxSxSxC.shape[-1]

    def of_image(logits, size, target, mask):
        predicted = best_class(logits, size, target, mask.shape)
        pairs = jnp.where(mask == VOID, num_classes**2, mask.astype(jnp.int32) * num_classes + predicted)
        return jnp.bincount(pairs.ravel(), length=num_classes**2 + 1)[:-1].reshape(num_classes, num_classes)

    return jax.vmap(of_image)(logits_BxSxSxC, batch["size"], batch["target"], batch["label"])


def iou(confusion_CxC: np.ndarray) -> np.ndarray:
    """Intersection over union of each class, float64 [C]; nan for a class that neither the labels nor the predictions have."""
    both = np.diag(confusion_CxC)
    either = confusion_CxC.sum(axis=0) + confusion_CxC.sum(axis=1) - both
    return np.where(either > 0, both / np.maximum(either, 1), np.nan)


def metrics(
    confusion_NxCxC: np.ndarray, dataset: Dataset, teacher_NxCxC: np.ndarray | None, folder: pathlib.Path | None = None
) -> dict[str, float]:
    """test_miou: the mean over the classes that occur of `iou`; test_accuracy: the fraction of labelled pixels that are right.

    With a folder, writes confusion.json there: the classes, the IoU of each, and the confusion matrix [label, predicted class] in pixels.
    """
    total, split = confusion_NxCxC.sum(axis=0, dtype=np.int64), dataset.evaluated_on
    if not total.any():
        raise UserError(f"{dataset.name}: no pixel of the {split} set has a label; data.void is the value of those without one")
    iou_C = iou(total)
    found = {f"{split}_miou": float(np.nanmean(iou_C)), f"{split}_accuracy": float(np.trace(total) / total.sum())}
    if teacher_NxCxC is not None:
        found["teacher_miou"] = float(np.nanmean(iou(teacher_NxCxC.sum(axis=0, dtype=np.int64))))
    if folder:
        each = [None if np.isnan(value) else float(value) for value in iou_C]
        workdir.write_json(folder / "confusion.json", {"classes": list(dataset.classes), "iou": each, "confusion": total.tolist()})
    return found


def check(config: ConfigDict, method: Method) -> None:
    if not method.pixels:
        suited = "supervised, patriarch, snapshot, distillation, densely_guided (loss kl or dkd), ema_teacher, tf_kd"
        raise UserError(f"method.name is {config.method.name!r}, which as configured does not support segmentation; these do: {suited}")


def draw(sample: dict[str, np.ndarray], predicted_SxS: np.ndarray, dataset: Dataset, row: int) -> np.ndarray:
    """The image, its labels and the prediction side by side, in VOC's colours."""
    del dataset, row
    (height, width), (rows, columns) = sample["size"], sample["target"]
    image, own_mask = sample["image"][:rows, :columns], Image.fromarray(sample["label"][:height, :width])
    mask = np.asarray(own_mask.resize((int(columns), int(rows)), Image.Resampling.NEAREST))
    pictures = [drawing.draw_mask(image, each) for each in (np.zeros_like(mask), mask, predicted_SxS[:rows, :columns])]
    return np.asarray(drawing.side_by_side(pictures))


TASK = Task(
    metric="miou",
    outputs=lambda num_classes, input_shape: jax.ShapeDtypeStruct((1, *input_shape[:2], num_classes), jnp.float32),
    labels=labels,
    predict=confusion,
    evaluate=metrics,
    measure=measure,
    train_metrics=PixelMetrics,
    check=check,
    show=lambda logits_BxSxSxC, batch: logits_BxSxSxC.argmax(axis=-1).astype(jnp.uint8),
    draw=draw,
)

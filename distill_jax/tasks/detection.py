"""Boxes around objects, by FCOS: models/fcos.py, anchor_free.py.

Labels are the boxes on the canvas and their classes, padded with `anchor_free.NO_OBJECT`. Difficult objects are learnt like any other, as
in detectron2, except COCO's crowds. The metric is VOC's AP50, of boxes at the images' own size; it ignores both, and COCO's metrics ignore
crowds alone.
"""

import importlib.util
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from clu import metrics as clu_metrics
from flax import struct
from ml_collections import ConfigDict

from distill_jax import average_precision as ap
from distill_jax import drawing, workdir
from distill_jax.data import Dataset, affine
from distill_jax.errors import UserError
from distill_jax.methods.base import Method
from distill_jax.models.fcos import Outputs
from distill_jax.tasks import anchor_free
from distill_jax.tasks.anchor_free import FCOSLoss, Found
from distill_jax.tasks.base import Task

SHOWN = 0.5  # smallest score of a box in a picture


class Wanted(NamedTuple):
    """What the network must output for a batch of canvases."""

    at: anchor_free.Places
    targets: anchor_free.Targets


@struct.dataclass
class DetectionMetrics(clu_metrics.Collection):
    """Means over the steps since the start of the epoch."""

    loss: clu_metrics.Average.from_output("loss")
    loss_classes: clu_metrics.Average.from_output("loss_classes")
    loss_boxes: clu_metrics.Average.from_output("loss_boxes")
    loss_centerness: clu_metrics.Average.from_output("loss_centerness")
    train_accuracy: clu_metrics.Average.from_output("accuracy")


def outputs(num_classes: int, input_shape: tuple[int, ...]) -> Outputs:
    count = len(anchor_free.places(*input_shape[:2]).stride_L)
    return Outputs(*(jax.ShapeDtypeStruct((1, count, *last), jnp.float32) for last in ((num_classes,), (4,), ())))


def labels(batch: dict[str, jax.Array]) -> Wanted:
    at = anchor_free.places(*batch["image"].shape[1:3])
    return Wanted(at, jax.vmap(anchor_free.assign, in_axes=(None, 0, 0))(at, batch["boxes"], batch["label"]))


def loss(method: Method, found: Outputs, wanted: Wanted, signal: Any, *maps: Any) -> FCOSLoss:
    del method, signal, maps  # `check` admits labels alone
    return anchor_free.loss(found, *wanted)


def measure(losses: FCOSLoss, found: Outputs, wanted: Wanted) -> dict[str, jax.Array]:
    parts = {f"loss_{name}": value for name, value in losses._asdict().items()}
    return parts | {"loss": losses.loss, "accuracy": anchor_free.accuracy(found.logits_BxLxC, wanted.targets.label_L)}


def on_canvas(found: Outputs, batch: dict[str, jax.Array]) -> Found:
    """The boxes on the canvas, in its pixels."""
    height, width = batch["image"].shape[1:3]
    return anchor_free.detect(found, anchor_free.places(height, width), height, width)


def at_own_size(found: Outputs, batch: dict[str, jax.Array]) -> Found:
    """The boxes in pixels of the images."""
    return rescaled(on_canvas(found, batch), batch["size"], batch["target"])


def rescaled(found: Found, size_Bx2: Any, target_Bx2: Any) -> Found:
    """Boxes on the canvas in pixels of the images, clipped there; numpy's arrays or jax's.

    Args:
      found: on the canvas.
      size_Bx2: height and width of each image.
      target_Bx2: those on the canvas.
    """
    limit_Bx1x4, target_Bx1x4 = (np.float32(1) * each[:, None, [1, 0, 1, 0]] for each in (size_Bx2, target_Bx2))
    return found._replace(box_BxNx4=(found.box_BxNx4 * (limit_Bx1x4 / target_Bx1x4)).clip(0, limit_Bx1x4))


def of_one_size(found: Found, height: int, width: int, canvas: int) -> Found:
    """Boxes on canvases of this side, on which images of one size were letterboxed, in pixels of the images; numpy's arrays."""
    target = affine.letterbox(width, height, canvas).target[::-1]
    return rescaled(found, np.array([[height, width]]), np.array([target]))


def flat(found: Found) -> ap.Detections:
    """The boxes of all images, without padding; an image's number is its row."""
    image_D, row_D = np.nonzero(found.score_BxN > 0)
    return ap.Detections(image_D, *(np.asarray(column)[image_D, row_D] for column in (found.label_BxN, found.box_BxNx4, found.score_BxN)))


def truths(dataset: Dataset) -> ap.Truths:
    """The true boxes of the test set."""
    scenes = [dataset.test["image"].scene(row) for row in range(len(dataset.test["image"]))]
    image_G = np.repeat(np.arange(len(scenes)), [len(scene.boxes) for scene in scenes])
    columns = [
        [scene.labels, scene.boxes, scene.difficult, scene.difficult & False if scene.crowd is None else scene.crowd] for scene in scenes
    ]
    return ap.Truths(image_G, *map(np.concatenate, zip(*columns, strict=True)))


def metrics(found: Found, dataset: Dataset, teacher: Any, folder: pathlib.Path | None = None) -> dict[str, float]:
    """See `average_precision.detection_metrics`; with faster-coco-eval also `coco_average_precision`.

    With a folder, writes average_precision.json there: the classes, and VOC's AP50 of each in both forms; null for a class without boxes.
    """
    del teacher
    arguments = flat(found), truths(dataset), dataset.num_classes
    area_OxC, eleven_point_OxC = at_overlaps = ap.voc_average_precision(*arguments)
    if folder:
        ap50, ap50_11point = ([None if np.isnan(value) else float(value) for value in ap_C] for ap_C in (area_OxC[0], eleven_point_OxC[0]))
        content = {"classes": list(dataset.classes), "ap50": ap50, "ap50_11point": ap50_11point}
        workdir.write_json(folder / "average_precision.json", content)
    with_coco = importlib.util.find_spec("faster_coco_eval") is not None
    coco = ap.coco_average_precision(*arguments, dataset.evaluated_on) if with_coco else {}
    return ap.detection_metrics(at_overlaps, dataset.evaluated_on) | coco


def check(config: ConfigDict, method: Method) -> None:
    del method
    if config.method.name != "supervised" or config.method.get("label_smoothing", 0):
        raise UserError(f"method.name is {config.method.name!r}; detection supports only 'supervised', without label_smoothing")


def draw(sample: dict[str, np.ndarray], found: Found, dataset: Dataset, row: int) -> np.ndarray:
    """The image with its true boxes, and with those found whose score is at least `SHOWN`, side by side."""
    rows, columns = sample["target"]
    image, scene = sample["image"][:rows, :columns], dataset.test["image"].scene(row)
    true = scene.boxes * np.tile(sample["target"][::-1] / sample["size"][::-1], 2)
    names = [dataset.classes[label] + " (difficult)" * bool(hard) for label, hard in zip(scene.labels, scene.difficult, strict=True)]
    pictures = drawing.draw_boxes(image, true, scene.labels, names), draw_found(image, found, dataset.classes)
    return np.asarray(drawing.side_by_side(pictures))


def draw_found(image: np.ndarray, found: Found, classes: tuple[str, ...]) -> Any:
    """An image, uint8 [H, W, 3], with the boxes found in it (rows [N, ...] of one image); the best on top."""
    sure = np.flatnonzero(found.score_BxN >= SHOWN)[::-1]
    captions = [f"{classes[found.label_BxN[row]]} {found.score_BxN[row]:.0%}" for row in sure]
    return drawing.draw_boxes(image, found.box_BxNx4[sure], found.label_BxN[sure], captions)


TASK = Task(
    metric="ap50",
    outputs=outputs,
    labels=labels,
    predict=at_own_size,
    evaluate=metrics,
    loss=loss,
    measure=measure,
    train_metrics=DetectionMetrics,
    check=check,
    show=on_canvas,
    draw=draw,
)

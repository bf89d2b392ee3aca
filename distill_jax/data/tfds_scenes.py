"""Scenes from TensorFlow Datasets, prepared as array_record: `voc`, `coco` and the like with boxes, `oxford_iiit_pet` with masks."""

import itertools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from distill_jax.data import scenes, tensorflow_sets
from distill_jax.data.dataset import Dataset
from distill_jax.data.scenes import Scene
from distill_jax.errors import UserError

MASK_CLASSES = ("pet", "background", "border")  # of oxford_iiit_pet, whose masks count from 1
FROM_ONE = ("voc", "bccd")  # sets whose boxes count pixels from 1 and include the last one, as in VOC's XML files: see data/voc.py
LOOKED_AT = 64  # scenes of a split, to see whether it has boxes
NEEDED = {"segmentation": "segmentation_mask and species", "detection": "objects with a class as label, and bbox"}


class Examples(Sequence):
    """The scenes of a split, read when they are asked for."""

    def __init__(self, name: str, source: Sequence[dict[str, Any]], task: str, first: int = 0):
        self.name, self.source, self.task, self.first = name, source, task, first  # first: the number of the first pixel, in boxes

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, row: int) -> Scene:
        if not 0 <= row < len(self):
            raise IndexError(row)
        example, name = self.source[row], f"{self.name}, example {row}"
        scene = Scene(name, example["image"], scenes.image_size(name, example["image"]))
        if self.task == "segmentation":
            return scene._replace(mask=example["segmentation_mask"][..., 0] - 1)
        return with_objects(scene, example["objects"], self.first)


def with_objects(scene: Scene, objects: dict[str, Any], first: int) -> Scene:
    """A scene with the objects that have an area; `first` is the number of the first pixel."""
    top, left, bottom, right = np.asarray(objects["bbox"], np.float32).reshape(-1, 4).T
    width, height = scene.size
    boxes = np.stack([left * width - first, top * height - first, right * width, bottom * height], axis=1)
    boxes = np.clip(boxes, 0, [width, height, width, height]).astype(np.float32)
    has_area = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    difficult, crowd = (np.asarray(objects.get(key, np.zeros(len(boxes))), bool)[has_area] for key in ("is_difficult", "is_crowd"))
    labels = np.asarray(objects["label"], np.int32)[has_area]
    return scene._replace(boxes=boxes[has_area], labels=labels, difficult=difficult | crowd, crowd=crowd)


def read(name: str, directory: str, task: str, size: int, **training: Any) -> Dataset:
    """Reads the split train, and the first of test and validation that has masks, or boxes among its first scenes (VOC2012's and COCO's
    test have none).

    Args:
      name: of the data set (data.name tfds:NAME).
      directory: data.dir; "" for TFDS's own.
      task: "segmentation", for oxford_iiit_pet; or "detection", for sets whose objects have a label and a bbox.
      size: side of the canvas (data.image_size).
      **training: see `scenes.StreamedScenes`.

    Raises:
      UserError: there is no such set, it is not prepared as array_record, or it lacks the features or the splits.
    """
    full_name, builder = f"tfds:{name}", tensorflow_sets.builder_of(name, directory)
    features, splits = builder.info.features, builder.info.splits
    if not tensorflow_sets.is_array_record(builder):
        how = f"tfds build {name.split(':')[0]} --file_format=array_record"
        raise UserError(f"data.name {full_name}: {task} reads only sets prepared as array_record; prepare it with `{how}`")
    classes = _classes(features, task)
    if "image" not in features or classes is None:
        raise UserError(f"data.name {full_name}: {task} needs the features image, and {NEEDED[task]}; it has {', '.join(features)}")
    first = int(re.split("[/:]", name)[0] in FROM_ONE)
    keys = [key for key in ("train", "test", "validation") if key in splits]
    found = {key: Examples(f"{full_name} {key}", tensorflow_sets.undecoded(builder, key), task, first) for key in keys}
    train = found.pop("train", None)
    test = next((each for each in found.values() if task == "segmentation" or scenes.has_boxes(itertools.islice(each, LOOKED_AT))), None)
    if train is None or test is None:
        what = " with boxes" if task == "detection" else ""
        raise UserError(f"data.name {full_name}: needs the splits train and test (or validation){what}; it has {list(splits)}")
    options = {"size": size, "num_classes": len(classes)}
    columns = scenes.columns(train, **options, **training), scenes.columns(test, **options)
    return Dataset(full_name, len(classes), *columns, classes=classes, task=task)


def _classes(features: dict[str, Any], task: str) -> tuple[str, ...] | None:
    """Names of the classes; None if the set lacks a feature that the task needs."""
    if task == "segmentation":
        return MASK_CLASSES if {"segmentation_mask", "species"} <= set(features) else None
    objects = features["objects"].feature if "objects" in features else {}
    return tuple(objects["label"].names) if {"label", "bbox"} <= set(objects) and hasattr(objects["label"], "names") else None

"""Scenes from TensorFlow Datasets, prepared as array_record: `voc` and the like with boxes, `oxford_iiit_pet` with masks and boxes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from distill_jax.data import scenes, tensorflow_sets
from distill_jax.data.dataset import Dataset
from distill_jax.data.scenes import Scene
from distill_jax.errors import UserError

MASK_CLASSES = ("pet", "background", "border")  # of oxford_iiit_pet, whose masks count from 1


class Examples(Sequence):
    """The scenes of a split, read when they are asked for."""

    def __init__(self, name: str, source: Sequence[dict[str, Any]], task: str):
        self.name, self.source, self.task = name, source, task

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, row: int) -> Scene:
        if not 0 <= row < len(self):
            raise IndexError(row)
        example, name = self.source[row], f"{self.name}, example {row}"
        scene = Scene(name, example["image"], scenes.image_size(name, example["image"]))
        if self.task == "segmentation":
            return scene._replace(mask=example["segmentation_mask"][..., 0] - 1)
        objects = example.get("objects") or {"bbox": example["head_bbox"][None], "label": [example["label"]]}
        top, left, bottom, right = np.asarray(objects["bbox"], np.float32).reshape(-1, 4).T
        width, height = scene.size
        boxes = np.stack([left * width, top * height, right * width, bottom * height], axis=1)
        difficult = np.asarray(objects.get("is_difficult", np.zeros(len(boxes))), bool)
        return scene._replace(boxes=boxes, labels=np.asarray(objects["label"], np.int32), difficult=difficult)


def read(name: str, directory: str, task: str, size: int, **training: Any) -> Dataset:
    """Reads the splits train, and test or validation.

    Args:
      name: of the data set (data.name tfds:NAME).
      directory: data.dir; "" for TFDS's own.
      task: "segmentation", for oxford_iiit_pet; or "detection", for sets with objects, or head_bbox and label.
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
    needed = {"segmentation": [("segmentation_mask", "species")], "detection": [("objects",), ("head_bbox", "label")]}[task]
    if "image" not in features or not any(set(each) <= set(features) for each in needed):
        wanted = " or ".join(" and ".join(each) for each in needed)
        raise UserError(f"data.name {full_name}: {task} needs the features image, and {wanted}; it has {', '.join(features)}")
    test = next((key for key in ("test", "validation") if key in splits), None)
    if "train" not in splits or test is None:
        raise UserError(f"data.name {full_name}: needs the splits train and test (or validation), has {list(splits)}")
    if task == "segmentation":
        classes = MASK_CLASSES
    else:
        label = features["objects"].feature["label"] if "objects" in features else features["label"]
        classes = tuple(label.names)
    found = [Examples(f"{full_name} {key}", tensorflow_sets.undecoded(builder, key), task) for key in ("train", test)]
    options = {"size": size, "num_classes": len(classes)}
    columns = scenes.columns(found[0], **options, **training), scenes.columns(found[1], **options)
    return Dataset(full_name, len(classes), *columns, classes=classes, task=task)

"""Data sets by name."""

from typing import Any

import numpy as np

from distill_jax import default_config, logs, processes
from distill_jax.data import batches, cifar, folder, masks, npz, scenes, streaming, tensorflow_sets, text, tfds_scenes, voc
from distill_jax.data.dataset import Dataset, balanced_rows, check, count, proportional_rows, split, strata, take
from distill_jax.data.images import average_blocks
from distill_jax.errors import UserError

KNOWN = ("digits", "cifar10", "cifar100", "tfds:NAME", "folder:PATH", "npz:PATH", "text:PATH", "voc:PATH", "masks:PATH")
SCENES = {
    "voc": ("segmentation", "detection"),
    "masks": ("segmentation",),
    "tfds": ("segmentation", "detection"),
}  # kind of data.name -> its tasks
DIGITS_TEST = 360


def load(
    name: str,
    directory: str = "",
    train_examples: int = 0,
    validation_examples: int = 0,
    text_fields: Any = None,
    image_size: int = 0,
    damaged: str = "refuse",
    tokenizer: str = "",
    downsample: int = 1,
    task: str = "classification",
    scene_fields: Any = None,
) -> Dataset:
    """Reads the data set `name`, one of KNOWN.

    Args:
      name: the data set (data.name).
      directory: the folder of CIFAR's files or archives, TFDS's data directory, or the folder that other paths are relative to (data.dir).
      train_examples: 0 for all, or the size of a class-balanced subset of `train` (data.train_examples).
      validation_examples: 0, or the size of a subset that is first held out from `train`, a share of each class, and replaces `test`, for
        tuning (data.validation_examples).
      text_fields: how to read a text data set (data.text); see `text.read`. None for the defaults.
      image_size: 0 to read all images into memory; otherwise images of any size are read from disk as needed, in square crops of this
        side in pixels (data.image_size).
      damaged: what to do about an unreadable streamed image: "refuse" stops the run there; "skip" first reads every image once and
        leaves out the damaged ones (data.damaged).
      tokenizer: for a text data set, the content of a trained run's tokenizer.json, to encode the sentences with the ids and the length
        that the run's network knows; "" to fit a new tokenizer to the training set.
      downsample: side, in pixels, of the blocks of an image that are each averaged to one pixel (data.downsample); 1 keeps the images.
      task: what the labels are: "classification"; "segmentation", a class for each pixel; or "detection", boxes (data.task).
      scene_fields: for segmentation and detection: config.data. None for the defaults.

    Every selection of rows is the same in every run. Nothing but damaged images is ever left out of the real `test`.

    Raises:
      UserError: the name is unknown, a file is missing or damaged, or there are too few examples; the message names the cause.
    """
    if damaged not in ("refuse", "skip"):
        raise UserError(f"data.damaged is {damaged!r}; known: refuse, skip")
    if task == "classification":
        dataset = _read(name, directory, text_fields, image_size, tokenizer)
    else:
        fields = default_config.get_config().data if scene_fields is None else scene_fields
        dataset = _read_scenes(name, directory, task, fields, image_size, damaged)
    check(dataset)
    if tokenizer and not dataset.tokenizer:
        raise UserError(f"data.name {name} has no sentences, but the given network reads sentences")
    if damaged == "skip" and image_size:
        dataset = dataset._replace(train=without_damaged(dataset.train), test=without_damaged(dataset.test))
    if validation_examples:
        check_count(name, "data.validation_examples", validation_examples, count(dataset.train) - 1)
        held_out = proportional_rows(strata(dataset.train), validation_examples)
        rest = np.setdiff1d(np.arange(count(dataset.train)), held_out)
        dataset = dataset._replace(train=take(dataset.train, rest), test=take(dataset.train, held_out), evaluated_on="validation")
    if train_examples:
        check_count(name, "data.train_examples", train_examples, count(dataset.train))
        dataset = dataset._replace(train=take(dataset.train, balanced_rows(strata(dataset.train), train_examples)))
    if downsample != 1:
        check_downsample(dataset, downsample)
        train, test = (rows | {"image": average_blocks(rows["image"], downsample)} for rows in (dataset.train, dataset.test))
        dataset = dataset._replace(train=train, test=test)
    return dataset


def load_config(fields: Any, tokenizer: str = "") -> Dataset:
    """Reads the data set of config.data; see `load`. Missing fields, as in older runs, have the defaults of `load`."""
    known = ("dir", "train_examples", "validation_examples", "text", "image_size", "damaged", "downsample", "task")
    arguments = {"dir": "directory", "text": "text_fields"}
    given = {arguments.get(field, field): getattr(fields, field) for field in known if hasattr(fields, field)}
    return load(fields.name, **given, tokenizer=tokenizer, scene_fields=fields)


def without_damaged(rows: dict[str, Any]) -> dict[str, Any]:
    """Leaves unreadable images out of a streamed split. The first process reads them all and decides for the others."""
    images, readable = rows["image"], np.ones(count(rows), bool)
    if processes.is_first():
        readable = streaming.are_readable(images)
    readable = processes.from_first(readable)
    damaged = [images.name(sample) for sample in np.flatnonzero(~readable)]
    if damaged:
        logs.say(f"left out {len(damaged)} unreadable of {len(readable)} images: {', '.join(damaged)}")
    if not readable.any():
        raise UserError(f"none of the {len(readable)} images of a split can be read")
    return take(rows, readable)


def check_downsample(dataset: Dataset, factor: int) -> None:
    """Raises UserError unless blocks of `factor` pixels squared tile the images of a data set."""
    images = dataset.train.get("image")
    if images is None or batches.is_streamed(dataset.train):
        kind = "sentences" if images is None else "streamed images, which data.image_size scales"
        raise UserError(f"data.downsample is {factor}, but {dataset.name} has {kind}; set it to 1")
    height, width = images.shape[1:3]
    if factor < 1 or height % factor or width % factor:
        raise UserError(f"data.downsample is {factor}, which does not divide the {width}x{height} images of {dataset.name}")


def check_count(name: str, field: str, count: int, available: int) -> None:
    if not 0 <= count <= available:
        raise UserError(f"{field} is {count}; {name} allows 0 to {available}")


def _read(name: str, directory: str, fields: Any, image_size: int, tokenizer: str) -> Dataset:
    kind, _, rest = name.partition(":")
    if image_size < 0:
        raise UserError(f"data.image_size is {image_size}; it must be at least 0")
    if image_size and kind not in ("folder", "tfds"):
        raise UserError(f"data.image_size is {image_size}, but {name} is not streamed; only folder:PATH and tfds:NAME are. Set it to 0")
    if name == "digits":
        return _digits()
    if name in cifar.SETS:
        return cifar.read(name, directory)
    if kind == "tfds" and rest:
        return tensorflow_sets.read(rest, directory, fields, image_size, tokenizer)
    if kind == "folder" and rest:
        return folder.read(rest, directory, image_size)
    if kind == "npz" and rest:
        return npz.read(rest, directory)
    if kind == "text" and rest:
        return text.read(rest, directory, fields, tokenizer)
    if kind in SCENES and rest:
        raise UserError(f"data.task is 'classification', but {name} is for {' and '.join(SCENES[kind])}; set data.task")
    raise UserError(f"data.name {name!r} is not known; known: {', '.join(KNOWN)}")


def _read_scenes(name: str, directory: str, task: str, fields: Any, image_size: int, damaged: str) -> Dataset:
    kind, _, path = name.partition(":")
    if task not in SCENES.get(kind, ()) or not path:
        suited = ", ".join(f"{each}:{'NAME' if each == 'tfds' else 'PATH'}" for each, tasks in SCENES.items() if task in tasks)
        raise UserError(f"data.task is {task!r}, but data.name is {name!r}; this task reads {suited}")
    if not image_size:
        raise UserError(f"data.image_size is 0; {task} needs the side of the training crops in pixels")
    training = {"scales": scenes.check_scales(fields.scales), "flip": fields.flip}
    if kind == "voc":
        return voc.read(path, directory, task, fields.voc, damaged, image_size, **training)
    if kind == "tfds":
        return tfds_scenes.read(path, directory, task, image_size, **training)
    return masks.read(path, directory, image_size, fields.void, damaged, **training)


def _digits() -> Dataset:
    from sklearn.datasets import load_digits  # here, since scikit-learn takes seconds to import

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    rows = split(images, digits.target)
    is_test = np.zeros(len(images), bool)
    is_test[balanced_rows(rows["label"], DIGITS_TEST)] = True
    return Dataset("digits", 10, take(rows, ~is_test), take(rows, is_test), classes=tuple("0123456789"))

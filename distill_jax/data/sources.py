"""Data sets by name."""

from typing import Any

import numpy as np

from distill_jax import logs, processes
from distill_jax.data import cifar, folder, npz, streaming, text, tfds
from distill_jax.data.dataset import Dataset, balanced_rows, check, split, take
from distill_jax.errors import UserError

KNOWN = ("digits", "cifar10", "cifar100", "tfds:NAME", "folder:PATH", "npz:PATH", "text:PATH")
DIGITS_TEST = 360


def load(
    name: str,
    directory: str = "",
    train_examples: int = 0,
    validation_examples: int = 0,
    text_fields: Any = None,
    image_size: int = 0,
    damaged: str = "refuse",
) -> Dataset:
    """Reads the data set `name`, one of KNOWN.

    Args:
      name: what to read (data.name).
      directory: where the CIFAR files or archives, or the TFDS data directory, are (data.dir).
      train_examples: 0 for all, else the size of a class-balanced subset of `train` (data.train_examples).
      validation_examples: 0, or how many rows, class-balanced, leave the training set first and take the place of `test`: for
        tuning (data.validation_examples).
      text_fields: how a text set is read (data.text).
      image_size: 0 to read all of it into memory; else images, of any size, are read from disk when they are needed, and cropped to so
        many pixels a side (data.image_size).
      damaged: of images on disk: "refuse" ends a run where one cannot be read; "skip" reads all of them first, once, and leaves such
        out of their split (data.damaged).

    All choices of rows are the same in every run; the real `test` is never cut, but for damaged images.

    Raises:
      UserError: an unknown name, a missing or damaged file, or too many examples; one line naming the culprit.
    """
    dataset = _read(name, directory, text_fields, image_size)
    check(dataset)
    if damaged not in ("refuse", "skip"):
        raise UserError(f"data.damaged is {damaged!r}; known: refuse, skip")
    if damaged == "skip" and image_size:
        dataset = dataset._replace(train=without_damaged(dataset.train), test=without_damaged(dataset.test))
    if validation_examples:
        check_count(name, "data.validation_examples", validation_examples, len(dataset.train["label"]) - 1)
        held_out = balanced_rows(np.asarray(dataset.train["label"]), validation_examples)
        rest = np.setdiff1d(np.arange(len(dataset.train["label"])), held_out)
        dataset = dataset._replace(train=take(dataset.train, rest), test=take(dataset.train, held_out))
    if train_examples:
        check_count(name, "data.train_examples", train_examples, len(dataset.train["label"]))
        dataset = dataset._replace(train=take(dataset.train, balanced_rows(np.asarray(dataset.train["label"]), train_examples)))
    return dataset


def load_config(fields: Any) -> Dataset:
    """What config.data asks for: see `load`."""
    examples = fields.train_examples, fields.validation_examples
    return load(fields.name, fields.dir, *examples, fields.text, fields.image_size, fields.damaged)


def without_damaged(rows: dict[str, Any]) -> dict[str, Any]:
    """A streamed split without the images that cannot be read. The first process reads them all and tells the others."""
    images, readable = rows["image"], np.ones(len(rows["label"]), bool)
    if processes.is_first():
        readable = streaming.are_readable(images)
    readable = processes.from_first(readable)
    damaged = [images.records[int(row)].name for row in images.rows[~readable]]
    if damaged:
        logs.say(f"left out {len(damaged)} of {len(readable)} images that cannot be read: {', '.join(damaged)}")
    return take(rows, readable)


def check_count(name: str, field: str, count: int, available: int) -> None:
    if not 0 <= count <= available:
        raise UserError(f"{field} is {count}; {name} allows 0 to {available}")


def _read(name: str, directory: str, fields: Any, image_size: int) -> Dataset:
    kind, _, rest = name.partition(":")
    if image_size and kind not in ("folder", "tfds"):
        raise UserError(f"data.image_size is {image_size}, but {name} is not streamed; folder:PATH and tfds:NAME are. Set it to 0")
    if name == "digits":
        return _digits()
    if name in cifar.SETS:
        return cifar.read(name, directory)
    if kind == "tfds" and rest:
        return tfds.read(rest, directory, fields, image_size)
    if kind == "folder" and rest:
        return folder.read(rest, image_size)
    if kind == "npz" and rest:
        return npz.read(rest)
    if kind == "text" and rest:
        return text.read(rest, directory, fields)
    raise UserError(f"data.name {name!r} is not known; known: {', '.join(KNOWN)}")


def _digits() -> Dataset:
    from sklearn.datasets import load_digits  # here, since scikit-learn takes seconds to import

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    rows = split(images, digits.target)
    is_test = np.zeros(len(images), bool)
    is_test[balanced_rows(rows["label"], DIGITS_TEST)] = True
    return Dataset("digits", 10, take(rows, ~is_test), take(rows, is_test))

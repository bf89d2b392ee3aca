"""Data sets by name."""

import numpy as np
from sklearn.datasets import load_digits

from distill_jax.data import cifar, folder, npz, tfds
from distill_jax.data.dataset import Dataset, balanced_rows, check, split, take
from distill_jax.errors import UserError

KNOWN = ("digits", "cifar10", "cifar100", "tfds:NAME", "folder:PATH", "npz:PATH")
DIGITS_TEST = 360


def load(name: str, directory: str = "", train_examples: int = 0) -> Dataset:
    """Reads the data set `name`, one of KNOWN, whole into memory.

    Args:
      name: what to read (data.name).
      directory: where the CIFAR files or archives, or the TFDS data directory, are (data.dir).
      train_examples: 0 for all, else the size of a class-balanced subset of `train` (data.train_examples).
        The subset is the same in every run, and `test` is never cut.

    Raises:
      UserError: an unknown name, a missing or damaged file, or too many train_examples; one line naming the culprit.
    """
    dataset = _read(name, directory)
    check(dataset)
    available = len(dataset.train["label"])
    if not 0 <= train_examples <= available:
        raise UserError(f"data.train_examples is {train_examples}; {name} allows 0 (all) to {available}")
    if not train_examples:
        return dataset
    return dataset._replace(train=take(dataset.train, balanced_rows(dataset.train["label"], train_examples)))


def _read(name: str, directory: str) -> Dataset:
    kind, _, rest = name.partition(":")
    if name == "digits":
        return _digits()
    if name in cifar.SETS:
        return cifar.read(name, directory)
    if kind == "tfds" and rest:
        return tfds.read(rest, directory)
    if kind == "folder" and rest:
        return folder.read(rest)
    if kind == "npz" and rest:
        return npz.read(rest)
    raise UserError(f"data.name {name!r} is not known; known: {', '.join(KNOWN)}")


def _digits() -> Dataset:
    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    rows = split(images, digits.target)
    is_test = np.zeros(len(images), bool)
    is_test[balanced_rows(rows["label"], DIGITS_TEST)] = True
    return Dataset("digits", 10, take(rows, ~is_test), take(rows, is_test))

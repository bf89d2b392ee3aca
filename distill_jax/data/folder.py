"""Image files in one directory a class, as ImageNet's are."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from distill_jax.data import streaming
from distill_jax.data.dataset import Dataset, held_out_rows, split, take
from distill_jax.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


class Listing(NamedTuple):
    """The files of a split and their classes."""

    files: list[str]
    labels: np.ndarray  # int32 [N]


def read(path: str, image_size: int = 0) -> Dataset:
    """Reads PATH/train/<class>/* and PATH/test/<class>/* (or val) as RGB; classes are sorted by name.

    Without a train directory it reads PATH/<class>/* and holds out the same fifth of every class in every run.
    Files that are no images by their suffix are ignored.

    Args:
      path: the folder.
      image_size: 0: the images are of one size and read into memory; else they are streamed, and cropped to so many pixels a side.

    Raises:
      UserError: a missing directory, a damaged file, images of two sizes, or a test class that train lacks.
    """
    root, name = Path(path).expanduser(), f"folder:{path}"
    if not root.is_dir():
        raise UserError(f"data.name {name}: {root} is no directory")
    classes, train, test = _listings(root)
    if image_size:
        splits = (streaming.columns(streaming.FileRecords(*listing), listing.labels, image_size) for listing in (train, test))
        return Dataset(name, len(classes), *splits)
    images, count = _images(train.files + test.files), len(train.files)
    return Dataset(name, len(classes), split(images[:count], train.labels), split(images[count:], test.labels))


def _listings(root: Path) -> tuple[list[str], Listing, Listing]:
    """The classes, the training files and the test files."""
    if not (root / "train").is_dir():
        return _without_splits(root)
    held_out = next((root / part for part in ("test", "val") if (root / part).is_dir()), None)
    if held_out is None:
        raise UserError(f"{root}: has train but neither test nor val")
    classes = _classes(root / "train")
    return classes, _files(root / "train", classes), _files(held_out, classes)


def _without_splits(root: Path) -> tuple[list[str], Listing, Listing]:
    classes = _classes(root)
    files, labels = _files(root, classes)
    is_test = held_out_rows(labels, 5)
    if not is_test.any():
        raise UserError(f"{root}: no class has the 5 images that it takes to hold out one for test")
    rows = {"file": np.array(files), "label": labels}
    train, test = take(rows, ~is_test), take(rows, is_test)
    return classes, Listing(train["file"].tolist(), train["label"]), Listing(test["file"].tolist(), test["label"])


def _classes(root: Path) -> list[str]:
    names = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise UserError(f"{root}: has no class directories")
    return names


def _files(root: Path, classes: Sequence[str]) -> Listing:
    files, labels = [], []
    for name in _classes(root):
        if name not in classes:
            raise UserError(f"{root / name}: class {name} is not in train")
        found = sorted(entry.path for entry in os.scandir(root / name) if entry.name.lower().endswith(SUFFIXES))
        if not found:
            raise UserError(f"{root / name}: has no images ({', '.join(SUFFIXES)})")
        files += found
        labels += [classes.index(name)] * len(found)
    return Listing(files, np.array(labels, np.int32))


def _images(files: Sequence[str]) -> np.ndarray:
    first = _image(files[0])
    images = np.empty((len(files), *first.shape), np.uint8)
    for row, file in enumerate(files):
        image = _image(file)
        if image.shape != first.shape:
            raise UserError(f"images must be of one size: {files[0]} is {_size(first)}, {file} is {_size(image)} (width x height)")
        images[row] = image
    return images


def _image(file: str) -> np.ndarray:
    try:
        with Image.open(file) as image:
            return np.asarray(image.convert("RGB"))
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged bytes
        raise UserError(f"{file}: not a readable image") from error


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"

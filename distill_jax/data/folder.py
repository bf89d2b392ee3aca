"""Image files in one directory per class, as in ImageNet."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from distill_jax.data import images, streaming
from distill_jax.data.dataset import Dataset, held_out_rows, locate, shown, split, take
from distill_jax.errors import UserError


class Listing(NamedTuple):
    """The files of a split and their classes."""

    files: list[str]
    labels: np.ndarray  # int32 [N]


def read(path: str, directory: str = "", image_size: int = 0) -> Dataset:
    """Reads PATH/train/<class>/* and PATH/test/<class>/* (or val) as RGB; classes are sorted by name.

    Without a train directory, reads PATH/<class>/* and holds out the same fifth of every class in every run. Hidden files and files
    without an image suffix are ignored. 16-bit grey images are scaled to 8 bits; transparency is dropped. EXIF orientations are ignored, as
    by torchvision's ImageFolder.

    Args:
      path: the folder (data.name folder:PATH). A relative path that does not exist here is resolved against `directory`.
      directory: data.dir, or "".
      image_size: 0 to read all images, which must have the same size, into memory; otherwise they are streamed, in square crops of this
        side in pixels.

    Raises:
      UserError: a directory is missing, or a class has no images or is not in train; for images in memory, one is damaged or their sizes
        differ.
    """
    root, name = locate(path, directory), f"folder:{path}"
    if not os.path.isdir(root):
        raise UserError(f"data.name {name}: {root} is not a directory")
    classes, train, test = _listings(root)
    if image_size:
        splits = [streaming.columns(streaming.FileRecords(*listing), listing.labels, image_size) for listing in (train, test)]
    else:
        pixels, count = _read_all(train.files + test.files), len(train.files)
        splits = [split(pixels[:count], train.labels), split(pixels[count:], test.labels)]
    return Dataset(name, len(classes), *splits, classes=tuple(classes))


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
        raise UserError(f"{root}: no class has the 5 images needed to hold out one for test")
    rows = {"file": np.array(files), "label": labels}
    train, test = take(rows, ~is_test), take(rows, is_test)
    return classes, Listing(train["file"].tolist(), train["label"]), Listing(test["file"].tolist(), test["label"])


def _classes(root: Path) -> list[str]:
    names = sorted(entry.name for entry in _entries(root) if entry.is_dir())
    if not names:
        raise UserError(f"{root}: has no class directories")
    return names


def _files(root: Path, classes: Sequence[str]) -> Listing:
    files, labels = [], []
    for name in _classes(root):
        if name not in classes:
            raise UserError(f"{root / name}: class {name} is not in train")
        found = _class_files(root / name)
        files += found
        labels += [classes.index(name)] * len(found)
    return Listing(files, np.array(labels, np.int32))


def _class_files(folder: Path) -> list[str]:
    """The images of a class. Warns of images in sub-folders, which are not read."""
    entries = _entries(folder)
    nested = next((entry.path for entry in entries if entry.is_dir() and _holds_images(entry.path)), None)
    found = sorted(entry.path for entry in entries if images.is_image(entry.name) and entry.is_file())
    if not found and nested:
        layout = "PATH/<class>/* or PATH/train/<class>/* and PATH/test/<class>/*"
        raise UserError(f"{folder}: has images only in sub-folders, such as {nested}; the layout must be {layout}")
    if not found:
        raise UserError(f"{folder}: has no images ({', '.join(images.SUFFIXES)})")
    if other := [entry.name for entry in entries if images.is_image(entry.name, images.UNREAD)]:
        warnings.warn(f"{folder}: not read: {shown(sorted(other))}; save them as JPEG or PNG", stacklevel=2)
    if nested:
        warnings.warn(f"{folder}: images in sub-folders, such as {nested}, are not read; move them up", stacklevel=2)
    return found


def _entries(folder: Path) -> list[os.DirEntry]:
    """All entries except hidden ones, such as .DS_Store, the ._x.png files of macOS, or .ipynb_checkpoints."""
    try:
        return [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}") from error


def _holds_images(folder: str) -> bool:
    return any(images.is_image(name) for _, _, names in os.walk(folder) for name in names)


def _read_all(files: Sequence[str]) -> np.ndarray:
    """uint8 [N, H, W, 3]."""
    first = _read_image(files[0])
    pixels = np.empty((len(files), *first.shape), np.uint8)
    for row, file in enumerate(files):
        image = _read_image(file)
        if image.shape != first.shape:
            raise UserError(
                f"images must all have the same size: {files[0]} is {_size(first)}, {file} is {_size(image)} (width x height); "
                "or set data.image_size, and data.crop_padding to 0, to stream and crop them"
            )
        pixels[row] = image
    return pixels


def _read_image(file: str) -> np.ndarray:
    with images.opened(file, file, "remove or replace it") as image:
        return np.asarray(images.to_rgb(file, image))


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"

"""Image files in one directory a class."""

from pathlib import Path

import numpy as np
from PIL import Image

from distill_jax.data.dataset import Dataset, held_out_rows, split, take
from distill_jax.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


def read(path: str) -> Dataset:
    """Reads PATH/train/<class>/* and PATH/test/<class>/* (or val) as RGB; classes are sorted by name.

    Without a train directory it reads PATH/<class>/* and holds out the same fifth of every class in every run.
    Files that are no images by their suffix are ignored.

    Raises:
      UserError: a missing directory, a damaged file, images of two sizes, or a test class that train lacks.
    """
    root, name = Path(path).expanduser(), f"folder:{path}"
    if not root.is_dir():
        raise UserError(f"data.name {name}: {root} is no directory")
    if not (root / "train").is_dir():
        return _without_splits(root, name)
    held_out = next((root / part for part in ("test", "val") if (root / part).is_dir()), None)
    if held_out is None:
        raise UserError(f"{root}: has train but neither test nor val")
    classes = _classes(root / "train")
    train_files, train_labels = _files(root / "train", classes)
    test_files, test_labels = _files(held_out, classes)
    images, count = _images(train_files + test_files), len(train_files)
    return Dataset(name, len(classes), split(images[:count], train_labels), split(images[count:], test_labels))


def _without_splits(root: Path, name: str) -> Dataset:
    classes = _classes(root)
    files, labels = _files(root, classes)
    rows = split(_images(files), labels)
    is_test = held_out_rows(rows["label"], 5)
    if not is_test.any():
        raise UserError(f"{root}: no class has the 5 images that it takes to hold out one for test")
    return Dataset(name, len(classes), take(rows, ~is_test), take(rows, is_test))


def _classes(root: Path) -> list[str]:
    names = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise UserError(f"{root}: has no class directories")
    return names


def _files(root: Path, classes: list[str]) -> tuple[list[Path], list[int]]:
    files, labels = [], []
    for name in _classes(root):
        if name not in classes:
            raise UserError(f"{root / name}: class {name} is not in train")
        found = sorted(file for file in (root / name).iterdir() if file.suffix.lower() in SUFFIXES)
        if not found:
            raise UserError(f"{root / name}: has no images ({', '.join(SUFFIXES)})")
        files += found
        labels += [classes.index(name)] * len(found)
    return files, labels


def _images(files: list[Path]) -> np.ndarray:
    first = _image(files[0])
    images = np.empty((len(files), *first.shape), np.uint8)
    for row, file in enumerate(files):
        image = _image(file)
        if image.shape != first.shape:
            raise UserError(f"images must be of one size: {files[0]} is {_size(first)}, {file} is {_size(image)} (width x height)")
        images[row] = image
    return images


def _image(file: Path) -> np.ndarray:
    try:
        with Image.open(file) as image:
            return np.asarray(image.convert("RGB"))
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged bytes
        raise UserError(f"{file}: not a readable image") from error


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"

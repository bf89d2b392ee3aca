"""Arrays in one .npz file: train_images, train_labels, test_images, test_labels and, optionally, class_names."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from distill_jax.data.dataset import Dataset, locate, split
from distill_jax.errors import UserError

KEYS = ("train_images", "train_labels", "test_images", "test_labels")


def read(path: str, directory: str = "") -> Dataset:
    """Reads uint8 images [N, H, W] or [N, H, W, C] and integer labels [N]; train_labels must use all of 0..C-1.

    Args:
      path: of the file (data.name npz:PATH). A relative path that does not exist here is resolved against `directory`.
      directory: data.dir, or "".

    Raises:
      UserError: the file is missing or damaged, or an array has the wrong dtype, shape or labels.
    """
    file = locate(path, directory)
    arrays = _arrays(file)
    train, test = (_split(file, arrays, part) for part in ("train", "test"))
    labels = np.unique(arrays["train_labels"])
    if not np.array_equal(labels, np.arange(len(labels))):
        raise UserError(f"{file}: train_labels must use all of 0..C-1, but has {len(labels)} values up to {labels[-1]}")
    return Dataset(f"npz:{path}", len(labels), train, test, classes=_class_names(file, arrays, len(labels)))


def _arrays(file: Path) -> dict[str, np.ndarray]:
    try:
        with file.open("rb") as handle, np.load(handle, allow_pickle=False) as archive:
            missing = [key for key in KEYS if key not in archive]
            if missing:
                raise UserError(f"{file}: no array {missing[0]}; needs {', '.join(KEYS)}")
            return {key: archive[key] for key in (*KEYS, "class_names") if key in archive}
    except (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{file}: {getattr(error, 'strerror', None) or 'not a readable .npz of plain arrays'}") from error


def _split(file: Path, arrays: dict[str, np.ndarray], part: str) -> dict[str, np.ndarray]:
    images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise UserError(f"{file}: {part}_images must be uint8 [N, H, W] or [N, H, W, C], not {images.dtype} {images.shape}")
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        raise UserError(f"{file}: {part}_labels must be {len(images)} integers, one per image, not {labels.dtype} {labels.shape}")
    if labels.max(initial=0) > np.iinfo(np.int32).max:
        raise UserError(f"{file}: {part}_labels are class numbers, but one is {labels.max()}")
    return split(images if images.ndim == 4 else images[..., None], labels)


def _class_names(file: Path, arrays: dict[str, np.ndarray], num_classes: int) -> tuple[str, ...]:
    if "class_names" not in arrays:
        return ()
    names = arrays["class_names"]
    if names.dtype.kind != "U" or names.shape != (num_classes,):
        raise UserError(f"{file}: class_names must be {num_classes} strings, one per class, not {names.dtype} {names.shape}")
    return tuple(names.tolist())

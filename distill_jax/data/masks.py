"""A folder of images and masks for segmentation, as in CamVid.

    PATH/train/*    PATH/trainannot/*.png    PATH/test/*    PATH/testannot/*.png    (or val, valannot)
    PATH/classes.txt (optional: one name per line)

An image and its mask have the same name except for the suffix. A mask's pixels are class indices; data.void marks unlabelled ones.
"""

from pathlib import Path
from typing import Any

import numpy as np

from distill_jax.data import images, scenes, streaming
from distill_jax.data.dataset import Dataset, locate
from distill_jax.data.scenes import Scene
from distill_jax.errors import UserError
from distill_jax.files import read_text

TEST = ("test", "val")


def read(path: str, directory: str, size: int, void: int, damaged: str, **training: Any) -> Dataset:
    """Reads a folder of images and masks.

    Args:
      path: the folder (data.name masks:PATH). A relative path that does not exist here is resolved against `directory`.
      directory: data.dir, or "".
      size: side of the canvas (data.image_size).
      void: see `scenes.StreamedScenes` (data.void).
      damaged: "refuse"; or "skip", to leave out images that cannot be opened or have no mask.
      **training: see `scenes.StreamedScenes`.

    Returns:
      The classes of classes.txt; without it, as many as the training masks use, without names.

    Raises:
      UserError: a folder is missing or empty, an image has no mask, the training masks have only one class, or see `class_names`.
    """
    root, name = locate(path, directory), f"masks:{path}"
    test = next((part for part in TEST if (root / part).is_dir()), TEST[0])
    found = [_pairs(root, part, damaged) for part in ("train", test)]
    classes = class_names(root)
    largest = (classes and _largest_class(found[0][:64], void)) or _largest_class(found[0], void)  # with names, one above 0 is enough
    if not largest:
        raise UserError(
            f"{root / 'trainannot'}: the masks have no class other than 0 (data.void is {void}); their pixels must be class indices, "
            "such as 0 and 1 instead of 0 and 255"
        )
    num_classes = len(classes) or largest + 1
    options = {"size": size, "num_classes": num_classes, "void": void}
    train, held_out = scenes.columns(found[0], **options, **training), scenes.columns(found[1], **options)
    return Dataset(name, num_classes, train, held_out, classes=classes, task="segmentation")


def class_names(root: Path) -> tuple[str, ...]:
    """The lines of classes.txt, the name of class 0 first; () without it.

    Raises:
      UserError: a line before the last name is blank, so that later names may belong to other classes.
    """
    file = root / "classes.txt"
    content = read_text(file).rstrip() if file.exists() else ""
    names = tuple(line.strip() for line in content.split("\n")) if content else ()
    if not all(names):
        raise UserError(f"{file}: line {names.index('') + 1} is blank; each line names a class, that of class 0 first")
    return names


def _pairs(root: Path, part: str, damaged: str) -> list[Scene]:
    for folder in (root / part, root / f"{part}annot"):
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; the layout is PATH/{part}/* and PATH/{part}annot/*.png")
    files = sorted(file for file in (root / part).iterdir() if images.is_image(file.name))
    if not files:
        raise UserError(f"{root / part}: has no images ({', '.join(images.SUFFIXES)})")

    def pair(file):
        mask = root / f"{part}annot" / f"{file.stem}.png"
        if not mask.exists():
            raise UserError(f"{mask}: no such mask for {file}")
        return Scene(str(file), str(file), scenes.image_size(str(file), str(file)), mask=str(mask))

    return scenes.read_all(pair, files, damaged)


def _largest_class(train: list[Scene], void: int) -> int:
    """That of the masks; damaged ones count as empty here, and are found when they are used."""

    def largest(row):
        try:
            with images.opened(train[row].mask, train[row].mask, "") as mask:
                pixels = np.asarray(mask)
        except UserError:
            return np.int32(-1)
        return pixels[pixels != void].max(initial=0).astype(np.int32)

    return int(np.concatenate(list(streaming.in_threads(np.arange(len(train)), largest, 64))).max(initial=0))

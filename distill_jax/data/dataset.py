"""The data set that every reader returns: its checks, description and fingerprint, and class-balanced selections of its rows."""

import hashlib
import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from distill_jax.data import scenes
from distill_jax.data.scenes import StreamedScenes
from distill_jax.data.streaming import StreamedImages, below_common_folder
from distill_jax.errors import UserError


class Dataset(NamedTuple):
    """A data set.

    For classification, `train` and `test` hold "image" (uint8 [N, H, W, C]) or "tokens" (int32 [N, L]), and "label" (int32 [N],
    0..num_classes-1). For images streamed from disk, "image" is a `streaming.StreamedImages`. For segmentation and detection it is a
    `scenes.StreamedScenes`, and the only column. The id of a sample is its row in `train`.
    """

    name: str
    num_classes: int
    train: dict[str, np.ndarray]
    test: dict[str, np.ndarray]
    tokenizer: str = ""  # of a text data set: its tokenizer as JSON, including the vocabulary
    classes: tuple[str, ...] = ()  # class names in the order of the labels; () if the data has none
    task: str = "classification"  # a key of `tasks.TASKS`: what the labels are
    evaluated_on: str = "test"  # what `test` holds: test, or validation if it was held out from the training set
    sentences: int = 0  # in a row of text: 1, or 2 for pairs; 0 for images

    @property
    def vocabulary_size(self) -> int:
        """Number of token ids; 0 for images."""
        content = json.loads(self.tokenizer or '{"model": {"vocab": []}}')
        return max([len(content["model"]["vocab"]), *(token["id"] + 1 for token in content.get("added_tokens", ()))])


def count(rows: dict[str, Any]) -> int:
    """Number of samples of a split."""
    return len(next(iter(rows.values())))


def strata(rows: dict[str, Any]) -> np.ndarray:
    """What a selection of a split's rows is balanced by, int [N]: their labels; for scenes, all equal."""
    return np.asarray(rows["label"]) if "label" in rows else np.zeros(count(rows), np.int32)


def split(images: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Builds a split of uint8 images [N, H, W, C] and integer labels [N]."""
    return {"image": images, "label": np.asarray(labels, np.int32)}


def take(rows: dict[str, np.ndarray], chosen: np.ndarray) -> dict[str, np.ndarray]:
    """The chosen rows (indices, or bool [N]) of a split."""
    return {key: value[chosen] for key, value in rows.items()}


def class_ranks(labels: np.ndarray) -> np.ndarray:
    """Each row's position (int [N], from 0) in a shuffled list of its class.

    The shuffle is the same in every run: RandomState's stream never changes between numpy releases.
    """
    shuffled = np.random.RandomState(0).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    counts = np.bincount(labels)
    starts = np.cumsum(counts) - counts
    ranks = np.empty(len(labels), int)
    ranks[by_class] = np.arange(len(labels)) - starts[labels[by_class]]
    return ranks


def balanced_rows(labels: np.ndarray, count: int) -> np.ndarray:
    """Indices of `count` rows, ascending, taken from the classes in turn.

    If `count` is not a multiple of the number of classes, the first classes get one row more. If a class runs out, the others make up for
    it.
    """
    return np.sort(np.lexsort((labels, class_ranks(labels)))[:count])


def proportional_rows(labels: np.ndarray, count: int) -> np.ndarray:
    """Indices of `count` rows, ascending, in which each class has its share of all rows (rounded by Webster's method).

    The same rows as `balanced_rows` if all classes have equally many.
    """
    share = (class_ranks(labels) + 0.5) / np.bincount(labels)[labels]
    return np.sort(np.lexsort((labels, share))[:count])


def held_out_rows(labels: np.ndarray, one_in: int) -> np.ndarray:
    """Which rows (bool [N]) to hold out for test: one in `one_in` of each class, rounded down, the same in every run."""
    return class_ranks(labels) < (np.bincount(labels) // one_in)[labels]


def describe(dataset: Dataset) -> str:
    """One human-readable line, such as "600 train, 180 test, 3 classes: Platelets, RBC, WBC"."""
    train, test = map(count, (dataset.train, dataset.test))
    names = ": " + shown(dataset.classes) if dataset.classes else ""
    return f"{train} train, {test} {dataset.evaluated_on}, {dataset.num_classes} classes{names}"


def shown(words: Sequence[str]) -> str:
    """The first ten words, each on one line and cut at 40 characters."""
    lines = [" ".join(word.encode(errors="replace").decode().split()) for word in words[:10]]  # folder names may not be UTF-8
    return ", ".join(line if len(line) <= 40 else f"{line[:37]}..." for line in lines) + (", ..." if len(words) > 10 else "")


def fingerprint(dataset: Dataset, schema: int = 2) -> dict[str, Any]:
    """Identifies the data, so that a resumed run can detect changes.

    Streamed images are identified by their records (for a folder: the file names), not by their content.

    Args:
      dataset: the data.
      schema: of the workdir whose data.json is compared. In schema 1 the names of streamed files are whole paths.

    Returns:
      train_examples, test_examples; train_sha256, test_sha256; and classes, a list, if the classes have names.
    """
    parts = {"train": dataset.train, "test": dataset.test}
    counts = {f"{part}_examples": count(rows) for part, rows in parts.items()}
    names = {"classes": list(dataset.classes)} if dataset.classes else {}
    return counts | {f"{part}_sha256": _sha256(rows, schema) for part, rows in parts.items()} | names


def _sha256(rows: dict[str, Any], schema: int) -> str:
    digest = hashlib.sha256()
    for key, column in sorted(rows.items()):
        if isinstance(column, np.ndarray):
            digest.update(key.encode())
            digest.update(np.ascontiguousarray(column).data)  # separately: appending it to the key would copy it
        elif isinstance(column, StreamedImages):
            files = list(getattr(column.records, "files", ()))
            if files and schema > 1:
                files = below_common_folder(files)
            digest.update(key.encode() + column.rows.tobytes() + "\n".join(files).encode(errors="surrogateescape"))
        elif isinstance(column, StreamedScenes):
            digest.update(key.encode() + scenes.identity(column))
    return digest.hexdigest()


def check(dataset: Dataset) -> None:
    """Rejects data that no run can use, and warns of classes without test examples.

    Raises:
      UserError: a split is empty, there is only one class, a label is out of range, images have no pixels, the inputs of train and test
        differ in shape, or detection has no box to be tested on.
    """
    for key, rows in (("train", dataset.train), ("test", dataset.test)):
        if not count(rows):
            raise UserError(f"{dataset.name}: the {key} split is empty")
        labels = rows.get("label")
        if isinstance(labels, np.ndarray) and (labels.min() < 0 or labels.max() >= dataset.num_classes):
            raise UserError(f"{dataset.name}: {key} labels must be 0..{dataset.num_classes - 1}, found {labels.min()}..{labels.max()}")
    if dataset.num_classes < 2 and dataset.task != "detection":
        raise UserError(f"{dataset.name}: has only one class; {dataset.task} needs two or more")
    for key in dataset.train.keys() - {"label"}:
        train_shape, test_shape = dataset.train[key].shape[1:], dataset.test[key].shape[1:]
        if train_shape != test_shape:
            raise UserError(f"{dataset.name}: train {key}s are {train_shape}, test {key}s {test_shape}")
        if 0 in train_shape:
            raise UserError(f"{dataset.name}: {key}s are empty, of shape {train_shape}")
    if dataset.task == "detection":
        test = dataset.test["image"]
        if not scenes.has_boxes(map(test.scene, range(len(test)))):
            raise UserError(f"{dataset.name}: no test image has a box, except difficult ones; choose an annotated test set")
    _warn_of_untested_classes(dataset)


def _warn_of_untested_classes(dataset: Dataset) -> None:
    labels = dataset.test.get("label")
    if not isinstance(labels, np.ndarray):
        return  # scenes; or a streamed TFDS data set: reading its labels takes a pass over all records
    missing = np.setdiff1d(np.arange(dataset.num_classes), labels)
    if missing.size:
        names = [dataset.classes[label] if dataset.classes else str(label) for label in missing]
        warnings.warn(f"{dataset.name}: no test examples of {missing.size} of {dataset.num_classes} classes: {shown(names)}", stacklevel=2)


def check_crop(dataset: Dataset, crop_padding: int) -> None:
    """Raises UserError if the images do not allow `crop_padding` (data.crop_padding, in pixels)."""
    images = dataset.train.get("image")
    if images is None:
        return
    if isinstance(images, StreamedImages | StreamedScenes) and crop_padding:
        raise UserError(f"data.crop_padding is {crop_padding}, but streamed images are random crops already; set it to 0")
    height, width = images.shape[1:3]
    if not 0 <= crop_padding < min(height, width):
        raise UserError(
            f"data.crop_padding is {crop_padding}; the {width}x{height} images of {dataset.name} allow 0 to {min(height, width) - 1}, "
            "or crops could lie outside the image"
        )


def locate(path: str, directory: str) -> Path:
    """The file or folder `path` of a data.name. A relative path that does not exist here is resolved against `directory` (data.dir)."""
    place = Path(path).expanduser()
    return place if path and os.path.exists(place) else Path(directory).expanduser() / place

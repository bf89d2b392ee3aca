"""What every reader returns, and the class-balanced choice of rows."""

import hashlib
import json
from typing import Any, NamedTuple

import numpy as np

from distill_jax.data.streaming import StreamedImages
from distill_jax.errors import UserError


class Dataset(NamedTuple):
    """A classification set.

    `train` and `test` hold "image" (uint8 [N, H, W, C]) or "tokens" (int32 [N, L]), and "label" (int32 [N], 0..num_classes-1).
    The id of a sample is its row in `train`. Of images that are streamed from disk, `streaming.StreamedImages` stands for the column.
    """

    name: str
    num_classes: int
    train: dict[str, np.ndarray]
    test: dict[str, np.ndarray]
    tokenizer: str = ""  # of a text set: its tokenizer as JSON, vocabulary included

    @property
    def vocabulary_size(self) -> int:
        """Number of token ids; 0 for images."""
        return len(json.loads(self.tokenizer)["model"]["vocab"]) if self.tokenizer else 0


def split(images: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """One split from uint8 images [N, H, W, C] and integer labels [N]."""
    return {"image": images, "label": np.asarray(labels, np.int32)}


def take(rows: dict[str, np.ndarray], chosen: np.ndarray) -> dict[str, np.ndarray]:
    """The chosen rows (indices, or bool [N]) of a split."""
    return {key: value[chosen] for key, value in rows.items()}


def class_ranks(labels: np.ndarray) -> np.ndarray:
    """Each row's place (int [N], from 0) in a shuffled list of its own class.

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
    """`count` row indices, ascending, dealt to the classes in turn.

    The first classes get one more if it does not divide; a class that runs out of rows leaves the rest to the others.
    """
    return np.sort(np.lexsort((labels, class_ranks(labels)))[:count])


def held_out_rows(labels: np.ndarray, one_in: int) -> np.ndarray:
    """Which rows (bool [N]) to hold out for test: one in `one_in` of each class, rounded down, the same ones in every run."""
    return class_ranks(labels) < (np.bincount(labels) // one_in)[labels]


def fingerprint(dataset: Dataset) -> dict[str, Any]:
    """By what a resumed run knows its data again: the numbers of examples, and a SHA-256 of the training set.

    Of streamed images it is one of which records they are (their names and classes, for a folder), not of their content.
    """
    digest = hashlib.sha256()
    for key, column in sorted(dataset.train.items()):
        if isinstance(column, np.ndarray):
            digest.update(key.encode())
            digest.update(np.ascontiguousarray(column).data)  # by itself: added to the key it would be copied
        elif isinstance(column, StreamedImages):
            digest.update(key.encode() + column.rows.tobytes() + "\n".join(getattr(column.records, "files", ())).encode())
    return {"train_examples": len(dataset.train["label"]), "test_examples": len(dataset.test["label"]), "train_sha256": digest.hexdigest()}


def check(dataset: Dataset) -> None:
    """Raises UserError if a split is empty, a label is out of range, or train and test inputs differ in shape."""
    for key, rows in (("train", dataset.train), ("test", dataset.test)):
        labels = rows["label"]
        if not len(labels):
            raise UserError(f"{dataset.name}: the {key} split is empty")
        if isinstance(labels, np.ndarray) and (labels.min() < 0 or labels.max() >= dataset.num_classes):
            raise UserError(f"{dataset.name}: {key} labels must be 0..{dataset.num_classes - 1}, found {labels.min()}..{labels.max()}")
    for key in dataset.train.keys() - {"label"}:
        train_shape, test_shape = dataset.train[key].shape[1:], dataset.test[key].shape[1:]
        if train_shape != test_shape:
            raise UserError(f"{dataset.name}: train {key}s are {train_shape}, test {key}s {test_shape}")

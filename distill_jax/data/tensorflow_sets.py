"""Image and sentence classification data sets from TensorFlow Datasets (TFDS).

Data sets prepared as array_record are read without TensorFlow; all others need it.
"""

import functools
import importlib.util
import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distill_jax.data import streaming, text
from distill_jax.data.dataset import Dataset, split
from distill_jax.errors import UserError

INSTALL = "install the tfds extra (pip install 'distill_jax[tfds]') or put the archives into data.dir"
SENTENCES = (  # features that hold a pair or a sentence; the first entry that a data set has is read
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("premise", "hypothesis"),
    ("question", "sentence"),
    ("title", "description"),
    ("sentence",),
    ("text",),
    ("description",),
)


class Examples:
    """A split prepared as array_record, with images not decoded. Implements `streaming.Records`."""

    def __init__(self, name: str, source: Sequence[dict[str, Any]]):
        self.name, self.source = name, source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, row: int) -> streaming.Record:
        example = self.source[row]
        return streaming.Record(f"{self.name}, example {row}", example["image"], int(example["label"]))


class Labels:
    """The column "label" of a split of `Examples`. Reading it takes a pass over the split, when the labels are first needed."""

    def __init__(self, examples: Examples):
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.all.astype(dtype or np.int32)

    def __getitem__(self, chosen: np.ndarray) -> np.ndarray:
        return self.all[chosen]

    @functools.cached_property
    def all(self) -> np.ndarray:
        rows = streaming.in_threads(np.arange(len(self)), lambda row: np.int32(self.examples[int(row)].label), 1024)
        return np.concatenate(list(rows))


def read(name: str, directory: str, fields: Any = None, image_size: int = 0, tokenizer: str = "") -> Dataset:
    """Reads the TFDS data set `name` from `directory` or, with TensorFlow installed, downloads it there.

    The data set needs the features "label", and "image" (uint8, all of the same size) or one of SENTENCES. The first of test, validation
    and validation_matched that has labels is the test set (GLUE's test has none).

    Args:
      name: of the data set (data.name tfds:NAME).
      directory: data.dir; "" for TFDS's own.
      fields: data.text; sentences use max_length and vocabulary_size. The splits are as in `text.read`.
      image_size: 0, or the side in pixels of the crops of streamed images, which may have any size. Streaming needs a data set prepared
        as array_record, whose examples can be read in any order.
      tokenizer: as in `text.read`.

    Raises:
      UserError: there is no such data set, it is of an unsupported kind, or it cannot be read without TensorFlow.
    """
    full_name = f"tfds:{name}"
    builder = builder_of(name, directory)
    features = dict(builder.info.features.items())
    sentences = _sentences(features, full_name)
    if image_size and not ("image" in features and is_array_record(builder)):
        raise UserError(
            f"data.name {full_name}: only images prepared as array_record can be streamed; "
            f"prepare them with `tfds build {name.split(':')[0]} --file_format=array_record`, or set data.image_size to 0"
        )
    rows = _row_reader(builder, full_name)
    keys = _split_names(builder, rows, full_name)
    label = features["label"]
    if sentences:
        splits = (_texts(rows(key), sentences, f"{full_name} {key}") for key in keys)
        return text.tokenized(full_name, label.num_classes, *splits, fields, tokenizer)._replace(classes=_class_names(label))
    if image_size:
        splits = (_streamed(builder, key, f"{full_name} {key}", image_size) for key in keys)
    else:
        splits = (_stack(rows(key), f"{full_name} {key}") for key in keys)
    return Dataset(full_name, label.num_classes, *splits, classes=_class_names(label))


def _sentences(features: dict[str, Any], full_name: str) -> tuple[str, ...]:
    """Names of the features that hold sentences; () for images."""
    sentences = next((keys for keys in SENTENCES if set(keys) <= set(features)), ())
    if not ("image" in features or sentences) or not hasattr(features.get("label"), "num_classes"):
        known = "; ".join(", ".join(keys) for keys in SENTENCES)
        raise UserError(f"data.name {full_name}: needs the features image and label, or label and one of {known}; it has {list(features)}")
    return () if "image" in features else sentences


def _split_names(builder: Any, rows: Callable[[str], Iterable[dict[str, Any]]], full_name: str) -> tuple[str, str]:
    """train, and the first test or validation split with labels."""
    splits = builder.info.splits
    candidates = [key for key in ("test", "validation", "validation_matched") if key in splits]
    held_out = next((key for key in candidates if not _is_unlabelled(rows(key))), None)
    if "train" not in splits or held_out is None:
        raise UserError(f"data.name {full_name}: needs the splits train and test (or validation); it has {list(splits)}")
    return "train", held_out


def _class_names(label: Any) -> tuple[str, ...]:
    """Names of a ClassLabel; () for the names that TFDS makes up: 0, 1, ..."""
    names = tuple(label.names or ())
    return () if names == tuple(str(number) for number in range(len(names))) else names


def builder_of(name: str, directory: str) -> Any:
    try:
        import tensorflow_datasets as tfds

        return tfds.builder(name, data_dir=Path(directory).expanduser() if directory else None)
    except ImportError as error:
        raise UserError(f"data.name tfds:{name}: {_first_line(error)}; {INSTALL}") from error
    except Exception as error:  # TFDS looks in many places, and each fails in its own way
        raise UserError(f"data.name tfds:{name}: {_first_line(error)}") from error


def _row_reader(builder: Any, full_name: str) -> Callable[[str], Iterable[dict[str, Any]]]:
    """A function from a split's name to its examples, in the order on disk."""
    if is_array_record(builder):
        return lambda key: builder.as_data_source(split=key)
    if not _has_tensorflow():
        raise UserError(
            f"data.name {full_name}: not prepared as array_record in {builder.data_path}, "
            f"and TensorFlow, which could prepare it, is not installed; {INSTALL}"
        )
    import tensorflow_datasets as tfds

    try:
        builder.download_and_prepare()
    except Exception as error:  # the network, the disk, the data set's own code
        raise UserError(f"data.name {full_name}: TFDS could not prepare it: {_first_line(error)}") from error
    one_shard_at_a_time = tfds.ReadConfig(interleave_cycle_length=1)
    return lambda key: tfds.as_numpy(builder.as_dataset(split=key, read_config=one_shard_at_a_time))


def is_array_record(builder: Any) -> bool:
    return builder.is_prepared() and builder.info.file_format.value == "array_record"


def _streamed(builder: Any, key: str, where: str, image_size: int) -> dict[str, Any]:
    examples = Examples(where, undecoded(builder, key))
    return streaming.columns(examples, Labels(examples), image_size)


def undecoded(builder: Any, key: str) -> Sequence[dict[str, Any]]:
    """The examples of a split prepared as array_record, their images as files."""
    import tensorflow_datasets as tfds

    return builder.as_data_source(split=key, decoders={"image": tfds.decode.SkipDecoding()})


def _has_tensorflow() -> bool:
    return importlib.util.find_spec("tensorflow") is not None


def _stack(examples: Iterable[dict[str, Any]], where: str) -> dict[str, np.ndarray]:
    images, labels = [], []
    for example in examples:
        image = example["image"]
        if image.dtype != np.uint8:
            raise UserError(f"{where}: images must be uint8, not {image.dtype}")
        if images and image.shape != images[0].shape:
            raise UserError(
                f"{where}: images must all have the same size, found {images[0].shape} and {image.shape} (H, W, C); "
                "or set data.image_size, and data.crop_padding to 0, to stream and crop them"
            )
        images.append(image)
        labels.append(example["label"])
    if not images:
        raise UserError(f"{where}: the split is empty")
    return split(np.stack(images), np.array(labels))


def _is_unlabelled(examples: Iterable[dict[str, Any]]) -> bool:
    return any(example["label"] == -1 for example in itertools.islice(examples, 1))


def _texts(examples: Iterable[dict[str, Any]], keys: tuple[str, ...], where: str) -> tuple[list[text.Row], np.ndarray]:
    rows = [
        text.Row(number, str(example["label"]), tuple(_string(example[key]).strip() for key in keys))
        for number, example in enumerate(examples, 1)
    ]
    rows = text.drop_empty(where, rows)
    return rows, np.array([int(row.label) for row in rows])


def _string(value: bytes | str) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else value


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)

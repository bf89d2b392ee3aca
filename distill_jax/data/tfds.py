"""Image classification sets of TensorFlow Datasets.

TFDS reads a set that was prepared as array_record without TensorFlow; anything else takes TensorFlow.
"""

import importlib.util
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from distill_jax.data.dataset import Dataset, split
from distill_jax.errors import UserError

INSTALL = "install the tfds extra (pip install 'distill_jax[tfds]') or put the archives into data.dir"


def read(name: str, directory: str) -> Dataset:
    """Reads the TFDS set `name` from (or, with TensorFlow installed, downloads it into) `directory`, "" for TFDS's own.

    Needs the features "image" (uint8, all of one size) and "label", and the splits train and test, or validation.

    Raises:
      UserError: no such set, not of that kind, or it cannot be read without TensorFlow.
    """
    full_name = f"tfds:{name}"
    builder = _builder(name, directory)
    features = dict(builder.info.features.items())
    if "image" not in features or not hasattr(features.get("label"), "num_classes"):
        raise UserError(f"data.name {full_name}: needs the features image and label, has {list(features)}")
    rows = _row_reader(builder, full_name)
    splits = builder.info.splits
    held_out = next((key for key in ("test", "validation") if key in splits), None)
    if "train" not in splits or held_out is None:
        raise UserError(f"data.name {full_name}: needs the splits train and test (or validation), has {list(splits)}")
    train, test = (_stack(rows(key), f"{full_name} {key}") for key in ("train", held_out))
    return Dataset(full_name, features["label"].num_classes, train, test)


def _builder(name: str, directory: str) -> Any:
    try:
        import tensorflow_datasets as tfds

        return tfds.builder(name, data_dir=Path(directory).expanduser() if directory else None)
    except ImportError as error:
        raise UserError(f"data.name tfds:{name}: {_first_line(error)}; {INSTALL}") from error
    except Exception as error:  # TFDS looks in many places, and each fails in its own way
        raise UserError(f"data.name tfds:{name}: {_first_line(error)}") from error


def _row_reader(builder: Any, full_name: str) -> Callable[[str], Iterable[dict[str, Any]]]:
    """A function from a split's name to its examples, in the order on disk."""
    if builder.is_prepared() and builder.info.file_format.value == "array_record":
        return lambda key: builder.as_data_source(split=key)
    if not _has_tensorflow():
        raise UserError(
            f"data.name {full_name}: not prepared as array_record in {builder.data_path}, "
            f"and TensorFlow, which could prepare it, is not installed; {INSTALL}"
        )
    import tensorflow_datasets as tfds

    try:
        builder.download_and_prepare()
    except Exception as error:  # the network, the disk, the set's own code
        raise UserError(f"data.name {full_name}: TFDS could not prepare it: {_first_line(error)}") from error
    one_shard_at_a_time = tfds.ReadConfig(interleave_cycle_length=1)
    return lambda key: tfds.as_numpy(builder.as_dataset(split=key, read_config=one_shard_at_a_time))


def _has_tensorflow() -> bool:
    return importlib.util.find_spec("tensorflow") is not None


def _stack(examples: Iterable[dict[str, Any]], where: str) -> dict[str, np.ndarray]:
    images, labels = [], []
    for example in examples:
        image = example["image"]
        if image.dtype != np.uint8:
            raise UserError(f"{where}: images must be uint8, are {image.dtype}")
        if images and image.shape != images[0].shape:
            raise UserError(f"{where}: images must be of one size, found {images[0].shape} and {image.shape} (H, W, C)")
        images.append(image)
        labels.append(example["label"])
    if not images:
        raise UserError(f"{where}: the split is empty")
    return split(np.stack(images), np.array(labels))


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)

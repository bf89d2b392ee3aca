"""CIFAR-10 and CIFAR-100 from the official files, unpacked or in their archive, in the python or the binary version."""

import hashlib
import io
import pickle
import tarfile
import warnings
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from distill_jax.data import tensorflow_sets
from distill_jax.data.dataset import Dataset, split
from distill_jax.errors import UserError

PIXELS = 3 * 32 * 32
Decoded = tuple[np.ndarray, np.ndarray]  # uint8 [N, 3072], channels first; integers [N]

MD5 = {
    "cifar-100-python/train": "16019d7e3df5f24257cddd939b257f8d",
    "cifar-100-python/test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    "cifar-10-batches-py/data_batch_1": "c99cafc152244af753f735de768cd75f",
    "cifar-10-batches-py/data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "cifar-10-batches-py/data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "cifar-10-batches-py/data_batch_4": "634d18415352ddfa80567beed471001a",
    "cifar-10-batches-py/data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "cifar-10-batches-py/test_batch": "40351d587109b95175f43aff81a1287e",
}


def read(name: str, directory: str) -> Dataset:
    """Reads `name`, cifar10 or cifar100 (fine labels), from the first version found in `directory`, otherwise from TFDS.

    `directory` holds the unpacked folder or the .tar.gz, or is the unpacked folder; archives are read in place. A file whose md5 is
    not the official one is read with a warning. Rows keep the order of the files, which differs from that of TFDS. The classes have
    names if the official file of names is next to the images.

    Raises:
      UserError: a file is missing or damaged, or the data set is neither in `directory` nor in TFDS.
    """
    num_classes, forms = SETS[name]
    found = _find(Path(directory).expanduser(), forms) if directory else None
    if found is None:
        return _from_tfds(name, directory, forms)
    form, place = found
    contents = _read_folder(place, form) if place.is_dir() else _read_archive(place, form)
    names = contents.pop(form.names, None)
    classes = () if names is None else _class_names(names, form, str(place / form.names), num_classes)
    parts = {file: _decode(raw, form, file, place, num_classes) for file, raw in contents.items()}
    train, test = (_join([parts[file] for file in files]) for files in (form.train, (form.test,)))
    return Dataset(name, num_classes, train, test, classes=classes)


class Form(NamedTuple):
    """One of the published versions of a data set."""

    folder: str
    archive: str
    train: tuple[str, ...]
    test: str
    decode: Callable[[bytes, str], Decoded]
    names: str  # file of the class names
    names_key: str  # of the names in that file, a pickle; "" for a text file with one name per line


def _find(directory: Path, forms: tuple[Form, ...]) -> tuple[Form, Path] | None:
    for form in forms:
        if (directory / form.folder).is_dir():
            return form, directory / form.folder
        if any((directory / file).is_file() for file in (*form.train, form.test)):
            return form, directory
        if (directory / form.archive).is_file():
            return form, directory / form.archive
    return None


def _from_tfds(name: str, directory: str, forms: tuple[Form, ...]) -> Dataset:
    try:
        return tensorflow_sets.read(name, directory)._replace(name=name)
    except UserError as error:
        looked_for = ", ".join(entry for form in forms for entry in (form.folder, form.archive))
        place = f"data.dir {directory} has none of" if directory else "data.dir is not set; it may hold one of"
        raise UserError(f"{name}: {place} {looked_for}; and TFDS failed: {error}") from error


def _read_folder(folder: Path, form: Form) -> dict[str, bytes]:
    names = (form.names,) if (folder / form.names).is_file() else ()
    try:
        return {file: (folder / file).read_bytes() for file in (*form.train, form.test, *names)}
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}") from error


def _read_archive(archive: Path, form: Form) -> dict[str, bytes]:
    contents, wanted = {}, {*form.train, form.test}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                file = PurePosixPath(member.name).name
                if member.isfile() and file in wanted | {form.names}:
                    contents[file] = tar.extractfile(member).read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or "not a readable .tar.gz (truncated or damaged)"
        raise UserError(f"{archive}: {reason}") from error
    if missing := sorted(wanted - contents.keys()):
        raise UserError(f"{archive}: has no file {missing[0]}")
    return contents


def _decode(raw: bytes, form: Form, file: str, place: Path, num_classes: int) -> Decoded:
    source = str(place / file)
    official = MD5.get(f"{form.folder}/{file}")
    if official and hashlib.md5(raw, usedforsecurity=False).hexdigest() != official:
        warnings.warn(f"{source}: md5 differs from the official file", stacklevel=2)
    images, labels = form.decode(raw, source)
    if labels.min() < 0 or labels.max() >= num_classes:
        raise UserError(f"{source}: labels must be 0..{num_classes - 1}, found {labels.min()}..{labels.max()}")
    return images, labels


def _join(parts: list[Decoded]) -> dict[str, np.ndarray]:
    images = np.concatenate([images for images, _ in parts]).reshape(-1, 3, 32, 32)
    labels = np.concatenate([labels for _, labels in parts])
    return split(np.ascontiguousarray(images.transpose(0, 2, 3, 1)), labels)


def _class_names(raw: bytes, form: Form, source: str, num_classes: int) -> tuple[str, ...]:
    if form.names_key:
        contents = _unpickle(raw, source)
        names = contents.get(form.names_key, contents.get(form.names_key.encode()))
    else:
        names = raw.split()
    if not isinstance(names, list) or len(names) != num_classes or not all(isinstance(name, (str, bytes)) for name in names):
        raise UserError(f"{source}: must hold the names of {num_classes} classes; repair or remove it")
    return tuple(name if isinstance(name, str) else name.decode("utf-8", "replace") for name in names)


def _decode_binary(raw: bytes, source: str, label_bytes: int) -> Decoded:
    record = label_bytes + PIXELS
    if not raw or len(raw) % record:
        raise UserError(f"{source}: {len(raw)} bytes are not a whole number of {record}-byte records")
    records = np.frombuffer(raw, np.uint8).reshape(-1, record)
    return records[:, label_bytes:], records[:, label_bytes - 1]


def _decode_python(raw: bytes, source: str, label_key: str) -> Decoded:
    batch = _unpickle(raw, source)
    images, labels = (batch.get(key, batch.get(key.encode())) for key in ("data", label_key))
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape[1:] != (PIXELS,):
        raise UserError(f"{source}: data must be a uint8 array [N, {PIXELS}]")
    if not isinstance(labels, list) or len(labels) != len(images) or not all(type(label) is int for label in labels):
        raise UserError(f"{source}: {label_key} must be a list of {len(images)} integers")
    if not labels:
        raise UserError(f"{source}: has no images")
    return images, np.array(labels)


def _unpickle(raw: bytes, source: str) -> dict[Any, Any]:
    try:
        batch = _ArrayUnpickler(raw, source).load()
    except UserError:
        raise
    except Exception as error:  # damaged bytes can make a pickle raise nearly anything
        raise UserError(f"{source}: not a readable CIFAR file (truncated or damaged)") from error
    if not isinstance(batch, dict):
        raise UserError(f"{source}: does not hold a dictionary")
    return batch


class _ArrayUnpickler(pickle.Unpickler):
    """Builds numpy arrays and plain containers. A pickle that asks for anything else could run code, so it is rejected."""

    def __init__(self, raw: bytes, source: str):
        super().__init__(io.BytesIO(raw), encoding="bytes")
        self._source = source

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise UserError(f"{self._source}: the pickle asks for {module}.{name}, which a CIFAR file never needs")
        return _ALLOWED[module, name]


def _latin1(text: str, encoding: str) -> bytes:
    """Replaces _codecs.encode, with which Python 3 writes bytes in protocol 2, always as latin1."""
    return text.encode("latin1")


_reconstruct = np.empty(0).__reduce__()[0]
_ALLOWED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("_codecs", "encode"): _latin1,
    ("__builtin__", "bytes"): bytes,
}

_CIFAR10_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
SETS: dict[str, tuple[int, tuple[Form, ...]]] = {
    "cifar10": (
        10,
        (
            Form(
                "cifar-10-batches-py",
                "cifar-10-python.tar.gz",
                _CIFAR10_BATCHES,
                "test_batch",
                partial(_decode_python, label_key="labels"),
                "batches.meta",
                "label_names",
            ),
            Form(
                "cifar-10-batches-bin",
                "cifar-10-binary.tar.gz",
                tuple(f"{batch}.bin" for batch in _CIFAR10_BATCHES),
                "test_batch.bin",
                partial(_decode_binary, label_bytes=1),
                "batches.meta.txt",
                "",
            ),
        ),
    ),
    "cifar100": (
        100,
        (
            Form(
                "cifar-100-python",
                "cifar-100-python.tar.gz",
                ("train",),
                "test",
                partial(_decode_python, label_key="fine_labels"),
                "meta",
                "fine_label_names",
            ),
            Form(
                "cifar-100-binary",
                "cifar-100-binary.tar.gz",
                ("train.bin",),
                "test.bin",
                partial(_decode_binary, label_bytes=2),
                "fine_label_names.txt",
                "",
            ),
        ),
    ),
}

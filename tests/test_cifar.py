"""CIFAR in its four official forms, from tiny fakes, and the errors for damaged files."""

import io
import os
import pickle
import shutil
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from helpers import loading_fails

from distill_jax.data import load, tensorflow_sets
from distill_jax.data.cifar import SETS
from distill_jax.errors import UserError

PYTHON, BINARY = 0, 1
pytestmark = pytest.mark.filterwarnings("ignore:.*no test examples")  # the fakes have four images


def fake_cifar(name: str) -> dict[str, tuple[np.ndarray, list[int]]]:
    """Pixels [N, 3072] and labels for each file of the python form."""
    num_classes, forms = SETS[name]
    rng = np.random.default_rng(0)
    return {
        file: (rng.integers(0, 256, (4, 3072), np.uint8), rng.integers(0, num_classes, 4).tolist())
        for file in (*forms[PYTHON].train, forms[PYTHON].test)
    }


def as_python(name: str, pixels: np.ndarray, labels: list[int]) -> bytes:
    key = "labels" if name == "cifar10" else "fine_labels"
    return pickle.dumps({"data": pixels, key: labels, "coarse_labels": [0] * len(labels)}, protocol=2)


def as_binary(name: str, pixels: np.ndarray, labels: list[int]) -> bytes:
    coarse = b"" if name == "cifar10" else b"\7"
    return b"".join(coarse + bytes([label]) + row.tobytes() for label, row in zip(labels, pixels, strict=True))


def contents(name: str, form: int) -> dict[str, bytes]:
    encode, suffix = ((as_python, ""), (as_binary, ".bin"))[form]
    return {file + suffix: encode(name, *batch) for file, batch in fake_cifar(name).items()}


def write_names(folder: Path, name: str, form: int) -> list[str]:
    layout = SETS[name][1][form]
    names = [f"name {number}" if form == PYTHON else f"name_{number}" for number in range(SETS[name][0])]
    raw = pickle.dumps({layout.names_key: [one.encode() for one in names]}, 2) if form == PYTHON else "\n".join([*names, ""]).encode()
    (folder / layout.names).write_bytes(raw)
    return names


def write_folder(directory: Path, name: str, form: int) -> Path:
    folder = directory / SETS[name][1][form].folder
    folder.mkdir(parents=True)
    for file, raw in contents(name, form).items():
        (folder / file).write_bytes(raw)
    return folder


def write_archive(directory: Path, name: str, form: int) -> Path:
    directory.mkdir(exist_ok=True)
    layout = SETS[name][1][form]
    with tarfile.open(directory / layout.archive, "w:gz") as tar:
        for file, raw in contents(name, form).items():
            member = tarfile.TarInfo(f"{layout.folder}/{file}")
            member.size = len(raw)
            tar.addfile(member, io.BytesIO(raw))
    return directory / layout.archive


@pytest.mark.filterwarnings("ignore:.*md5 differs")
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_forms_agree(tmp_path, name):
    write_folder(tmp_path / "a", name, PYTHON)
    write_archive(tmp_path / "b", name, PYTHON)
    write_folder(tmp_path / "c", name, BINARY)
    archive = write_archive(tmp_path / "d", name, BINARY)
    itself = [tmp_path / "a" / SETS[name][1][PYTHON].folder, tmp_path / "c" / SETS[name][1][BINARY].folder]
    batches = list(fake_cifar(name).values())
    first = load(name, str(tmp_path / "a"))
    assert first.name == name and first.num_classes == SETS[name][0]
    assert first.train["image"].shape == (4 * len(batches) - 4, 32, 32, 3)
    np.testing.assert_array_equal(first.train["image"][0], batches[0][0][0].reshape(3, 32, 32).transpose(1, 2, 0))
    np.testing.assert_array_equal(first.train["label"], np.concatenate([labels for _, labels in batches[:-1]]))
    np.testing.assert_array_equal(first.test["label"], batches[-1][1])
    for directory in (*(tmp_path / other for other in "bcd"), *itself):
        np.testing.assert_equal(load(name, str(directory)), first)
    assert list((tmp_path / "d").iterdir()) == [archive], "an archive is read in place"


@pytest.mark.filterwarnings("ignore:.*md5 differs")
@pytest.mark.parametrize("form", [PYTHON, BINARY])
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_class_names(tmp_path, name, form):
    layout, folder = SETS[name][1][form], write_folder(tmp_path, name, form)
    assert load(name, str(tmp_path)).classes == ()
    names = write_names(folder, name, form)
    assert load(name, str(tmp_path)).classes == load(name, str(folder)).classes == tuple(names)
    with tarfile.open(tmp_path / layout.archive, "w:gz") as tar:
        tar.add(folder, layout.folder)
    shutil.rmtree(folder)
    assert load(name, str(tmp_path)).classes == tuple(names)


@pytest.mark.filterwarnings("ignore:.*md5 differs")
def test_bad_class_names(tmp_path):
    meta = write_folder(tmp_path, "cifar100", PYTHON) / "meta"
    for contents in ({"fine_label_names": ["a"] * 99}, {"fine_label_names": [1] * 100}, {}):
        meta.write_bytes(pickle.dumps(contents, 2))
        loading_fails("cifar-100-python/meta: must hold the names of 100 classes; repair or remove it", "cifar100", str(tmp_path))
    meta.write_bytes(pickle.dumps({"fine_label_names": Malicious(tmp_path / "owned")}))
    loading_fails(r"cifar-100-python/meta: the pickle asks for \w+\.mkdir", "cifar100", str(tmp_path))


def test_home_directory_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_folder(tmp_path, "cifar100", BINARY)
    assert len(load("cifar100", "~").train["label"]) == 4


def test_md5_warning_names_each_python_file(tmp_path):
    write_folder(tmp_path, "cifar100", PYTHON)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load("cifar100", str(tmp_path))
    assert [str(one.message) for one in caught if "md5" in str(one.message)] == [
        f"{tmp_path / 'cifar-100-python' / file}: md5 differs from the official file" for file in ("train", "test")
    ]


def test_binary_files_have_no_md5_warning(tmp_path):
    write_folder(tmp_path, "cifar10", BINARY)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*md5")
        load("cifar10", str(tmp_path))


class Malicious:
    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.filterwarnings("ignore:.*md5 differs")
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_malicious_pickle_is_refused(tmp_path, protocol):
    folder = write_folder(tmp_path, "cifar100", PYTHON)
    (folder / "train").write_bytes(pickle.dumps({"data": Malicious(tmp_path / "owned")}, protocol=protocol))
    loading_fails(r"cifar-100-python/train: the pickle asks for \w+\.mkdir", "cifar100", str(tmp_path))
    assert not (tmp_path / "owned").exists()


PIXELS = np.zeros((2, 3072), np.uint8)
BAD_PICKLES = {
    "empty": (b"", "truncated or damaged"),
    "truncated": (as_python("cifar100", PIXELS, [0, 1])[:-100], "truncated or damaged"),
    "garbage": (b"\x80\x02garbage", "truncated or damaged"),
    "list": (pickle.dumps([1], 2), "does not hold a dictionary"),
    "no data": (pickle.dumps({"fine_labels": [0]}, 2), r"data must be a uint8 array \[N, 3072\]"),
    "shape": (as_python("cifar100", PIXELS[:, 1:], [0, 1]), "data must be"),
    "dtype": (as_python("cifar100", PIXELS.astype(float), [0, 1]), "data must be"),
    "label count": (as_python("cifar100", PIXELS, [0]), "fine_labels must be a list of 2 integers"),
    "label type": (as_python("cifar100", PIXELS, [0, "x"]), "fine_labels must be"),
    "label range": (as_python("cifar100", PIXELS, [0, 100]), r"labels must be 0\.\.99, found 0\.\.100"),
    "no rows": (as_python("cifar100", PIXELS[:0], []), "has no images"),
}


@pytest.mark.filterwarnings("ignore:.*md5 differs")
@pytest.mark.parametrize("case", BAD_PICKLES)
def test_bad_python_file(tmp_path, case):
    raw, message = BAD_PICKLES[case]
    (write_folder(tmp_path, "cifar100", PYTHON) / "train").write_bytes(raw)
    loading_fails(f"cifar-100-python/train: .*{message}", "cifar100", str(tmp_path))


@pytest.mark.parametrize("raw", [b"", b"\0" * 3073, b"\0" * 3074 + b"\0"])
def test_bad_binary_file(tmp_path, raw):
    (write_folder(tmp_path, "cifar100", BINARY) / "test.bin").write_bytes(raw)
    loading_fails(f"test.bin: {len(raw)} bytes are not a whole number of 3074-byte", "cifar100", str(tmp_path))


def test_missing_batch(tmp_path):
    (write_folder(tmp_path, "cifar10", PYTHON) / "data_batch_3").unlink()
    loading_fails("data_batch_3: No such file", "cifar10", str(tmp_path))


def test_archive_that_may_not_be_read(tmp_path, monkeypatch):
    archive = write_archive(tmp_path, "cifar100", PYTHON)
    monkeypatch.setattr(tarfile, "open", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied", str(archive))))
    loading_fails("cifar-100-python.tar.gz: Permission denied", "cifar100", str(tmp_path))


@pytest.mark.parametrize("keep", [0, 100, 5000])
def test_truncated_archive(tmp_path, keep):
    archive = write_archive(tmp_path, "cifar100", PYTHON)
    archive.write_bytes(archive.read_bytes()[:keep])
    loading_fails("cifar-100-python.tar.gz: not a readable .tar.gz", "cifar100", str(tmp_path))


def test_archive_without_the_files(tmp_path):
    tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz").close()
    loading_fails("cifar-10-binary.tar.gz: has no file data_batch_1.bin", "cifar10", str(tmp_path))


def test_cifar_not_found_says_where_it_looked(tmp_path, monkeypatch):
    def refuse(name, directory):
        raise UserError("no TFDS here")

    monkeypatch.setattr(tensorflow_sets, "read", refuse)
    names = "cifar-10-batches-py, cifar-10-python.tar.gz, cifar-10-batches-bin, cifar-10-binary.tar.gz"
    loading_fails(f"data.dir {tmp_path} has none of {names}; and TFDS failed: no TFDS here", "cifar10", str(tmp_path))
    loading_fails(f"data.dir is not set; it may hold one of {names}; and TFDS failed", "cifar10")


def test_real_cifar100():
    directory = os.environ.get("DISTILL_JAX_DATA_DIR", "")
    if not directory:
        pytest.skip("set DISTILL_JAX_DATA_DIR to the directory that holds cifar-100-python")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cifar = load("cifar100", directory)
    assert cifar.train["image"].shape == (50_000, 32, 32, 3) and cifar.test["image"].shape == (10_000, 32, 32, 3)
    assert set(np.bincount(cifar.train["label"])) == {500} and set(np.bincount(cifar.test["label"])) == {100}
    assert cifar.train["label"][:5].tolist() == [19, 29, 0, 11, 1]
    assert cifar.test["label"][:5].tolist() == [49, 33, 72, 51, 71]
    assert len(cifar.classes) == 100 and [cifar.classes[label] for label in (0, 19, 99)] == ["apple", "cattle", "worm"]

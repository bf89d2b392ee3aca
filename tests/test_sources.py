"""Data sets by name, from small files of every kind but CIFAR's, and what a user is told about bad ones."""

import io
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distill_jax.data import load, tfds
from distill_jax.errors import UserError

FIRST_DIGITS = [4, 5, 6, 9, 4, 7, 8, 9, 9, 6, 9, 9, 1, 7, 8, 2, 6, 6, 8, 1]


def fails(match: str, *arguments) -> None:
    """load(*arguments) must raise a one-line UserError that matches."""
    with pytest.raises(UserError, match=match) as caught:
        load(*arguments)
    assert "\n" not in str(caught.value)


@pytest.fixture
def without_tensorflow(monkeypatch):
    monkeypatch.setattr(tfds, "_has_tensorflow", lambda: False)


# Names, subsets, digits


def test_digits_sizes_and_balance():
    digits = load("digits")
    assert digits.num_classes == 10
    assert digits.train["image"].shape == (1437, 8, 8, 1) and digits.test["image"].shape == (360, 8, 8, 1)
    assert digits.train["image"].dtype == np.uint8 and digits.train["label"].dtype == np.int32
    assert digits.train["image"].max() == 255
    assert np.bincount(digits.test["label"]).tolist() == [36] * 10


def test_digits_split_is_the_same_everywhere():
    assert load("digits").test["label"][:20].tolist() == FIRST_DIGITS
    np.testing.assert_equal(load("digits"), load("digits"))


@pytest.mark.parametrize("name", ["mnist", "", "folder:", "npz:", "tfds:", "digits:x"])
def test_unknown_name_lists_the_known(name):
    fails("data.name .* known: digits, cifar10, cifar100, tfds:NAME, folder:PATH, npz:PATH", name)


@pytest.mark.parametrize("count", [3, 10, 25, 1437])
def test_subset_is_balanced_and_exact(count):
    whole, part = load("digits"), load("digits", train_examples=count)
    per_class = np.bincount(part.train["label"], minlength=10)
    assert per_class.sum() == count
    if count < 1437:
        assert per_class.tolist() == [count // 10 + (label < count % 10) for label in range(10)]
    np.testing.assert_array_equal(part.test["image"], whole.test["image"])
    np.testing.assert_array_equal(part.train["image"], load("digits", train_examples=count).train["image"], err_msg="not deterministic")


@pytest.mark.parametrize("count", [-1, 1438])
def test_subset_out_of_range(count):
    fails(f"data.train_examples is {count}; digits allows 0 to 1437", "digits", "", count)


def test_validation_comes_out_of_the_training_set():
    whole, held_out = load("digits"), load("digits", validation_examples=100, train_examples=500)
    assert len(held_out.train["label"]) == 500
    assert np.bincount(held_out.test["label"]).tolist() == [10] * 10
    rows = {image.tobytes() for image in whole.train["image"]}
    train, validation = ([image.tobytes() for image in part["image"]] for part in (held_out.train, held_out.test))
    assert not set(train) & set(validation) and set(train) | set(validation) <= rows
    np.testing.assert_array_equal(validation, [image.tobytes() for image in load("digits", validation_examples=100).test["image"]])
    fails("data.validation_examples is 1437; digits allows 0 to 1436", "digits", "", 0, 1437)
    fails("data.train_examples is 1338; digits allows 0 to 1337", "digits", "", 1338, 100)


# TFDS


def prepare(builder, directory: Path) -> None:
    builder(data_dir=str(directory), file_format="array_record").download_and_prepare()


def test_tfds_array_record(tmp_path, tiny_images, without_tensorflow):
    prepare(tiny_images, tmp_path)
    tiny = load("tfds:tiny_images", str(tmp_path))
    assert tiny.name == "tfds:tiny_images" and tiny.num_classes == 2
    assert tiny.train["image"].shape == (8, 4, 4, 1) and tiny.test["image"].shape == (4, 4, 4, 1)
    assert tiny.train["image"].dtype == np.uint8 and tiny.train["label"].dtype == np.int32
    assert sorted(tiny.train["image"][:, 0, 0, 0]) == list(range(8))
    np.testing.assert_array_equal(tiny.train["image"][:, 0, 0, 0] % 2, tiny.train["label"])


@pytest.mark.parametrize(
    "attribute, value, message",
    [
        ("SIZES", (4, 5), r"tfds:tiny_images train: images must be of one size"),
        ("SPLITS", {"train": 2}, r"data.name tfds:tiny_images: needs the splits train and test"),
        ("FEATURES", ("image",), r"data.name tfds:tiny_images: needs the features image and label, has \['image'\]"),
    ],
)
def test_tfds_unfit_sets(tmp_path, tiny_images, monkeypatch, attribute, value, message):
    monkeypatch.setattr(tiny_images, attribute, value)
    prepare(tiny_images, tmp_path)
    fails(message, "tfds:tiny_images", str(tmp_path))


def test_tfds_unprepared_without_tensorflow(tmp_path, tiny_images, monkeypatch, without_tensorflow):
    monkeypatch.setattr(tfds, "_builder", lambda name, directory: tiny_images(data_dir=directory))
    advice = r"install the tfds extra \(pip install 'distill_jax\[tfds\]'\) or put the archives into data.dir"
    fails(
        f"data.name tfds:tiny_images: not prepared as array_record in {tmp_path}.*{advice}",
        "tfds:tiny_images",
        str(tmp_path),
    )
    fails(f"cifar100: data.dir {tmp_path} has none of .*{advice}", "cifar100", str(tmp_path))


def test_tfds_unknown_set(tmp_path):
    pytest.importorskip("tensorflow_datasets")
    fails("data.name tfds:no_such_set: Dataset no_such_set not found", "tfds:no_such_set", str(tmp_path))


def test_tfds_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    fails("data.name tfds:mnist: .*tensorflow_datasets.*; install the tfds extra", "tfds:mnist")


def test_import_takes_no_tensorflow():
    program = "import sys, distill_jax.data; print([m for m in sys.modules if m.startswith('tensorflow')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# Folders of images


def write_image(file: Path, value: int = 0, size: tuple[int, int] = (6, 4)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, 0, 255)).save(file)


def write_images(root: Path, counts: dict[str, int]) -> None:
    for name, count in counts.items():
        for number in range(count):
            write_image(root / name / f"{number:03}.png", number)


@pytest.mark.parametrize("held_out", ["test", "val"])
def test_folder_with_splits(tmp_path, held_out):
    write_images(tmp_path / "train", {"dog": 2, "cat": 3})
    write_images(tmp_path / held_out, {"dog": 1, "cat": 1})
    write_image(tmp_path / "train" / "dog" / "last.BMP", 9)
    (tmp_path / "train" / "dog" / "notes.txt").write_text("no image")
    data = load(f"folder:{tmp_path}")
    assert data.name == f"folder:{tmp_path}" and data.num_classes == 2
    assert data.train["image"].shape == (6, 4, 6, 3) and data.train["image"].dtype == np.uint8
    assert data.train["label"].tolist() == [0, 0, 0, 1, 1, 1] and data.test["label"].tolist() == [0, 1]
    assert data.train["image"][:, 0, 0].tolist() == [[value, 0, 255] for value in (0, 1, 2, 0, 1, 9)]


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "bmp", "webp"])
def test_folder_formats(tmp_path, suffix):
    write_image(tmp_path / "train" / "a" / f"x.{suffix}")
    write_image(tmp_path / "test" / "a" / f"x.{suffix}")
    assert load(f"folder:{tmp_path}").train["image"].shape == (1, 4, 6, 3)


def test_folder_without_splits(tmp_path):
    write_images(tmp_path, {"a": 10, "b": 20, "c": 4})
    data = load(f"folder:{tmp_path}")
    assert np.bincount(data.train["label"]).tolist() == [8, 16, 4]
    assert np.bincount(data.test["label"], minlength=3).tolist() == [2, 4, 0]
    np.testing.assert_equal(data, load(f"folder:{tmp_path}"))


def test_folder_of_two_sizes_names_both_files(tmp_path):
    write_images(tmp_path / "train", {"a": 2})
    write_image(tmp_path / "test" / "a" / "odd.png", size=(7, 5))
    fails(r"one size: .*train/a/000.png is 6x4, .*test/a/odd.png is 7x5", f"folder:{tmp_path}")


@pytest.mark.parametrize("keep", [0, 20, 50])
def test_corrupt_image(tmp_path, keep):
    write_images(tmp_path, {"a": 5})
    damaged = tmp_path / "a" / "003.png"
    damaged.write_bytes(damaged.read_bytes()[:keep])
    fails("a/003.png: not a readable image", f"folder:{tmp_path}")


def test_bad_folders(tmp_path):
    fails("folder:.*nowhere is no directory", f"folder:{tmp_path / 'nowhere'}")
    fails("has no class directories", f"folder:{tmp_path}")
    (tmp_path / "a").mkdir()
    fails("/a: has no images", f"folder:{tmp_path}")
    write_images(tmp_path, {"a": 4})
    fails("no class has the 5 images", f"folder:{tmp_path}")
    write_images(tmp_path / "train", {"a": 1})
    fails("has train but neither test nor val", f"folder:{tmp_path}")
    write_images(tmp_path / "test", {"a": 1, "zebra": 1})
    fails("test/zebra: class zebra is not in train", f"folder:{tmp_path}")


# Arrays in an .npz


def arrays(**changes) -> dict[str, np.ndarray]:
    good = {
        "train_images": np.arange(6 * 4 * 5 * 3, dtype=np.uint8).reshape(6, 4, 5, 3),
        "train_labels": np.array([0, 1, 2, 0, 1, 2]),
        "test_images": np.zeros((2, 4, 5, 3), np.uint8),
        "test_labels": np.array([2, 0], np.uint8),
    }
    return {key: value for key, value in (good | changes).items() if value is not None}


def test_npz(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    np.savez(tmp_path / "x.npz", **arrays())
    data = load("npz:~/x.npz", train_examples=4)
    assert data.name == "npz:~/x.npz" and data.num_classes == 3
    assert data.train["image"].shape == (4, 4, 5, 3) and np.bincount(data.train["label"]).tolist() == [2, 1, 1]
    assert data.test["label"].tolist() == [2, 0] and data.test["label"].dtype == np.int32


def test_npz_without_channels(tmp_path):
    gray = {key: arrays()[key][..., 0] for key in ("train_images", "test_images")}
    np.savez(tmp_path / "x.npz", **arrays(**gray))
    assert load(f"npz:{tmp_path / 'x.npz'}").train["image"].shape == (6, 4, 5, 1)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"test_labels": None}, "no array test_labels; needs train_images"),
        ({"train_images": np.zeros((6, 4, 5, 3))}, "train_images must be uint8 .* is float64"),
        ({"train_images": np.zeros((6, 60), np.uint8)}, r"train_images must be uint8 .* \(6, 60\)"),
        ({"train_images": np.array([None] * 6)}, "not a readable .npz of plain arrays"),
        ({"train_labels": np.zeros(6)}, "train_labels must be 6 integers"),
        ({"train_labels": np.zeros(5, int)}, "train_labels must be 6 integers"),
        ({"train_labels": np.array([1, 2, 3, 1, 2, 3])}, r"must use all of 0\.\.C-1, has 3 values up to 3"),
        ({"train_labels": np.array([-1, 0, 1, 0, 1, 0])}, r"must use all of 0\.\.C-1"),
        ({"test_labels": np.array([0, 3])}, r"test labels must be 0\.\.2, found 0\.\.3"),
        ({"test_images": np.zeros((2, 4, 4, 3), np.uint8)}, r"train images are \(4, 5, 3\), test images \(4, 4, 3\)"),
        ({"test_images": np.zeros((0, 4, 5, 3), np.uint8), "test_labels": np.zeros(0, int)}, "test split is empty"),
    ],
)
def test_bad_npz(tmp_path, changes, message):
    np.savez(tmp_path / "x.npz", **arrays(**changes))
    fails(f"{tmp_path / 'x.npz'}: .*{message}", f"npz:{tmp_path / 'x.npz'}")


def test_npz_that_is_none(tmp_path):
    file = tmp_path / "x.npz"
    fails("x.npz: no such file", f"npz:{file}")
    np.savez(file, **arrays())
    whole = file.read_bytes()
    single = io.BytesIO()
    np.save(single, np.zeros(3))
    for raw in (b"", b"text", whole[:200], single.getvalue(), pickle.dumps({"train_images": 1})):
        file.write_bytes(raw)
        fails("x.npz: not a readable .npz", f"npz:{file}")

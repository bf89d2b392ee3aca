"""Arrays in an .npz, and the errors for bad ones."""

import io
import pickle

import numpy as np
import pytest
from helpers import loading_fails
from images_helpers import arrays

from distill_jax.data import load


def test_npz(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    np.savez(tmp_path / "x.npz", **arrays())
    data = load("npz:~/x.npz", train_examples=4)
    assert data.name == "npz:~/x.npz" and data.num_classes == 3
    assert data.train["image"].shape == (4, 4, 5, 3) and np.bincount(data.train["label"]).tolist() == [2, 1, 1]
    assert data.classes == ()
    assert data.test["label"].tolist() == [2, 0, 1] and data.test["label"].dtype == np.int32


def test_npz_without_channels(tmp_path):
    gray = {key: arrays()[key][..., 0] for key in ("train_images", "test_images")}
    np.savez(tmp_path / "x.npz", **arrays(**gray))
    assert load(f"npz:{tmp_path / 'x.npz'}").train["image"].shape == (6, 4, 5, 1)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"test_labels": None}, "no array test_labels; needs train_images"),
        ({"train_images": np.zeros((6, 4, 5, 3))}, "train_images must be uint8 .* not float64"),
        ({"train_images": np.zeros((6, 60), np.uint8)}, r"train_images must be uint8 .* \(6, 60\)"),
        ({"train_images": np.array([None] * 6)}, "not a readable .npz of plain arrays"),
        ({"train_labels": np.zeros(6)}, "train_labels must be 6 integers"),
        ({"train_labels": np.zeros(5, int)}, "train_labels must be 6 integers"),
        ({"train_labels": np.array([1, 2, 3, 1, 2, 3])}, r"must use all of 0\.\.C-1, but has 3 values up to 3"),
        ({"train_labels": np.array([-1, 0, 1, 0, 1, 0])}, r"must use all of 0\.\.C-1"),
        ({"test_labels": np.array([0, 2**32, 1])}, "test_labels are class numbers, but one is 4294967296"),
        ({"test_labels": np.array([0, 3, 1])}, r"test labels must be 0\.\.2, found 0\.\.3"),
        ({"test_images": np.zeros((3, 4, 4, 3), np.uint8)}, r"train images are \(4, 5, 3\), test images \(4, 4, 3\)"),
        ({"test_images": np.zeros((0, 4, 5, 3), np.uint8), "test_labels": np.zeros(0, int)}, "test split is empty"),
        ({"train_images": np.zeros((0, 4, 5, 3), np.uint8), "train_labels": np.zeros(0, int)}, "train split is empty"),
        ({"train_images": np.zeros((6, 4, 5, 0), np.uint8), "test_images": np.zeros((3, 4, 5, 0), np.uint8)}, r"of shape \(4, 5, 0\)"),
        (
            {"train_images": np.zeros((6, 0, 0), np.uint8), "test_images": np.zeros((3, 0, 0), np.uint8)},
            r"images are empty, of shape \(0, 0",
        ),
        ({"train_labels": np.zeros(6, int), "test_labels": np.zeros(3, int)}, "has only one class; classification needs two or more"),
        ({"class_names": np.array(["a", "b"])}, "class_names must be 3 strings, one per class, not <U1"),
        ({"class_names": np.arange(3)}, "class_names must be 3 strings"),
        ({"class_names": np.array(["a", "b", None])}, "not a readable .npz of plain arrays"),
    ],
)
def test_bad_npz(tmp_path, changes, message):
    np.savez(tmp_path / "x.npz", **arrays(**changes))
    loading_fails(f"{tmp_path / 'x.npz'}: .*{message}", f"npz:{tmp_path / 'x.npz'}")


def test_npz_that_is_none(tmp_path):
    file = tmp_path / "x.npz"
    loading_fails("x.npz: No such file", f"npz:{file}")
    np.savez(file, **arrays())
    whole = file.read_bytes()
    single = io.BytesIO()
    np.save(single, np.zeros(3))
    for raw in (b"", b"text", whole[:200], single.getvalue(), pickle.dumps({"train_images": 1})):
        file.write_bytes(raw)
        loading_fails("x.npz: not a readable .npz", f"npz:{file}")

"""Data sets by name: their subsets, descriptions and checks, and the errors for bad ones."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import loading_fails, text_config, write_npz
from images_helpers import write_folder

from distill_jax.data import load, load_config, streaming
from distill_jax.data.dataset import Dataset, balanced_rows, check_crop, describe, fingerprint, proportional_rows
from distill_jax.errors import UserError

FIRST_DIGITS = [4, 5, 6, 9, 4, 7, 8, 9, 9, 6, 9, 9, 1, 7, 8, 2, 6, 6, 8, 1]


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
    loading_fails("data.name .* known: digits, cifar10, cifar100, tfds:NAME, folder:PATH, npz:PATH", name)


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
    loading_fails(f"data.train_examples is {count}; digits allows 0 to 1437", "digits", "", count)


def test_validation_comes_out_of_the_training_set():
    whole, held_out = load("digits"), load("digits", validation_examples=100, train_examples=500)
    assert len(held_out.train["label"]) == 500
    assert np.bincount(held_out.test["label"]).tolist() == [10] * 10
    rows = {image.tobytes() for image in whole.train["image"]}
    train, validation = ([image.tobytes() for image in part["image"]] for part in (held_out.train, held_out.test))
    assert not set(train) & set(validation) and set(train) | set(validation) <= rows
    np.testing.assert_array_equal(validation, [image.tobytes() for image in load("digits", validation_examples=100).test["image"]])
    loading_fails("data.validation_examples is 1437; digits allows 0 to 1436", "digits", "", 0, 1437)
    loading_fails("data.train_examples is 1338; digits allows 0 to 1337", "digits", "", 1338, 100)


def test_a_validation_set_has_a_share_of_each_class(tmp_path):
    """A rare class keeps its training examples."""
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    images = np.arange(100, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8)
    data = load(write_npz(tmp_path / "x.npz", images, labels, (images[:3], np.arange(3))), validation_examples=20)
    assert np.bincount(data.test["label"]).tolist() == [12, 6, 2] and np.bincount(data.train["label"]).tolist() == [48, 24, 8]
    equal = np.repeat(np.arange(7), 9)
    np.testing.assert_array_equal(proportional_rows(equal, 17), balanced_rows(equal, 17))


def test_downsampling_averages_blocks_and_rounds_halves_up(tmp_path):
    """Means 1.25, 1.5, 254.75 and 1.75 of blocks of 2x2, the first in channel 1 alone."""
    image = np.array([[1, 1, 1, 1], [1, 2, 2, 2], [255, 255, 1, 2], [255, 254, 2, 2]], np.uint8)
    images = np.stack([np.stack([np.zeros_like(image), image, image], axis=-1)] * 2)
    name = write_npz(tmp_path / "x.npz", images, [0, 1])
    data = load(name, downsample=2)
    for rows in (data.train, data.test):
        assert rows["image"].shape == (2, 2, 2, 3) and rows["image"].dtype == np.uint8
        assert rows["image"][1, :, :, 1].tolist() == [[1, 2], [255, 2]] and not rows["image"][..., 0].any()
    assert load(name, downsample=4).train["image"][0, 0, 0, 2] == 65  # 1037 / 16 = 64.8
    np.testing.assert_array_equal(load(name, downsample=1).train["image"], images)


def test_what_downsampling_does_not_divide_is_refused(sentences, photographs):
    with pytest.raises(UserError, match="^data.downsample is 3, which does not divide the 8x8 images of digits$"):
        load("digits", downsample=3)
    with pytest.raises(UserError, match="^data.downsample is 2, but .* has sentences; set it to 1$"):
        load_config(text_config(sentences, data__downsample=2).data)
    with pytest.raises(UserError, match="has streamed images, which data.image_size scales; set it to 1$"):
        load(f"folder:{photographs}", image_size=16, downsample=2)


# Descriptions and checks of every data set


def test_a_set_in_one_line(tmp_path):
    assert describe(load("digits")) == "1437 train, 360 test, 10 classes: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    validated = load("digits", validation_examples=100)._replace(classes=())
    assert validated.evaluated_on == "validation" and describe(validated) == "1337 train, 100 validation, 10 classes"
    write_folder(tmp_path, {f"{number:02}": 5 for number in range(11)} | {"08": 5, "09 " + "x" * 50: 5})
    expected = ", ".join(f"{number:02}" for number in range(10))
    assert describe(load(f"folder:{tmp_path}")) == f"48 train, 12 test, 12 classes: {expected}, ..."
    assert describe(load("digits")._replace(classes=("two\nlines", "x" * 50))).endswith(f": two lines, {'x' * 37}...")


def test_fingerprint_covers_every_part():
    digits = load("digits", train_examples=200)
    first = fingerprint(digits)
    # older workdirs contain this hash
    assert first["train_sha256"] == "fd7eba3761a521de2107a56a48b23d7a470b8731ab14bea78de882ff8846c551"
    assert (first["train_examples"], first["test_examples"], first["classes"]) == (200, 360, list("0123456789"))
    relabelled = digits.test | {"label": np.roll(digits.test["label"], 1)}
    changed = fingerprint(digits._replace(test=relabelled, classes=()))
    assert changed == {key: first[key] for key in first if key != "classes"} | {"test_sha256": changed["test_sha256"]}
    assert changed["test_sha256"] != first["test_sha256"]


def test_fingerprint_of_streamed_images_names_the_test_files(tmp_path):
    write_folder(tmp_path / "train", {"a": 2, "b": 2})
    write_folder(tmp_path / "test", {"a": 2, "b": 2})
    before = fingerprint(load(f"folder:{tmp_path}", image_size=4))
    (tmp_path / "test" / "a" / "000.png").rename(tmp_path / "test" / "a" / "new.png")
    after = fingerprint(load(f"folder:{tmp_path}", image_size=4))
    assert after["train_sha256"] == before["train_sha256"] and after["test_sha256"] != before["test_sha256"]


def test_streamed_images_may_move(tmp_path):
    """Their fingerprint has the files' names below their folder. That of schema 1 has whole paths."""
    write_folder(tmp_path / "old", {"a": 5, "b": 5})
    old = load(f"folder:{tmp_path / 'old'}", image_size=4)
    shutil.copytree(tmp_path / "old", tmp_path / "new")
    new = load(f"folder:{tmp_path / 'new'}", image_size=4)
    assert fingerprint(new) == fingerprint(old)
    assert fingerprint(new, schema=1) != fingerprint(old, schema=1)
    (tmp_path / "new" / "b").rename(tmp_path / "new" / "c")
    assert fingerprint(load(f"folder:{tmp_path / 'new'}", image_size=4)) != fingerprint(old)


def test_names_of_files_that_are_no_utf8():
    rows = streaming.columns(streaming.FileRecords(["caf\udce9/1.png"], np.zeros(1)), np.zeros(1, np.int32), 4)
    odd = Dataset("folder:x", 2, rows, rows, classes=("caf\udce9", "bar"))
    assert describe(odd) == "1 train, 1 test, 2 classes: caf?, bar" and fingerprint(odd)["classes"] == ["caf\udce9", "bar"]


def test_crops_must_show_some_of_the_image(tmp_path):
    digits = load("digits")
    check_crop(digits, 0), check_crop(digits, 7)
    for padding in (-1, 8):
        with pytest.raises(UserError, match=f"data.crop_padding is {padding}; the 8x8 images of digits allow 0 to 7"):
            check_crop(digits, padding)
    write_folder(tmp_path, {"a": 5, "b": 5})
    streamed = load(f"folder:{tmp_path}", image_size=4)
    check_crop(streamed, 0)
    with pytest.raises(UserError, match="data.crop_padding is 4, but streamed images are random crops already; set it to 0"):
        check_crop(streamed, 4)


def test_a_config_of_an_older_run_lacks_fields():
    np.testing.assert_equal(load_config(SimpleNamespace(name="digits", train_examples=50)), load("digits", train_examples=50))


def test_no_image_can_be_read(tmp_path):
    write_folder(tmp_path, {"a": 5, "b": 5})
    for file in tmp_path.glob("*/*.png"):
        file.write_bytes(b"")
    with pytest.raises(UserError, match="none of the 8 images of a split can be read"):
        load(f"folder:{tmp_path}", image_size=4, damaged="skip")


def test_a_tokenizer_for_images():
    with pytest.raises(UserError, match="data.name digits has no sentences"):
        load("digits", tokenizer="{}")

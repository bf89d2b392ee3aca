"""Data sets by name, from small files of every kind except CIFAR, and the errors for bad ones."""

import io
import itertools
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import loading_fails, text_config, write_npz
from PIL import Image

from distill_jax.data import images, load, load_config, streaming, tensorflow_sets
from distill_jax.data.dataset import Dataset, check_crop, describe, fingerprint
from distill_jax.errors import UserError

FIRST_DIGITS = [4, 5, 6, 9, 4, 7, 8, 9, 9, 6, 9, 9, 1, 7, 8, 2, 6, 6, 8, 1]


@pytest.fixture
def without_tensorflow(monkeypatch):
    monkeypatch.setattr(tensorflow_sets, "_has_tensorflow", lambda: False)


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
    write_images(tmp_path, {f"{number:02}": 5 for number in range(11)} | {"08": 5, "09 " + "x" * 50: 5})
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
    write_images(tmp_path / "train", {"a": 2, "b": 2})
    write_images(tmp_path / "test", {"a": 2, "b": 2})
    before = fingerprint(load(f"folder:{tmp_path}", image_size=4))
    (tmp_path / "test" / "a" / "000.png").rename(tmp_path / "test" / "a" / "new.png")
    after = fingerprint(load(f"folder:{tmp_path}", image_size=4))
    assert after["train_sha256"] == before["train_sha256"] and after["test_sha256"] != before["test_sha256"]


def test_streamed_images_may_move(tmp_path):
    """Their fingerprint has the files' names below their folder. That of schema 1 has whole paths."""
    write_images(tmp_path / "old", {"a": 5, "b": 5})
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
    write_images(tmp_path, {"a": 5, "b": 5})
    streamed = load(f"folder:{tmp_path}", image_size=4)
    check_crop(streamed, 0)
    with pytest.raises(UserError, match="data.crop_padding is 4, but streamed images are random crops already; set it to 0"):
        check_crop(streamed, 4)


def test_a_config_of_an_older_run_lacks_fields():
    np.testing.assert_equal(load_config(SimpleNamespace(name="digits", train_examples=50)), load("digits", train_examples=50))


def test_no_image_can_be_read(tmp_path):
    write_images(tmp_path, {"a": 5, "b": 5})
    for file in tmp_path.glob("*/*.png"):
        file.write_bytes(b"")
    with pytest.raises(UserError, match="none of the 8 images of a split can be read"):
        load(f"folder:{tmp_path}", image_size=4, damaged="skip")


def test_a_tokenizer_for_images():
    with pytest.raises(UserError, match="data.name digits has no sentences"):
        load("digits", tokenizer="{}")


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
    assert tiny.classes == (), "0 and 1 are no names"


@pytest.mark.parametrize(
    "attribute, value, message",
    [
        ("SIZES", (4, 5), r"tfds:tiny_images train: images must all have the same size"),
        ("SPLITS", {"train": 2}, r"data.name tfds:tiny_images: needs the splits train and test"),
        (
            "FEATURES",
            ("image",),
            r"data.name tfds:tiny_images: needs the features image and label, or label and one of .*; it has \['image'\]",
        ),
    ],
)
def test_tfds_unfit_sets(tmp_path, tiny_images, monkeypatch, attribute, value, message):
    monkeypatch.setattr(tiny_images, attribute, value)
    prepare(tiny_images, tmp_path)
    loading_fails(message, "tfds:tiny_images", str(tmp_path))


def test_tfds_unprepared_without_tensorflow(tmp_path, tiny_images, monkeypatch, without_tensorflow):
    monkeypatch.setattr(tensorflow_sets, "builder_of", lambda name, directory: tiny_images(data_dir=directory))
    advice = r"install the tfds extra \(pip install 'distill_jax\[tfds\]'\) or put the archives into data.dir"
    loading_fails(
        f"data.name tfds:tiny_images: not prepared as array_record in {tmp_path}.*{advice}",
        "tfds:tiny_images",
        str(tmp_path),
    )
    loading_fails(f"cifar100: data.dir {tmp_path} has none of .*{advice}", "cifar100", str(tmp_path))


def test_tfds_unknown_set(tmp_path):
    pytest.importorskip("tensorflow_datasets")
    loading_fails("data.name tfds:no_such_set: Dataset no_such_set not found", "tfds:no_such_set", str(tmp_path))


def test_tfds_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    loading_fails("data.name tfds:mnist: .*tensorflow_datasets.*; install the tfds extra", "tfds:mnist")


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
    for part, name in itertools.product(("train", "test"), "ab"):
        write_image(tmp_path / part / name / f"x.{suffix}")
    assert load(f"folder:{tmp_path}").train["image"].shape == (2, 4, 6, 3)


def test_folder_without_splits(tmp_path):
    write_images(tmp_path, {"a": 10, "b": 20, "c": 4})
    with pytest.warns(UserWarning, match=f"folder:{tmp_path}: no test examples of 1 of 3 classes: c"):
        data, again = load(f"folder:{tmp_path}"), load(f"folder:{tmp_path}")
    assert np.bincount(data.train["label"]).tolist() == [8, 16, 4]
    assert np.bincount(data.test["label"], minlength=3).tolist() == [2, 4, 0]
    assert data.classes == ("a", "b", "c")
    np.testing.assert_equal(data, again)


def test_folder_of_two_sizes_names_both_files(tmp_path):
    write_images(tmp_path / "train", {"a": 2})
    write_image(tmp_path / "test" / "a" / "odd.png", size=(7, 5))
    loading_fails(
        r"the same size: .*train/a/000.png is 6x4, .*test/a/odd.png is 7x5.*; or set data.image_size, and data.crop_padding to 0",
        f"folder:{tmp_path}",
    )


@pytest.mark.parametrize("keep", [0, 20, 50])
def test_corrupt_image(tmp_path, keep):
    write_images(tmp_path, {"a": 5})
    damaged = tmp_path / "a" / "003.png"
    damaged.write_bytes(damaged.read_bytes()[:keep])
    loading_fails("a/003.png: not a readable image", f"folder:{tmp_path}")


@pytest.mark.parametrize("image_size", [0, 4])
def test_sixteen_bits_are_scaled_to_eight(tmp_path, image_size):
    values = np.array([0, 128, 129, 257, 257 * 99, 0xFFFF], np.uint16)
    for part, (name, value) in itertools.product(("train", "test"), zip("abcdef", values, strict=True)):
        (tmp_path / part / name).mkdir(parents=True)
        Image.fromarray(np.full((4, 4), value, np.uint16)).save(tmp_path / part / name / "x.png")
    images = load(f"folder:{tmp_path}", image_size=image_size).train["image"]
    if image_size:
        images = next(streaming.batches(images, np.arange(6)[None], None))["image"]
    assert images[:, 0, 0].tolist() == [[value] * 3 for value in (0, 0, 1, 1, 99, 255)]


@pytest.mark.parametrize("image_size", [0, 4])
@pytest.mark.parametrize("dtype, kind", [(np.int32, "integers"), (np.float32, "floats")])
def test_pixels_of_32_bits_are_refused(tmp_path, dtype, kind, image_size):
    write_images(tmp_path, {"a": 5, "b": 5})
    Image.fromarray(np.ones((4, 6), dtype)).save(tmp_path / "a" / "000.png", format="TIFF")
    message = f"a/000.png: its pixels are 32-bit {kind}; save it with 8 or 16 bits"
    if not image_size:
        return loading_fails(message, f"folder:{tmp_path}")
    records = streaming.FileRecords([str(tmp_path / "a" / "000.png")], np.zeros(1))
    with pytest.raises(UserError, match=message):
        streaming.read_crop(records[0], 4, None)


def test_colours_of_palettes_and_transparent_images(tmp_path):
    colours = np.array([[[255, 0, 0], [0, 128, 0]]], np.uint8)
    palette = Image.fromarray(colours).quantize(4)
    palette.save(tmp_path / "palette.png")
    palette.save(tmp_path / "see_through_palette.png", transparency=bytes([100, 200]))
    Image.fromarray(np.dstack([colours, [[0, 90]]]).astype(np.uint8)).save(tmp_path / "see_through.png")
    for file in tmp_path.iterdir():
        with images.opened(str(file), str(file), "") as image:
            np.testing.assert_array_equal(images.to_rgb(str(file), image), colours)


def test_hidden_files_and_folders_are_ignored(tmp_path):
    write_images(tmp_path, {"a": 5, "b": 5, "a/.ipynb_checkpoints": 1})
    (tmp_path / "a" / "._000.png").write_bytes(b"what macOS leaves")
    (tmp_path / "a" / "folder.png").mkdir()
    assert len(load(f"folder:{tmp_path}").train["label"]) == 8


def test_images_below_a_class_are_not_read_in_silence(tmp_path):
    write_images(tmp_path, {"a": 5, "b": 5, "b/more/left": 2})
    (tmp_path / "a" / "empty").mkdir()
    with pytest.warns(UserWarning, match="/b: images in sub-folders, such as .*/b/more, are not read") as caught:
        assert len(load(f"folder:{tmp_path}").train["label"]) == 8
    assert len(caught) == 1
    write_images(tmp_path / "whole", {"Training/a": 5, "Training/b": 5})
    loading_fails(
        "/whole/Training: has images only in sub-folders, such as .*Training/[ab]; the layout must be PATH/<class>",
        f"folder:{tmp_path}/whole",
    )


def test_one_class_is_refused(tmp_path):
    write_images(tmp_path, {"a": 5})
    loading_fails(f"folder:{tmp_path}: has only one class; classification needs two or more", f"folder:{tmp_path}")


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    write_images(tmp_path, {"a": 5, "b": 5})
    file, real = str(tmp_path / "a" / "003.png"), open

    def refuse(path, *arguments):
        if path == file:
            raise PermissionError(13, "Permission denied", path)
        return real(path, *arguments)

    monkeypatch.setattr("builtins.open", refuse)
    loading_fails("a/003.png: Permission denied$", f"folder:{tmp_path}")
    with pytest.raises(UserError, match="a/003.png: Permission denied$"):
        streaming.read_crop(streaming.Record(file, file, 0), 4, None)


def test_a_folder_that_may_not_be_read(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", refuse)
    loading_fails(f"{tmp_path}: Permission denied$", f"folder:{tmp_path}")


def test_an_image_larger_than_pillow_reads(tmp_path, monkeypatch):
    write_images(tmp_path, {"a": 5, "b": 5})
    write_image(tmp_path / "a" / "004.png", size=(2001, 1000))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**6)
    loading_fails("a/004.png: too large; Pillow reads up to 2 megapixels; scale it down", f"folder:{tmp_path}")


@pytest.mark.parametrize("name, directory", [("here", "below"), ("in_below", "below"), ("in_below", "~/below"), ("below/in_below", "")])
def test_relative_paths(tmp_path, monkeypatch, name, directory):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for folder in ("here", "below/in_below", "below/here"):
        write_images(tmp_path / folder, {"a": 5, folder.replace("/", "_"): 5})
        np.savez(tmp_path / f"{folder}.npz", **arrays(class_names=np.array(["a", "b", folder])))
    found = {"here": "here"}.get(name, "below/in_below")
    assert load(f"folder:{name}", directory).classes == ("a", found.replace("/", "_"))
    assert load(f"npz:{name}.npz", directory).classes[2] == found


def test_what_to_do_about_a_damaged_image():
    """Both remedies change the data, which a run that has begun rejects: see data.json."""
    with pytest.raises(UserError) as caught:
        streaming.read_crop(streaming.Record("x.png", b"damaged", 0), 4, None)
    way_out = "remove it, or leave out all such images with --config.data.damaged=skip (if the run has begun, both need a new --workdir)"
    assert str(caught.value) == f"x.png: not a readable image; {way_out}"


def test_bad_folders(tmp_path):
    loading_fails("folder:.*nowhere is not a directory", f"folder:{tmp_path / 'nowhere'}")
    loading_fails("has no class directories", f"folder:{tmp_path}")
    (tmp_path / "a").mkdir()
    loading_fails("/a: has no images", f"folder:{tmp_path}")
    write_images(tmp_path, {"a": 4})
    loading_fails("no class has the 5 images", f"folder:{tmp_path}")
    write_images(tmp_path / "train", {"a": 1})
    loading_fails("has train but neither test nor val", f"folder:{tmp_path}")
    write_images(tmp_path / "test", {"a": 1, "zebra": 1})
    loading_fails("test/zebra: class zebra is not in train", f"folder:{tmp_path}")


# Arrays in an .npz


def arrays(**changes) -> dict[str, np.ndarray]:
    good = {
        "train_images": np.arange(6 * 4 * 5 * 3, dtype=np.uint8).reshape(6, 4, 5, 3),
        "train_labels": np.array([0, 1, 2, 0, 1, 2]),
        "test_images": np.zeros((3, 4, 5, 3), np.uint8),
        "test_labels": np.array([2, 0, 1], np.uint8),
    }
    return {key: value for key, value in (good | changes).items() if value is not None}


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

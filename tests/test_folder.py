"""Folders of images, and the images in them: every format, and what is wrong with them."""

import itertools

import numpy as np
import pytest
from helpers import loading_fails
from images_helpers import arrays, write_folder, write_image
from PIL import Image

from distill_jax.data import images, load, streaming
from distill_jax.errors import UserError


@pytest.mark.parametrize("held_out", ["test", "val"])
def test_folder_with_splits(tmp_path, held_out):
    write_folder(tmp_path / "train", {"dog": 2, "cat": 3})
    write_folder(tmp_path / held_out, {"dog": 1, "cat": 1})
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
    write_folder(tmp_path, {"a": 10, "b": 20, "c": 4})
    with pytest.warns(UserWarning, match=f"folder:{tmp_path}: no test examples of 1 of 3 classes: c"):
        data, again = load(f"folder:{tmp_path}"), load(f"folder:{tmp_path}")
    assert np.bincount(data.train["label"]).tolist() == [8, 16, 4]
    assert np.bincount(data.test["label"], minlength=3).tolist() == [2, 4, 0]
    assert data.classes == ("a", "b", "c")
    np.testing.assert_equal(data, again)


def test_folder_of_two_sizes_names_both_files(tmp_path):
    write_folder(tmp_path / "train", {"a": 2})
    write_image(tmp_path / "test" / "a" / "odd.png", size=(7, 5))
    loading_fails(
        r"the same size: .*train/a/000.png is 6x4, .*test/a/odd.png is 7x5.*; or set data.image_size, and data.crop_padding to 0",
        f"folder:{tmp_path}",
    )


@pytest.mark.parametrize("keep", [0, 20, 50])
def test_corrupt_image(tmp_path, keep):
    write_folder(tmp_path, {"a": 5})
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
    write_folder(tmp_path, {"a": 5, "b": 5})
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
    write_folder(tmp_path, {"a": 5, "b": 5, "a/.ipynb_checkpoints": 1})
    (tmp_path / "a" / "._000.png").write_bytes(b"what macOS leaves")
    (tmp_path / "a" / "folder.png").mkdir()
    assert len(load(f"folder:{tmp_path}").train["label"]) == 8


def test_images_that_pillow_cannot_read_are_named(tmp_path):
    write_folder(tmp_path, {"a": 5, "b": 5})
    for name in ("one.HEIC", "two.avif", "notes.txt"):
        (tmp_path / "b" / name).write_bytes(b"")
    with pytest.warns(UserWarning, match="/b: not read: one.HEIC, two.avif; save them as JPEG or PNG"):
        assert len(load(f"folder:{tmp_path}").train["label"]) == 8


def test_images_below_a_class_are_not_read_in_silence(tmp_path):
    write_folder(tmp_path, {"a": 5, "b": 5, "b/more/left": 2})
    (tmp_path / "a" / "empty").mkdir()
    with pytest.warns(UserWarning, match="/b: images in sub-folders, such as .*/b/more, are not read") as caught:
        assert len(load(f"folder:{tmp_path}").train["label"]) == 8
    assert len(caught) == 1
    write_folder(tmp_path / "whole", {"Training/a": 5, "Training/b": 5})
    loading_fails(
        "/whole/Training: has images only in sub-folders, such as .*Training/[ab]; the layout must be PATH/<class>",
        f"folder:{tmp_path}/whole",
    )


def test_one_class_is_refused(tmp_path):
    write_folder(tmp_path, {"a": 5})
    loading_fails(f"folder:{tmp_path}: has only one class; classification needs two or more", f"folder:{tmp_path}")


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    write_folder(tmp_path, {"a": 5, "b": 5})
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
    write_folder(tmp_path, {"a": 5, "b": 5})
    write_image(tmp_path / "a" / "004.png", size=(2001, 1000))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**6)
    loading_fails("a/004.png: too large; Pillow reads up to 2 megapixels; scale it down", f"folder:{tmp_path}")


@pytest.mark.parametrize("name, directory", [("here", "below"), ("in_below", "below"), ("in_below", "~/below"), ("below/in_below", "")])
def test_relative_paths(tmp_path, monkeypatch, name, directory):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for folder in ("here", "below/in_below", "below/here"):
        write_folder(tmp_path / folder, {"a": 5, folder.replace("/", "_"): 5})
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
    write_folder(tmp_path, {"a": 4})
    loading_fails("no class has the 5 images", f"folder:{tmp_path}")
    write_folder(tmp_path / "train", {"a": 1})
    loading_fails("has train but neither test nor val", f"folder:{tmp_path}")
    write_folder(tmp_path / "test", {"a": 1, "zebra": 1})
    loading_fails("test/zebra: class zebra is not in train", f"folder:{tmp_path}")

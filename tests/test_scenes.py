"""Scenes: the joint affine map, the readers of masks and boxes, and what they refuse."""

import dataclasses
import pathlib
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers import loading_fails
from PIL import Image
from scenes_helpers import CLASSES, read, write_masks, write_voc

from distill_jax import inputs
from distill_jax.data import affine, batches, load, scenes
from distill_jax.data.dataset import count, fingerprint
from distill_jax.errors import UserError
from distill_jax.specs import Spec


@pytest.fixture(scope="module")
def masks(tmp_path_factory):
    return write_masks(tmp_path_factory.mktemp("masks"))


@pytest.mark.parametrize("seed", range(60))
def test_a_marked_square_its_mask_and_its_box_stay_on_each_other(seed):
    rng = np.random.default_rng(seed)
    width, height = rng.integers(20, 90, 2)
    w, h = rng.integers(6, 12, 2)
    left, top = rng.integers(0, width - w), rng.integers(0, height - h)
    mask = np.zeros((height, width), np.uint8)
    mask[top : top + h, left : left + w] = 1
    view = affine.random_affine(int(width), int(height), 40, (0.5, 2.0), True, rng)
    image = affine.move_image(Image.fromarray(np.repeat(mask[..., None] * 255, 3, axis=2)), view)
    moved = affine.move_mask(Image.fromarray(mask), view, 9)
    boxes, remain = affine.move_boxes(np.array([[left, top, left + w, top + h]], np.float32), view)
    if not remain[0]:
        assert (moved == 1).sum(axis=0).max(initial=0) <= 2 or (moved == 1).sum(axis=1).max(initial=0) <= 2
        return
    rows, columns = np.nonzero(moved == 1)
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(found, boxes[0], atol=0.51)  # the nearest pixels
    inside = moved != 9
    assert np.abs((image[..., 0] > 127).astype(int) - (moved == 1))[inside].mean() < 0.06, "they differ only at the square's edge"
    assert (image[~inside] == affine.GREY).all()


def test_the_draws_of_a_view_do_not_change():
    rng = np.random.Generator(np.random.PCG64((0, 1, 2)))
    pinned = affine.Affine(source=(50, 40), target=(58, 47), left=-19, top=-11, size=32, flip=False)
    assert affine.random_affine(50, 40, 32, (0.5, 2.0), True, rng) == pinned


def test_a_letterboxed_image_fills_the_canvas_from_the_corner():
    view = affine.letterbox(50, 25, 100)
    assert (view.target, view.left, view.top, view.scale) == ((100, 50), 0, 0, (2.0, 2.0))
    boxes, remain = affine.move_boxes(np.array([[0, 0, 50, 25], [10, 5, 20, 10]], np.float32), view)
    assert boxes.tolist() == [[0, 0, 100, 50], [20, 10, 40, 20]] and remain.all()


def test_boxes_are_cut_mirrored_and_dropped():
    view = affine.Affine((10, 10), (20, 20), -4, 0, 16, flip=True)
    boxes, remain = affine.move_boxes(np.array([[0, 0, 5, 5], [0, 0, 1, 5], [9, 0, 10, 9]], np.float32), view)
    assert boxes[0].tolist() == [10, 0, 16, 10], "2x - 4 is -4 to 6, cut to 0 to 6, mirrored at 16"
    assert remain.tolist() == [True, False, True] and boxes[2].tolist() == [0, 0, 2, 16]


def test_batches_are_a_function_of_seed_epoch_and_id(masks):
    rows = read(masks).train["image"]
    one, again, other = (rows.load(3, seed) for seed in ((0, 1), (0, 1), (0, 2)))
    assert one["image"].shape == (32, 32, 3) and one["label"].shape == (32, 32)
    assert all(np.array_equal(one[name], again[name]) for name in one) and not np.array_equal(one["image"], other["image"])
    assert set(np.unique(one["label"])) <= {0, 1, 2, scenes.VOID}


def test_evaluation_sees_the_whole_scene_and_the_mask_at_its_own_size(masks):
    rows = read(masks).test["image"]
    loaded, scene = rows.load(2, None), rows.scene(2)
    width, height = scene.size
    assert loaded["size"].tolist() == [height, width] and loaded["target"].max() == 32
    np.testing.assert_array_equal(loaded["label"][:height, :width], np.asarray(Image.open(scene.mask)))
    assert (loaded["label"][height:] == scenes.VOID).all() and (loaded["label"][:, width:] == scenes.VOID).all()
    rows_on_canvas, columns = loaded["target"]
    assert (loaded["image"][rows_on_canvas:] == affine.GREY).all() and (loaded["image"][:, columns:] == affine.GREY).all()


def test_a_folder_of_masks(masks, tmp_path):
    data = read(masks)
    assert fingerprint(load(masks, task="segmentation", image_size=32)) == fingerprint(data), "config.data's defaults"
    assert data.classes == CLASSES and data.task == "segmentation" and (count(data.train), count(data.test)) == (24, 10)
    quarter = read(masks, train_examples=6, validation_examples=8)
    assert (count(quarter.train), count(quarter.test), quarter.evaluated_on) == (6, 8, "validation")
    assert not set(quarter.train["image"].rows) & set(quarter.test["image"].rows)
    assert fingerprint(data) == fingerprint(read(masks)) != fingerprint(quarter)
    folder = tmp_path / "own"
    name = write_masks(folder, 2, 1)
    (folder / "classes.txt").unlink()
    assert read(name).num_classes == 3 and read(name).classes == ()


@pytest.mark.parametrize("layout", ["masks", "voc"])
def test_a_set_is_the_same_wherever_it_lies(layout, masks, tmp_path, monkeypatch):
    name = masks if layout == "masks" else write_voc(tmp_path / "VOC2012")
    folder = pathlib.Path(name.partition(":")[2])
    monkeypatch.chdir(folder.parent)
    assert fingerprint(read(f"{layout}:{folder.name}")) == fingerprint(read(f"{layout}:{folder}"))


def test_processes_leave_out_the_same_images(monkeypatch):
    """The first one decides; another that cannot read an image that the first can stops."""

    def make(item):
        if item == 3:
            raise UserError("no 3")
        return item

    for theirs, found in (([False, True, True, False], [1, 4]), ([False, False, True, False], [1, 2, 4])):
        monkeypatch.setattr(scenes.processes, "from_first", lambda own, theirs=theirs: np.array(theirs))
        assert scenes.read_all(make, [1, 2, 3, 4], "skip") == found
    monkeypatch.setattr(scenes.processes, "from_first", lambda own: np.zeros(4, bool))
    with pytest.raises(UserError, match="^no 3$"):
        scenes.read_all(make, [1, 2, 3, 4], "skip")


def test_photographs_are_turned_as_for_prediction(tmp_path):
    """Phones set the EXIF orientation instead of turning the pixels; masks and boxes are those of the turned image."""
    name, exif = write_voc(tmp_path), Image.Exif()
    exif[0x0112] = 6  # what is on the left belongs on top
    for suffix in ("jpg", "png"):
        path = tmp_path / f"JPEGImages/val_0.{suffix}"
        with Image.open(tmp_path / "JPEGImages/val_1.jpg") as image:
            image.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
        for kind in ("SegmentationClass/{}.png", "Annotations/{}.xml"):
            shutil.copy(tmp_path / kind.format("val_1"), tmp_path / kind.format("val_0"))
        for task in ("segmentation", "detection"):
            rows = read(name, task=task).test["image"]
            turned, upright = rows.load(0, None), rows.load(1, None)
            spec = Spec({}, 21, (32, 32, 3), image_size=32, task=task)
            np.testing.assert_array_equal(turned["image"], spec.as_evaluated(inputs.read_image(str(path), spec)[None])[0])
            np.testing.assert_array_equal(turned["size"], upright["size"])
            assert np.abs(turned["image"].astype(int) - upright["image"]).mean() < 5, "the same photograph, compressed twice"
        path.unlink()
    exif[0x0112] = 9
    Image.new("RGB", (40, 20)).save(path, exif=exif)
    assert scenes.image_size("x", str(path)) == (40, 20), "there is no such orientation"


def test_a_subset_is_as_large_as_its_own_scenes(masks):
    whole = read(masks).test["image"]
    smallest = min(range(len(whole)), key=lambda row: max(whole.scene(row).size))
    assert whole[np.array([smallest])].own_shape == whole.scene(smallest).size[::-1] != whole.own_shape


NO_SCENE = {
    "no mask": lambda folder, part, masks: (folder / masks / f"{part}.png").unlink(),
    "broken header": lambda folder, part, masks: max(folder.rglob(f"{part}.jpg")).write_bytes(b"no image"),
}


@pytest.mark.parametrize("mistake", NO_SCENE)
@pytest.mark.parametrize("layout", ["masks", "voc"])
def test_an_image_that_cannot_be_segmented_is_refused_or_skipped(layout, mistake, tmp_path, capsys):
    name = write_masks(tmp_path, 3, 2) if layout == "masks" else write_voc(tmp_path, sets=(("train", 3), ("val", 2)))
    NO_SCENE[mistake](tmp_path, *(("01", "trainannot") if layout == "masks" else ("train_1", "SegmentationClass")))
    with pytest.raises(UserError, match="1.png: no such mask" if mistake == "no mask" else "1.jpg: not a readable image"):
        read(name)
    assert count(read(name, damaged="skip").train) == 2 and "left out 1 damaged of 3 images" in capsys.readouterr().out


def test_masks_of_one_bit(tmp_path):
    name = write_masks(tmp_path, 3, 2)
    for mask in tmp_path.glob("*annot/*.png"):
        Image.fromarray(np.asarray(Image.open(mask)) > 0).save(mask)
    label = read(name).test["image"].load(0, None)["label"]
    assert label.dtype == np.uint8 and set(np.unique(label)) == {0, 1, scenes.VOID}
    (tmp_path / "classes.txt").unlink()
    assert read(name).num_classes == 2


def test_a_set_without_any_readable_image(tmp_path):
    name = write_masks(tmp_path, 3, 2)
    for mask in (tmp_path / "testannot").iterdir():
        mask.unlink()
    with pytest.raises(UserError, match="^none of the 2 images can be read, beginning with .*00.png: no such mask"):
        read(name, damaged="skip")


@pytest.mark.parametrize("named", [False, True])
def test_objects_drawn_as_255_are_no_class(named, tmp_path):
    name = write_masks(tmp_path, 3, 2)
    if not named:
        (tmp_path / "classes.txt").unlink()
    for mask in tmp_path.glob("*annot/*.png"):
        Image.fromarray(np.where(np.asarray(Image.open(mask)) > 0, 255, 0).astype(np.uint8)).save(mask)
    with pytest.raises(UserError, match=r"trainannot: the masks have no class other than 0 \(data.void is 255\); .* instead of 0 and 255"):
        read(name)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (Image.new("L", (5, 5)), "01.png: is 5x5, but its image is [0-9]"),
        ("turned", "01.png: is .*, but its image, turned to its EXIF orientation, is "),
        (Image.new("RGB", (30, 30)), "01.png: its mode is RGB; a mask must be"),
        (None, "01.png: not a readable image"),
        ("class", "01.png: has class 7; there are 3 classes"),
    ],
)
def test_a_damaged_mask_is_refused_or_skipped(mask, message, tmp_path, capsys):
    name = write_masks(tmp_path / "own", 3, 2)
    path = tmp_path / "own/trainannot/01.png"
    if mask is None:
        path.write_bytes(b"no image")
    else:
        size = read(name).train["image"].scene(1).size
        mask = {"class": Image.new("L", size, 7), "turned": Image.new("L", size[::-1])}[mask] if isinstance(mask, str) else mask
        mask.save(path)
    with pytest.raises(UserError, match=message):
        list(batches.streaming.batches(read(name).train["image"], np.arange(3)[None], (0, 1)))
    data = read(name, damaged="skip")
    assert count(data.train) == 2 and "left out 1 unreadable of 3 images" in capsys.readouterr().out


def test_wrong_fields_are_refused(masks, tmp_path):
    loading_fails("data.task is 'classification', but masks:.* is for segmentation; set data.task", masks)
    for fields, message in (
        ({"task": "detection"}, "data.task is 'detection', but data.name is 'masks:.*; this task reads voc:PATH, tfds:NAME"),
        ({"image_size": 0}, "data.image_size is 0; segmentation needs the side"),
        ({"downsample": 2}, "data.downsample is 2, but masks:.* has streamed images, which data.image_size scales; set it to 1"),
        ({"scales": (2.0, 0.5)}, r"data.scales is \(2.0, 0.5\); it must be"),
    ):
        with pytest.raises(UserError, match=message):
            read(masks, **fields)
    (tmp_path / "train").mkdir()
    with pytest.raises(UserError, match="trainannot: no such folder; the layout is"):
        read(f"masks:{tmp_path}")
    with pytest.raises(UserError, match="has no ImageSets, and no folder such as VOC2012"):
        read(f"voc:{tmp_path}")


def test_threads_read_the_sizes_of_a_split_once(masks):
    column, asked = read(masks).test["image"], []

    class Slow(list):
        def __getitem__(self, row):
            asked.append(row)
            time.sleep(0.02)
            return super().__getitem__(row)

    column = dataclasses.replace(column, scenes=Slow(column.scenes))
    with ThreadPoolExecutor(4) as threads:
        assert len(set(threads.map(lambda _: column.own_shape, range(4)))) == 1
    assert sorted(asked) == sorted(column.rows), "since Python 3.12, a cached_property lets each thread compute"

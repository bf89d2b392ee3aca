"""The PASCAL VOC devkit: what is read of it, and what is refused."""

import pathlib
import shutil

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image
from scenes_helpers import BORDER, read, write_voc, write_xml

from distill_jax.data import voc
from distill_jax.data.dataset import count
from distill_jax.errors import UserError


def test_a_devkit(tmp_path):
    name = write_voc(tmp_path / "VOC2012")
    data = read(f"voc:{tmp_path}")
    assert data.num_classes == 21 and (count(data.train), count(data.test)) == (6, 4) and data.classes[8] == "cat"
    found = read(name, task="detection")
    assert found.num_classes == 20 and found.classes[11] == "dog" and found.classes[7] == "cat"
    scene = found.train["image"].scene(0)
    assert scene.boxes.dtype == np.float32 and scene.boxes.min() >= 0 and len(scene.boxes) == len(scene.labels) == len(scene.difficult)
    mask = np.asarray(Image.open(tmp_path / "VOC2012/SegmentationClass/train_0.png"))
    for box, label in zip(scene.boxes.astype(int), scene.labels, strict=True):
        inside = mask[box[1] : box[3], box[0] : box[2]]
        assert np.isin(inside, [1 if label == 11 else 2, BORDER]).mean() > 0.4 and inside[0, 0] != 0
    batch = read(name, task="detection", scales=(1.0, 1.0)).train["image"].load(0, (0, 1))
    assert batch["boxes"].shape == (2, 4) and batch["label"].shape == (2,) and batch["label"].max() >= 0
    both = read(
        f"voc:{tmp_path}", **{"voc": ConfigDict({"train": ("VOC2012/train", "val"), "test": ("val",), "masks": "SegmentationClass"})}
    )
    assert count(both.train) == 10


def test_the_xml_files_may_name_other_classes(tmp_path):
    data = read(write_voc(tmp_path / "own", names=("raccoon", "owl")), task="detection")
    assert data.classes == ("owl", "raccoon") and set(np.concatenate([scene.labels for scene in data.train["image"].scenes])) == {0, 1}


def test_a_devkit_for_segmentation_may_name_other_classes(tmp_path):
    name = write_voc(tmp_path)
    (tmp_path / "classes.txt").write_text("ground\nroof \n  tree\n\n", encoding="utf-8-sig")
    assert read(name).classes == ("ground", "roof", "tree")
    (tmp_path / "classes.txt").write_text("ground\n\nroof\ntree\n")
    with pytest.raises(UserError, match="classes.txt: line 2 is blank"):
        read(name)


def test_other_masks_are_for_training_if_the_test_set_has_vocs_own(tmp_path):
    name = write_voc(tmp_path)

    def folders(masks):
        data = read(name, voc=ConfigDict({"train": ("train",), "test": ("val",), "masks": masks}))
        return [pathlib.Path(part["image"].scene(0).mask).parent.name for part in (data.train, data.test)]

    for masks in ("SegmentationClassAug", "Lesions"):
        shutil.copytree(tmp_path / "SegmentationClass", tmp_path / masks)
    assert folders("SegmentationClassAug") == ["SegmentationClassAug", "SegmentationClass"]
    assert folders("Lesions") == ["Lesions", "Lesions"]
    (tmp_path / "SegmentationClass/val_3.png").unlink()
    assert folders("SegmentationClassAug") == ["SegmentationClassAug"] * 2


def test_a_test_set_without_annotations_is_not_the_default(tmp_path):
    """As in VOC2012's test archive."""
    name = write_voc(tmp_path, sets=(("train", 3), ("val", 2), ("test", 4)))
    for task, annotations in (("segmentation", "SegmentationClass"), ("detection", "Annotations")):
        assert count(read(name, task=task).test) == 4
        for path in (tmp_path / annotations).glob("test_*"):
            path.unlink()
        assert count(read(name, task=task).test) == 2


def test_the_default_test_set_is_that_of_the_years_that_have_its_annotations(tmp_path):
    """As in a devkit of VOC2007, whose test set is published, and VOC2012, whose is not."""
    for year, tests in (("VOC2007", 3), ("VOC2012", 4)):
        write_voc(tmp_path / year, sets=(("train", 2), ("val", 2), ("test", tests)))
    assert count(read(f"voc:{tmp_path}", task="detection").test) == 7
    for path in (tmp_path / "VOC2012/Annotations").glob("test_*"):
        path.unlink()
    assert count(read(f"voc:{tmp_path}", task="detection").test) == 3


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_an_image_counts_once(tmp_path, capsys, task):
    name = write_voc(tmp_path)
    for kind in ("Main", "Segmentation"):
        path = tmp_path / f"ImageSets/{kind}/val.txt"
        path.write_text(path.read_text() * 2)
    data = read(name, task=task, voc=ConfigDict({"train": ("train", "train"), "test": ("val",), "masks": "SegmentationClass"}))
    assert (count(data.train), count(data.test)) == (6, 4)
    assert f"{name}: 4 of 8 images are listed twice" in capsys.readouterr().out


@pytest.mark.parametrize("given, found", [("1", True), ("True", True), ("0", False), ("Unspecified", False), ("", False)])
def test_what_is_difficult(tmp_path, given, found):
    name = write_voc(tmp_path)
    write_xml(tmp_path / "Annotations/train_0.xml", [("dog", (1, 2, 9, 10))], difficult=given)
    assert read(name, task="detection").train["image"].scene(0).difficult.tolist() == [found]


@pytest.mark.parametrize(
    "object, message", [(("", "0"), "an object lacks its name"), (("dog", "2"), "an object's difficult is '2', not 0 or 1")]
)
def test_a_nameless_object_is_damaged(tmp_path, object, message):
    name = write_voc(tmp_path)
    write_xml(tmp_path / "Annotations/train_0.xml", [(object[0], (1, 2, 9, 10))], difficult=object[1])
    with pytest.raises(UserError, match=f"train_0.xml: damaged .{message}"):
        read(name, task="detection")


def test_difficult_and_truncated(tmp_path):
    name = write_voc(tmp_path)
    write_xml(tmp_path / "Annotations/val_0.xml", [("dog", (1, 2, 9, 10))], difficult="1")
    scene = read(name, task="detection").test["image"].scene(0)
    assert scene.difficult.tolist() == [True] and scene.boxes.tolist() == [[1, 2, 9, 10]]


MISTAKES = {
    "broken xml": (lambda root: (root / "Annotations/train_1.xml").write_text("<annotation><obj"), r"train_1.xml: damaged"),
    "no number": (lambda root: (root / "Annotations/train_1.xml").write_text("<a><object><name>dog</name></object></a>"), "lacks its name"),
    "outside": (lambda root: write_xml(root / "Annotations/train_1.xml", [("dog", (0, 0, 500, 9))]), r"train_1.xml, object 1: the box"),
    "no xml": (lambda root: (root / "Annotations/train_1.xml").unlink(), "train_1.xml: No such file"),
    "no image": (lambda root: (root / "JPEGImages/train_1.jpg").unlink(), "train_1.jpg: no such image"),
    "unknown class": (
        lambda root: write_xml(root / "Annotations/val_1.xml", [("yeti", (0, 0, 5, 9))]),
        "class 'yeti' is not in the training",
    ),
    "empty set": (lambda root: (root / "ImageSets/Main/train.txt").write_text("\n"), "train.txt: the image set is empty"),
    "no text": (
        lambda root: (root / "ImageSets/Main/train.txt").write_bytes(b"caf\xe9"),
        "train.txt: is not UTF-8 text .*; save it as UTF-8",
    ),
    "no set": (lambda root: (root / "ImageSets/Main/train.txt").unlink(), "train.txt: no such image set"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_damaged_devkit_is_refused_or_skipped(mistake, tmp_path, capsys):
    name = write_voc(tmp_path)
    damage, message = MISTAKES[mistake]
    damage(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        read(name, task="detection")
    assert "\n" not in str(caught.value)
    if "train_1" in message:
        assert count(read(name, task="detection", damaged="skip").train) == 5
        assert "left out 1 damaged of 6 images" in capsys.readouterr().out


def test_image_sets_may_name_files_and_suffixes_may_be_capital(tmp_path):
    """As in the trainaug lists in circulation, and as cameras write them."""
    name = write_voc(tmp_path)
    (tmp_path / "JPEGImages/train_0.jpg").rename(tmp_path / "JPEGImages/train_0.JPG")
    listed = [
        f"/JPEGImages/train_{number}.{'JPG' if number == 0 else 'jpg'} /SegmentationClass/train_{number}.png\n" for number in range(6)
    ]
    (tmp_path / "ImageSets/Segmentation/train.txt").write_text("".join(listed))
    assert [scene.image[-11:] for scene in read(name).train["image"].scenes][:2] == ["train_0.JPG", "train_1.jpg"]


def test_doubtful_sets_are_named(tmp_path, capsys):
    name = write_voc(tmp_path)
    read(name, task="detection")
    assert capsys.readouterr().out == ""
    both = {"train": ("train", "val"), "test": ("val",), "masks": "SegmentationClass"}
    for task in ("segmentation", "detection"):
        read(name, task=task, voc=ConfigDict(both))
        assert "4 of 4 test images are also training images; data.voc.train and data.voc.test choose" in capsys.readouterr().out
    path = tmp_path / "Annotations/val_1.xml"
    path.write_text(path.read_text().replace("<annotation>", "<annotation><size><width>7</width><height>9</height></size>"))
    read(name, task="detection")
    said = capsys.readouterr().out
    assert "1 of 10 images differ in size from what their XML files say" in said and "its XML file says 7x9" in said


def test_boxes_must_have_an_area_inside_the_image():
    voc.check_box("x", (-1, 0, 1, 1), (8, 9))  # some sets count pixels from 0
    voc.check_box("x", (7, 8, 9, 10), (8, 9))
    for box in ((-1, 0, 0, 5), (8, 0, 9, 5), (0, 9, 5, 10), (3, 3, 3, 5), (0, 0, float("nan"), 5), (-2, 0, 5, 5)):
        with pytest.raises(UserError, match="is empty or outside its image of 8x9"):
            voc.check_box("x", box, (8, 9))


def test_a_test_set_without_boxes_is_refused(tmp_path):
    """VOC2012's test images have no annotations; some devkits have XML files without objects instead."""
    name = write_voc(tmp_path)
    for number in range(4):
        write_xml(tmp_path / f"Annotations/val_{number}.xml", [("dog", (1, 2, 9, 10))] * (number == 0), difficult="1")
    with pytest.raises(UserError, match="no test image has a box, except difficult ones"):
        read(name, task="detection")


def test_unknown_image_sets(tmp_path):
    name = write_voc(tmp_path)
    for sets, message in (
        ("trainval", "trainval.txt: no such image set; .* name them; here are train, val$"),
        ("VOC2012/train", "one year, so"),
    ):
        with pytest.raises(UserError, match=message):
            read(name, voc=ConfigDict({"train": (sets,), "test": (), "masks": "SegmentationClass"}))

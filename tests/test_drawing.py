"""Pictures: the devkit's colours, and that boxes, captions and masks are where they should be."""

import numpy as np
import pytest
from PIL import Image

from distill_jax import drawing


def test_colours_are_the_devkits():
    colours = drawing.voc_colours()
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 5: (128, 0, 128), 15: (192, 128, 128), 20: (0, 64, 128), 255: (224, 224, 192)}
    assert {number: tuple(colours[number].tolist()) for number in known} == known
    assert len(np.unique(colours[:255], axis=0)) == 255


def test_boxes_are_drawn_in_the_colour_of_their_class():
    image = np.full((500, 600, 3), 250, np.uint8)
    picture = np.asarray(drawing.draw_boxes(image, [[100, 200, 300, 400]], [14], [""]))
    assert picture.shape == image.shape
    inside = (picture == drawing.voc_colours()[15]).all(axis=-1)
    rows, columns = np.nonzero(inside)
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (100, 200, 300, 400)
    assert not inside[210:390, 110:290].any()


@pytest.mark.parametrize("box", [[0, 0, 40, 40], [590, 0, 600, 40], [300, 495, 600, 500], [-20, -20, 700, 700]])
def test_captions_stay_inside_the_picture(box):
    image, label = np.full((500, 600, 3), 128, np.uint8), 1
    plain = np.asarray(drawing.draw_boxes(image, [box], [label], [""])).astype(int)
    named = np.asarray(drawing.draw_boxes(image, [box], [label], ["bicycle 93 %"])).astype(int)
    rows, columns = np.nonzero(np.abs(named - plain).sum(axis=-1))
    assert np.ptp(rows) > 12 and np.ptp(columns) > 60  # all of it, not a part that sticks out
    ground = named[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert ground.max() == 255  # white letters on dark green


def test_small_images_are_enlarged():
    image = np.zeros((48, 100, 1), np.uint8)
    picture = np.asarray(drawing.draw_boxes(image, np.array([[10, 10, 30, 30]]), [0], ["cat"]))
    assert picture.shape == (48 * 5, 500, 3)
    assert tuple(picture[149, 120]) == (128, 0, 0)  # the lower edge
    assert np.asarray(drawing.draw_boxes(image, np.zeros((0, 4)), [], [])).max() == 0


def test_masks_colour_their_classes_alone(tmp_path):
    image, mask = np.full((480, 480, 3), 100, np.uint8), np.zeros((480, 480), np.uint8)
    mask[:10], mask[10:20] = 15, 255
    picture = np.asarray(drawing.draw_mask(image, mask))
    np.testing.assert_array_equal(picture[5, 5], [155, 117, 117])  # 0.4 of 100, 0.6 of 192, 128, 128
    np.testing.assert_array_equal(picture[15, 5], [174, 174, 155])  # pixels without a class: 0.6 of 224, 224, 192
    assert (picture[20:] == 100).all()
    drawing.palette_mask(mask).save(tmp_path / "mask.png")
    stored = Image.open(tmp_path / "mask.png")
    assert stored.mode == "P"
    np.testing.assert_array_equal(np.asarray(stored), mask)


def test_side_by_side():
    sheet = drawing.side_by_side([Image.new("L", (10, 20)), Image.new("RGB", (30, 10), "red")], gap=2)
    assert sheet.size == (42, 20) and sheet.getpixel((12, 0)) == (255, 0, 0) and sheet.getpixel((11, 0)) == (255, 255, 255)

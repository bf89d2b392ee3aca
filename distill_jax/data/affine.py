"""One affine map for an image, its mask and its boxes: scaled to a square canvas, moved, and possibly mirrored.

A point (x, y) of the image, in pixels from the upper left corner, so that the first pixel spans 0 to 1, lies on the canvas at

    x' = scale_x * x + left,    y' = scale_y * y + top,    and mirrored at size - x'
"""

import math
from typing import NamedTuple

import numpy as np
from PIL import Image

GREY = (124, 116, 104)  # around an image: the mean of ImageNet's pixels, about zero after normalisation with its statistics
SMALLEST = 1.0  # pixels: a box that is narrower or lower on the canvas is dropped


class Affine(NamedTuple):
    """How an image lies on a canvas. It ends at whole pixels of the canvas."""

    source: tuple[int, int]  # width and height of the image
    target: tuple[int, int]  # those on the canvas
    left: int  # of the image's edge on the canvas; negative if it is cut off
    top: int
    size: int  # side of the canvas
    flip: bool = False

    @property
    def scale(self) -> tuple[float, float]:
        return self.target[0] / self.source[0], self.target[1] / self.source[1]


def letterbox(width: int, height: int, size: int) -> Affine:
    """The map for evaluation: the longer side fills the canvas, from its upper left corner."""
    return Affine((width, height), scaled(width, height, size, 1.0), 0, 0, size)


def random_affine(width: int, height: int, size: int, scales: tuple[float, float], flip: bool, rng: np.random.Generator) -> Affine:
    """A map for training.

    Args:
      width: of the image.
      height: of the image.
      size: side of the canvas.
      scales: range of the random scale, uniform; at 1 the longer side fills the canvas.
      flip: whether to mirror half of the images.
      rng: NumPy guarantees PCG64's bits for a given seed, but not how these draws use them; a test pins that.

    Returns:
      A larger image is cut at a random place; a smaller one is put at a random place.
    """
    target = scaled(width, height, size, rng.uniform(*scales))
    left, top = (int(rng.integers(min(0, size - side), max(0, size - side) + 1)) for side in target)
    return Affine((width, height), target, left, top, size, flip and bool(rng.random() < 0.5))


def scaled(width: int, height: int, size: int, scale: float) -> tuple[int, int]:
    ratio = scale * size / max(width, height)
    return max(1, round(width * ratio)), max(1, round(height * ratio))


def draft_size(affine: Affine) -> tuple[int, int]:
    """A size at which a JPEG may be decoded: at least twice the resolution needed."""
    return math.ceil(2 * affine.target[0]), math.ceil(2 * affine.target[1])


def move_image(image: Image.Image, affine: Affine) -> np.ndarray:
    """The canvas, uint8 [size, size, 3]: the image resampled (bilinear, antialiased), grey around it."""
    return _moved(image, affine, Image.Resampling.BILINEAR, np.full((affine.size, affine.size, 3), GREY, np.uint8))


def move_mask(mask: Image.Image, affine: Affine, void: int) -> np.ndarray:
    """The canvas, uint8 [size, size]: the mask resampled (nearest neighbour), `void` around it."""
    return _moved(mask, affine, Image.Resampling.NEAREST, np.full((affine.size, affine.size), void, np.uint8))


def move_boxes(boxes_Nx4: np.ndarray, affine: Affine) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (left, top, right, bottom) on the canvas, cut at its edges, float32 [N, 4]; and which of them remain, bool [N]."""
    moved = boxes_Nx4.astype(np.float64).reshape(-1, 2, 2) * affine.scale + (affine.left, affine.top)
    moved = np.clip(moved.reshape(-1, 4), 0, affine.size)
    if affine.flip:
        moved = np.stack([affine.size - moved[:, 2], moved[:, 1], affine.size - moved[:, 0], moved[:, 3]], axis=1)
    return moved.astype(np.float32), ((moved[:, 2:] - moved[:, :2]) >= SMALLEST).all(axis=1)


def _moved(image: Image.Image, affine: Affine, resampling: Image.Resampling, canvas: np.ndarray) -> np.ndarray:
    """Resamples the part of the image that lies on the canvas. The image may be decoded at another resolution than `affine.source`."""
    spans, box = [], []
    for start, target, pixels in zip((affine.left, affine.top), affine.target, image.size, strict=True):
        first, last = max(0, start), min(affine.size, start + target)
        spans.append((first, last))
        box.append([(edge - start) * pixels / target for edge in (first, last)])
    (left, right), (top, bottom) = spans
    part = image.resize((right - left, bottom - top), resampling, (box[0][0], box[1][0], box[0][1], box[1][1]))
    canvas[top:bottom, left:right] = np.asarray(part)
    return canvas[:, ::-1] if affine.flip else canvas

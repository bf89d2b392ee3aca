"""Pictures of predictions: boxes and masks drawn over images, in VOC's colours."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

OPACITY = 0.6  # of a mask's colours
SMALLEST = 480  # pixels, the longer side of a picture: smaller images are enlarged, or no label could be read on them


def voc_colours() -> np.ndarray:
    """The devkit's palette, uint8 [256, 3]: 0 is black, 1 dark red, ...; 255 light grey. For boxes, class c has colour c + 1."""
    colours, numbers = np.zeros((256, 3), np.uint8), np.arange(256)
    for place in range(8):
        for channel in range(3):
            colours[:, channel] |= ((numbers >> (3 * place + channel)) & 1).astype(np.uint8) << (7 - place)
    return colours


def draw_boxes(image: np.ndarray, boxes_Nx4: np.ndarray, labels_N: Sequence[int], captions: Sequence[str]) -> Image.Image:
    """Draws boxes and their captions over an image.

    Args:
      image: uint8 [H, W, 3] or [H, W, 1].
      boxes_Nx4: left, top, right, bottom, in pixels of the image.
      labels_N: classes, from 0; they choose the colours.
      captions: a line of text for each box; "" for none.

    Returns:
      An RGB picture, enlarged by a whole factor if the image is small.
    """
    picture, scale = _enlarged(image)
    pen, width = ImageDraw.Draw(picture), max(2, round(max(picture.size) / 250))
    font = ImageFont.load_default(max(13, round(max(picture.size) / 40)))
    palette = voc_colours()
    colours = [tuple(map(int, palette[1 + int(label) % 254])) for label in labels_N]
    edges = np.asarray(boxes_Nx4, float).reshape(-1, 4) * scale
    for (left, top, right, bottom), colour in zip(edges, colours, strict=True):
        pen.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour, width=width)
    for (left, top, _, _), colour, caption in zip(edges, colours, captions, strict=True):  # afterwards, so that no line crosses them
        if caption:
            _write(pen, picture.size, (left, top), caption, colour, font)
    return picture


def draw_mask(image: np.ndarray, mask_HxW: np.ndarray) -> Image.Image:
    """Colours an image's pixels by their class; the background, class 0, stays as it is, and pixels without a class (255) become light.

    Args:
      image: uint8 [H, W, 3] or [H, W, 1].
      mask_HxW: the classes, integers in 0..255.

    Returns:
      An RGB picture, enlarged by a whole factor if the image is small.
    """
    pixels = np.broadcast_to(image, (*image.shape[:2], 3)).astype(np.float32)
    opacity = np.where(mask_HxW > 0, OPACITY, 0)[..., None]
    mixed = (1 - opacity) * pixels + opacity * voc_colours()[mask_HxW]
    return _enlarged(np.round(mixed).astype(np.uint8))[0]


def palette_mask(mask_HxW: np.ndarray) -> Image.Image:
    """A mask as VOC stores it: a palette image whose indices are the classes."""
    picture = Image.fromarray(mask_HxW.astype(np.uint8), "P")
    picture.putpalette(voc_colours().tobytes())
    return picture


def side_by_side(pictures: Sequence[Image.Image], gap: int = 8) -> Image.Image:
    """One picture of several, in a row on white."""
    size = sum(each.width for each in pictures) + gap * (len(pictures) - 1), max(each.height for each in pictures)
    sheet, left = Image.new("RGB", size, "white"), 0
    for each in pictures:
        sheet.paste(each.convert("RGB"), (left, 0))
        left += each.width + gap
    return sheet


def _enlarged(image: np.ndarray) -> tuple[Image.Image, int]:
    height, width = image.shape[:2]
    scale = -(-SMALLEST // max(height, width))
    picture = Image.fromarray(np.ascontiguousarray(np.broadcast_to(image, (height, width, 3))))
    return picture.resize((width * scale, height * scale), Image.Resampling.BICUBIC if scale > 1 else None), scale


def _write(pen: ImageDraw.ImageDraw, size: tuple[int, int], corner: tuple[float, float], text: str, colour: tuple, font) -> None:
    """Writes a caption on a ground of the box's colour: above the box if there is room, and always inside the picture."""
    wide, high = pen.textbbox((0, 0), text, font, anchor="lt")[2:]
    wide, high = wide + 6, high + 6
    left = min(max(corner[0], 0), max(size[0] - wide, 0))
    top = corner[1] - high if corner[1] >= high else min(max(corner[1], 0), max(size[1] - high, 0))
    red, green, blue = colour
    dark = 0.299 * red + 0.587 * green + 0.114 * blue < 140
    pen.rectangle((left, top, left + wide, top + high), fill=colour)
    pen.text((left + 3, top + 3), text, "white" if dark else "black", font, anchor="lt")

"""Decodes image files with Pillow, or reports in one line why it cannot."""

import contextlib
import io
from collections.abc import Iterator

import numpy as np
from PIL import ExifTags, Image

from distill_jax.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")  # of image files, in lower case
UNREAD = (".heic", ".heif", ".avif", ".jxl", ".jp2")  # of image files that Pillow cannot read everywhere
ORIENTATIONS = {  # of EXIF, besides 1: what turns the pixels upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def is_image(name: str, suffixes: tuple[str, ...] = SUFFIXES) -> bool:
    """Whether a file is named as an image, and is not hidden, as the ._x.png files of macOS are."""
    return name.lower().endswith(suffixes) and not name.startswith(".")


def average_blocks(images: np.ndarray, factor: int) -> np.ndarray:
    """Average-pools uint8 images [N, H, W, C] to [N, H / factor, W / factor, C]. Means are rounded to the nearest integer, halves up."""
    count, height, width, channels = images.shape
    blocks = images.reshape(count, height // factor, factor, width // factor, factor, channels)
    sums = blocks.sum(axis=(2, 4), dtype=np.uint32)
    return ((sums + factor**2 // 2) // factor**2).astype(np.uint8)


@contextlib.contextmanager
def opened(name: str, file: str | bytes, advice: str) -> Iterator[Image.Image]:
    """Opens an image file, to be decoded in the body of a with statement; errors there also become one line.

    Args:
      name: the image's name in error messages.
      file: a path, or the content.
      advice: what to do about a damaged image.

    Raises:
      UserError: the file cannot be read, is too large, or is not an image that Pillow can decode.
    """
    try:
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
            yield image
    except (UserError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        limit = 2 * Image.MAX_IMAGE_PIXELS // 10**6
        raise UserError(f"{name}: too large; Pillow reads up to {limit} megapixels; scale it down") from error
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged bytes
        reason = getattr(error, "strerror", None)  # the operating system's, if it refused
        raise UserError(f"{name}: {reason or f'not a readable image; {advice}'}") from error


def to_rgb(name: str, image: Image.Image) -> Image.Image:
    """Converts an image of any mode to RGB with 8 bits per channel.

    16-bit grey values are divided by 257, so that 65535 becomes 255. Transparency is dropped and the stored colours are kept, as in
    torchvision and TensorFlow.

    Raises:
      UserError: the pixels are 32-bit integers or floats, whose range is unknown.
    """
    if image.mode in ("I", "F"):
        raise UserError(f"{name}: its pixels are 32-bit {'floats' if image.mode == 'F' else 'integers'}; save it with 8 or 16 bits")
    if image.mode.startswith("I;16"):  # Pillow's own conversion clips these at 255
        image = Image.fromarray(((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8))
    if isinstance(image.info.get("transparency"), bytes):  # of a palette; Pillow warns unless it is converted first
        image = image.convert("RGBA")
    return image.convert("RGB")


def upright(image: Image.Image) -> Image.Image:
    """An image as its EXIF orientation shows it, which phones set instead of turning the pixels; as it is if that is missing or damaged."""
    found = orientation(image)
    return image.transpose(ORIENTATIONS[found]) if found in ORIENTATIONS else image


def is_on_its_side(image: Image.Image) -> bool:
    """Whether `upright` swaps width and height."""
    return orientation(image) in (5, 6, 7, 8)


def orientation(image: Image.Image) -> int:
    """The EXIF orientation in the header of an image just opened; 1, upright, if it is missing or damaged."""
    if image.format == "TIFF":  # Pillow turns these itself
        return 1
    try:
        return Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)  # PNG's own getexif decodes the whole image
    except Exception:  # Pillow raises nearly anything on damaged EXIF data
        return 1

"""Images of their own sizes with a mask or with boxes, read from disk as needed, for segmentation and detection.

A training view is a random affine map (data/affine.py) of a scene, a function of (seed, epoch, id). Evaluation sees the whole scene,
letterboxed, and scores it at the image's original size. An image is turned to its EXIF orientation; its mask and boxes are those of the
turned image.
"""

import dataclasses
import functools
import itertools
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from distill_jax import logs, processes
from distill_jax.data import affine, images
from distill_jax.data.streaming import ADVICE, Streamed, below_common_folder
from distill_jax.errors import UserError

VOID = 255  # in batches: a pixel without a label
MOST_NAMED = 10  # of the samples that are left out


class Scene(NamedTuple):
    """One sample as stored."""

    name: str  # for messages
    image: str | bytes  # a file, or its content
    size: tuple[int, int]  # width and height, turned
    mask: str | np.ndarray | None = None  # segmentation: a file whose pixels are class indices, or these, uint8 [H, W]
    boxes: np.ndarray | None = None  # detection: float32 [N, 4], (left, top, right, bottom) in pixels from the upper left corner
    labels: np.ndarray | None = None  # of the boxes, int32 [N]
    difficult: np.ndarray | None = None  # bool [N]: the metrics ignore these
    crowd: np.ndarray | None = None  # bool [N]: these, all difficult, are groups of objects, which training leaves out; None for no box


class computed_once(functools.cached_property):
    """A cached_property that one thread computes while the others wait: since Python 3.12 each would, and read all of a TFDS split."""

    computing = threading.RLock()

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        with self.computing:
            return super().__get__(instance, owner)


@dataclasses.dataclass(frozen=True)
class StreamedScenes(Streamed):
    """The column "image" of a split of scenes.

    `load` gives, for training:
      id      int32 []
      image   uint8 [size, size, 3]
      label   segmentation: uint8 [size, size], `VOID` where there is no label; detection: int32 [most_boxes], -1 beyond the last box
      boxes   detection: float32 [most_boxes, 4] on the canvas, (left, top, right, bottom)
    for evaluation: id, image, and
      size    int32 [2]: height and width of the scene
      target  int32 [2]: those on the canvas
      label   segmentation: uint8 [*own_shape], the mask at its own size in the upper left corner, `VOID` around it
    """

    scenes: Sequence[Scene]
    rows: np.ndarray  # int [N]: the scenes of this split
    size: int  # side of the canvas, in pixels
    num_classes: int
    scales: tuple[float, float] = (1.0, 1.0)
    flip: bool = False
    void: int = VOID  # in the mask files

    def scene(self, sample: int) -> Scene:
        return self.scenes[int(self.rows[sample])]

    def name(self, sample: int) -> str:
        return self.scene(sample).name

    @computed_once
    def own_shape(self) -> tuple[int, int]:
        """Height and width that hold every scene of this split."""
        widths, heights = zip(*(self.scene(sample).size for sample in range(len(self))), strict=True)
        return max(heights), max(widths)

    @computed_once
    def most_boxes(self) -> int:
        return max([1, *(len(self.scene(sample).boxes) for sample in range(len(self)))])

    def load(self, sample: int, crop_seed: tuple[int, ...] | None) -> dict[str, np.ndarray]:
        """One sample of a batch; see above.

        Args:
          sample: its id.
          crop_seed: (seed, epoch) of random views, or (seed, epoch, batch): see `streaming.batches`; None for evaluation.

        Raises:
          UserError: a file cannot be read, or the mask does not fit the image or the classes.
        """
        scene = self.scene(sample)
        rng = None if crop_seed is None else np.random.Generator(np.random.PCG64((*crop_seed, int(sample))))
        width, height = scene.size
        view = affine.letterbox(width, height, self.size)
        if rng is not None:
            view = affine.random_affine(width, height, self.size, self.scales, self.flip, rng)
        enough = affine.draft_size(view)
        with images.opened(scene.name, scene.image, ADVICE) as image:
            image.draft("RGB", enough[::-1] if images.is_on_its_side(image) else enough)
            decoded = images.to_rgb(scene.name, images.upright(image))
        loaded = {"id": np.int32(sample), "image": np.ascontiguousarray(affine.move_image(decoded, view))}
        if rng is None:
            loaded |= {"size": np.array([height, width], np.int32), "target": np.array(view.target[::-1], np.int32)}
        if scene.mask is not None:
            return loaded | {"label": self._label(scene, None if rng is None else view)}
        return loaded if rng is None else loaded | padded_boxes(scene, view, self.most_boxes)

    def _label(self, scene: Scene, view: affine.Affine | None) -> np.ndarray:
        mask = read_mask(scene, self.num_classes, self.void)
        if view is not None:
            return np.ascontiguousarray(affine.move_mask(Image.fromarray(mask), view, VOID))
        canvas = np.full(self.own_shape, VOID, np.uint8)
        canvas[: mask.shape[0], : mask.shape[1]] = mask
        return canvas


def check_scales(scales: Sequence[float]) -> tuple[float, float]:
    """data.scales as a pair; UserError unless it is a range of positive numbers."""
    if len(scales) != 2 or not 0 < scales[0] <= scales[1] <= 100:
        raise UserError(f"data.scales is {tuple(scales)}; it must be the smallest and the largest scale, above 0 and up to 100")
    return tuple(scales)


def read_all(make: Callable[[Any], Any], items: Sequence[Any], damaged: str) -> list[Any]:
    """make(item) for each item; if `damaged` is "skip", those that raise UserError in the first process are left out, counted and named.

    Raises:
      UserError: that of an item, or all are left out.
    """
    if damaged != "skip":
        return [make(item) for item in items]

    def attempt(item):
        try:
            return make(item)
        except UserError as error:
            return error

    made = [attempt(item) for item in items]
    left_out = processes.from_first(np.array([isinstance(each, UserError) for each in made]))
    reasons, found = list(itertools.compress(made, left_out)), list(itertools.compress(made, ~left_out))
    for each in found:
        if isinstance(each, UserError):
            raise each
    if not found:
        raise UserError(f"none of the {len(items)} images can be read, beginning with {reasons[0]}")
    if reasons:
        more = f"; and {len(reasons) - MOST_NAMED} more" * (len(reasons) > MOST_NAMED)
        logs.say(f"left out {len(reasons)} damaged of {len(items)} images: {'; '.join(map(str, reasons[:MOST_NAMED]))}{more}")
    return found


def columns(scenes: Sequence[Scene], **options: Any) -> dict[str, StreamedScenes]:
    """The split of all `scenes`; options as in `StreamedScenes`."""
    return {"image": StreamedScenes(scenes, np.arange(len(scenes)), **options)}


def read_mask(scene: Scene, num_classes: int, void: int) -> np.ndarray:
    """The class of each pixel, uint8 [H, W]; `VOID` where there is none. Of a palette's colours, only the indices count.

    Raises:
      UserError: the mask cannot be read, has another size than the image, or a class that does not exist.
    """
    name, classes = f"the mask of {scene.name}", scene.mask
    if isinstance(scene.mask, str):
        name = scene.mask
        with images.opened(name, scene.mask, ADVICE) as mask:
            if mask.mode not in ("P", "L", "1"):
                raise UserError(f"{name}: its mode is {mask.mode}; a mask must be a PNG whose pixels are class indices (mode P, L or 1)")
            classes = np.array(mask, np.uint8)
    width, height = scene.size
    if classes.shape != (height, width):
        turned = ", turned to its EXIF orientation," if classes.shape == (width, height) else ""
        raise UserError(f"{name}: is {classes.shape[1]}x{classes.shape[0]}, but its image{turned} is {width}x{height}")
    is_void = classes == void
    if (classes[~is_void] >= num_classes).any():
        found = f"class {classes[~is_void].max()}"
        raise UserError(f"{name}: has {found}; there are {num_classes} classes, from 0, and data.void is {void}")
    classes[is_void] = VOID
    return classes


def padded_boxes(scene: Scene, view: affine.Affine, most: int) -> dict[str, np.ndarray]:
    """The boxes that remain on the canvas and their labels, as `StreamedScenes` describes them."""
    moved, remain = affine.move_boxes(scene.boxes, view)
    remain &= True if scene.crowd is None else ~scene.crowd
    boxes, labels, count = np.zeros((most, 4), np.float32), np.full(most, -1, np.int32), int(remain.sum())
    boxes[:count], labels[:count] = moved[remain], scene.labels[remain]
    return {"boxes": boxes, "label": labels}


def has_boxes(scenes: Iterable[Scene]) -> bool:
    """Whether any scene has a box that the metrics count."""
    return any((~scene.difficult).any() for scene in scenes)


def image_size(name: str, file: str | bytes) -> tuple[int, int]:
    """Width and height of an image turned to its EXIF orientation, from its header."""
    with images.opened(name, file, ADVICE) as image:
        return image.size[::-1] if images.is_on_its_side(image) else image.size


def identity(column: StreamedScenes) -> bytes:
    """What identifies a split: the names of its files below their common folder, and the boxes; not the content of images and masks."""
    if not isinstance(column.scenes, list):  # of TFDS: reading all of them takes long, and their names say nothing
        return column.rows.tobytes()
    chosen = [column.scenes[row] for row in column.rows]
    names = below_common_folder([scene.name for scene in chosen])
    parts = [name.encode(errors="surrogateescape") for name in names]
    for scene in chosen:
        parts += [np.ascontiguousarray(array).tobytes() for array in (scene.boxes, scene.labels, scene.difficult) if array is not None]
    return b"\n".join(parts)

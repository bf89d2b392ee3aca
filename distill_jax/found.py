"""What a network for segmentation or detection finds in images, as files: --mode=predict.

For an image a.jpg, the folder gets

    a.jpg.png       the image with the boxes whose score is at least a half, or with its pixels coloured by their class
    a.jpg.json      {"input": path, "width": pixels, "height": pixels, and
                     "objects": [{"class": name, "score": in 0..1, "box": [left, top, right, bottom]}, ...], best first, in pixels; or
                     "pixels": {class name: number of pixels, ...}}
    a.jpg.mask.png  segmentation: the class of each pixel, as indices into VOC's palette

and those of an image in a sub-folder of --inputs go to the same sub-folder.
"""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from PIL import Image

from distill_jax import drawing, trained, workdir
from distill_jax.errors import UserError
from distill_jax.tasks import detection, segmentation


def writer(network: trained.Network, folder: pathlib.Path, source: pathlib.Path) -> Callable[[Sequence[str], Sequence[Any], int], None]:
    """Returns the function that writes the files of a batch: (paths, images, uint8 [H, W, 3] each, batch size).

    Args:
      network: for segmentation or detection.
      folder: where to write; created if missing.
      source: --inputs.

    Raises:
      UserError: `folder` lies in `source`, so that the next prediction would take these pictures for inputs.
    """
    if source.is_dir() and folder.resolve().is_relative_to(source.resolve()):
        raise UserError(f"--output: {folder} lies inside --inputs={source}, where all images are inputs; name a folder outside it")
    describe, written = {"segmentation": segments, "detection": objects}[network.spec.task], {}

    def write(paths, images, size):
        for path, image, found in zip(paths, images, on_canvas(network, images, size), strict=True):
            name = str(pathlib.Path(path).relative_to(source)) if source.is_dir() else pathlib.Path(path).name
            if written.setdefault(name, path) != path:
                raise UserError(f"{path} and {written[name]} have the same name; put them in one folder, and name that with --inputs")
            facts, pictures = describe(network, image, found)
            target = folder / name
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                for suffix, picture in pictures.items():
                    picture.save(f"{target}{suffix}")
            except OSError as error:
                raise UserError(f"{target}: cannot be written: {error.strerror or error}") from error
            sides = {"width": image.shape[1], "height": image.shape[0]}
            workdir.write_json(pathlib.Path(f"{target}.json"), {"input": path} | sides | facts)

    return write


def on_canvas(network: trained.Network, images: Sequence[np.ndarray], batch_size: int) -> list[Any]:
    """The network's output for each letterboxed image: the boxes found, or logits [S, S, C]."""
    canvases = np.concatenate([network.spec.as_evaluated(image[None]) for image in images])
    function = trained.boxes if network.spec.task == "detection" else trained.forward
    found = network.map(function, {"image": canvases}, batch_size)
    return [jax.tree.map(lambda array, row=row: array[row], found) for row in range(len(images))]


def objects(network: trained.Network, image: np.ndarray, found: Any) -> tuple[dict[str, Any], dict[str, Image.Image]]:
    """The boxes of an image, for its JSON, and its pictures by the ends of their names."""
    one = jax.tree.map(lambda array: array[None], found)
    found = jax.tree.map(lambda array: array[0], detection.of_one_size(one, *image.shape[:2], network.spec.image_size))
    rows = np.flatnonzero(found.score_BxN > 0)
    listed = [
        {
            "class": network.classes[found.label_BxN[row]],
            "score": round(float(found.score_BxN[row]), 4),
            "box": [round(float(edge), 1) for edge in found.box_BxNx4[row]],
        }
        for row in rows
    ]
    return {"objects": listed}, {".png": detection.draw_found(image, found, network.classes)}


def segments(network: trained.Network, image: np.ndarray, logits_SxSxC: np.ndarray) -> tuple[dict[str, Any], dict[str, Image.Image]]:
    """The classes of an image's pixels, for its JSON, and its pictures by the ends of their names."""
    mask = segmentation.mask_of_size(logits_SxSxC, *image.shape[:2])
    classes, counts = np.unique(mask, return_counts=True)
    pixels = {network.classes[number]: int(count) for number, count in zip(classes, counts, strict=True)}
    return {"pixels": pixels}, {".png": drawing.draw_mask(image, mask), ".mask.png": drawing.palette_mask(mask)}

"""Images read from disk as needed: data sets and images of any size.

Each process reads its own share of a batch; grain's threads decode it a few batches ahead of the step. The order of the samples is a
function of (seed, epoch), as for data in memory, and each crop of (seed, epoch, id), so a run resumes mid-epoch without stored state.
"""

import dataclasses
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from PIL import Image

from distill_jax.data import images as image_files
from distill_jax.errors import UserError

BATCHES_AHEAD = 4  # decoded before they are requested
MEAN = np.array([0.485, 0.456, 0.406], np.float32)  # of ImageNet's channels, pixels in [0, 1]; the usual constants
STD = np.array([0.229, 0.224, 0.225], np.float32)
AREA = (0.08, 1.0)  # of a training crop, as a fraction of the image's
ASPECT = (3 / 4, 4 / 3)  # width / height of a training crop
CENTRE = 224 / 256  # side of the evaluation crop, as a fraction of the image's shorter side
ADVICE = "remove it, or leave out all such images with --config.data.damaged=skip (if the run has begun, both need a new --workdir)"


class Record(NamedTuple):
    """One sample as stored."""

    name: str  # for messages
    file: str | bytes  # a path, or the content
    label: int


class Records(Protocol):
    """A split on disk."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int) -> Record: ...


class Streamed(Protocol):
    """The column "image" of a split that is not in memory: `StreamedImages`, or `scenes.StreamedScenes`, frozen dataclasses.

    Has the length of an array of rows, and is indexed like one.
    """

    rows: np.ndarray  # int [N]: the records of this split
    size: int  # side of the samples' images, in pixels

    dtype = np.dtype(np.uint8)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (len(self.rows), self.size, self.size, 3)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, chosen: np.ndarray) -> Self:
        return dataclasses.replace(self, rows=self.rows[chosen])

    def load(self, sample: int, crop_seed: tuple[int, ...] | None) -> dict[str, np.ndarray]: ...

    def name(self, sample: int) -> str: ...


@dataclasses.dataclass(frozen=True)
class FileRecords:
    """Image files and their classes."""

    files: Sequence[str]
    labels: np.ndarray  # int32 [N]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> Record:
        return Record(self.files[row], self.files[row], int(self.labels[row]))


@dataclasses.dataclass(frozen=True)
class StreamedImages(Streamed):
    """Images with one label each."""

    records: Records
    rows: np.ndarray
    size: int  # side of the crops, in pixels

    def name(self, sample: int) -> str:
        return self.records[int(self.rows[sample])].name

    def load(self, sample: int, crop_seed: tuple[int, ...] | None) -> dict[str, np.ndarray]:
        """One sample of a batch, {"id", "image", "label"}; arguments and errors as for `batches`."""
        record = self.records[int(self.rows[sample])]
        rng = None if crop_seed is None else np.random.Generator(np.random.PCG64((*crop_seed, int(sample))))
        return {"id": np.int32(sample), "image": read_crop(record, self.size, rng), "label": np.int32(record.label)}


def columns(records: Records, labels: Any, size: int) -> dict[str, Any]:
    """The split of all `records`: streamed images, and labels (int32 [N], or an object that acts like it)."""
    return {"image": StreamedImages(records, np.arange(len(records)), size), "label": labels}


def batches(
    images: Streamed, ids_SxB: np.ndarray, crop_seed: tuple[int, int] | None, first: int | None = None
) -> Iterator[dict[str, np.ndarray]]:
    """Reads and crops batches of samples, in the given order.

    Args:
      images: the split.
      ids_SxB: ids of the samples, one batch per row.
      crop_seed: (seed, epoch) of random crops; None for central ones.
      first: the number of the first batch, if an epoch may show a sample twice: its crops then differ. None if it does not.

    Returns:
      An iterator of {"id": int32 [B], "image": uint8 [B, size, size, 3], "label": int32 [B]}; for scenes see `scenes.StreamedScenes`.

    Raises:
      UserError: an image cannot be read; the message names it.
    """

    def load(place):
        batch, row = divmod(int(place), ids_SxB.shape[1])
        return images.load(ids_SxB[batch, row], crop_seed if first is None else (*crop_seed, first + batch))

    return in_threads(np.arange(ids_SxB.size), load, ids_SxB.shape[1])


def below_common_folder(files: Sequence[str]) -> list[str]:
    """The names of files below their common folder: the same wherever that lies."""
    root = os.path.commonpath(files)
    return [os.path.relpath(file, root) for file in files]


def are_readable(images: Streamed) -> np.ndarray:
    """Which samples of a split can be decoded, bool [N]. Reads all of them."""

    def is_readable(sample):
        try:
            images.load(sample, None)
        except UserError:
            return np.bool_(False)
        return np.bool_(True)

    return np.concatenate(list(in_threads(np.arange(len(images)), is_readable, 64)))


def in_threads(samples: np.ndarray, load: Any, batch_size: int) -> Iterator[Any]:
    """Calls load(sample) in threads and stacks the results into batches, in order."""
    import grain  # here, since its import takes seconds and only streaming needs it

    options = grain.ReadOptions(num_threads=own_cores(), prefetch_buffer_size=BATCHES_AHEAD * batch_size)
    return iter(grain.MapDataset.source(samples).map(load).to_iter_dataset(options).batch(batch_size))


def own_cores() -> int:
    """The number of CPU cores that this process may use: under Slurm, fewer than the host has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def read_crop(record: Record, size: int, rng: np.random.Generator | None, advice: str = ADVICE) -> np.ndarray:
    """Decodes an image and resizes a crop of it: a random one or, without `rng`, the central one.

    Returns:
      uint8 [size, size, 3].

    Raises:
      UserError: the file cannot be read, or Pillow cannot decode it.
    """
    with image_files.opened(record.name, record.file, advice) as image:
        width, height = image.size
        left, top, right, bottom = central_box(width, height) if rng is None else random_box(width, height, rng)
        scale = 2 * size / min(right - left, bottom - top)  # a JPEG may be decoded smaller, at twice the resolution needed
        image.draft("RGB", (math.ceil(width * scale), math.ceil(height * scale)))
        x, y = image.size[0] / width, image.size[1] / height
        return resized(image_files.to_rgb(record.name, image), size, (left * x, top * y, right * x, bottom * y))


def resized(image: Image.Image, size: int, box: tuple[float, float, float, float]) -> np.ndarray:
    """The part of an image in a box, (left, top, right, bottom), resampled (bilinear, antialiased): uint8 [size, size, 3]."""
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box))


def random_box(width: int, height: int, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) of a training crop: random area, aspect ratio and position (Szegedy et al., arXiv 1409.4842).

    NumPy guarantees PCG64's bits for a given seed, but not how `uniform` and `integers` use them; a test pins that.
    """
    for _ in range(10):
        area = width * height * rng.uniform(*AREA)
        aspect = math.exp(rng.uniform(*map(math.log, ASPECT)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = rng.integers(width - w + 1), rng.integers(height - h + 1)
            return left, top, left + w, top + h
    return central_box(width, height, 1.0)


def central_box(width: int, height: int, fraction: float = CENTRE) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) of the central square whose side is `fraction` of the image's shorter side."""
    half = min(width, height) * fraction / 2
    return width / 2 - half, height / 2 - half, width / 2 + half, height / 2 + half

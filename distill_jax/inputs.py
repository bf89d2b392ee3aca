"""What --mode=predict reads: image files or sentences, in batches, a few of them ahead of the one being predicted."""

import collections
import functools
import itertools
import os
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from distill_jax.data import images, streaming
from distill_jax.errors import UserError
from distill_jax.files import decoded
from distill_jax.specs import Spec

STDIN = "-"
NOT_LINES = (".csv", ".json", ".jsonl")  # files whose lines are not sentences
BATCHES_AHEAD = 2
ADVICE = "replace or remove it"


class Sample(NamedTuple):
    """One input, not yet read."""

    name: str  # the path of an image, or the line of text
    read: Callable[[], Any]  # -> uint8 [H, W, C], or a sentence or a pair; raises UserError, naming the file or line


def find(inputs: str, spec: Spec) -> Iterator[Sample]:
    """The samples that --inputs names, in a stable order: that of the lines, or that of the paths, folder by folder.

    Args:
      inputs: a file, a folder, or "-" for lines from standard input.
      spec: of the network that is to take them.

    Raises:
      UserError: there is no such file, a folder has no images, or a file has no sentences.
    """
    place = pathlib.Path(inputs).expanduser()
    if inputs != STDIN and not place.exists():
        raise UserError(f"--inputs={inputs}: no such file or folder")
    if spec.tokenizer:
        if inputs != STDIN and place.is_dir():
            raise UserError(f"--inputs={inputs} is a folder, but this network takes sentences; give a text file with one per line")
        if place.suffix.lower() in NOT_LINES:
            raise UserError(f"--inputs={inputs}: a {place.suffix} file is not read as sentences; give a text file with one per line")
        return (Sample(line, functools.partial(sentence, where, line, spec.sentences)) for where, line in lines_of(inputs))
    if inputs == STDIN:
        paths = (line for _, line in lines_of(inputs, os.fsdecode))
    else:
        paths = images_below(place) if place.is_dir() else [str(place)]
    return (Sample(path, functools.partial(read_image, path, spec)) for path in paths)


def images_below(root: pathlib.Path) -> Iterator[str]:
    """The paths of the images in a folder and the folders below it: files with an image's suffix (one that is named itself may have any).

    Hidden files and folders are ignored.
    """
    found = False
    for parent, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if images.is_image(name, (*images.SUFFIXES, *images.UNREAD)):  # one that cannot be read is then told
                found = True
                yield os.path.join(parent, name)
    if not found:
        raise UserError(f"--inputs={root}: has no images ({', '.join(images.SUFFIXES)})")


def lines_of(inputs: str, decode: Callable[[bytes], str] = decoded) -> Iterator[tuple[str, str]]:
    """The lines of a text file or of standard input that are not blank, each after its place, such as "reviews.txt:3".

    Raises:
      UserError: there are none, or a line is no text.
    """
    source, found = "standard input" if inputs == STDIN else inputs, False
    with open(sys.stdin.fileno() if inputs == STDIN else pathlib.Path(inputs).expanduser(), "rb", closefd=inputs != STDIN) as file:
        for number, line in enumerate(file, start=1):
            where = f"{source}:{number}"
            if b"\0" in line:
                raise UserError(f"{where}: not UTF-8 or Latin-1 text (it has zero bytes)")
            if line.strip():
                found = True
                yield where, decode(line.rstrip(b"\r\n"))
    if not found:
        raise UserError(f"{source}: has only blank lines")


def sentence(where: str, line: str, sentences: int) -> str | tuple[str, ...]:
    """The sentence of a line, or its pair. `sentences` is the number that the network takes: 1, 2, or 0 if that is not recorded.

    Raises:
      UserError: there are more or fewer, or one is empty.
    """
    parts = tuple(part.strip() for part in line.split("\t"))
    if len(parts) not in ((sentences,) if sentences else (1, 2)):
        takes = {0: "one or two", 1: "one", 2: "two"}[sentences]
        raise UserError(f"{where}: has {len(parts)} tab-separated columns; this network takes {takes}, without labels")
    if not all(parts):
        raise UserError(f"{where}: a sentence is empty")
    return parts[0] if len(parts) == 1 else parts


def read_image(path: str, spec: Spec) -> np.ndarray:
    """An image, prepared as in the network's evaluation: uint8, of `spec.input_shape`. For segmentation and detection, the whole image in
    colour, turned to its EXIF orientation, so that boxes and masks match what people see.

    For networks trained on streamed images, the central crop. Other networks get the whole image: as it is if it has their size, averaged
    over blocks if it has the size of training images before data.downsample, and otherwise resized (bilinear). It is converted to grey for
    a network of grey images.

    Raises:
      UserError: the file cannot be read or decoded.
    """
    if spec.task != "classification":
        with images.opened(path, path, ADVICE) as image:
            return np.asarray(images.to_rgb(path, images.upright(image)))
    if spec.image_size:
        return streaming.read_crop(streaming.Record(path, path, 0), spec.image_size, None, ADVICE)
    height, width, channels = spec.input_shape
    with images.opened(path, path, ADVICE) as image:
        whole = images.to_rgb(path, image)
        whole = whole if channels == 3 else whole.convert("L")
        if whole.size not in ((width, height), spec.full_size[::-1]):
            whole = whole.resize((width, height), Image.Resampling.BILINEAR)
        return spec.as_evaluated(np.asarray(whole).reshape(1, whole.height, whole.width, channels))[0]


def in_batches(samples: Iterable[Sample], batch_size: int) -> Iterator[list[tuple[str, Any]]]:
    """Reads samples in threads, in order: lists of `batch_size` (name, content), the last one shorter.

    The content of a sample that cannot be read is the UserError.
    """

    def read(sample):
        try:
            return sample.name, sample.read()
        except UserError as error:
            return sample.name, error

    samples, ahead = iter(samples), collections.deque()
    with ThreadPoolExecutor() as threads:
        while batch := [threads.submit(read, sample) for sample in itertools.islice(samples, batch_size)]:
            ahead.append(batch)
            if len(ahead) > BATCHES_AHEAD:
                yield [each.result() for each in ahead.popleft()]
        for batch in ahead:
            yield [each.result() for each in batch]

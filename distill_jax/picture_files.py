"""A run's pictures as files: PNGs in its workdir, and TensorBoard's images."""

import io
import pathlib
import re
from collections.abc import Callable

import numpy as np
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter


def save(folder: pathlib.Path, epoch: int, pictures: list[np.ndarray]) -> None:
    (folder / "pictures").mkdir(exist_ok=True)
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / "pictures" / f"epoch_{epoch:04d}_{number}.png")


def events(folder: pathlib.Path) -> EventFileWriter:
    return EventFileWriter(str(folder), filename_suffix=".pictures")


def add_events(writer: EventFileWriter, folder: pathlib.Path, step_of: Callable[[int], int], epochs: range) -> None:
    """Gives TensorBoard the saved pictures of some epochs."""
    for path in sorted((folder / "pictures").glob("epoch_*.png")):
        found = re.fullmatch(r"epoch_(\d+)_(\d+)", path.stem)
        if found and int(found[1]) in epochs:
            content = path.read_bytes()
            width, height = Image.open(io.BytesIO(content)).size
            image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=content)
            value = Summary.Value(tag=f"pictures/{found[2]}", image=image)
            writer.add_event(Event(step=step_of(int(found[1])), summary=Summary(value=[value])))
    writer.flush()

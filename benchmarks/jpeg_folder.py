"""Writes images of a data set as JPEGs of many sizes, in ImageNet's layout: real photographs to test streaming with.

python benchmarks/jpeg_folder.py --out=/tmp/jpegs --dir=DIR --classes=10 --train=1000 --test=200
python run.py --config=configs/sd_imagenet.py --config.data.name=folder:/tmp/jpegs --config.data.image_size=64 ...
"""

import argparse
import pathlib

import numpy as np
from PIL import Image

from distill_jax.data import load
from distill_jax.data.dataset import balanced_rows, take


def write(rows: dict[str, np.ndarray], count: int, folder: pathlib.Path, sizes: tuple[int, int], rng: np.random.Generator) -> None:
    """Writes `count` class-balanced images, each enlarged to a random width and height within `sizes`."""
    chosen = take(rows, balanced_rows(rows["label"], count))
    for number, (image, label) in enumerate(zip(chosen["image"], chosen["label"], strict=True)):
        path = folder / f"class_{label:03d}" / f"{number:06d}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        width, height = rng.integers(sizes[0], sizes[1] + 1, 2)
        Image.fromarray(image.squeeze()).resize((int(width), int(height)), Image.Resampling.BICUBIC).save(path, quality=90)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--name", default="cifar100", help="as data.name")
    parser.add_argument("--dir", default="", help="as data.dir")
    parser.add_argument("--classes", type=int, default=10, help="number of classes, the first ones")
    parser.add_argument("--train", type=int, default=1000)
    parser.add_argument("--test", type=int, default=200)
    parser.add_argument("--sizes", type=int, nargs=2, default=(64, 160), help="smallest and largest side in pixels")
    arguments = parser.parse_args(argv)
    dataset, rng = load(arguments.name, arguments.dir), np.random.default_rng(0)
    for part, rows, count in (("train", dataset.train, arguments.train), ("val", dataset.test, arguments.test)):
        write(take(rows, rows["label"] < arguments.classes), count, arguments.out / part, arguments.sizes, rng)


if __name__ == "__main__":
    main()

"""Small scenes with masks and boxes, in the layouts of CamVid and of VOC, and a tiny network that labels each pixel."""

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from helpers import make_config
from ml_collections import ConfigDict
from PIL import Image

from distill_jax import default_config
from distill_jax.data import load_config

CLASSES = ("background", "red", "blue")
COLOURS = np.array([[90, 90, 90], [200, 60, 60], [60, 60, 200]])
BORDER = 255


class Pixels(nn.Module):
    """A classifier of each pixel: its trunk has the parameters of `Whole`."""

    num_classes: int
    features: int = 8

    @nn.compact
    def __call__(self, images, train=False):
        x = Whole(self.num_classes, self.features, head=False, name="trunk")(images, train)
        return nn.Conv(self.num_classes, (1, 1), name="classifier")(x)


class Whole(nn.Module):
    """A classifier of images."""

    num_classes: int
    features: int = 8
    head: bool = True

    @nn.compact
    def __call__(self, images, train=False):
        x = nn.Conv(self.features, (3, 3), name="conv")(images)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, name="norm")(x))
        return nn.Dense(self.num_classes, name="head")(jnp.mean(x, axis=(1, 2))) if self.head else x


def scene(rng):
    """An image of a random size with one or two rectangles, its mask with a border without label, and (class, box) of each."""
    width, height = rng.integers(24, 44, 2)
    mask = np.zeros((height, width), np.uint8)
    objects = []
    for label in rng.permutation([1, 2])[: rng.integers(1, 3)]:
        w, h = rng.integers(8, 16, 2)
        left, top = rng.integers(0, width - w), rng.integers(0, height - h)
        mask[top : top + h, left : left + w] = label
        objects.append((CLASSES[label], (left, top, left + w, top + h)))
    image = (COLOURS[mask] + rng.integers(-20, 20, (height, width, 3))).astype(np.uint8)
    mask[:, -1] = BORDER
    return Image.fromarray(image), Image.fromarray(mask), objects


def write_masks(folder, train=24, test=10, seed=0):
    """CamVid's layout; returns the data.name."""
    rng = np.random.default_rng(seed)
    for part, count in (("train", train), ("test", test)):
        for name in (part, f"{part}annot"):
            (folder / name).mkdir(parents=True)
        for number in range(count):
            image, mask, _ = scene(rng)
            image.save(folder / part / f"{number:02d}.jpg", quality=95)
            mask.save(folder / f"{part}annot" / f"{number:02d}.png")
    (folder / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    return f"masks:{folder}"


def write_voc(folder, names=("dog", "cat"), sets=(("train", 6), ("val", 4))):
    """One year of VOC's devkit; `names` replace red and blue."""
    rng = np.random.default_rng(1)
    for part in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Main", "ImageSets/Segmentation"):
        (folder / part).mkdir(parents=True)
    for part, count in sets:
        ids = [f"{part}_{number}" for number in range(count)]
        for kind in ("Main", "Segmentation"):
            (folder / "ImageSets" / kind / f"{part}.txt").write_text("".join(f"{each}\n" for each in ids))
        for each in ids:
            image, mask, objects = scene(rng)
            image.save(folder / "JPEGImages" / f"{each}.jpg")
            mask.putpalette(list(range(256)) * 3)
            mask.save(folder / "SegmentationClass" / f"{each}.png")
            write_xml(folder / "Annotations" / f"{each}.xml", [(names[CLASSES.index(name) - 1], box) for name, box in objects])
    return f"voc:{folder}"


def write_xml(path, objects, difficult="0"):
    """Boxes are edges from 0; the file counts pixels from 1 and includes the last."""
    parts = []
    for name, (left, top, right, bottom) in objects:
        box = f"<xmin>{left + 1}</xmin><ymin>{top + 1}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax>"
        parts.append(f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{box}</bndbox></object>")
    path.write_text(f"<annotation>{''.join(parts)}</annotation>")


def pixels_config(name, **fields):
    """Four epochs of three steps of `Pixels` on scenes, in two cycles, labels alone."""
    data = {"name": name, "task": "segmentation", "image_size": 32, "scales": (0.75, 1.5), "crop_padding": 0, "flip": True}
    own = {f"data__{field}": value for field, value in data.items()} | {"data__train_examples": 0, "batch_size": 8}
    own |= {"model": ConfigDict({"name": "scenes_helpers:Pixels"}), "method": ConfigDict({"name": "supervised"})}
    return make_config(**own | {"optimizer__learning_rate": 0.05, "eval_every": 2} | fields)


def data_fields(name, **fields):
    data = default_config.get_config().data
    data.update({"name": name, "task": "segmentation", "image_size": 32} | fields)
    return data


def read(name, **fields):
    return load_config(data_fields(name, **fields))

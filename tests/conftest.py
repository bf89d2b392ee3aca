"""A run small enough for every test: 200 digits, a small net, 4 epochs of 5 steps, 2 cycles."""

import io
import os
import tempfile

import jax
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from configs import sd_digits
from distill_jax import train

# Many tests build the same programs, some in processes of their own: each is compiled once a session, for all of pytest's workers.
if "PYTEST_XDIST_WORKER" not in os.environ:
    CACHE = tempfile.TemporaryDirectory(prefix="distill_jax_tests_")
    os.environ["DISTILL_JAX_TESTS_CACHE"] = CACHE.name
for name, value in {
    "jax_compilation_cache_dir": os.environ["DISTILL_JAX_TESTS_CACHE"],
    "jax_persistent_cache_min_compile_time_secs": 0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}.items():
    jax.config.update(name, value)
    os.environ[name.upper()] = str(value)


def make_config(**fields):
    config = sd_digits.get_config()
    config.epochs = 4
    config.batch_size = 40
    config.eval_every = 1
    config.checkpoint_every = 1
    config.log_every = 2
    config.data.train_examples = 200
    config.schedule.cycles = 2
    for name, value in fields.items():
        config.update_from_flattened_dict({name.replace("__", "."): value})
    return config


@pytest.fixture(scope="session")
def program():
    return train.build(make_config())


@pytest.fixture(scope="session")
def finished(program, tmp_path_factory):
    """The workdir and the summary of an uninterrupted run."""
    workdir = tmp_path_factory.mktemp("finished")
    return workdir, train.run(program, 0, workdir)


@pytest.fixture(scope="session")
def tiny_images():
    """A TFDS builder of 4x4 images that TFDS can prepare without TensorFlow: the images come already as PNG."""
    tensorflow_datasets = pytest.importorskip("tensorflow_datasets")

    class TinyImages(tensorflow_datasets.core.GeneratorBasedBuilder):
        VERSION = tensorflow_datasets.core.Version("1.0.0")
        SPLITS = {"train": 8, "validation": 4}
        SIZES = (4,)
        FEATURES = ("image", "label")

        def _info(self):
            features = {
                "image": tensorflow_datasets.features.Image(shape=(None, None, 1)),
                "label": tensorflow_datasets.features.ClassLabel(num_classes=2),
            }
            return tensorflow_datasets.core.DatasetInfo(
                builder=self,
                features=tensorflow_datasets.features.FeaturesDict({key: features[key] for key in self.FEATURES}),
            )

        def _split_generators(self, dl_manager):
            return {key: self._generate_examples(count) for key, count in self.SPLITS.items()}

        def _generate_examples(self, count):
            for value in range(count):
                size = self.SIZES[value % len(self.SIZES)]
                image = png(np.full((size, size), value, np.uint8))
                example = {"image": image, "label": value % 2}
                yield value, {key: example[key] for key in self.FEATURES}

    return TinyImages


def png(pixels: np.ndarray) -> io.BytesIO:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    buffer.seek(0)
    return buffer


def write_images(folder, per_class=(60, 63), test=17):
    """Pieces of scikit-learn's two photographs, one a class, as JPEGs of many sizes."""
    rng = np.random.default_rng(0)
    for name, photograph, count in zip(("china", "flower"), load_sample_images().images, per_class, strict=True):
        for part, number in (("train", count), ("val", test)):
            (folder / part / name).mkdir(parents=True)
            for row in range(number):
                width, height = rng.integers(20, 60, 2)
                left, top = rng.integers(0, 640 - width), rng.integers(0, 427 - height)
                piece = Image.fromarray(photograph[top : top + height, left : left + width])
                piece.save(folder / part / name / f"{row:03d}.JPEG", quality=95)


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    """A folder of 123 images for training and 34 for test."""
    folder = tmp_path_factory.mktemp("photographs")
    write_images(folder)
    return folder

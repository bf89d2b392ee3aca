"""Fixtures shared by several test files."""

import os
import tempfile

import jax
import numpy as np
import pytest
from helpers import build, colours_config, family_config, make_config, png, run, text_config, write_images
from ml_collections import ConfigDict

from distill_jax import study

# Many tests build the same programs, some in separate processes: each is compiled once per session, for all of pytest's workers.
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
# The tests compile more than they compute. Loops that LLVM gets from XLA itself, not from MLIR, compile in half the time; the flag is gone
# in jax 0.11. Without any of LLVM's optimizations (level 0), a train step takes twenty times as long. pytest's workers occupy the cores, so
# a program need not be split to be compiled in parallel.
FAST = ["--xla_backend_optimization_level=1", "--xla_cpu_parallel_codegen_split_count=1"]
FAST += ["--xla_cpu_use_fusion_emitters=false"] * (jax.__version_info__ < (0, 11))
given = os.environ.get("XLA_FLAGS", "").split()
os.environ["XLA_FLAGS"] = " ".join([*given, *(flag for flag in FAST if flag not in given)])


@pytest.fixture(scope="session")
def exp():
    """The experiment of `helpers.make_config`."""
    return build(make_config())


@pytest.fixture(scope="session")
def finished(exp, tmp_path_factory):
    """The workdir and the summary of an uninterrupted run of it."""
    workdir = tmp_path_factory.mktemp("finished")
    return workdir, run(exp, 0, workdir)


@pytest.fixture(scope="session")
def finished_family(tmp_path_factory):
    """The workdir and the summary of `helpers.family_config`."""
    workdir = tmp_path_factory.mktemp("family")
    return workdir, study.train(family_config(), workdir)


@pytest.fixture(scope="session")
def finished_colours(tmp_path_factory):
    """The workdir and the summary of `helpers.colours_config`; the data is beside it."""
    folder = tmp_path_factory.mktemp("colours")
    return folder / "run", study.train(colours_config(folder / "colours.npz"), folder / "run")


@pytest.fixture(scope="session")
def sentences(tmp_path_factory):
    """A folder of sentences of three classes, each identified by one word: 160 for training and 40 for test."""
    nouns = {0: ["cat", "dog", "owl", "hen"], 1: ["car", "bus", "tram", "ship"], 2: ["oak", "fir", "elm", "yew"]}
    folder, rng = tmp_path_factory.mktemp("sentences"), np.random.default_rng(0)
    for name, rows in (("train", 160), ("test", 40)):
        labels = rng.integers(0, 3, rows)
        lines = [
            f"{label} the {rng.choice(['old', 'new', 'red'])} {rng.choice(nouns[label])} {'is here ' * rng.integers(1, 4)}"
            for label in labels
        ]
        (folder / name).write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def finished_text(sentences, tmp_path_factory):
    """The workdir and the summary of Snapshot Distillation on the fixture `sentences`."""
    workdir = tmp_path_factory.mktemp("text")
    config = text_config(sentences, schedule__cycles=2, method=ConfigDict({"name": "snapshot"}))
    return workdir, study.train(config, workdir)


@pytest.fixture(scope="session")
def tiny_images():
    """A TFDS builder of 4x4 images that TFDS can prepare without TensorFlow, since the images are already PNGs."""
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


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    """A folder of 123 images for training and 34 for test."""
    folder = tmp_path_factory.mktemp("photographs")
    write_images(folder)
    return folder

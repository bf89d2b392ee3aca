"""TFDS: small sets prepared as array_record, with and without TensorFlow."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import loading_fails
from text_helpers import fields, sentences

from distill_jax.data import load, tensorflow_sets


@pytest.fixture
def without_tensorflow(monkeypatch):
    monkeypatch.setattr(tensorflow_sets, "_has_tensorflow", lambda: False)


def prepare(builder, directory: Path) -> None:
    builder(data_dir=str(directory), file_format="array_record").download_and_prepare()


def test_tfds_array_record(tmp_path, tiny_images, without_tensorflow):
    prepare(tiny_images, tmp_path)
    tiny = load("tfds:tiny_images", str(tmp_path))
    assert tiny.name == "tfds:tiny_images" and tiny.num_classes == 2
    assert tiny.train["image"].shape == (8, 4, 4, 1) and tiny.test["image"].shape == (4, 4, 4, 1)
    assert tiny.train["image"].dtype == np.uint8 and tiny.train["label"].dtype == np.int32
    assert sorted(tiny.train["image"][:, 0, 0, 0]) == list(range(8))
    np.testing.assert_array_equal(tiny.train["image"][:, 0, 0, 0] % 2, tiny.train["label"])
    assert tiny.classes == (), "0 and 1 are no names"


@pytest.mark.parametrize(
    "attribute, value, message",
    [
        ("SIZES", (4, 5), r"tfds:tiny_images train: images must all have the same size"),
        ("SPLITS", {"train": 2}, r"data.name tfds:tiny_images: needs the splits train and test"),
        (
            "FEATURES",
            ("image",),
            r"data.name tfds:tiny_images: needs the features image and label, or label and one of .*; it has \['image'\]",
        ),
    ],
)
def test_tfds_unfit_sets(tmp_path, tiny_images, monkeypatch, attribute, value, message):
    monkeypatch.setattr(tiny_images, attribute, value)
    prepare(tiny_images, tmp_path)
    loading_fails(message, "tfds:tiny_images", str(tmp_path))


def test_tfds_unprepared_without_tensorflow(tmp_path, tiny_images, monkeypatch, without_tensorflow):
    monkeypatch.setattr(tensorflow_sets, "builder_of", lambda name, directory: tiny_images(data_dir=directory))
    advice = r"install the tfds extra \(pip install 'distill_jax\[tfds\]'\) or put the archives into data.dir"
    loading_fails(
        f"data.name tfds:tiny_images: not prepared as array_record in {tmp_path}.*{advice}",
        "tfds:tiny_images",
        str(tmp_path),
    )
    loading_fails(f"cifar100: data.dir {tmp_path} has none of .*{advice}", "cifar100", str(tmp_path))


def test_tfds_unknown_set(tmp_path):
    pytest.importorskip("tensorflow_datasets")
    loading_fails("data.name tfds:no_such_set: Dataset no_such_set not found", "tfds:no_such_set", str(tmp_path))


def test_tfds_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    loading_fails("data.name tfds:mnist: .*tensorflow_datasets.*; install the tfds extra", "tfds:mnist")


def test_import_takes_no_tensorflow():
    program = "import sys, distill_jax.data; print([m for m in sys.modules if m.startswith('tensorflow')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_tfds_pairs_whose_test_split_has_no_labels(tmp_path, monkeypatch):
    datasets = pytest.importorskip("tensorflow_datasets")

    class TinyPairs(datasets.core.GeneratorBasedBuilder):
        VERSION = datasets.core.Version("1.0.0")

        def _info(self):
            features = {
                "idx": np.int32,
                "label": datasets.features.ClassLabel(names=["no", "yes"]),
                "sentence1": datasets.features.Text(),
                "sentence2": datasets.features.Text(),
            }
            return datasets.core.DatasetInfo(builder=self, features=datasets.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {
                "train": self._generate_examples(4, 0),
                "validation": self._generate_examples(2, 0),
                "test": self._generate_examples(3, -1),
            }

        def _generate_examples(self, count, label):
            for row in range(count):
                yield row, {"idx": row, "label": label or row % 2, "sentence1": f"Café w{row % 2}", "sentence2": f"{row}"}

    monkeypatch.setattr(tensorflow_sets, "_has_tensorflow", lambda: False)
    TinyPairs(data_dir=str(tmp_path), file_format="array_record").download_and_prepare()
    data = tensorflow_sets.read("tiny_pairs", str(tmp_path), fields())
    assert data.name == "tfds:tiny_pairs" and data.num_classes == 2 and data.classes == ("no", "yes")
    np.testing.assert_equal(tensorflow_sets.read("tiny_pairs", str(tmp_path), fields(max_length=3), tokenizer=data.tokenizer), data)
    assert sorted(sentences(data, "train")) == [f"café w{row % 2} [SEP] {row}" for row in (0, 2, 1, 3)]
    assert [f"w{label}" for label in data.train["label"]] == [sentence.split()[1] for sentence in sentences(data, "train")]
    assert sorted(sentences(data, "test")) == ["café w0 [SEP] 0", "café w1 [SEP] 1"]

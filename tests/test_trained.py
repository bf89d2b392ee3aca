"""Trained networks from Python: they are found, loaded and checked, predict as in their runs, and report what they cannot do."""

import json
import shutil

import jax
import numpy as np
import pytest
from helpers import COLOURS, make_config
from scipy.special import softmax

import distill_jax
from distill_jax import checkpoints, configuration, files, study, trained, workdir
from distill_jax.errors import UserError

HEADLESS = """
from flax import linen as nn


class Headless(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, images, train=False):
        return nn.Dense(self.num_classes, name="classifier")(images.mean(axis=(1, 2)))
"""


def accuracy(probabilities, labels):
    return float((probabilities.argmax(axis=1) == labels).mean())


def test_it_predicts_as_its_run_was_evaluated(finished, exp):
    folder, summary = finished
    network, test = distill_jax.load(folder), exp.data.dataset.test
    probabilities = network.predict(test["image"])
    assert probabilities.dtype == np.float32 and probabilities.shape == (360, 10)
    np.testing.assert_allclose(probabilities, softmax(exp.predict(network.variables), axis=1), rtol=1e-5, atol=1e-7)
    assert accuracy(probabilities, test["label"]) == summary["test_accuracy"]
    np.testing.assert_allclose(network.predict(test["image"][:7], batch_size=3), probabilities[:7], rtol=1e-4, atol=1e-7)
    assert network.classes == tuple("0123456789")


def test_few_images_are_not_padded_to_a_whole_batch(finished, exp, monkeypatch):
    sizes, in_order = [], trained.batches.in_order
    monkeypatch.setattr(trained.batches, "in_order", lambda rows, count, size: sizes.append(size) or in_order(rows, count, size))
    distill_jax.load(finished[0]).predict(exp.data.dataset.test["image"][:3])
    assert sizes == [max(4, jax.device_count())]


def test_features_are_the_inputs_of_the_head(finished, exp):
    network, images = distill_jax.load(str(finished[0])), exp.data.dataset.test["image"][:50]
    features, head = network.features(images), network.variables["params"]["head"]
    assert features.shape == (50, 64) and features.dtype == np.float32
    logits = network.logits(images)
    np.testing.assert_allclose(features @ head["kernel"] + head["bias"], logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(softmax(logits, axis=1), network.predict(images), rtol=1e-5, atol=1e-7)


def test_apply_is_the_module_with_its_weights(finished, exp):
    network, images = distill_jax.load(finished[0]), exp.data.dataset.test["image"][:5]
    inputs = (images / 255 - network.spec.input_mean) / network.spec.input_std
    np.testing.assert_allclose(network.apply(inputs.astype(np.float32)), network.logits(images), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(network.spec.to_inputs({"image": images}), inputs, rtol=1e-5, atol=1e-6)


def test_images_of_another_size_are_resized(finished_colours):
    network = distill_jax.load(finished_colours[0])
    images = np.random.default_rng(0).integers(0, 256, (6, 12, 20, 3), np.uint8)
    resized = jax.image.resize(images.astype(np.float32) / 255, (6, 8, 8, 3), "bilinear")
    logits = network.apply((resized - np.array(network.spec.input_mean)) / np.array(network.spec.input_std))
    np.testing.assert_allclose(network.predict(images), jax.nn.softmax(logits), rtol=1e-4, atol=1e-6)


def test_grey_images_for_a_network_of_three_channels(finished_colours):
    network = distill_jax.load(finished_colours[0])
    grey = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1), np.uint8)
    np.testing.assert_allclose(network.predict(grey), network.predict(np.repeat(grey, 3, axis=3)), rtol=1e-6)
    assert network.classes == COLOURS


def test_it_shows_itself_in_a_line(finished):
    assert len(repr(distill_jax.load(finished[0]))) < 300
    assert set(distill_jax.__all__) <= set(dir(distill_jax))


def test_classes_without_names_are_numbers(finished):
    network = distill_jax.load(finished[0])
    nameless = trained.Network(network.spec._replace(classes=()), network.module, network.variables, {}, network.mesh)
    assert nameless.classes == ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (np.zeros((2, 8, 8, 1), np.float32), r"float32 \[2, 8, 8, 1\]"),
        (np.zeros((8, 8, 1), np.uint8), r"uint8 \[8, 8, 1\]"),
        (np.zeros((0, 8, 8, 1), np.uint8), r"uint8 \[0, 8, 8, 1\]"),
        (np.zeros((2, 0, 8, 1), np.uint8), r"uint8 \[2, 0, 8, 1\]"),
        ([], r"float64 \[0\]"),
        (None, r"object \[\]"),
        (["a cat"], r"<U5 \[1\]"),
        ([np.zeros((8, 8, 1), np.uint8), np.zeros((9, 9, 1), np.uint8)], "one call for each image size"),
    ],
)
def test_what_are_no_images_is_told(finished, inputs, said):
    for use in ("predict", "features"):
        with pytest.raises(UserError, match=rf"takes images: .*uint8 \[N, H, W, C\].*{said}") as caught:
            getattr(distill_jax.load(finished[0]), use)(inputs)
        assert "\n" not in str(caught.value)


def test_images_of_too_many_channels_are_told(finished):
    with pytest.raises(UserError, match="takes images of 1 channels?; these have 3"):
        distill_jax.load(finished[0]).predict(np.zeros((2, 8, 8, 3), np.uint8))


@pytest.fixture
def headless(tmp_path, monkeypatch):
    """The workdir of a user's own network whose last layer is not called "head"."""
    (tmp_path / "headless_nets.py").write_text(HEADLESS)
    monkeypatch.syspath_prepend(str(tmp_path))
    config = make_config(epochs=1, schedule__cycles=1, model={"name": "headless_nets:Headless"}, method={"name": "supervised"})
    study.train(config, tmp_path / "run")
    return tmp_path / "run"


def test_a_network_without_a_head_has_no_features(headless):
    network = distill_jax.load(headless)
    images = np.zeros((2, 8, 8, 1), np.uint8)
    assert network.predict(images).shape == (2, 10)
    with pytest.raises(UserError, match="Headless has no layer named 'head', whose inputs are the features; rename its last dense layer"):
        network.features(images)


def test_a_run_keeps_the_record_of_its_network(finished_colours):
    folder, summary = finished_colours
    record = json.loads((folder / "network.json").read_text())
    assert record["model"] == {"name": "small_cnn"} and record["classes"] == list(COLOURS) and record["input_shape"] == [8, 8, 3]
    spec = trained.find(folder).spec
    assert (list(spec.input_mean), list(spec.input_std)) == (record["input_mean"], record["input_std"])
    assert (summary["input_mean"], summary["input_std"], summary["classes"]) == (record["input_mean"], record["input_std"], list(COLOURS))


def test_networks_that_are_not_there(finished_family, tmp_path):
    with pytest.raises(UserError, match="nowhere/config.json does not exist; is .*nowhere the workdir of a run"):
        distill_jax.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds several runs; name one of them: .*generation_0, .*generation_1, .*generation_2$"):
        distill_jax.load(finished_family[0])
    unfinished = shutil.copytree(finished_family[0] / "generation_0", tmp_path / "unfinished")
    (unfinished / "summary.json").unlink()
    with pytest.raises(UserError, match="unfinished: the run is not finished; repeat its command until it finishes"):
        distill_jax.load(unfinished)
    with pytest.raises(UserError, match="unfinished holds no finished run of several stages or seeds; name the workdirs with --members"):
        trained.below(unfinished)


def test_weights_of_another_run_are_noticed(finished_family, tmp_path):
    folder = shutil.copytree(finished_family[0] / "generation_0", tmp_path / "exchanged")
    shutil.rmtree(folder / "snapshots")
    with pytest.raises(UserError, match="snapshots/epoch_2 is missing; repeat that run's command"):
        distill_jax.load(folder)
    shutil.copytree(finished_family[0] / "generation_1" / "snapshots", folder / "snapshots")
    with pytest.raises(UserError, match="epoch_2: not the weights recorded in the run's summary.json; retrain that network"):
        distill_jax.load(folder)


def test_other_batch_statistics_are_noticed(finished_family, tmp_path):
    folder = shutil.copytree(finished_family[0] / "generation_0", tmp_path / "other_statistics")
    network = distill_jax.load(folder)
    statistics = jax.tree.map(lambda leaf: leaf + 1, network.variables["batch_stats"])
    checkpoints.save_weights(folder / "snapshots" / "epoch_2", network.variables | {"batch_stats": statistics})
    with pytest.raises(UserError, match="not the weights recorded in the run's summary.json"):
        distill_jax.load(folder)
    summary = workdir.load_summary(folder)
    del summary["weights_sha256"]  # schema-1 summaries record only the hash of the parameters
    workdir.write_json(folder / "summary.json", summary)
    distill_jax.load(folder)
    summary["params_sha256"] = "0"
    workdir.write_json(folder / "summary.json", summary)
    with pytest.raises(UserError, match="not the weights recorded in the run's summary.json"):
        distill_jax.load(folder)


@pytest.mark.parametrize("name", ["num_classes", "input_shape"])
def test_a_damaged_record_is_named(finished, tmp_path, name):
    folder = shutil.copytree(finished[0], tmp_path / "run")
    facts = files.read_json(folder / "network.json")
    del facts[name]
    workdir.write_json(folder / "network.json", facts)
    with pytest.raises(UserError, match=f"network.json does not describe its network completely .missing or invalid: '{name}'"):
        distill_jax.load(folder)


def test_a_network_runs_in_bfloat16(finished, exp):
    network, images = distill_jax.load(finished[0], dtype="bfloat16"), exp.data.dataset.test["image"]
    assert network.module.dtype == jax.numpy.bfloat16
    np.testing.assert_allclose(network.predict(images), distill_jax.load(finished[0]).predict(images), atol=0.05)


def test_a_begun_run_keeps_its_normalisation(finished_colours, tmp_path):
    """The spec of a workdir comes from its network.json, not from the data."""
    folder = shutil.copytree(finished_colours[0], tmp_path / "run")
    facts = files.read_json(folder / "network.json")
    workdir.write_json(folder / "network.json", facts | {"input_mean": [0.1, 0.2, 0.3]})
    config = configuration.of_workdir(folder)
    prepared = study.prepare(config, folder)
    assert prepared.experiments[""].spec.input_mean == (0.1, 0.2, 0.3)

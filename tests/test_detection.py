"""The task of detection: labels and metrics, whole runs, resuming, several devices, refusals, and the configs."""

import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import ROOT, Crash, act_at, build, crash, make_config, read_lines, run
from ml_collections import ConfigDict
from PIL import Image
from scenes_helpers import write_voc

import distill_jax
from configs import bccd_detection, voc_detection, voc_detection_full
from distill_jax import export, initial, predict, specs, trained
from distill_jax.data import affine
from distill_jax.data.batches import training_batches
from distill_jax.errors import UserError
from distill_jax.files import read_json
from distill_jax.models.fcos import Outputs
from distill_jax.state import empty_metrics
from distill_jax.tasks import anchor_free
from distill_jax.tasks import detection as task
from distill_jax.tasks.anchor_free import Found

ASSIGN, AT_OWN_SIZE = jax.jit(anchor_free.assign), jax.jit(task.at_own_size)


def boxes_config(name, **fields):
    """Twenty epochs of five steps of `Boxes` on scenes with one or two rectangles."""
    data = {"name": name, "task": "detection", "image_size": 64, "scales": (0.8, 1.2), "crop_padding": 0, "train_examples": 0}
    own = {f"data__{field}": value for field, value in data.items()} | {"epochs": 20, "batch_size": 8, "eval_every": 10}
    own |= {"model": ConfigDict({"name": "detection_helpers:Boxes"}), "method": ConfigDict({"name": "supervised"})}
    return make_config(**own | {"schedule__cycles": 1, "optimizer__learning_rate": 0.02, "checkpoint_every": 7} | fields)


@pytest.fixture(scope="module")
def data_name(tmp_path_factory):
    return write_voc(tmp_path_factory.mktemp("voc"), ("red", "blue"), (("train", 40), ("val", 12)))


@pytest.fixture(scope="module")
def exp(data_name):
    return build(boxes_config(data_name))


@pytest.fixture(scope="module")
def finished(exp, tmp_path_factory):
    folder = tmp_path_factory.mktemp("boxes")
    return folder, run(exp, 0, folder)


def perfect_outputs(at, scene, view, num_classes):
    """What a network would have to say of a letterboxed scene, to find exactly its boxes."""
    box, _ = affine.move_boxes(scene.boxes, view)
    targets = ASSIGN(at, jnp.asarray(box), jnp.asarray(scene.labels))
    distances = jnp.abs(jnp.tile(at.point_Lx2, 2) - targets.box_Lx4)
    near = jnp.clip(targets.centerness_L, 1e-4, 1 - 1e-4)
    return Outputs(20 * jax.nn.one_hot(targets.label_L, num_classes) - 10, distances, jnp.log(near / (1 - near)))


def found_by_perfect_outputs(exp, row):
    images = exp.data.dataset.test["image"]
    scene, batch = images.scene(row), {name: jnp.asarray(value)[None] for name, value in images.load(row, None).items()}
    at = anchor_free.places(images.size, images.size)
    outputs = perfect_outputs(at, scene, affine.letterbox(*scene.size, images.size), exp.spec.num_classes)
    return scene, jax.tree.map(np.asarray, AT_OWN_SIZE(jax.tree.map(lambda x: x[None], outputs), batch))


def test_boxes_are_found_at_the_images_own_size(exp):
    for row in range(4):
        scene, found = found_by_perfect_outputs(exp, row)
        count = int((found.score_BxN > 0.01).sum())
        assert count == len(scene.boxes)
        order = [np.abs(found.box_BxNx4[0, :count] - box).max(axis=1).argmin() for box in scene.boxes]
        np.testing.assert_allclose(found.box_BxNx4[0, order], scene.boxes, atol=0.01)
        np.testing.assert_array_equal(found.label_BxN[0, order], scene.labels)


def test_a_perfect_and_a_half_wrong_detector(exp):
    """The half-wrong one finds every box, and beside it, surer, another one of the same class: precision 1/2 at every recall."""
    images = exp.data.dataset.test["image"]
    scenes = [images.scene(row) for row in range(len(images))]
    most = max(len(scene.boxes) for scene in scenes)
    box, label, score = np.zeros((len(scenes), most, 4)), np.zeros((len(scenes), most), int), np.zeros((len(scenes), most))
    for row, scene in enumerate(scenes):
        count = len(scene.boxes)
        box[row, :count], label[row, :count], score[row, :count] = scene.boxes, scene.labels, 0.9 - row / 1000
    perfect = task.metrics(Found(box, label, score), exp.data.dataset, None)
    assert perfect["test_ap50"] == perfect["test_ap50_11point"] == 1 and perfect["test_ap"] > 0.999
    doubled = [np.concatenate(pair, axis=1) for pair in ((box + 1000, box), (label, label), (score + (score > 0) * 0.0005, score))]
    half = task.metrics(Found(*doubled), exp.data.dataset, None)
    assert half["test_ap50"] == half["test_ap50_11point"] == pytest.approx(0.5, abs=0.06)
    assert half["test_ap50"] < 0.55


def test_a_run_learns(exp, finished):
    folder, summary = finished
    lines = [line for line in read_lines(folder) if "test_ap50" in line]
    random = task.metrics(exp.predict(exp.init(jax.random.key(0)).network), exp.data.dataset, None)
    assert random["test_ap50"] < 0.02 and summary["test_ap50"] > 0.5
    assert summary["metric"] == "ap50" and summary["best_test_ap50"] >= summary["test_ap50"] == lines[-1]["test_ap50"]
    parts = [read_lines(folder)[-1][f"loss_{part}"] for part in ("classes", "boxes", "centerness")]
    assert sum(parts) == pytest.approx(read_lines(folder)[-1]["loss"], rel=1e-5) and "loss_ce" not in lines[-1]
    by_class = read_json(folder / "average_precision.json")
    assert by_class["classes"] == ["blue", "red"]
    assert np.mean(by_class["ap50"]) == pytest.approx(summary["test_ap50"])


def test_a_loaded_network_predicts_boxes(exp, finished):
    """The same as the run's own evaluation, for images given as arrays."""
    network, images = distill_jax.load(finished[0]), exp.data.dataset.test["image"]
    evaluated = exp.predict(network.variables)
    for row in range(2):
        scene = images.scene(row)
        with Image.open(scene.image) as image:
            found = network.predict(np.asarray(image)[None], batch_size=1)
        np.testing.assert_allclose(found.score_BxN[0], evaluated.score_BxN[row], atol=0.02)  # a JPEG is decoded smaller for evaluation
        np.testing.assert_allclose(found.box_BxNx4[0, 0], evaluated.box_BxNx4[row, 0], atol=1)
        assert (found.box_BxNx4 <= np.tile(scene.size, 2)).all() and found.label_BxN[0, 0] == evaluated.label_BxN[row, 0]
    with pytest.raises(UserError, match="a network for detection has no logits of images"):
        network.logits(np.zeros((1, 8, 8, 3), np.uint8))
    with pytest.raises(UserError, match="is a network for detection; features, linear probes and ensembles take"):
        network.features(np.zeros((1, 8, 8, 3), np.uint8))


def test_predict_writes_boxes_and_pictures(exp, finished, tmp_path, capsys):
    scenes = [exp.data.dataset.test["image"].scene(row) for row in range(2)]
    for folder, scene in zip((tmp_path / "in/a", tmp_path / "in"), scenes, strict=True):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(scene.image, folder / "same.jpg")
    (tmp_path / "in" / "bad.jpg").write_text("no image")
    with pytest.raises(UserError, match="1 of 3 inputs could not be read"):
        predict.predict(exp.config, finished[0], str(tmp_path / "in"), str(tmp_path / "out"))
    assert capsys.readouterr().out == ""
    names = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*")}
    assert names == {"same.jpg.json", "same.jpg.png", "a/same.jpg.json", "a/same.jpg.png"}
    network = distill_jax.load(finished[0])
    for name, scene in zip(("a/same.jpg", "same.jpg"), scenes, strict=True):
        with Image.open(scene.image) as image:
            found = jax.tree.map(lambda array: array[0], network.predict(np.asarray(image)[None]))
            sides = image.size
        told = read_json(tmp_path / "out" / f"{name}.json")
        assert [told["input"], told["width"], told["height"]] == [str(tmp_path / "in" / name), *sides]
        assert len(told["objects"]) == (found.score_BxN > 0).sum()
        for row, each in enumerate(told["objects"]):
            assert each["class"] == network.classes[found.label_BxN[row]]
            np.testing.assert_allclose([each["score"], *each["box"]], [found.score_BxN[row], *found.box_BxNx4[row]], atol=0.051)
        with Image.open(tmp_path / "out" / f"{name}.png") as picture:
            assert picture.width / picture.height == pytest.approx(sides[0] / sides[1])
    (tmp_path / "in" / "bad.jpg").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path))
        assert predict.predict(exp.config, finished[0], "~/in", "~/home") == 2 and (tmp_path / "home/a/same.jpg.json").exists()
    for inside in ("in", "in/out"):
        with pytest.raises(UserError, match="^--output: .* lies inside --inputs=.*; name a folder outside it"):
            predict.predict(exp.config, finished[0], str(tmp_path / "in"), str(tmp_path / inside))
    listed = tmp_path / "list"
    listed.write_text("".join(f"{tmp_path / 'in' / name}\n" for name in ("a/same.jpg", "same.jpg")))
    with listed.open() as lines, pytest.MonkeyPatch.context() as patch, pytest.raises(UserError, match="have the same name"):
        patch.setattr(sys, "stdin", lines)
        predict.predict(exp.config, finished[0], "-", str(tmp_path / "out2"))


def test_an_exported_program_finds_the_same_boxes(exp, finished, tmp_path):
    folder = export.export(finished[0], "stablehlo", str(tmp_path / "export"))
    assert read_json(folder / "network.json")["test_ap50"] == finished[1]["test_ap50"]
    program = jax.export.deserialize(bytearray((folder / "model.stablehlo").read_bytes()))
    canvas = exp.data.dataset.test["image"].load(0, None)["image"][None]
    network = distill_jax.load(finished[0])
    for ours, theirs in zip(network.map(trained.boxes, {"image": canvas}, 1), program.call(canvas), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_pictures_show_truth_and_prediction_side_by_side(finished):
    folder, _ = finished
    names = sorted(path.name for path in (folder / "pictures").iterdir())
    assert names == [f"epoch_{epoch:04d}_{number}.png" for epoch in (10, 20) for number in range(4)]
    picture = np.asarray(Image.open(folder / "pictures" / names[-1]))
    left, right = (part.astype(int) for part in (picture[:, : picture.shape[1] // 2 - 4], picture[:, picture.shape[1] // 2 + 4 :]))
    assert left.shape == right.shape and (left != right).any()


def test_a_killed_run_resumes_with_the_same_bits(exp, finished, tmp_path):
    with pytest.raises(Crash):
        run(act_at(exp, 73, crash), 0, tmp_path)
    assert run(exp, 0, tmp_path)["params_sha256"] == finished[1]["params_sha256"]
    one, other = (read_lines(folder)[-1] for folder in (tmp_path, finished[0]))
    assert [one[name] for name in ("loss", "loss_boxes", "test_ap")] == [other[name] for name in ("loss", "loss_boxes", "test_ap")]


@pytest.mark.parametrize(
    "method",
    [{"name": "snapshot"}, {"name": "long_short_term"}, {"name": "ps_kd"}, {"name": "supervised", "label_smoothing": 0.1}],
)
def test_methods_with_teachers_are_refused(data_name, method):
    with pytest.raises(UserError, match=r"^method.name is '\w+'; detection supports only 'supervised', without label_smoothing"):
        build(boxes_config(data_name, schedule__cycles=2, method=ConfigDict(method)))


def test_networks_for_other_tasks_are_refused(data_name):
    with pytest.raises(UserError, match=r"^model.name 'small_cnn' returns .* since data.task is 'detection'"):
        build(boxes_config(data_name, model=ConfigDict({"name": "small_cnn"})))
    with pytest.raises(UserError, match=r"^model.name 'detection_helpers:Boxes' returns"):
        build(boxes_config(data_name, data__task="segmentation"))


def first_steps(exp, file):
    """Three steps and an evaluation on the devices of this process; writes what comes out to a file."""
    state, key, losses = exp.init(jax.random.key(0)), jax.random.key(1), []
    for _, batch in zip(range(3), training_batches(exp.data.dataset.train, 0, 1, 0, 8, exp.data.mesh), strict=False):
        state, metrics, _ = exp.train_step(state, empty_metrics(exp.data.mesh, exp.task.train_metrics), {}, batch, key)
        losses.append(float(metrics.compute()["loss"]))
    leaves = {f"leaf{number}": np.asarray(leaf) for number, leaf in enumerate(jax.tree.leaves(state.params))}
    np.savez(file, losses=losses, scores=exp.predict(state.network).score_BxN, devices=jax.device_count(), **leaves)


def test_one_device_and_eight(exp, data_name, tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "8")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests"), *sys.path]))
    build_and_run = f"first_steps(build(boxes_config({data_name!r})), {str(tmp_path / 'eight.npz')!r})"
    code = f"from test_detection import boxes_config, build, first_steps; {build_and_run}"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=200)
    first_steps(exp, tmp_path / "one.npz")
    one, eight = (dict(np.load(tmp_path / f"{name}.npz")) for name in ("one", "eight"))
    assert (one.pop("devices"), eight.pop("devices")) == (1, 8)
    for name, value in one.items():
        np.testing.assert_allclose(eight[name], value, rtol=2e-4, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("config", [voc_detection_full, voc_detection, bccd_detection])
def test_the_configs_networks(config):
    fields = config.get_config()
    side, classes = fields.data.image_size, 3 if config is bccd_detection else 20
    spec = specs.Spec(fields.model.to_dict(), classes, (side, side, 3), task="detection")
    spec.abstract_network()  # raises unless the outputs are as the task wants
    if config is voc_detection_full:
        assert fields.batch_size % 8 == 0 and fields.epochs * (16_551 // fields.batch_size) == 24_816


def test_the_full_config_takes_both_years(tmp_path):
    for year, sets in (("VOC2007", (("trainval", 10), ("test", 5))), ("VOC2012", (("trainval", 8),))):
        write_voc(tmp_path / year, sets=sets)
    config = voc_detection_full.get_config()
    config.data.name = f"voc:{tmp_path}"
    exp = build(config)
    assert len(exp.data.dataset.train["image"]) == 18 and len(exp.data.dataset.test["image"]) == 5
    assert exp.plan.steps_per_epoch == 1 and exp.spec.num_classes == 20 and exp.plan.result == "test_ap50"
    np.testing.assert_allclose(exp.plan.learning_rates[[0, 17, 18, 21, 22]], [0.01, 0.01, 1e-3, 1e-3, 1e-4], rtol=1e-5)


def test_the_size_of_fcos():
    """torchvision's fcos_resnet50_fpn has 32,269,600 parameters: 91 classes, frozen norms, and no scale for each level."""
    params = specs.Spec({"name": "fcos_resnet50"}, 91, (128, 128, 3), task="detection").abstract_network()["params"]
    of_norms = [leaf.size for path, leaf in jax.tree.leaves_with_path(params["trunk"]) if "norm" in jax.tree_util.keystr(path)]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) - sum(of_norms) - 5 == 32_269_600


def test_a_trunk_is_loaded():
    ours = specs.Spec({"name": "fcos_resnet18", "width": 32}, 3, (64, 64, 3), task="detection")
    initial.check("x", specs.Spec({"name": "resnet18", "width": 32}, 10, (64, 64, 3)), ours, "scenes")
    with pytest.raises(UserError, match="^initial: x holds a different network from fcos_resnet18, "):
        initial.check("x", specs.Spec({"name": "resnet18"}, 10, (64, 64, 3)), ours, "scenes")

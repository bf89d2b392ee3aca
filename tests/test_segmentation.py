"""Segmentation: its losses and metric against independent computations, DeepLab's structure, and whole runs."""

import functools
import json
import pathlib
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Crash, act_at, bits, build, crash, read_lines, run, with_fields
from ml_collections import ConfigDict
from PIL import Image
from scenes_helpers import CLASSES, pixels_config, write_masks
from sklearn.metrics import jaccard_score

import distill_jax
from configs import camvid_segmentation, voc_segmentation, voc_segmentation_full
from distill_jax import compare, initial, losses, methods, models, predict, specs, start, study, trained, transfer
from distill_jax.comparison import Arm
from distill_jax.data import affine
from distill_jax.errors import UserError
from distill_jax.files import read_json
from distill_jax.models import deeplab
from distill_jax.tasks import segmentation as task

METHODS = {
    "snapshot": {"name": "snapshot", "temperature": 3.0},
    "patriarch": {"name": "patriarch", "k": 2},
    "ema_teacher": {"name": "ema_teacher"},
    "tf_kd": {"name": "tf_kd"},
    "supervised": {"name": "supervised", "label_smoothing": 0.1},
}


@pytest.fixture(scope="module")
def data_name(tmp_path_factory):
    return write_masks(tmp_path_factory.mktemp("masks"))


@pytest.fixture(scope="module")
def exp(data_name):
    return build(pixels_config(data_name))


@pytest.fixture(scope="module")
def finished(exp, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    return folder, run(exp, 0, folder)


def test_the_mean_over_pixels_leaves_out_those_without_a_label():
    values, labels = jnp.arange(8.0).reshape(2, 2, 2), jnp.array([[[0, -1], [1, 2]], [[-1, -1], [0, 0]]])
    assert losses.mean(values, labels) == (0 + 2 + 3 + 6 + 7) / 5
    np.testing.assert_allclose(losses.mean(jnp.stack([values, 2 * values]), labels), [3.6, 7.2], rtol=1e-6)
    assert losses.mean(values, -jnp.ones_like(labels)) == 0


@pytest.mark.parametrize("name", METHODS)
def test_a_methods_loss_of_pixels_is_that_of_the_labelled_pixels_as_samples(name):
    """Each pixel counts as one sample; those without a label change neither the loss nor its gradient."""
    rng = np.random.default_rng(0)
    logits, taught = (rng.standard_normal((2, 4, 5, 3)).astype(np.float32) for _ in range(2))
    labels = rng.integers(-1, 3, (2, 4, 5)).astype(np.int32)
    options = {key: value for key, value in METHODS[name].items() if key != "name"}
    method = methods.create(name, methods.Setting(apply=None, cycle_ends=(1, 2), num_examples=9, num_classes=3), **options)
    signal = None if name in ("patriarch", "tf_kd", "supervised") else taught
    known, loss = labels >= 0, jax.jit(method.loss)
    pixels = loss(logits[known], labels[known], None if signal is None else taught[known])
    np.testing.assert_allclose(loss(logits, labels, signal), pixels, rtol=1e-5)
    gradient = jax.jit(jax.grad(lambda logits: method.loss(logits, labels, signal).loss))(logits)
    assert (np.asarray(gradient)[~known] == 0).all() and np.isfinite(gradient).all() and (np.asarray(gradient)[known] != 0).any()
    assert method.pixels


@pytest.mark.parametrize(("loss", "guides"), [("kl", 1), ("dkd", 1), ("kl", 3), ("dkd", 3)])
def test_guides_of_a_segmentation_network(loss, guides):
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((2, 3, 4, 3)).astype(np.float32)
    taught = rng.standard_normal((guides, 2, 3, 4, 3)).astype(np.float32)
    labels = rng.integers(-1, 3, (2, 3, 4)).astype(np.int32)
    apply, known = jax.jit(losses.from_teacher(loss, 2.0)), labels >= 0
    expected = apply(taught[:, known], logits[known], labels[known])
    np.testing.assert_allclose(apply(taught, logits, labels), expected, rtol=2e-5)


def test_miou_by_hand_and_against_scikit_learn():
    by_hand = np.array([[3, 1, 0], [1, 2, 0], [0, 0, 0]])
    np.testing.assert_array_equal(task.iou(by_hand), [3 / 5, 2 / 4, np.nan])
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 4, (2, 5000))
    predicted = np.where(rng.random(5000) < 0.6, labels, predicted)
    confusion = np.bincount(labels * 4 + predicted, minlength=16).reshape(4, 4)
    np.testing.assert_allclose(task.iou(confusion), jaccard_score(labels, predicted, average=None))


def test_logits_are_resampled_at_the_images_own_pixels():
    """Twice the size: against Pillow's bilinear enlargement of the same canvas. The canvas beyond the image has no influence."""
    canvas = np.random.default_rng(0).standard_normal((12, 12, 2)).astype(np.float32)
    canvas[6:] = 1e6
    found = task.at_own_size(jnp.array(canvas), jnp.array([12, 24]), jnp.array([6, 12]), (15, 30))
    for channel in range(2):
        expected = Image.fromarray(canvas[:6, :, channel]).resize((24, 12), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(found[:12, :24, channel], expected, atol=1e-5)


def test_the_confusion_of_a_set(exp, finished):
    """A perfect and a wrong network, on a letterboxed image and its mask of another size."""
    mask = np.full((40, 40), 255, np.uint8)
    mask[:20, :36] = np.repeat(np.arange(3), 12)
    batch = {"size": np.array([[20, 36]]), "target": np.array([[18, 32]]), "label": mask[None]}
    canvas = np.zeros((1, 32, 32, 3), np.float32)
    canvas[0, :18] = np.eye(3)[np.minimum(np.arange(32) * 36 // 32 // 12, 2)]
    counts = np.asarray(task.confusion(jnp.array(canvas), batch))[0]
    assert counts.sum() == 20 * 36 and np.trace(counts) >= 20 * 34
    shifted = np.asarray(task.confusion(jnp.roll(canvas, 1, axis=-1), batch))[0]
    assert np.trace(shifted) <= 20 * 2


def test_a_run_learns_and_its_miou_is_scikit_learns(exp, finished):
    folder, summary = finished
    network, truth, predicted = distill_jax.load(folder), [], []
    trained._compiled.cache_clear()
    for row in range(10):
        scene = exp.data.dataset.test["image"].scene(row)
        with Image.open(scene.image) as image, Image.open(scene.mask) as mask:
            probabilities = network.predict(np.asarray(image)[None])
            classes = np.asarray(mask)
        assert probabilities.shape == (1, *classes.shape, 3)
        truth.append(classes[classes != 255])
        predicted.append(probabilities[0].argmax(axis=-1)[classes != 255])
    compiled = trained._compiled(trained.forward, network.module, network.spec._replace(model=()), network.mesh)
    assert compiled._cache_size() == 1  # for images of several sizes
    expected = jaccard_score(np.concatenate(truth), np.concatenate(predicted), average="macro")
    assert summary["test_miou"] == pytest.approx(expected, abs=2e-3)  # JPEGs decoded smaller, or not
    assert summary["test_miou"] > 0.5 and summary["task"] == "segmentation" and summary["metric"] == "miou"
    assert summary["best_test_miou"] == max(line["test_miou"] for line in read_lines(folder) if "test_miou" in line)
    confusion = read_json(folder / "confusion.json")
    assert confusion["classes"] == list(CLASSES) and np.nanmean(confusion["iou"]) == pytest.approx(summary["test_miou"])


def test_pictures_are_in_the_workdir_and_in_tensorboard(finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, _ = finished
    names = sorted(path.name for path in (folder / "pictures").iterdir())
    assert names == [f"epoch_{epoch:04d}_{number}.png" for epoch in (2, 4) for number in range(4)]
    events = EventAccumulator(str(folder)).Reload()
    assert [event.step for event in events.Images("pictures/0")] == [6, 12]
    picture = np.asarray(Image.open(folder / "pictures/epoch_0004_0.png")).astype(int)
    side = (picture.shape[1] - 2 * 8) // 3
    assert max(picture.shape[0], side) == 480, "enlarged 15 times"
    image, mask, predicted = (picture[:, start : start + side] for start in (0, side + 8, 2 * (side + 8)))
    assert (image != mask).any() and (image != predicted).any() and np.abs(mask - predicted).mean() < np.abs(mask - image).mean()


def test_a_killed_run_resumes_bit_for_bit(exp, finished, tmp_path):
    for at in (4, 9):
        with pytest.raises(Crash):
            run(act_at(exp, at, crash), 0, tmp_path)
    assert run(exp, 0, tmp_path)["params_sha256"] == finished[1]["params_sha256"]


def test_predict_writes_masks(exp, finished, tmp_path):
    path = pathlib.Path(exp.data.dataset.test["image"].scene(0).image)
    predict.predict(exp.config, finished[0], str(path))
    written = finished[0] / "predictions" / path.name
    network = distill_jax.load(finished[0])
    with Image.open(path) as image, Image.open(f"{written}.mask.png") as mask:
        expected = network.predict(np.asarray(image)[None])[0].argmax(axis=-1)
        assert mask.mode == "P" and mask.size == image.size
        assert (np.asarray(mask) == expected).all()
        counts = {network.classes[number]: int((np.asarray(mask) == number).sum()) for number in np.unique(mask)}
    assert read_json(pathlib.Path(f"{written}.json"))["pixels"] == counts
    assert len(counts) > 1


def test_the_best_class_is_that_of_resized_logits():
    """Doubled by hand: the border between the classes lies where the interpolated logits cross."""
    logits_SxSxC = np.zeros((2, 2, 2))
    logits_SxSxC[0, :, 1] = [-3, 1]
    np.testing.assert_array_equal(task.mask_of_size(logits_SxSxC, 2, 4), [[0, 0, 0, 1]] * 2)  # -3, -2, 0, 1 against 0


@pytest.mark.parametrize(("height", "width"), [(7, 10), (40, 33)])
def test_the_mask_that_predict_writes_is_the_one_that_is_scored(height, width):
    """Of an image that is smaller than its canvas, and of one that is larger."""
    logits_SxSxC = np.random.default_rng(0).standard_normal((16, 16, 4)).astype(np.float32)
    mask, label = task.mask_of_size(logits_SxSxC, height, width), np.full((1, 40, 40), 255, np.uint8)
    label[0, :height, :width] = mask
    target = affine.letterbox(width, height, 16).target[::-1]
    counts = task.confusion(
        jnp.array(logits_SxSxC[None]), {"size": np.array([[height, width]]), "target": np.array([target]), "label": label}
    )
    assert np.trace(counts[0]) == counts.sum() == height * width
    whole = task.of_one_size(logits_SxSxC[None], height, width)[0]
    assert (whole.argmax(axis=-1) == mask).all()


def test_evaluating_and_other_modes(finished, data_name, tmp_path):
    folder, summary = finished
    config = pixels_config(data_name)
    assert study.evaluate(config, folder)["test_miou"] == summary["test_miou"]
    for use in (transfer.features, transfer.linear_probe):
        with pytest.raises(UserError, match="is a network for segmentation; features, linear probes and ensembles take"):
            use(config, folder)
    with pytest.raises(UserError, match="is a network for segmentation"):
        transfer.ensemble(config, tmp_path, [str(folder)])


def test_snapshot_distillation_of_a_segmentation_network(data_name, tmp_path):
    summary = study.train(pixels_config(data_name, method=ConfigDict(METHODS["snapshot"])), tmp_path)
    lines = read_lines(tmp_path)
    assert [line["loss_teacher"] > 0 for line in lines if line["step"] % 3 == 0] == [False, False, True, True]
    assert summary["test_miou"] > 0.4 and 0 < summary["teacher_miou"] < 1 and "snapshot_ensemble" not in summary


def test_generations_and_guides_of_a_segmentation_network(data_name, tmp_path):
    short = {"epochs": 2, "schedule__cycles": 1}
    config = pixels_config(data_name, **short)
    config.stages = ConfigDict({"name": "generations", "generations": 1, "k": 2})
    stages = study.train(config, tmp_path / "generations")["stages"]
    assert len(stages) == 2 and stages[1]["teacher_miou"] == stages[0]["test_miou"]
    header, _, first, _ = (tmp_path / "generations" / "table.md").read_text().splitlines()
    assert header.split("|")[2].strip() == "test mIoU, %" and f"{100 * stages[0]['test_miou']:.2f}" in first
    teachers = tuple(str(tmp_path / "generations" / stage["stage"]) for stage in stages)
    guided = pixels_config(data_name, **short, teachers=teachers, method=ConfigDict({"name": "densely_guided", "weight_teacher": 0.5}))
    assert study.train(guided, tmp_path / "guided")["teacher_miou"] == stages[0]["test_miou"]


SHORT = {"weight_long": 0.0}
REFUSED = [{"name": name} for name in ("ps_kd", "dlb", "cs_kd")] + [
    {"name": "long_short_term"} | SHORT,
    {"name": "snapshot+long_short_term", "long_short_term": SHORT},
]


@pytest.mark.parametrize("method", REFUSED, ids=[method["name"] for method in REFUSED])
def test_methods_with_tables_or_an_order_are_refused(method, data_name):
    with pytest.raises(UserError, match=r"^method.name is '.*', which as configured does not support segmentation; these do: supervised"):
        build(pixels_config(data_name, method=ConfigDict(method)))


def test_what_else_is_refused(finished, data_name, tmp_path):
    guided = {"method": ConfigDict({"name": "distillation", "loss": "dist"}), "teachers": (str(finished[0]),)}
    with pytest.raises(UserError, match="method.name is 'distillation', which as configured does not"):
        build(pixels_config(data_name, **guided))
    table = {"method": ConfigDict({"name": "distillation", "guide_logits": "table"}), "teachers": (str(finished[0]),)}
    with pytest.raises(UserError, match="method.guide_logits is 'table', which needs"):
        build(pixels_config(data_name, **table))
    with pytest.raises(UserError, match=r"it must return logits, float32 \[1, 32, 32, 3\], since data.task is 'segmentation'"):
        build(pixels_config(data_name, model=ConfigDict({"name": "small_cnn"})))


def test_a_run_starts_from_the_trunk_of_a_classification_run(photographs, data_name, tmp_path, capsys):
    whole = pixels_config(data_name, model=ConfigDict({"name": "scenes_helpers:Whole"}), epochs=1, schedule__cycles=1)
    whole = with_fields(whole, data__name=f"folder:{photographs}", data__task="classification", batch_size=40)
    study.train(whole, tmp_path / "whole")
    config = pixels_config(data_name, initial=str(tmp_path / "{seed}"), seed=7)
    (tmp_path / "7").symlink_to(tmp_path / "whole")
    exp = build(with_fields(config, initial=str(tmp_path / "whole")))
    capsys.readouterr()
    loaded = start.init_or_restore(exp, tmp_path / "new", jax.random.key(0), study.checkpoints.open_manager(tmp_path / "new/checkpoints"))
    said = f"initial: 240 parameters of {tmp_path / 'whole'}; not used: head; new: classifier"
    assert capsys.readouterr().out.strip() == said
    theirs = distill_jax.load(tmp_path / "whole").variables
    assert bits(loaded[0].params["trunk"]["conv"]) == bits(theirs["params"]["conv"])
    assert bits(loaded[0].batch_stats["trunk"]) == bits({"norm": theirs["batch_stats"]["norm"]})
    summary = study.train(config, tmp_path / "run")
    again = trained.find(tmp_path / "run")
    for classes, is_new in ((again.spec.classes, False), (again.spec.classes[::-1], True), ((), False)):
        initial.load("run", again, loaded[0].network, exp.data.mesh, classes)
        assert ("; new: classifier" in capsys.readouterr().out.splitlines()[-1]) == is_new
    assert summary["params_sha256"] == study.train(config, tmp_path / "run")["params_sha256"], "{seed} in a path"
    assert study.evaluate(config, tmp_path / "run")["test_miou"] == summary["test_miou"]
    wider = with_fields(pixels_config(data_name, initial=str(tmp_path / "whole")), model__features=9)
    with pytest.raises(
        UserError, match=r"scenes_helpers:Pixels, .*: scenes_helpers:Whole \(trunk/conv/bias is \(8,\) there, \(9,\) here\)"
    ):
        study.prepare(wider, tmp_path / "wider")
    network = shutil.copytree(tmp_path / "whole", tmp_path / "8") / "network.json"
    network.write_text(json.dumps(json.loads(network.read_text()) | {"input_mean": [0.5] * 3}))
    with pytest.raises(UserError, match="^initial: .*/8 normalises images differently from that of the first seed; train all of them on"):
        study.prepare(with_fields(config, seeds=2), tmp_path / "seeds")


def spec_of(name, task="segmentation", **options):
    return specs.Spec({"name": name} | options, 5, (64, 64, 3), task=task)


def check_initial(theirs, ours):
    initial.check("x", theirs, ours, "scenes")


def test_which_trunks_fit():
    ours = spec_of("deeplab_resnet18", width=32)
    check_initial(spec_of("resnet18", "classification", width=32), ours)
    check_initial(spec_of("resnet18", "classification", width=32)._replace(num_classes=1000), ours)
    check_initial(spec_of("deeplab_resnet18", width=32, channels=64), ours)
    check_initial(spec_of("resnet18", "classification", width=32), spec_of("deeplab_resnet18", width=32, norm="frozen"))
    for other in (
        spec_of("resnet18", "classification"),
        spec_of("resnet34", "classification", width=32),
        spec_of("resnet20", "classification"),
    ):
        with pytest.raises(UserError, match="^initial: x holds a different network from deeplab_resnet18, "):
            check_initial(other, ours)
    with pytest.raises(UserError, match="there, absent here"):
        check_initial(spec_of("resnet18", "classification", width=32), spec_of("deeplab_resnet18", width=32, norm="group"))


@pytest.mark.parametrize(("stride", "sizes"), [(32, (16, 8, 4, 2)), (16, (16, 8, 4, 4)), (8, (16, 8, 8, 8))])
def test_the_trunks_features(stride, sizes):
    trunk = models.resnet_imagenet.Trunk(depth=18, width=16, output_stride=stride)
    features, _ = jax.eval_shape(lambda key: trunk.init_with_output(key, jnp.zeros((2, 64, 64, 3))), jax.random.key(0))
    assert {name: leaf.shape for name, leaf in features.items()} == {
        f"C{stage + 2}": (2, size, size, 16 * 2**stage) for stage, size in enumerate(sizes)
    }


@pytest.mark.parametrize(("depth", "version"), [(18, "v1"), (50, "v1.5")])
def test_a_dilated_trunk_says_the_same_at_the_coarse_places(depth, version, monkeypatch):
    """With output stride 16 or 8, every second or fourth place is what stride 32 gives."""
    monkeypatch.setitem(models.resnet_imagenet.BLOCKS, depth, (1, 1, 1, 2))
    x = jax.random.normal(jax.random.key(0), (1, 64, 64, 3))
    trunks = [models.resnet_imagenet.Trunk(depth, version, 4, stride) for stride in (32, 16, 8)]
    rng, shapes = np.random.default_rng(0), jax.eval_shape(trunks[0].init, jax.random.key(1), x)
    variables = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape) / 9 if leaf.ndim > 1 else np.ones(leaf.shape), shapes)
    coarse, fine, finest = (
        np.asarray(features["C5"]) for features in jax.jit(lambda x: [trunk.apply(variables, x) for trunk in trunks])(x)
    )
    assert coarse.std() > 0.01 and coarse.shape[1:3] == (2, 2)
    np.testing.assert_allclose(fine[:, ::2, ::2], coarse, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(finest[:, ::4, ::4], coarse, rtol=1e-4, atol=1e-4)


def test_logits_are_enlarged_by_the_stride_whatever_the_size():
    """Place i lies at pixel 4i + 1.5 in images of any size, not only in multiples of the stride: against numpy.interp."""
    down, across = np.random.default_rng(0).standard_normal((2, 5)).astype(np.float32)
    logits = (down[:, None] + across)[None, ..., None]
    found = deeplab.enlarged(jnp.array(logits), 4, 17, 19)[0, ..., 0]
    rows, columns = (np.interp(np.arange(size), 4 * np.arange(5) + 1.5, values) for size, values in ((17, down), (19, across)))
    np.testing.assert_allclose(found, rows[:, None] + columns, atol=1e-5)


def test_frozen_norms_keep_their_statistics():
    trunk = models.resnet_imagenet.Trunk(depth=18, width=8, norm="frozen")
    _, shapes = jax.eval_shape(lambda key: trunk.init_with_output(key, jnp.zeros((1, 32, 32, 3))), jax.random.key(0))
    norm = models.layers.normalization("frozen", True, jnp.float32)()
    variables = norm.init(jax.random.key(0), jnp.ones((4, 2, 2, 3)))
    _, updated = norm.apply(variables, 5 * jnp.ones((4, 2, 2, 3)), mutable=["batch_stats"])
    assert bits(updated["batch_stats"]) == bits(variables["batch_stats"]) and "batch_stats" in shapes


def test_group_norm_leaves_the_pooled_map_its_values():
    network = models.create("deeplab_resnet18", 3, width=32, channels=32, output_stride=32, norm="group")
    images = jnp.array(np.random.default_rng(0).standard_normal((2, 32, 32, 3)), jnp.float32)
    catch = functools.partial(network.init_with_output, capture_intermediates=lambda module, _: module.name == "aspp_pooling_norm")
    _, variables = jax.jit(catch, compiler_options={"xla_backend_optimization_level": "0"})(jax.random.key(0), images)
    assert np.std(variables["intermediates"]["aspp_pooling_norm"]["__call__"][0]) > 0.1


def test_frozen_norms_need_loaded_statistics(data_name, tmp_path):
    config = pixels_config(data_name, model=ConfigDict({"name": "deeplab_resnet18", "width": 8, "channels": 8, "norm": "frozen"}))
    with pytest.raises(UserError, match="^model.norm is 'frozen', which keeps the statistics of the network in `initial`; set initial"):
        study.prepare(config, tmp_path)


def test_a_set_without_any_label_has_no_miou(exp):
    with pytest.raises(UserError, match="no pixel of the test set has a label; data.void is"):
        task.metrics(np.zeros((2, 3, 3), int), exp.data.dataset, None)


@pytest.mark.parametrize("config", [voc_segmentation_full, voc_segmentation, camvid_segmentation])
def test_the_configs_networks(config):
    """Abstractly, on eight devices or one: the outputs, and the size of DeepLabV3 on ResNet-50."""
    fields = config.get_config()
    classes = 21 if "voc" in fields.data.name else 11
    spec = specs.Spec(fields.model.to_dict(), classes, (fields.data.image_size, fields.data.image_size, 3), task="segmentation")
    network = spec.abstract_network()  # raises unless the outputs are as the task wants
    if config is voc_segmentation_full:
        # torchvision's deeplabv3_resnet50: 42,004,074 parameters, of which its auxiliary head has 2,365,205
        assert sum(leaf.size for leaf in jax.tree.leaves(network["params"])) == 42_004_074 - 2_365_205
        assert fields.batch_size % 8 == 0 and fields.epochs * (10_582 // fields.batch_size) == 19_830


def test_a_comparison_counts_miou(data_name, tmp_path):
    config = pixels_config(data_name, epochs=2, schedule__cycles=1, seeds=2)
    arms = {"cosine": Arm({}, [{}]), "sd": Arm({"schedule": {"cycles": 2}, "method": {"name": "snapshot"}}, [{}])}
    compare.compare(config, arms, tmp_path)
    header, _, first, _ = re.findall(r"^\|.*\|$", (tmp_path / "study" / "README.md").read_text(), re.MULTILINE)
    assert "test mIoU, %" in header and "NLL" not in header
    values = [100 * run["test_miou"] for run in read_json(tmp_path / "cosine" / "final" / "summary.json")["runs"]]
    assert f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}" in first

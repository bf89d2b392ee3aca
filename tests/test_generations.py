"""Tolerant teachers: the losses, families of runs and what becomes of their networks."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import make_config
from ml_collections import ConfigDict
from scipy.special import log_softmax, softmax
from scipy.stats import entropy
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from test_run import Crash, act_at, crash

from configs import tolerant_digits
from distill_jax import checkpoints, configuration, evaluate, logs, losses, methods, networks, sharding, stages, train, transfer
from distill_jax.errors import UserError

LOGITS = 3 * np.random.default_rng(0).standard_normal((9, 7)).astype(np.float32)
LABELS = np.random.default_rng(1).integers(0, 7, 9)
SETTING = methods.Setting(None, (1,), 50, 7, teachers=())


def family_config(**fields):
    config = make_config(epochs=2, schedule__cycles=1, eval_every=2)
    config.method = ConfigDict({"name": "supervised"})
    config.stages = tolerant_digits.get_config().stages
    config.stages.generations = 2
    for name, value in fields.items():
        config.update_from_flattened_dict({name.replace("__", "."): value})
    return config


@pytest.fixture(scope="module")
def finished_family(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("family")
    return workdir, train.train(family_config(), workdir)


@pytest.mark.parametrize("k", [2, 5, 7])
def test_top_score_difference(k):
    logits = LOGITS.copy()
    logits[0] = 1.0  # all equal
    logits[1, :3] = logits[1].max()  # three on top
    ordered = -np.sort(-softmax(logits.astype(float), axis=1), axis=1)
    expected = ordered[:, 0] - ordered[:, 1:k].sum(axis=1) / (k - 1)
    np.testing.assert_allclose(losses.top_score_difference(logits, k), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("function", [lambda z: losses.top_score_difference(z, 4), losses.uniform_cross_entropy, losses.negative_entropy])
def test_gradients_are_finite_differences(function):
    with jax.enable_x64(True):
        logits = jnp.asarray(LOGITS.astype(float))
        gradient = jax.grad(lambda z: function(z).sum())(logits)
        step = 1e-5 * np.random.default_rng(2).standard_normal(logits.shape)
        change = float((function(logits + step) - function(logits - step)).sum() / 2)
        assert change == pytest.approx(float((gradient * step).sum()), rel=1e-5)


@pytest.mark.parametrize("eta", [0.9, 0.6])
def test_label_smoothing_is_that_of_optax(eta):
    parts = methods.create("patriarch", SETTING, regularizer="label_smoothing", eta=eta).loss(LOGITS, LABELS, None)
    smoothed = optax.smooth_labels(jax.nn.one_hot(LABELS, 7), 1 - eta)
    assert parts.loss == pytest.approx(float(optax.softmax_cross_entropy(LOGITS, smoothed).mean()), rel=1e-5)


def test_label_smoothing_is_that_of_pytorch():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    expected = torch.nn.functional.cross_entropy(torch.tensor(LOGITS), torch.tensor(LABELS), label_smoothing=0.1)
    parts = methods.create("patriarch", SETTING, regularizer="label_smoothing", eta=0.9).loss(LOGITS, LABELS, None)
    assert parts.loss == pytest.approx(float(expected), rel=1e-5)


def test_confidence_penalty():
    parts = methods.create("patriarch", SETTING, regularizer="confidence_penalty", eta=0.8).loss(LOGITS, LABELS, None)
    ce = -log_softmax(LOGITS.astype(float), axis=1)[np.arange(9), LABELS].mean()
    beta = 0.2 / 0.8
    assert parts.loss == pytest.approx(0.8 * (ce - beta * entropy(softmax(LOGITS.astype(float), axis=1), axis=1).mean()), rel=1e-5)


def test_the_patriarch_adds_the_difference():
    parts = methods.create("patriarch", SETTING, eta=0.7, k=3).loss(LOGITS, LABELS, None)
    ordered = np.sort(softmax(LOGITS.astype(float), axis=1), axis=1)[:, ::-1]
    difference = (ordered[:, 0] - (ordered[:, 1] + ordered[:, 2]) / 2).mean()
    ce = -log_softmax(LOGITS.astype(float), axis=1)[np.arange(9), LABELS].mean()
    assert parts.ce == pytest.approx(ce, rel=1e-5)
    assert parts.teacher == pytest.approx(0.3 * difference, rel=1e-5)
    assert parts.loss == pytest.approx(0.7 * ce + 0.3 * difference, rel=1e-5)


def test_a_strict_patriarch_is_supervised_training_bit_for_bit():
    def gradient(method):
        return jax.jit(jax.grad(lambda z: method.loss(z, LABELS, None).loss))(LOGITS)

    strict, supervised = methods.create("patriarch", SETTING, eta=1.0), methods.create("supervised", SETTING)
    assert np.asarray(gradient(strict)).tobytes() == np.asarray(gradient(supervised)).tobytes()
    assert strict.loss(LOGITS, LABELS, None).loss == supervised.loss(LOGITS, LABELS, None).loss


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_students_loss(temperature):
    teacher = LOGITS[::-1].copy()
    student = methods.create("distillation", SETTING._replace(teachers=(None,)), weight_ce=0.3, temperature=temperature)
    parts = student.loss(LOGITS, LABELS, teacher)
    soft = [softmax(logits.astype(float) / temperature, axis=1) for logits in (teacher, LOGITS)]
    ce = -log_softmax(LOGITS.astype(float), axis=1)[np.arange(9), LABELS].mean()
    assert parts.loss == pytest.approx(0.3 * ce + 0.7 * temperature**2 * entropy(*soft, axis=1).mean(), rel=1e-5)


@pytest.mark.parametrize(
    ("method", "fields", "message"),
    [
        ("patriarch", {"k": 1}, "method.k is 1; it must lie in 2..7"),
        ("patriarch", {"k": 8}, "method.k is 8; it must lie in 2..7"),
        ("patriarch", {"eta": 0.0}, "method.eta is 0.0"),
        ("patriarch", {"regularizer": "tsd"}, "method.regularizer is 'tsd'; known: top_score_difference"),
        ("distillation", {"weight_ce": 1.5}, "method.weight_ce is 1.5"),
        ("distillation", {"temperature": 0.0}, "method.temperature is 0.0"),
        ("distillation", {"guide_logits": "both"}, "method.guide_logits is 'both'"),
        ("distillation", {}, "distillation has one teacher; `teachers` names 0"),
    ],
)
def test_bad_fields_are_named(method, fields, message):
    with pytest.raises(UserError, match=message):
        methods.create(method, SETTING, **fields)


def test_a_method_without_teachers_refuses_them():
    with pytest.raises(UserError, match="`teachers` names 1, but method 'snapshot' takes none"):
        methods.create("snapshot", SETTING._replace(teachers=(None,)))


def test_a_family_leaves_a_run_a_stage_and_a_table(finished_family):
    workdir, summary = finished_family
    assert summary == json.loads((workdir / "summary.json").read_text())
    assert [stage["stage"] for stage in summary["stages"]] == ["generation_0", "generation_1", "generation_2"]
    assert [stage["method"] for stage in summary["stages"]] == ["patriarch", "distillation", "distillation"]
    assert [stage["seed"] for stage in summary["stages"]] == [0, 1000, 2000]
    assert summary["params_sha256"] == summary["stages"][-1]["params_sha256"]
    assert len((workdir / "table.md").read_text().splitlines()) == 5
    for stage in summary["stages"]:
        own = logs.read_json(workdir / stage["stage"] / "summary.json")
        assert own == {name: value for name, value in stage.items() if name != "stage"}
    assert ["teacher_agreement" in stage for stage in summary["stages"]] == [False, True, True]


@pytest.mark.parametrize(("generation", "step"), [(0, 7), (2, 0), (2, 8)])
def test_a_crash_in_a_generation_changes_nothing_in_the_end(finished_family, tmp_path, monkeypatch, generation, step):
    """In the last generation, before and after its first checkpoint; and in the first."""
    build = train.build

    def build_broken(config, workdir):
        program = build(config, workdir)
        return act_at(program, step, crash) if workdir.name == f"generation_{generation}" else program

    monkeypatch.setattr(train, "build", build_broken)
    with pytest.raises(Crash):
        train.train(family_config(), tmp_path)
    assert [(tmp_path / f"generation_{m}" / "summary.json").exists() for m in range(3)] == [m < generation for m in range(3)]
    monkeypatch.setattr(train, "build", build)
    hashes = [stage["params_sha256"] for stage in train.train(family_config(), tmp_path)["stages"]]
    assert hashes == [stage["params_sha256"] for stage in finished_family[1]["stages"]]


def test_the_teacher_is_the_one_that_was_saved_and_is_in_no_checkpoint(finished_family):
    workdir, summary = finished_family
    config = stages.expand(family_config())["generation_1"]
    program = train.build(config, workdir / "generation_1")
    (teacher,) = train.load_teachers(program, workdir / "generation_1")
    assert checkpoints.params_sha256(teacher.params) == summary["stages"][0]["params_sha256"]
    manager = checkpoints.open_manager(workdir / "generation_1" / "checkpoints")
    state, _, step = train.start(program, workdir / "generation_1", jax.random.key(0), manager)
    assert step == 10
    assert checkpoints.params_sha256(state.teacher.params) == summary["stages"][0]["params_sha256"]
    assert checkpoints.params_sha256(state.params) == summary["stages"][1]["params_sha256"]
    assert train.without_given(state).teacher is None
    saved = (workdir / "generation_1" / "checkpoints" / "10" / "default" / "_METADATA").read_text()
    assert "opt_state" in saved and "'teacher', 'params'" not in saved


def test_a_step_moves_the_student_and_not_its_teacher(finished_family):
    workdir = finished_family[0]
    program = train.build(stages.expand(family_config())["generation_1"], workdir / "generation_1")
    teachers = train.load_teachers(program, workdir / "generation_1")
    state = program.init(jax.random.key(0))
    state = state.replace(teacher=program.method.init(state, teachers))
    before = jax.tree.map(np.array, (state.teacher, state.params))
    batch = {"id": sharding.put(np.arange(40, dtype=np.int32), sharding.rows(program.mesh))}
    state, _, _ = program.train_step(state, train.empty_metrics(program), program.train_source, batch, jax.random.key(1))
    assert all(np.array_equal(*leaves) for leaves in zip(*map(jax.tree.leaves, (before[0], state.teacher)), strict=True))
    assert not all(np.array_equal(*leaves) for leaves in zip(*map(jax.tree.leaves, (before[1], state.params)), strict=True))


def student_config(workdir, **fields):
    config = make_config(epochs=1, schedule__cycles=1, **fields)
    config.method = ConfigDict({"name": "distillation"})
    config.teachers = (str(workdir),)
    return config


def test_logits_from_the_table_are_those_of_the_forward(finished_family, tmp_path):
    """Without augmentation both see the same; the curves agree up to the order of the sums."""
    forward = student_config(finished_family[0] / "generation_0", data__crop_padding=0)
    table = forward.copy_and_resolve_references()
    table.method.guide_logits = "table"
    for name, config in (("forward", forward), ("table", table)):
        train.train(config, tmp_path / name)
    curves = [[line["loss_teacher"] for line in logs.read_jsonl(tmp_path / name / "metrics.jsonl")] for name in ("forward", "table")]
    np.testing.assert_allclose(*curves, rtol=1e-3)
    table.data.crop_padding = 1
    with pytest.raises(UserError, match="guide_logits is 'table', which takes data.crop_padding=0 and data.flip=False"):
        train.build(table)


def test_a_student_may_inherit_its_weights(finished_family, tmp_path):
    workdir = finished_family[0] / "generation_0"
    config = student_config(workdir)
    config.initial = str(workdir)
    program = train.build(config)
    state, _, _ = train.start(program, tmp_path, jax.random.key(0), checkpoints.open_manager(tmp_path / "checkpoints"))
    assert checkpoints.params_sha256(state.params) == finished_family[1]["stages"][0]["params_sha256"]
    config.model.name = "resnet8"
    with pytest.raises(UserError, match="initial: .* holds a small_cnn, this run trains another network"):
        train.start(train.build(config), tmp_path, jax.random.key(0), checkpoints.open_manager(tmp_path / "checkpoints"))


def test_teachers_that_will_not_do(finished_family, tmp_path):
    generation = finished_family[0] / "generation_0"
    with pytest.raises(UserError, match="nowhere/config.json does not exist"):
        train.build(student_config(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="holds several runs; name one of them: .*generation_0"):
        train.build(student_config(finished_family[0]))
    unfinished = shutil.copytree(generation, tmp_path / "unfinished")
    (unfinished / "summary.json").unlink()
    with pytest.raises(UserError, match="unfinished: the run is not finished"):
        train.build(student_config(unfinished))
    for field, value, message in (
        ("num_classes", 9, "knows 9 classes; digits has 10"),
        ("input_shape", [9, 8, 1], "shape .9, 8, 1.; those"),
    ):
        other = shutil.copytree(generation, tmp_path / field)
        logs.write_json(other / "summary.json", logs.read_json(other / "summary.json") | {field: value})
        with pytest.raises(UserError, match=message):
            train.build(student_config(other))
    exchanged = shutil.copytree(generation, tmp_path / "exchanged")
    shutil.rmtree(exchanged / "snapshots")
    shutil.copytree(finished_family[0] / "generation_1" / "snapshots", exchanged / "snapshots")
    with pytest.raises(UserError, match="not the weights that the run's summary.json tells of"):
        train.train(student_config(exchanged), tmp_path / "student")


def test_a_teacher_that_was_trained_anew_is_noticed(tmp_path):
    path = tmp_path / "teachers.json"
    configuration.remember(path, {"/a": "one", "/b": "two"})
    configuration.remember(path, {"/a": "one", "/b": "two"})
    with pytest.raises(UserError, match="teachers.json: /b was two when this run began and is three now; restore it, or choose another"):
        configuration.remember(path, {"/a": "one", "/b": "three"})


def test_stages_as_data():
    config = family_config()
    config.stages = ConfigDict({"name": "list", "list": {"big": {"model": {"name": "resnet8"}}, "small": {"teachers": ("stage:big",)}}})
    config.stages.list.small.method = {"name": "distillation", "weight_ce": 0.2}
    big, small = stages.expand(config).values()
    assert (big.model.name, big.method.name, big.teachers) == ("resnet8", "supervised", ())
    assert (small.model.name, small.method.weight_ce, small.teachers) == ("small_cnn", 0.2, ("stage:big",))
    config.stages.list.a_third = {"initial": "stage:small"}
    assert list(stages.expand(config)) == ["big", "small", "a_third"], "each after what it needs"
    config.stages.list.big.teachers = ("stage:a_third",)
    with pytest.raises(UserError, match="stages.list: these need each other: (?=.*big)(?=.*small)(?=.*a_third)"):
        stages.expand(config)
    config.stages.list.big.teachers = ("stage:none",)
    with pytest.raises(UserError, match="stage big: stage:none is no earlier stage; those are: none"):
        stages.expand(config)
    config.stages.list = ConfigDict({"one": {"batchsize": 3}})
    with pytest.raises(UserError, match="stage one.*batchsize"):
        stages.expand(config)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stages__generations": -1}, "stages.generations is -1"),
        ({"stages__name": "dynasty"}, "stages.name is 'dynasty'; known: densely_guided, generations, list"),
    ],
)
def test_bad_families_are_told(fields, message, tmp_path):
    with pytest.raises(UserError, match=message):
        train.train(family_config(**fields), tmp_path)


def test_one_weight_a_student():
    config = family_config()
    config.stages.weight_ce = (0.5, 0.25)
    assert [stage.method.get("weight_ce") for stage in stages.expand(config).values()] == [None, 0.5, 0.25]
    config.stages.generations = 3
    with pytest.raises(UserError, match="stages.weight_ce has 2 entries; stages.generations is 3"):
        stages.expand(config)


def test_seeds_of_a_family(tmp_path):
    config = family_config(stages__generations=1, seeds=2, epochs=1)
    summary = train.train(config, tmp_path)
    assert [stage["stage"] for stage in summary["stages"]] == ["generation_0", "generation_1"]
    runs = [logs.read_json(tmp_path / f"seed_{seed}" / "generation_1" / "summary.json") for seed in (0, 1)]
    assert [run["seed"] for run in runs] == [1000, 1001]
    assert summary["stages"][1]["test_accuracy"] == pytest.approx(np.mean([run["test_accuracy"] for run in runs]))
    assert "±" in (tmp_path / "table.md").read_text()
    assert len(train.evaluate_checkpoint(config, tmp_path)["runs"]) == 4


def test_an_ensemble_of_one_is_its_member(finished_family, tmp_path):
    workdir, summary = finished_family
    result = transfer.ensemble(family_config(), tmp_path, [str(workdir / "generation_1")])
    names = ("test_accuracy", "test_top5", "test_nll", "test_ece")
    assert [result[name] for name in names] == pytest.approx([summary["stages"][1][name] for name in names], rel=1e-5)


def test_an_ensemble_of_generations(finished_family):
    workdir, summary = finished_family
    result = transfer.ensemble(family_config(), workdir)
    accuracies = [member["test_accuracy"] for member in result["members"]]
    assert accuracies == [stage["test_accuracy"] for stage in summary["stages"]]
    probabilities = []
    for m, config in enumerate(stages.expand(family_config()).values()):
        program = train.build(config, workdir / f"generation_{m}")
        network = networks.load(networks.find(workdir / f"generation_{m}"), program.mesh)
        logits = train.predict_test(program, program.predict, {"params": network.params, "batch_stats": network.batch_stats})
        probabilities.append(softmax(logits.astype(float), axis=1))
    mean = np.mean(probabilities, axis=0)
    labels = program.dataset.test["label"]
    assert result["test_accuracy"] == (mean.argmax(axis=1) == labels).mean()
    assert result["test_nll"] == pytest.approx(-np.log(mean[np.arange(len(labels)), labels]).mean(), rel=1e-5)


def test_the_linear_probe_is_scikit_learns_on_the_written_features(finished_family):
    workdir = finished_family[0] / "generation_1"
    result = transfer.linear_probe(family_config(), workdir)
    arrays = np.load(workdir / "features.npz")
    assert arrays["train_features"].shape == (200, 64)
    scaler = StandardScaler().fit(arrays["train_features"])
    probe = LogisticRegression(max_iter=2000).fit(scaler.transform(arrays["train_features"]), arrays["train_labels"])
    correct = probe.predict(scaler.transform(arrays["test_features"])) == arrays["test_labels"]
    assert result["test_accuracy"] == correct.mean()
    network = networks.load(networks.find(workdir), sharding.make_mesh())
    head = network.params["head"]
    logits = arrays["test_features"] @ head["kernel"] + head["bias"]
    accuracy = (logits.argmax(axis=1) == arrays["test_labels"]).mean()
    assert accuracy == logs.read_json(workdir / "summary.json")["test_accuracy"]


def test_features_of_images_of_another_size(finished_family, tmp_path):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (12, 5, 9), np.uint8), np.arange(12) % 3
    np.savez(tmp_path / "other.npz", train_images=images, train_labels=labels, test_images=images[:6], test_labels=labels[:6])
    config = family_config(data__name=f"npz:{tmp_path / 'other.npz'}", data__train_examples=0, batch_size=4)
    arrays = np.load(transfer.features(config, finished_family[0] / "generation_0"))
    assert arrays["train_features"].shape == (12, 64) and arrays["test_features"].shape == (6, 64)
    np.testing.assert_allclose(arrays["train_features"][:6], arrays["test_features"], rtol=1e-5)


def test_score_profile_and_entropy():
    probabilities = softmax(LOGITS.astype(float), axis=1)
    ordered = np.sort(probabilities, axis=1)[:, ::-1]
    profile = evaluate.score_profile(LOGITS)
    assert profile["test_top_score"] == pytest.approx(ordered[:, 0].mean())
    assert profile["test_secondary_score"] == pytest.approx(ordered[:, 1:5].mean())
    assert evaluate.mean_entropy(LOGITS) == pytest.approx(entropy(probabilities, axis=1).mean())

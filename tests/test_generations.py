"""Tolerant teachers: the losses, and the family of a patriarch and its students."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import family_config
from scipy.special import log_softmax, softmax
from scipy.stats import entropy

from distill_jax import evaluate, losses, methods, stages, study, workdir
from distill_jax.errors import UserError

LOGITS = 3 * np.random.default_rng(0).standard_normal((9, 7)).astype(np.float32)
LABELS = np.random.default_rng(1).integers(0, 7, 9)
SETTING = methods.Setting(apply=None, cycle_ends=(1,), num_examples=50, num_classes=7)


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
    parts = methods.patriarch(7, regularizer="label_smoothing", eta=eta).loss(LOGITS, LABELS, None)
    smoothed = optax.smooth_labels(jax.nn.one_hot(LABELS, 7), 1 - eta)
    assert parts.loss == pytest.approx(float(optax.softmax_cross_entropy(LOGITS, smoothed).mean()), rel=1e-5)


def test_label_smoothing_is_that_of_pytorch():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    expected = torch.nn.functional.cross_entropy(torch.tensor(LOGITS), torch.tensor(LABELS), label_smoothing=0.1)
    parts = methods.patriarch(7, regularizer="label_smoothing", eta=0.9).loss(LOGITS, LABELS, None)
    assert parts.loss == pytest.approx(float(expected), rel=1e-5)


def test_confidence_penalty():
    parts = methods.patriarch(7, regularizer="confidence_penalty", eta=0.8).loss(LOGITS, LABELS, None)
    ce = -log_softmax(LOGITS.astype(float), axis=1)[np.arange(9), LABELS].mean()
    beta = 0.2 / 0.8
    assert parts.loss == pytest.approx(0.8 * (ce - beta * entropy(softmax(LOGITS.astype(float), axis=1), axis=1).mean()), rel=1e-5)


def test_the_patriarch_adds_the_difference_and_has_no_teacher():
    parts = methods.patriarch(7, eta=0.7, k=3).loss(LOGITS, LABELS, None)
    ordered = np.sort(softmax(LOGITS.astype(float), axis=1), axis=1)[:, ::-1]
    difference = (ordered[:, 0] - (ordered[:, 1] + ordered[:, 2]) / 2).mean()
    ce = -log_softmax(LOGITS.astype(float), axis=1)[np.arange(9), LABELS].mean()
    assert parts.ce == pytest.approx(ce, rel=1e-5)
    assert parts.teacher == 0
    assert parts.loss == pytest.approx(0.7 * ce + 0.3 * difference, rel=1e-5)


def test_a_strict_patriarch_is_supervised_training_bit_for_bit():
    def gradient(method):
        return jax.jit(jax.grad(lambda z: method.loss(z, LABELS, None).loss))(LOGITS)

    strict, supervised = methods.patriarch(7, eta=1.0), methods.supervised()
    assert np.asarray(gradient(strict)).tobytes() == np.asarray(gradient(supervised)).tobytes()
    assert strict.loss(LOGITS, LABELS, None).loss == supervised.loss(LOGITS, LABELS, None).loss


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_students_loss(temperature):
    teacher = LOGITS[::-1].copy()
    parts = methods.distillation(weight_ce=0.3, temperature=temperature).loss(LOGITS, LABELS, teacher)
    soft = [softmax(logits.astype(float) / temperature, axis=1) for logits in (teacher, LOGITS)]
    ce = -log_softmax(LOGITS.astype(float), axis=1)[np.arange(9), LABELS].mean()
    taught = 0.7 * temperature**2 * entropy(*soft, axis=1).mean()
    assert parts.teacher == pytest.approx(taught, rel=1e-5)
    assert parts.loss == pytest.approx(0.3 * ce + taught, rel=1e-5)


@pytest.mark.parametrize(
    ("method", "fields", "message"),
    [
        ("patriarch", {"k": 1}, "k is 1; it must lie in 2..7"),
        ("patriarch", {"k": 8}, "k is 8; it must lie in 2..7"),
        ("patriarch", {"eta": 0.0}, "eta is 0.0"),
        ("patriarch", {"regularizer": "tsd"}, "regularizer is 'tsd'; known: top_score_difference"),
        ("distillation", {"weight_ce": 1.5}, "weight_ce is 1.5"),
        ("distillation", {"temperature": 0.0}, "temperature is 0.0"),
        ("distillation", {"guide_logits": "both"}, "guide_logits is 'both'"),
    ],
)
def test_bad_options_are_named(method, fields, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        methods.create(method, setting=SETTING._replace(num_teachers=int(method == "distillation")), **fields)


@pytest.mark.parametrize("number", [0, 2])
def test_a_student_has_one_teacher(number):
    with pytest.raises(ValueError, match=f"^num_teachers is {number}; distillation takes one"):
        methods.create("distillation", setting=SETTING._replace(num_teachers=number))


def test_a_method_without_teachers_refuses_them():
    with pytest.raises(
        ValueError, match="^num_teachers is 1, but 'snapshot' takes no teachers; these do: attention_transfer, densely_guided, distillation"
    ):
        methods.create("snapshot", setting=SETTING._replace(num_teachers=1))


def test_a_family_leaves_a_run_a_stage_and_a_table(finished_family):
    folder, summary = finished_family
    assert summary == json.loads((folder / "summary.json").read_text())
    assert [stage["stage"] for stage in summary["stages"]] == ["generation_0", "generation_1", "generation_2"]
    assert [stage["method"] for stage in summary["stages"]] == ["patriarch", "distillation", "distillation"]
    assert [stage["seed"] for stage in summary["stages"]] == [0, 1000, 2000]
    assert summary["params_sha256"] == summary["stages"][-1]["params_sha256"]
    assert len((folder / "table.md").read_text().splitlines()) == 5
    for stage in summary["stages"]:
        own = workdir.load_summary(folder / stage["stage"])
        assert own == {name: value for name, value in stage.items() if name != "stage"}
    assert ["teacher_agreement" in stage for stage in summary["stages"]] == [False, True, True]


def test_one_weight_a_student():
    config = family_config(stages__weight_ce=(0.5, 0.25))
    assert [stage.method.get("weight_ce") for stage in stages.expand(config).values()] == [None, 0.5, 0.25]
    config.stages.generations = 3
    with pytest.raises(ValueError, match="^weight_ce has 2 entries; stages.generations is 3"):
        stages.expand(config)


@pytest.mark.parametrize(("inherit", "second"), [(False, "hf:ENCODER"), (True, "stage:generation_0")])
def test_what_a_student_starts_from(inherit, second):
    family = stages.expand(family_config(initial="hf:ENCODER", stages__inherit=inherit))
    assert [family[f"generation_{m}"].initial for m in (0, 1)] == ["hf:ENCODER", second]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stages__generations": -1}, "stages.generations is -1"),
        ({"stages__eta": 0.0}, "stages.eta is 0.0"),
        ({"stages__weight_ce": (0.5, "a")}, r"stages.weight_ce\[1\] is 'a'; it must be of type float"),
        ({"stages__weight_ce": (0.5, 2.0)}, "stages.weight_ce is 2.0"),
        ({"stages__weight_ce": (0.5, 0.5, 0.5)}, "stages.weight_ce has 3 entries; stages.generations is 2"),
    ],
)
def test_a_bad_option_of_the_family_is_told_before_anything_is_written(fields, message, tmp_path):
    with pytest.raises(UserError, match=f"^{message}"):
        study.train(family_config(**fields), tmp_path)
    assert not list(tmp_path.iterdir())


def test_score_profile_and_entropy():
    probabilities = softmax(LOGITS.astype(float), axis=1)
    ordered = np.sort(probabilities, axis=1)[:, ::-1]
    profile = evaluate.score_profile(LOGITS)
    assert profile["test_top_score"] == pytest.approx(ordered[:, 0].mean())
    assert profile["test_secondary_score"] == pytest.approx(ordered[:, 1:5].mean())
    assert evaluate.mean_entropy(LOGITS) == pytest.approx(entropy(probabilities, axis=1).mean())

"""The nearest kin of the papers' methods (PS-KD, DLB, CS-KD, Tf-KD, EMA teacher, attention transfer): losses by hand, properties, runs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Crash, act_at, bits, build, crash, make_config, run, start, step, student_config, text_config
from methods_helpers import B, C, make
from ml_collections import ConfigDict
from scipy.special import log_softmax, softmax
from scipy.stats import entropy

from distill_jax import experiment, losses, methods
from distill_jax.data import load
from distill_jax.errors import UserError
from distill_jax.methods import Batch
from distill_jax.methods.attention_transfer import attention
from distill_jax.methods.cs_kd import paired_order
from distill_jax.methods.dlb import LastHalf, Repeated, overlapping_order
from distill_jax.methods.ps_kd import PastPrediction

SEVERAL = "dlb+ps_kd+ema_teacher"  # one compilation for three methods
ONE_NETWORK = ("cs_kd", "dlb", "ema_teacher", "ps_kd", "tf_kd")


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    student, teacher = 3 * rng.standard_normal((2, B, C)).astype(np.float32)
    return student, teacher, rng.integers(0, C, B)


def ce_of(student, labels):
    return -log_softmax(student.astype(float), axis=1)[np.arange(len(labels)), labels].mean()


def kd_B(teacher, student, temperature):
    return temperature**2 * entropy(*(softmax(x.astype(float) / temperature, axis=1) for x in (teacher, student)), axis=1)


@functools.cache
def exp_of(name):
    """A method on digits."""
    fields = {"schedule__cycles": 1, "model__name": "plain2_cifar10", "optimizer__learning_rate": 0.02}
    return build(make_config(method=ConfigDict({"name": name}), **fields))


def check(parts, ce, teacher, loss):
    assert parts.ce == pytest.approx(ce, rel=1e-5)
    assert parts.teacher == pytest.approx(teacher, rel=1e-5)
    assert parts.loss == pytest.approx(loss, rel=1e-5)


# PS-KD


def ps_kd_target(labels, past, weight_B):
    return (1 - weight_B)[:, None] * np.eye(C)[labels] + weight_B[:, None] * softmax(past.astype(float), axis=1)


def test_ps_kd_by_hand(batch):
    student, past, labels = batch
    weight_B = np.where(np.arange(B) % 3, 0.6, 0).astype(np.float32)
    parts = make("ps_kd").loss(student, labels, PastPrediction(past, weight_B))
    log_student = log_softmax(student.astype(float), axis=1)
    taught = -(weight_B * (softmax(past.astype(float), axis=1) * log_student).sum(axis=1)).mean()
    check(parts, ce_of(student, labels), taught, -(ps_kd_target(labels, past, weight_B) * log_student).sum(axis=1).mean())


def test_ps_kd_grows_from_epoch_to_epoch_and_starts_when_a_sample_was_seen(batch):
    """a_t = 0.8 t / 4. Rows change only for the batch's ids."""
    method, logits = make("ps_kd", weight=0.8), batch[1]
    past, weights, ids = method.init(None), [], jnp.arange(3, 3 + B)
    assert not method.signal(past, Batch(None, ids), None).weight_B.any(), "no prediction yet"
    for epoch in range(1, 6):
        before, past = past, method.observe(past, ids, logits * epoch)
        said = method.signal(past, Batch(None, jnp.arange(B)), None)
        assert np.array_equal(said.logits_BxC[3:], epoch * logits[: B - 3]) and not said.weight_B[:3].any()
        others = np.setdiff1d(np.arange(len(past.logits)), ids)
        assert np.array_equal(past.logits[others], before.logits[others]) and past.seen.sum() == B
        weights.append(float(said.weight_B[-1]))
        past = method.end_epoch(past, None, epoch)
    assert weights == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8])


# DLB


def test_dlb_by_hand(batch):
    student, previous, labels = batch
    is_repeated = np.array([1, 1, 0, 1, 1, 1, 1, 0], bool)
    parts = make("dlb", weight=0.5).loss(student, labels, Repeated(previous[:8], is_repeated))
    taught = 0.5 * (kd_B(previous[:8], student[:8], 3.0) * is_repeated).mean()
    check(parts, ce_of(student, labels), taught, ce_of(student, labels) + taught)


def test_dlb_is_taught_by_the_previous_batch_alone(batch):
    method = make("dlb")
    last = method.init(None)
    ids = np.arange(B)
    assert not method.signal(last, Batch(None, ids), None).is_repeated_H.any()
    last = method.observe(last, jnp.asarray(ids), batch[1])
    said = method.signal(last, Batch(None, np.concatenate([ids[8:], 20 + ids[:8]])), None)
    assert said.is_repeated_H.all() and np.array_equal(said.logits_HxC, batch[1][8:])
    assert isinstance(last, LastHalf) and not method.signal(last, Batch(None, ids), None).is_repeated_H.any()


@pytest.mark.parametrize(("examples", "batch_size"), [(103, 10), (1437, 64), (40, 40)])
def test_half_of_each_batch_was_in_the_one_before(examples, batch_size):
    order = overlapping_order(3, 1, np.zeros(examples), batch_size)
    assert order.shape == (examples // batch_size, batch_size) and order.dtype == np.int32
    half = batch_size // 2
    assert np.array_equal(order[1:, :half], order[:-1, half:])
    assert len(np.unique(order)) == half * (len(order) + 1), "no other sample occurs twice"
    assert np.array_equal(order, overlapping_order(3, 1, np.zeros(examples), batch_size))
    assert len(order) == 1 or not np.array_equal(order, overlapping_order(3, 2, np.zeros(examples), batch_size))


# CS-KD


def test_cs_kd_by_hand(batch):
    student, _, labels = batch
    labels = np.concatenate([labels[:8], labels[:8]])
    labels[3] = (labels[3] + 1) % C
    parts = make("cs_kd", weight=2.0).loss(student, labels, None)
    partners = np.concatenate([student[8:], student[:8]])
    is_pair = np.arange(B) % 8 != 3
    taught = 2 * (kd_B(partners, student, 4.0) * is_pair).mean()
    check(parts, ce_of(student, labels), taught, ce_of(student, labels) + taught)


def test_no_gradient_reaches_a_partner(batch):
    student, _, labels = batch
    labels = np.concatenate([labels[:8], labels[:8]])
    method, partners = make("cs_kd"), np.roll(student, 8, axis=0)

    def by_hand(z):
        return losses.cross_entropy(z, labels) + losses.distillation(partners, z, 4.0)

    gradient = jax.jit(jax.grad(lambda z: method.loss(z, labels, None).loss))(student)
    np.testing.assert_allclose(gradient, jax.jit(jax.grad(by_hand))(student), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("batch_size", [10, 64])
def test_pairs_are_of_one_class(batch_size):
    labels = load("digits").train["label"]
    order = paired_order(0, 1, labels, batch_size)
    assert order.shape == (1437 // batch_size, batch_size) and order.dtype == np.int32
    assert len(np.unique(order)) == order.size, "no sample occurs twice"
    differ = (labels[order] != labels[np.roll(order, batch_size // 2, axis=1)]).sum()
    assert differ <= 10, "at most one of each class"
    assert len(np.unique(labels[order[0, : batch_size // 2]])) > 1, "the pairs are shuffled"
    assert np.array_equal(order, paired_order(0, 1, labels, batch_size))
    assert not np.array_equal(order, paired_order(0, 2, labels, batch_size))


def test_odd_classes_are_paired_with_each_other():
    order = paired_order(0, 1, np.array([0, 0, 0, 1, 1, 1, 1, 2]), 8)
    assert sorted(order.ravel()) == list(range(8))


# Tf-KD


def test_tf_kd_by_hand(batch):
    student, _, labels = batch
    fixed = np.log(np.where(np.eye(C)[labels], 0.9, 0.1 / 6))
    taught = 0.3 * kd_B(fixed, student, 20.0).mean()
    parts = make("tf_kd", weight=0.3, confidence=0.9).loss(student, labels, None)
    check(parts, ce_of(student, labels), taught, 0.7 * ce_of(student, labels) + taught)


def test_tf_kd_without_temperature_is_label_smoothing(batch):
    """CE with labels smoothed by e, up to the constant entropy of the target, with u = 1 - e + e / C."""
    student, _, labels = batch
    tf_kd = make("tf_kd", weight=1.0, temperature=1.0, confidence=0.9 + 0.1 / C)
    smoothed = make("supervised", label_smoothing=0.1)
    gradients = [jax.jit(jax.grad(lambda z, each=each: each.loss(z, labels, None).loss))(student) for each in (tf_kd, smoothed)]
    np.testing.assert_allclose(*gradients, rtol=1e-4, atol=1e-7)


# EMA teacher


def test_ema_by_hand(batch):
    student, average, labels = batch
    taught = 0.5 * kd_B(average, student, 2.0).mean()
    parts = make("ema_teacher", temperature=2.0, weight=0.5).loss(student, labels, average)
    check(parts, ce_of(student, labels), taught, ce_of(student, labels) + taught)


def test_the_average_is_the_closed_form():
    """First the plain mean of all networks, then, from step d / (1 - d) = 4 on, sum_i (1 - d) d^(t - i) w_i + d^(t - 4) * mean."""
    method, weights = make("ema_teacher", decay=0.8), np.random.default_rng(0).standard_normal(13)
    average = method.init({"w": jnp.asarray(weights[0])})
    for t, w in enumerate(weights[1:], start=1):
        average = method.follow(average, {"w": jnp.asarray(w)})
        expected = weights[: t + 1].mean()
        if t > 4:
            expected = 0.8 ** (t - 4) * weights[:5].mean() + sum(0.2 * 0.8 ** (t - i) * weights[i] for i in range(5, t + 1))
        assert average.network["w"] == pytest.approx(expected, rel=1e-4) and average.steps == t


def test_the_average_follows_each_step():
    exp = exp_of(SEVERAL)
    state, key = start(exp)
    assert bits(state.teacher[2].network) == bits(state.network)
    seen = [jax.device_get(state.network)]
    for _ in range(3):
        state, _ = step(exp, state, key, np.arange(40))
        seen.append(jax.device_get(state.network))
    expected = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *seen)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), state.teacher[2].network, expected)


# Attention transfer


def test_attention_by_hand():
    maps = np.zeros((2, 2, 2, 2), np.float32)
    maps[0, 0, 0], maps[0, 1, 1], maps[1] = (3, -1), (2, 2), 1  # mean squares 5, 0, 0, 4; and 1 everywhere
    np.testing.assert_allclose(attention(maps), [np.array([5, 0, 0, 4]) / 41**0.5, [0.5] * 4], rtol=1e-6)
    np.testing.assert_allclose(attention(-7 * maps), attention(maps), rtol=1e-6, err_msg="neither scale nor sign counts")
    assert np.isfinite(jax.jit(jax.grad(lambda x: attention(x).sum()))(jnp.zeros((1, 2, 2, 3)))).all()


def test_attention_loss_by_hand(batch):
    student, _, labels = batch
    rng, sizes = np.random.default_rng(0), ((B, 4, 4, 3), (B, 2, 2, 5))
    theirs, ours = ([rng.standard_normal(size).astype(np.float32) for size in sizes] for _ in range(2))
    method = make("attention_transfer", weight=10.0)
    signal = method.signal(None, Batch(None, None, (lambda maps: (None, theirs),)), None)
    parts = method.loss(student, labels, signal, ours)

    def q(a):
        q = (a.astype(float) ** 2).mean(axis=3).reshape(B, -1)
        return q / np.linalg.norm(q, axis=1, keepdims=True)

    taught = 10 * sum(((q(a) - q(b)) ** 2).mean() for a, b in zip(theirs, ours, strict=True))
    check(parts, ce_of(student, labels), taught, ce_of(student, labels) + taught)


# Against PyTorch, as the public code computes them, but for Tf-KD: its own is described in tf_kd.py


def torch_losses(torch, F, z, other, labels):
    """Each method's loss for logits z, another [B, C] of the teacher, past or partner, and labels of pairs."""

    def kd(student, teacher, T):
        return T**2 * F.kl_div(F.log_softmax(student / T, dim=1), F.softmax(teacher / T, dim=1), reduction="batchmean")

    target = 0.4 * F.one_hot(labels, C) + 0.6 * F.softmax(other, dim=1)
    fixed = torch.full((B, C), 0.01 / (C - 1)).scatter(1, labels[:, None], 0.99)
    return {
        "ps_kd": torch.mean(torch.sum(-target * F.log_softmax(z, dim=1), dim=1)),
        "dlb": F.cross_entropy(z, labels) + kd(z[:8], other[:8], 3),
        "cs_kd": F.cross_entropy(z, labels) + kd(z, torch.cat([z[8:], z[:8]]).detach(), 4),
        "tf_kd": 0.9 * F.cross_entropy(z, labels) + 0.1 * kd(z, fixed.log(), 20),
        "ema_teacher": F.cross_entropy(z, labels) + kd(z, other, 1),
    }


def signal_of(name, other):
    if name == "ps_kd":
        return PastPrediction(other, jnp.full(B, 0.6))
    if name == "dlb":
        return Repeated(other[:8], jnp.ones(8, bool))
    return other if name == "ema_teacher" else None


@pytest.mark.parametrize("name", ONE_NETWORK)
def test_loss_and_gradient_against_pytorch(batch, name):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    student, other, labels = batch
    labels = np.concatenate([labels[:8], labels[:8]])
    z = torch.tensor(student, requires_grad=True)
    loss = torch_losses(torch, torch.nn.functional, z, torch.tensor(other), torch.tensor(labels))[name]
    loss.backward()
    ours, gradient = jax.jit(jax.value_and_grad(lambda x: make(name).loss(x, labels, signal_of(name, other)).loss))(student)
    assert ours == pytest.approx(loss.item(), rel=1e-5)
    np.testing.assert_allclose(gradient, z.grad.numpy(), rtol=1e-4, atol=1e-6)


def test_attention_against_pytorch():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    F = torch.nn.functional
    rng = np.random.default_rng(0)
    theirs, ours = rng.standard_normal((B, 4, 4, 3)).astype(np.float32), rng.standard_normal((B, 4, 4, 5)).astype(np.float32)

    def at(x):  # github.com/szagoruyko/attention-transfer
        return F.normalize(x.permute(0, 3, 1, 2).pow(2).mean(1).view(x.size(0), -1))

    x = torch.tensor(ours, requires_grad=True)
    loss = (at(x) - at(torch.tensor(theirs))).pow(2).mean()
    loss.backward()
    value, gradient = jax.jit(jax.value_and_grad(lambda x: ((attention(x) - attention(theirs)) ** 2).mean()))(ours)
    assert value == pytest.approx(loss.item(), rel=1e-5)
    np.testing.assert_allclose(gradient, x.grad.numpy(), rtol=1e-4, atol=1e-8)


# Runs


def check_crash(exp, folder):
    whole = run(exp, 0, folder / "whole")
    with pytest.raises(Crash):
        run(act_at(exp, 13, crash), 0, folder / "broken")
    assert run(exp, 0, folder / "broken")["params_sha256"] == whole["params_sha256"]
    return whole


@pytest.mark.parametrize(("name", "passes"), [("cs_kd", 1), (SEVERAL, 2)])
def test_a_crash_changes_nothing_in_the_end(name, passes, tmp_path):
    """The checkpoint holds the last half batch, the table and its weight, and the average."""
    whole = check_crash(exp_of(name), tmp_path)
    assert whole["test_accuracy"] > 0.2 and whole["forward_passes"] == passes * 4 * 5 * 40


def test_attention_of_a_finished_run(finished, tmp_path):
    """Beside DKD with a warm-up, whose factor the checkpoint holds."""
    method = {"name": "distillation+attention_transfer", "distillation": {"loss": "dkd", "warmup_epochs": 3}}
    config = student_config(finished[0], epochs=4, method=ConfigDict(method))
    exp = build(config, tmp_path)
    assert check_crash(exp, tmp_path)["forward_passes"] == 2 * 4 * 5 * 40, "both ask for one pass of the teacher"
    other = student_config(finished[0], model__name="plain2_cifar10", method=ConfigDict({"name": "attention_transfer"}))
    with pytest.raises(UserError, match="compares feature maps of equal sizes; those of small_cnn are 8x8, 4x4, 2x2, those of plain2"):
        build(other, tmp_path)
    other = student_config(finished[0], data__crop_padding=0, method=ConfigDict({"name": "attention_transfer", "guide_logits": "table"}))
    with pytest.raises(UserError, match="needs the teachers' feature maps, not only their logits"):
        build(other, tmp_path)


@pytest.mark.parametrize("name", ["cs_kd+ps_kd+ema_teacher+tf_kd", "dlb"])
def test_on_sentences(name, sentences, tmp_path):
    exp = build(text_config(sentences, epochs=4, checkpoint_every=1, method=ConfigDict({"name": name})))
    assert check_crash(exp, tmp_path)["test_accuracy"] > 0.5


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ps_kd", {"weight": 1.5}, "weight is 1.5"),
        ("dlb", {"temperature": 0.0}, "temperature is 0.0"),
        ("cs_kd", {"weight": -1.0}, "weight is -1.0"),
        ("tf_kd", {"confidence": 0.1}, "confidence is 0.1"),
        ("ema_teacher", {"decay": 1.0}, "decay is 1.0"),
        ("attention_transfer", {"weight": -1.0}, "weight is -1.0"),
    ],
)
def test_bad_options_are_named(name, options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make(name, **options)


def test_an_epoch_of_one_batch_has_no_previous_one():
    with pytest.raises(ValueError, match="^batch_size is 16, but there are 31 examples; dlb needs at least two batches per epoch$"):
        methods.dlb(16, C, num_examples=31)


def test_an_odd_batch_is_refused():
    config = make_config(schedule__cycles=1, batch_size=39, method=ConfigDict({"name": "cs_kd"}))
    with pytest.raises(UserError, match="^batch_size is 39; cs_kd needs an even one$"):
        experiment.build(config, experiment.load_data(config))

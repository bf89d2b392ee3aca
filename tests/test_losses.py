"""The loss terms against numbers computed by scipy."""

import jax
import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from scipy.stats import entropy

from distill_jax import losses, methods

B, C = 16, 7


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    student, teacher = 3 * rng.standard_normal((2, B, C)).astype(np.float32)
    return student, teacher, rng.integers(0, C, B)


def test_cross_entropy(batch):
    student, _, labels = batch
    expected = -log_softmax(student.astype(np.float64), axis=1)[np.arange(B), labels].mean()
    assert losses.cross_entropy(student, labels) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("temperatures", [(1.0, 1.0), (2.0, 1.0), (3.0, 3.0)])
def test_kl_divergence_sums_over_classes_and_keeps_samples_apart(batch, temperatures):
    student, teacher, _ = (np.asarray(x, np.float64) for x in batch)
    expected_B = entropy(softmax(teacher / temperatures[0], axis=1), softmax(student / temperatures[1], axis=1), axis=1)
    assert expected_B.shape == (B,)
    np.testing.assert_allclose(losses.kl_divergence(batch[1], batch[0], *temperatures), expected_B, rtol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_distillation_has_the_factor_and_the_mean_over_the_batch(batch, temperature):
    student, teacher, _ = batch
    expected = temperature**2 * entropy(*(softmax(x.astype(float) / temperature, axis=1) for x in (teacher, student)), axis=1).mean()
    assert losses.distillation(teacher, student, temperature) == pytest.approx(expected, rel=1e-5)


def test_distillation_of_some_samples_divides_by_all(batch):
    """Samples outside the mask count as 0, whatever the teacher's logits, and have no gradient."""
    student, teacher, _ = batch
    where = np.arange(B) % 3 == 0
    teacher = np.where(where[:, None], teacher, 1e3)
    kl_B = entropy(*(softmax(x[where].astype(float) / 2, axis=1) for x in (teacher, student)), axis=1)
    value, gradient = jax.value_and_grad(lambda z: losses.distillation(teacher, z, 2.0, where))(student)
    assert value == pytest.approx(4 * kl_B.sum() / B, rel=1e-5)
    assert np.abs(gradient[where]).min() > 0 and not np.asarray(gradient[~where]).any()


def test_distillation_by_several_teachers_keeps_them_apart(batch):
    student, teacher, _ = batch
    teachers = np.stack([teacher, student, teacher[::-1]])
    values = losses.distillation(teachers, student, 3.0)
    np.testing.assert_allclose(values, [losses.distillation(each, student, 3.0) for each in teachers], rtol=1e-6, atol=1e-6)
    assert values.shape == (3,) and values[1] == pytest.approx(0, abs=1e-6)


def test_the_gradient_of_distillation_keeps_its_size(batch):
    """For large T, T^2 KL tends to half the mean squared difference of the centred logits (Hinton et al., section 2.1)."""
    student, teacher, _ = (x.astype(float) for x in batch)
    centred_student, centred_teacher = (x - x.mean(axis=1, keepdims=True) for x in (student, teacher))
    gradient = jax.grad(lambda z: losses.distillation(batch[1], z, 100.0))(batch[0])
    np.testing.assert_allclose(gradient, (centred_student - centred_teacher) / (B * C), rtol=0.05, atol=2e-3)


def make_snapshot_loss(**options):
    return methods.snapshot_distillation(apply=None, cycle_ends=(1, 2), **options).loss


@pytest.mark.parametrize("temperature", [2.0, 3.0])
def test_snapshot_loss_softens_the_teacher_only(batch, temperature):
    student, teacher, labels = batch
    ce = -log_softmax(student.astype(np.float64), axis=1)[np.arange(B), labels].mean()
    kl = entropy(softmax(teacher.astype(np.float64) / temperature, axis=1), softmax(student.astype(np.float64), axis=1), axis=1).mean()
    parts = make_snapshot_loss(temperature=temperature)(student, labels, teacher)
    assert parts.ce == pytest.approx(ce, rel=1e-5)
    assert parts.teacher == pytest.approx(kl, rel=1e-5)
    assert parts.loss == pytest.approx((1 + 1 / temperature) * ce + kl, rel=1e-5)


def test_symmetric_snapshot_loss_has_the_factor_of_distillation(batch):
    student, teacher, labels = batch
    kl = entropy(softmax(teacher.astype(np.float64) / 3, axis=1), softmax(student.astype(np.float64) / 3, axis=1), axis=1).mean()
    parts = make_snapshot_loss(temperature=3.0, symmetric=True)(student, labels, teacher)
    assert parts.teacher == pytest.approx(9 * kl, rel=1e-5)


def test_snapshot_loss_without_a_teacher_is_cross_entropy(batch):
    student, _, labels = batch
    snapshot = make_snapshot_loss()(student, labels, None)
    supervised = methods.supervised().loss(student, labels, None)
    assert snapshot.loss == snapshot.ce == supervised.loss
    assert snapshot.teacher == 0


def test_gradients_against_pytorch(batch):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    F = torch.nn.functional
    student, teacher, labels = batch
    z = torch.tensor(student, requires_grad=True)
    target = F.softmax(torch.tensor(teacher) / 2, dim=1)
    loss = 1.5 * F.cross_entropy(z, torch.tensor(labels)) + F.kl_div(F.log_softmax(z, dim=1), target, reduction="batchmean")
    loss.backward()
    ours, gradient = jax.value_and_grad(lambda x: make_snapshot_loss(temperature=2.0)(x, labels, teacher).loss)(student)
    assert ours == pytest.approx(loss.item(), rel=1e-5)
    np.testing.assert_allclose(gradient, z.grad.numpy(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_temperature_must_be_positive(temperature):
    with pytest.raises(ValueError, match=rf"^temperature is {temperature}; it must lie in \[0.01, 100\]"):
        make_snapshot_loss(temperature=temperature)


def test_unknown_method_and_option_are_named():
    setting = methods.Setting(apply=None, cycle_ends=(1,), num_examples=B, num_classes=C)
    with pytest.raises(ValueError, match="^name is 'snapshto'; known: .*snapshot.*did you mean 'snapshot'[?]$"):
        methods.create("snapshto", setting)
    with pytest.raises(ValueError, match="^temperature is not an option of method 'supervised', which has: label_smoothing$"):
        methods.create("supervised", setting, temperature=2.0)

"""The loss terms against numbers computed by scipy."""

import jax
import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from scipy.stats import entropy

from distill_jax import losses, methods
from distill_jax.methods.densely_guided import Guidance

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


# Losses between a larger teacher and a student


def dkd_by_hand(teacher, student, labels, temperature):
    """TCKD and NCKD of each sample, from their definitions."""
    p, q = (softmax(x.astype(float) / temperature, axis=1) for x in (teacher, student))
    rows, others = np.arange(B), ~np.eye(C, dtype=bool)[labels]
    binary = [np.stack([x[rows, labels], 1 - x[rows, labels]], axis=1) for x in (p, q)]
    rest = [x[others].reshape(B, C - 1) / (1 - x[rows, labels])[:, None] for x in (p, q)]
    return entropy(*binary, axis=1), entropy(*rest, axis=1), p[rows, labels]


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_decoupled_distillation_by_hand(batch, temperature):
    student, teacher, labels = batch
    target, others, _ = dkd_by_hand(teacher, student, labels, temperature)
    expected = temperature**2 * (0.5 * target + 3 * others).mean()
    assert losses.decoupled_distillation(teacher, student, labels, temperature, 0.5, 3.0) == pytest.approx(expected, rel=1e-4)


def test_decoupled_distillation_with_the_teachers_own_weights_is_distillation(batch):
    """KL = TCKD + (1 - p_teacher(label)) NCKD, sample by sample."""
    student, teacher, labels = batch
    kl_B = entropy(*(softmax(x.astype(float) / 4, axis=1) for x in (teacher, student)), axis=1)
    target, others, p = dkd_by_hand(teacher, student, labels, 4.0)
    np.testing.assert_allclose(target + (1 - p) * others, kl_B, rtol=1e-6)
    for row in range(3):
        one = teacher[row : row + 1], student[row : row + 1], labels[row : row + 1]
        value = losses.decoupled_distillation(*one, 4.0, 1.0, 1 - p[row])
        assert value == pytest.approx(float(losses.distillation(*one[:2], 4.0)), rel=1e-4)


def dist_by_hand(teacher, student, temperature, weight_samples, weight_classes):
    p, q = (softmax(x.astype(float) / temperature, axis=1) for x in (teacher, student))
    rows = np.mean([1 - np.corrcoef(p[row], q[row])[0, 1] for row in range(B)])
    columns = np.mean([1 - np.corrcoef(p[:, column], q[:, column])[0, 1] for column in range(C)])
    return temperature**2 * (weight_samples * rows + weight_classes * columns)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_relational_distillation_by_hand(batch, temperature):
    student, teacher, _ = batch
    value = losses.relational_distillation(teacher, student, temperature, 2.0, 0.5)
    assert value == pytest.approx(dist_by_hand(teacher, student, temperature, 2.0, 0.5), rel=1e-4)


def test_relations_do_not_change_with_scale_and_shift(batch):
    student, teacher, _ = batch
    rng = np.random.default_rng(1)
    scales, shifts = rng.uniform(0.5, 2, (2, B, 1)).astype(np.float32)
    distance = losses.pearson_distance(teacher, student, axis=-1)
    np.testing.assert_allclose(losses.pearson_distance(scales * teacher + shifts, student, axis=-1), distance, atol=1e-5)
    np.testing.assert_allclose(losses.pearson_distance(-teacher, student, axis=-1), 2 - distance, atol=1e-5)
    assert losses.relational_distillation(teacher + shifts, student) == pytest.approx(
        float(losses.relational_distillation(teacher, student)), rel=1e-4
    )


def test_standardized_logits_have_mean_0_and_deviation_1(batch):
    z = losses.standardized(batch[1])
    np.testing.assert_allclose(np.mean(z, axis=1), 0, atol=1e-6)
    np.testing.assert_allclose(np.std(z, axis=1, ddof=1), 1, rtol=1e-5)


def test_two_standardized_logits_have_no_gradient(batch):
    """Which is why methods refuse them."""
    student, teacher, labels = (x[:, :2] if x.ndim > 1 else x % 2 for x in batch)
    gradient = jax.jit(jax.grad(lambda z: losses.from_teacher("kl", standardize=True)(teacher, z, labels)))(student)
    assert np.abs(gradient).max() < 1e-6


@pytest.mark.parametrize("loss", ["kl", "dkd", "dist"])
def test_a_standardized_loss_ignores_scale_and_shift_of_both(batch, loss):
    student, teacher, labels = batch
    scales, shifts = np.random.default_rng(1).uniform(0.5, 2, (2, 2, B, 1)).astype(np.float32)
    term, plain = jax.jit(losses.from_teacher(loss, 2.0, standardize=True)), jax.jit(losses.from_teacher(loss, 2.0))
    moved = term(scales[0] * teacher + shifts[0], scales[1] * student + shifts[1], labels)
    assert moved == pytest.approx(float(term(teacher, student, labels)), rel=1e-4, abs=1e-5)
    assert plain(scales[0] * teacher, student, labels) != pytest.approx(float(plain(teacher, student, labels)), rel=1e-3)


@pytest.mark.parametrize("loss", ["kl", "dkd", "dist"])
@pytest.mark.parametrize("standardize", [False, True])
def test_losses_by_several_teachers_keep_them_apart_and_survive_a_teacher_of_zeros(batch, loss, standardize):
    """Zeros are what a dropped guide says: its term counts 0 times, so it must be a number, and so must its gradient."""
    student, teacher, labels = batch
    teachers = np.stack([teacher, teacher[::-1], np.zeros_like(teacher)])
    term = jax.jit(losses.from_teacher(loss, 3.0, standardize=standardize))
    values, gradient = jax.jit(jax.value_and_grad(lambda z: (term(teachers, z, labels) * np.array([1, 0.5, 0])).sum()))(student)
    apart = [term(each, student, labels) for each in teachers[:2]]
    assert values == pytest.approx(float(apart[0] + 0.5 * apart[1]), rel=1e-5) and np.isfinite(gradient).all()
    same, gradient = jax.jit(jax.value_and_grad(lambda z: term(teacher, z, labels)))(teacher)
    assert same == pytest.approx(0, abs=1e-4) and np.abs(gradient).max() < 1e-4


def torch_terms(torch, F, student, teacher, labels):
    """As in github.com/megvii-research/mdistiller (DKD), hunto/DIST_KD, sunshangquan/logit-standardization-KD."""
    gt_mask = torch.zeros_like(student).scatter_(1, labels.unsqueeze(1), 1).bool()

    def cat_mask(t):
        return torch.cat([(t * gt_mask).sum(1, keepdims=True), (t * ~gt_mask).sum(1, keepdims=True)], dim=1)

    q, p = F.softmax(student / 4, dim=1), F.softmax(teacher / 4, dim=1)
    tckd = F.kl_div(torch.log(cat_mask(q)), cat_mask(p), reduction="sum") * 16 / B
    log_q, rest_p = F.log_softmax(student / 4 - 1000.0 * gt_mask, dim=1), F.softmax(teacher / 4 - 1000.0 * gt_mask, dim=1)
    nckd = F.kl_div(log_q, rest_p, reduction="sum") * 16 / B

    def pearson(a, b):
        return F.cosine_similarity(a - a.mean(1).unsqueeze(1), b - b.mean(1).unsqueeze(1), eps=1e-8)

    def dist(a, b):
        return 1 - pearson(a, b).mean()

    def normalize(logit):
        return (logit - logit.mean(dim=-1, keepdims=True)) / (1e-7 + logit.std(dim=-1, keepdims=True))

    def kd(a, b):
        return F.kl_div(F.log_softmax(a / 2, dim=1), F.softmax(b / 2, dim=1), reduction="none").sum(1).mean() * 4

    q, p = F.softmax(student, dim=1), F.softmax(teacher, dim=1)
    return {"dkd": tckd + 8 * nckd, "dist": dist(q, p) + dist(q.T, p.T), "standardized": kd(normalize(student), normalize(teacher))}


@pytest.mark.parametrize(("name", "options"), [("dkd", (4.0,)), ("dist", (1.0,)), ("standardized", (2.0, (), True))])
def test_losses_and_gradients_against_pytorch(batch, name, options):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    student, teacher, labels = batch
    z = torch.tensor(student, requires_grad=True)
    loss = torch_terms(torch, torch.nn.functional, z, torch.tensor(teacher), torch.tensor(labels))[name]
    loss.backward()
    term = losses.from_teacher("kl" if name == "standardized" else name, *options)
    ours, gradient = jax.jit(jax.value_and_grad(lambda x: term(teacher, x, labels)))(student)
    assert ours == pytest.approx(loss.item(), rel=1e-4)
    np.testing.assert_allclose(gradient, z.grad.numpy(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("loss", ["dkd", "dist"])
def test_methods_take_the_loss_by_name(batch, loss):
    """With one teacher, and with guides; the defaults are the Kullback-Leibler divergence."""
    student, teacher, labels = batch
    ce, term = losses.cross_entropy(student, labels), losses.from_teacher(loss, 2.0, (1.0, 2.0), True)(teacher, student, labels)
    options = {"loss": loss, "temperature": 2.0, "loss_weights": (1.0, 2.0), "standardize": True}
    one = methods.distillation(weight_ce=0.1, weight_teacher=9.0, **options).loss(student, labels, teacher)
    assert one.loss == pytest.approx(float(0.1 * ce + 9 * term), rel=1e-5) and one.teacher == pytest.approx(float(9 * term), rel=1e-5)
    guides = methods.densely_guided(num_teachers=2, weight_teacher=0.5, **options)
    said = Guidance(np.stack([teacher, teacher]), np.array([1.0, 0.0]))
    assert guides.loss(student, labels, said).loss == pytest.approx(float(2 * 0.5 * ce + 0.5 * term), rel=1e-5)


def test_a_warm_up_scales_the_teachers_term_alone(batch):
    student, teacher, labels = batch
    plain, warm = (methods.distillation(weight_ce=0.1, temperature=4.0, warmup_epochs=epochs) for epochs in (0, 4))
    whole, pair, factors = plain.loss(student, labels, teacher), warm.init(None), []
    for epoch in range(1, 6):
        parts = warm.loss(student, labels, (teacher, pair[1]))
        factors.append(float(parts.teacher / whole.teacher))
        assert parts.loss - parts.teacher == pytest.approx(float(whole.loss - whole.teacher), rel=1e-3)
        pair = warm.end_epoch(pair, None, epoch)
    assert factors == pytest.approx([0.25, 0.5, 0.75, 1, 1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "dkt"}, "loss is 'dkt'; known: kl, dkd, dist; did you mean 'dkd'[?]"),
        ({"loss": "dkd", "loss_weights": (1.0,)}, r"loss_weights is \(1.0,\); dkd takes 2 numbers, at least 0, or \(\)"),
        ({"loss": "dist", "loss_weights": (1.0, -1.0)}, r"loss_weights is \(1.0, -1.0\)"),
        ({"loss_weights": (1.0,)}, r"loss_weights is \(1.0,\); kl takes 0 numbers"),
        ({"weight_teacher": -2.0}, "weight_teacher is -2.0; it must be at least 0"),
        ({"weight_ce": 1.5}, r"weight_ce is 1.5; it must lie in \[0, 1\]"),
        ({"standardize": True, "num_classes": 2}, "standardize is True, which needs three or more classes"),
        ({"warmup_epochs": -1}, "warmup_epochs is -1"),
        ({"warmup_epochs": 20, "epochs": 10}, r"warmup_epochs is 20; it must lie in \[0, 10\]"),
    ],
)
def test_bad_options_of_distillation_are_named(options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        methods.distillation(**options)

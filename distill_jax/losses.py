"""Loss terms as pure functions of logits. Temperatures and reductions are explicit, because that is where implementations differ."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import optax

from distill_jax.fields import check_choice, check_range


def mean(values: jax.Array, labels: jax.Array) -> jax.Array:
    """The mean of one value for each label.

    Args:
      values: float32 [..., *labels.shape].
      labels: int32 [B], one per sample, all of which count; or [B, H, W], one per pixel, of which only those >= 0 count.

    Returns:
      float32 [...]; 0 if no pixel has a label.
    """
    if labels.ndim == 1:
        return values.mean(axis=-1)
    axes, has_label = tuple(range(-labels.ndim, 0)), labels >= 0
    return jnp.where(has_label, values, 0).sum(axis=axes) / jnp.maximum(has_label.sum(), 1)


def cross_entropy(logits_BxC: jax.Array, labels_B: jax.Array) -> jax.Array:
    """Cross-entropy with integer labels, averaged over the batch.

    Args:
      logits_BxC: float32 [B, C]; or [B, H, W, C] for one label per pixel.
      labels_B: int32 [B], values in [0, C); or [B, H, W], where pixels with a negative label do not count.

    Returns:
      Scalar, in nats.
    """
    return mean(optax.losses.softmax_cross_entropy_with_integer_labels(logits_BxC, jnp.maximum(labels_B, 0)), labels_B)


def soft_cross_entropy(probs_BxC: jax.Array, logits_BxC: jax.Array) -> jax.Array:
    """Cross-entropy with a distribution over the classes, one value per sample.

    Args:
      probs_BxC: float32 [..., C], each row sums to 1; the caller must ensure that it carries no gradient.
      logits_BxC: float32 [..., C].

    Returns:
      float32 [...], in nats.
    """
    return optax.losses.softmax_cross_entropy(logits_BxC, probs_BxC)


def kl_divergence(
    teacher_logits_BxC: jax.Array,
    student_logits_BxC: jax.Array,
    teacher_temperature: float = 1.0,
    student_temperature: float = 1.0,
) -> jax.Array:
    """KL(softmax(teacher / T_teacher) || softmax(student / T_student)): summed over the classes, one value per sample.

    Averaging over the classes too, as an elementwise "mean" reduction does, would make the term C times weaker than in the papers'
    formulas. The caller averages over the batch. No factor T^2 is applied here.

    Args:
      teacher_logits_BxC: float32 [..., C]; the caller must ensure that it carries no gradient.
      student_logits_BxC: float32 [..., C].
      teacher_temperature: divides the teacher's logits; > 0.
      student_temperature: divides the student's logits; > 0.

    Returns:
      float32 [...], in nats.

    References:
      Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015 (arXiv 1503.02531), section 2.
    """
    log_teacher_BxC = jax.nn.log_softmax(teacher_logits_BxC / teacher_temperature)
    log_student_BxC = jax.nn.log_softmax(student_logits_BxC / student_temperature)
    return optax.losses.kl_divergence_with_log_targets(log_student_BxC, log_teacher_BxC)


def distillation(
    teacher_logits_BxC: jax.Array,
    student_logits_BxC: jax.Array,
    temperature: float,
    where: jax.Array | None = None,
    labels: jax.Array | None = None,
) -> jax.Array:
    """T^2 * KL(softmax(teacher / T) || softmax(student / T)), averaged over the batch: what Hinton et al. add to the cross-entropy.

    The factor keeps the magnitude of the gradient as T grows.

    Args:
      teacher_logits_BxC: float32 [..., B, C]; the caller must ensure that it carries no gradient.
      student_logits_BxC: float32 [B, C].
      temperature: T > 0, divides both.
      where: bool [B]; samples where it is False contribute 0 to the mean. None for all samples.
      labels: as in `mean`; needed for logits of pixels, [..., B, H, W, C].

    Returns:
      float32 [...], in nats: a scalar for one teacher.

    References:
      Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015 (arXiv 1503.02531), section 2.
    """
    kl_B = kl_divergence(teacher_logits_BxC, student_logits_BxC, temperature, temperature)
    kl_B = kl_B if where is None else jnp.where(where, kl_B, 0)
    return temperature**2 * (kl_B.mean(axis=-1) if labels is None else mean(kl_B, labels))


def decoupled_distillation(
    teacher_logits_BxC: jax.Array,
    student_logits_BxC: jax.Array,
    labels_B: jax.Array,
    temperature: float,
    weight_target: float = 1.0,
    weight_others: float = 8.0,
) -> jax.Array:
    """Decoupled knowledge distillation (DKD), averaged over the batch: T^2 * (alpha * TCKD + beta * NCKD).

    TCKD is the KL divergence between the two-valued distributions (label, any other class); NCKD that between the distributions over the
    other classes. KL = TCKD + (1 - p_teacher(label)) * NCKD: in `distillation`, NCKD counts little where the teacher is sure of the label.

    Args:
      teacher_logits_BxC: float32 [..., B, C]; the caller must ensure that it carries no gradient.
      student_logits_BxC: float32 [B, C]; C >= 2.
      labels_B: as in `mean`; for pixels, the logits are [..., B, H, W, C] and [B, H, W, C].
      temperature: T > 0, divides both.
      weight_target: alpha.
      weight_others: beta.

    Returns:
      float32 [...]: a scalar for one teacher.

    References:
      Zhao et al., "Decoupled Knowledge Distillation", CVPR 2022 (arXiv 2203.08679), equation 7.
    """
    is_label_BxC = jax.nn.one_hot(labels_B, student_logits_BxC.shape[-1], dtype=bool)

    def split(logits_BxC):
        z_BxC = logits_BxC / temperature
        others_BxC = jnp.where(is_label_BxC, OUTSIDE, z_BxC)
        label_B = jnp.where(is_label_BxC, z_BxC, 0).sum(axis=-1)
        return jnp.stack([label_B, jax.nn.logsumexp(others_BxC, axis=-1)], axis=-1), others_BxC

    (teacher_Bx2, teacher_others_BxC), (student_Bx2, student_others_BxC) = split(teacher_logits_BxC), split(student_logits_BxC)
    target_B, others_B = kl_divergence(teacher_Bx2, student_Bx2), kl_divergence(teacher_others_BxC, student_others_BxC)
    return temperature**2 * mean(weight_target * target_B + weight_others * others_B, labels_B)


OUTSIDE = -1e4  # a logit whose probability is zero; finite, since 0 * (inf - inf) is not a number


def relational_distillation(
    teacher_logits_BxC: jax.Array,
    student_logits_BxC: jax.Array,
    temperature: float = 1.0,
    weight_samples: float = 1.0,
    weight_classes: float = 1.0,
) -> jax.Array:
    """DIST: T^2 * (beta * mean over samples of d(row) + gamma * mean over classes of d(column)), d = 1 - Pearson's correlation.

    Rows and columns are those of the softmaxes [B, C]: the student need not match the teacher's probabilities, only their order and
    relations. Scaling a row or column by a positive number, or shifting it, leaves its term unchanged. With two classes, the rows' terms
    are constant.

    Args:
      teacher_logits_BxC: float32 [..., B, C]; the caller must ensure that it carries no gradient.
      student_logits_BxC: float32 [B, C].
      temperature: T > 0, divides both.
      weight_samples: beta.
      weight_classes: gamma.

    Returns:
      float32 [...]: a scalar for one teacher.

    References:
      Huang et al., "Knowledge Distillation from A Stronger Teacher", NeurIPS 2022 (arXiv 2205.10536), equations 9 and 10.
    """
    teacher_BxC, student_BxC = (jax.nn.softmax(logits / temperature) for logits in (teacher_logits_BxC, student_logits_BxC))
    samples = pearson_distance(teacher_BxC, student_BxC, axis=-1).mean(axis=-1)
    classes = pearson_distance(teacher_BxC, student_BxC, axis=-2).mean(axis=-1)
    return temperature**2 * (weight_samples * samples + weight_classes * classes)


def pearson_distance(x: jax.Array, y: jax.Array, axis: int) -> jax.Array:
    """1 - Pearson's correlation of x and y along an axis; 1 where either is constant."""
    x, y = (each - each.mean(axis=axis, keepdims=True) for each in (x, y))
    x, y = (each * jax.lax.rsqrt(jnp.maximum((each**2).sum(axis=axis, keepdims=True), 1e-16)) for each in (x, y))
    return 1 - (x * y).sum(axis=axis)


def standardized(logits_BxC: jax.Array) -> jax.Array:
    """(z - mean) / std over the classes of each sample, for any loss between a teacher and a student.

    Neither then depends on the scale and shift of the other's logits. The standard deviation has C - 1 in its denominator, as in the
    official code.

    Args:
      logits_BxC: float32 [..., B, C].

    Returns:
      float32 [..., B, C].

    References:
      Sun et al., "Logit Standardization in Knowledge Distillation", CVPR 2024 (arXiv 2403.01427).
    """
    centred = logits_BxC - logits_BxC.mean(axis=-1, keepdims=True)
    variance = (centred**2).sum(axis=-1, keepdims=True) / (logits_BxC.shape[-1] - 1)
    return centred * jax.lax.rsqrt(jnp.maximum(variance, 1e-14))


FROM_TEACHER = {"kl": (), "dkd": (1.0, 8.0), "dist": (1.0, 1.0)}  # losses between a teacher and a student: the weights of their parts


def from_teacher(
    loss: str = "kl", temperature: float = 1.0, loss_weights: Sequence[float] = (), standardize: bool = False, num_classes: int = 0
) -> Callable[[jax.Array, jax.Array, jax.Array], jax.Array]:
    """A loss between teachers and a student by name.

    Args:
      loss: "kl", `distillation`; "dkd", `decoupled_distillation`; or "dist", `relational_distillation`.
      temperature: T > 0, softens both.
      loss_weights: of the loss's two parts, in the order of its arguments: (alpha, beta) of dkd, (beta, gamma) of dist; () for the
        defaults.
      standardize: apply `standardized` to the logits of both first. Needs three or more classes: standardising two logits leaves only
        their order, which has no gradient.
      num_classes: C, if known, to check standardize.

    Returns:
      A function (teacher_logits [..., B, C], student_logits [B, C], labels [B]) -> [...]. All but "dist" also take logits of pixels,
      [..., B, H, W, C], with labels [B, H, W].

    Raises:
      ValueError: an argument is out of range.
    """
    check_choice("loss", loss, FROM_TEACHER)
    check_range("temperature", temperature, 0.01, 100)
    if standardize and num_classes == 2:
        raise ValueError("standardize is True, which needs three or more classes: of two logits it keeps only the order")
    weights = tuple(loss_weights) or FROM_TEACHER[loss]
    if len(weights) != len(FROM_TEACHER[loss]) or not all(isinstance(weight, int | float) and weight >= 0 for weight in weights):
        raise ValueError(f"loss_weights is {tuple(loss_weights)}; {loss} takes {len(FROM_TEACHER[loss])} numbers, at least 0, or ()")

    def apply(teacher_logits_BxC, student_logits_BxC, labels_B):
        pair = teacher_logits_BxC, student_logits_BxC
        teacher_BxC, student_BxC = map(standardized, pair) if standardize else pair
        if loss == "dkd":
            return decoupled_distillation(teacher_BxC, student_BxC, labels_B, temperature, *weights)
        if loss == "dist":
            return relational_distillation(teacher_BxC, student_BxC, temperature, *weights)
        return distillation(teacher_BxC, student_BxC, temperature, labels=labels_B)

    return apply


def top_score_difference(logits_BxC: jax.Array, k: int) -> jax.Array:
    """f_(1) - mean(f_(2), ..., f_(k)), where f_(i) is the i-th largest softmax probability: small if a few other classes are plausible.

    The first class is the arg-max, not the label. The choice of classes is treated as constant; the gradient flows through their
    probabilities. Ties go to the lower class.

    Args:
      logits_BxC: float32 [..., C].
      k: number of classes, including the first; 2 <= k <= C.

    Returns:
      float32 [...], in 0..1.

    References:
      Yang, Xie, Qiao, Yuille, "Training Deep Neural Networks in Generations: A More Tolerant Teacher Educates Better Students", AAAI
      2019 (arXiv 1805.05551).
    """
    top_Bxk, _ = jax.lax.top_k(jax.nn.softmax(logits_BxC), k)
    return top_Bxk[..., 0] - top_Bxk[..., 1:].mean(axis=-1)


def uniform_cross_entropy(logits_BxC: jax.Array) -> jax.Array:
    """Cross-entropy with the uniform distribution over the classes: the term that label smoothing adds.

    (1 - e) * CE(label) + e * this is the cross-entropy with labels smoothed by e.

    Args:
      logits_BxC: float32 [..., C].

    Returns:
      float32 [...], in nats.

    References:
      Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016 (arXiv 1512.00567), section 7.
    """
    return -jax.nn.log_softmax(logits_BxC).mean(axis=-1)


def negative_entropy(logits_BxC: jax.Array) -> jax.Array:
    """-H(softmax(logits)): the confidence penalty.

    Args:
      logits_BxC: float32 [..., C].

    Returns:
      float32 [...], in nats; -log(C) for the uniform distribution, 0 for a one-hot one.

    References:
      Pereyra et al., "Regularizing Neural Networks by Penalizing Confident Output Distributions", 2017 (arXiv 1701.06548).
    """
    log_probs_BxC = jax.nn.log_softmax(logits_BxC)
    return (jnp.exp(log_probs_BxC) * log_probs_BxC).sum(axis=-1)

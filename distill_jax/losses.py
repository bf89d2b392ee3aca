"""Loss terms as pure functions of logits. Temperatures and reductions are explicit, because that is where implementations differ."""

import jax
import jax.numpy as jnp
import optax


def cross_entropy(logits_BxC: jax.Array, labels_B: jax.Array) -> jax.Array:
    """Cross-entropy with integer labels, averaged over the batch.

    Args:
      logits_BxC: float32 [B, C].
      labels_B: int32 [B], values in [0, C).

    Returns:
      Scalar, in nats.
    """
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits_BxC, labels_B).mean()


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
      teacher_logits_BxC: float32 [B, C]; the caller must ensure that it carries no gradient.
      student_logits_BxC: float32 [B, C].
      teacher_temperature: divides the teacher's logits; > 0.
      student_temperature: divides the student's logits; > 0.

    Returns:
      float32 [B], in nats.

    References:
      Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015 (arXiv 1503.02531), section 2.
    """
    log_teacher_BxC = jax.nn.log_softmax(teacher_logits_BxC / teacher_temperature)
    log_student_BxC = jax.nn.log_softmax(student_logits_BxC / student_temperature)
    return optax.losses.kl_divergence_with_log_targets(log_student_BxC, log_teacher_BxC)


def distillation(
    teacher_logits_BxC: jax.Array, student_logits_BxC: jax.Array, temperature: float, where: jax.Array | None = None
) -> jax.Array:
    """T^2 * KL(softmax(teacher / T) || softmax(student / T)), averaged over the batch: what Hinton et al. add to the cross-entropy.

    The factor keeps the magnitude of the gradient as T grows.

    Args:
      teacher_logits_BxC: float32 [..., B, C]; the caller must ensure that it carries no gradient.
      student_logits_BxC: float32 [B, C].
      temperature: T > 0, divides both.
      where: bool [B]; samples where it is False contribute 0 to the mean. None for all samples.

    Returns:
      float32 [...], in nats: a scalar for one teacher.

    References:
      Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015 (arXiv 1503.02531), section 2.
    """
    kl_B = kl_divergence(teacher_logits_BxC, student_logits_BxC, temperature, temperature)
    return temperature**2 * (kl_B if where is None else jnp.where(where, kl_B, 0)).mean(axis=-1)


def top_score_difference(logits_BxC: jax.Array, k: int) -> jax.Array:
    """f_(1) - mean(f_(2), ..., f_(k)), where f_(i) is the i-th largest softmax probability: small if a few other classes are plausible.

    The first class is the arg-max, not the label. The choice of classes is treated as constant; the gradient flows through their
    probabilities. Ties go to the lower class.

    Args:
      logits_BxC: float32 [B, C].
      k: number of classes, including the first; 2 <= k <= C.

    Returns:
      float32 [B], in 0..1.

    References:
      Yang, Xie, Qiao, Yuille, "Training Deep Neural Networks in Generations: A More Tolerant Teacher Educates Better Students", AAAI
      2019 (arXiv 1805.05551).
    """
    top_Bxk, _ = jax.lax.top_k(jax.nn.softmax(logits_BxC), k)
    return top_Bxk[:, 0] - top_Bxk[:, 1:].mean(axis=1)


def uniform_cross_entropy(logits_BxC: jax.Array) -> jax.Array:
    """Cross-entropy with the uniform distribution over the classes: the term that label smoothing adds.

    (1 - e) * CE(label) + e * this is the cross-entropy with labels smoothed by e.

    Args:
      logits_BxC: float32 [B, C].

    Returns:
      float32 [B], in nats.

    References:
      Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016 (arXiv 1512.00567), section 7.
    """
    return -jax.nn.log_softmax(logits_BxC).mean(axis=1)


def negative_entropy(logits_BxC: jax.Array) -> jax.Array:
    """-H(softmax(logits)): the confidence penalty.

    Args:
      logits_BxC: float32 [B, C].

    Returns:
      float32 [B], in nats; -log(C) for the uniform distribution, 0 for a one-hot one.

    References:
      Pereyra et al., "Regularizing Neural Networks by Penalizing Confident Output Distributions", 2017 (arXiv 1701.06548).
    """
    log_probs_BxC = jax.nn.log_softmax(logits_BxC)
    return (jnp.exp(log_probs_BxC) * log_probs_BxC).sum(axis=1)

"""Loss terms, each a pure function of logits. Temperatures and reductions are named, because they are where codes differ."""

import jax
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
    """KL(softmax(teacher / T_teacher) || softmax(student / T_student)): summed over the classes, one value a sample.

    A mean over the classes as well, as a "mean" reduction over elements gives, would make the term C times weaker than the
    papers' formulas; the mean over the batch is the caller's. No factor T^2 is applied here.

    Args:
      teacher_logits_BxC: float32 [B, C]; the caller sees to it that it carries no gradient.
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

"""Tolerant teachers: training in generations, each taught by the previous one; the first is regularised to be less strict.

Yang, Xie, Qiao, Yuille, "Training Deep Neural Networks in Generations: A More Tolerant Teacher Educates Better Students", AAAI 2019
(arXiv 1805.05551).

    generation 0, the patriarch:  eta * CE + (1 - eta) * [ f_(1) - mean(f_(2), ..., f_(K)) ]
    generation m >= 1:            lambda * CE + (1 - lambda) * KL( f_{m-1} || f_m )

f_(k) is the k-th largest softmax probability. Keeping the top score close to the next ones preserves a few secondary classes in the
teacher's signal. eta = 1 gives born-again networks (Furlanello et al., arXiv 1805.04770). With a temperature, the student's loss is that
of Hinton et al. (arXiv 1503.02531).
"""

import math
from collections.abc import Sequence

import jax.numpy as jnp

from distill_jax import losses
from distill_jax.fields import check_choice, check_range
from distill_jax.methods.base import Losses, Method
from distill_jax.methods.combined import warmed_up

REGULARIZERS = ("top_score_difference", "label_smoothing", "confidence_penalty")


def patriarch(num_classes: int, regularizer: str = "top_score_difference", eta: float = 0.6, k: int = 5) -> Method:
    """Generation 0: eta * CE + (1 - eta) * R, without a teacher.

    Args:
      num_classes: C.
      regularizer: R. "top_score_difference"; "label_smoothing", the cross-entropy with the uniform distribution, so that the sum is
        the cross-entropy with labels smoothed by 1 - eta; or "confidence_penalty", the negative entropy, so that the sum is eta times
        CE - beta * H with beta = (1 - eta) / eta.
      eta: in (0, 1]; 1 is the strict patriarch.
      k: number of classes in the top-score difference, including the top one, in 2..C.

    Returns:
      A Method whose teacher is None.

    Raises:
      ValueError: an argument is out of range.
    """
    check_range("eta", eta, 0, 1, open_low=True)
    check_choice("regularizer", regularizer, REGULARIZERS)
    if regularizer == "top_score_difference" and not 2 <= k <= num_classes:
        raise ValueError(f"k is {k}; it must lie in 2..{num_classes}, the number of classes")

    def penalty_B(logits_BxC):
        if regularizer == "top_score_difference":
            return losses.top_score_difference(logits_BxC, k)
        if regularizer == "label_smoothing":
            return losses.uniform_cross_entropy(logits_BxC)
        return losses.negative_entropy(logits_BxC)

    def loss(logits_BxC, labels_B, signal):
        del signal
        ce, no_teacher = losses.cross_entropy(logits_BxC, labels_B), jnp.zeros(())
        if eta == 1:
            return Losses(loss=ce, ce=ce, teacher=no_teacher)
        return Losses(loss=eta * ce + (1 - eta) * losses.mean(penalty_B(logits_BxC), labels_B), ce=ce, teacher=no_teacher)

    return Method(signal=lambda teacher, batch, key: None, loss=loss, pixels=True, weight_ce=eta)


def distillation(
    num_teachers: int = 1,
    num_classes: int = 0,
    epochs: int = 0,
    weight_ce: float = 0.6,
    temperature: float = 1.0,
    loss: str = "kl",
    loss_weights: Sequence[float] = (),
    standardize: bool = False,
    weight_teacher: float = -1.0,
    warmup_epochs: int = 0,
) -> Method:
    """A student of one frozen network: weight_ce * CE + (1 - weight_ce) * T^2 * KL( softmax(teacher / T) || softmax(student / T) ).

    Args:
      num_teachers: 1.
      num_classes: C, if known, to check standardize.
      epochs: length of the run, if known, to check warmup_epochs.
      weight_ce: lambda; in [0, 1] unless weight_teacher is given.
      temperature: T > 0, softens both; 1 in the generations paper; 4 is usual for a large teacher and a small student.
      loss: this, loss_weights and standardize replace T^2 * KL by another loss: see `losses.from_teacher`.
      weight_teacher: the weight of the teacher's term; -1 for 1 - weight_ce.
      warmup_epochs: the teacher's term grows linearly over this many epochs, reaching its weight in the last of them; 20 in DKD.

    Returns:
      A Method that uses `Batch.teachers`; it has no teacher of its own but, with a warm-up, the current factor.

    Raises:
      ValueError: an argument is out of range.
    """
    if num_teachers != 1:
        raise ValueError(f"num_teachers is {num_teachers}; distillation takes one")
    is_free = weight_teacher != -1
    check_range("weight_ce", weight_ce, 0, *([] if is_free else [1]))
    check_range("weight_teacher", weight_teacher if is_free else 0, 0)
    check_range("warmup_epochs", warmup_epochs, 0, epochs or math.inf)
    weight = weight_teacher if is_free else 1 - weight_ce
    from_teacher = losses.from_teacher(loss, temperature, loss_weights, standardize, num_classes)

    def signal(teacher, batch, key):
        del teacher, key
        (teacher_logits,) = batch.teachers
        return teacher_logits()

    def total(logits_BxC, labels_B, teacher_logits_BxC):
        ce = losses.cross_entropy(logits_BxC, labels_B)
        taught = weight * from_teacher(teacher_logits_BxC, logits_BxC, labels_B)
        return Losses(loss=weight_ce * ce + taught, ce=ce, teacher=taught)

    method = Method(signal, total, pixels=loss != "dist", weight_ce=weight_ce, forwards=lambda epoch: 1.0)
    return warmed_up(method, warmup_epochs) if warmup_epochs else method

"""Tolerant teachers: training in generations, each taught by the one before, from a first one that was kept from being too strict.

Yang, Xie, Qiao, Yuille, "Training Deep Neural Networks in Generations: A More Tolerant Teacher Educates Better Students", AAAI 2019
(arXiv 1805.05551).

    generation 0, the patriarch:  eta * CE + (1 - eta) * [ f_(1) - mean(f_(2), ..., f_(K)) ]
    generation m >= 1:            lambda * CE + (1 - lambda) * KL( f_{m-1} || f_m )

f_(k) is the k-th largest softmax probability. With the difference between the first score and the next ones kept small, a few secondary
classes stay visible in the teacher's signal. eta = 1 gives born-again networks (Furlanello et al., arXiv 1805.04770). The student's loss,
with a temperature, is that of Hinton et al. (arXiv 1503.02531).
"""

import jax.numpy as jnp

from distill_jax import losses
from distill_jax.errors import UserError
from distill_jax.methods.base import Losses, Method, Setting, frozen_logits, unchanged, variables

REGULARIZERS = ("top_score_difference", "label_smoothing", "confidence_penalty")


def patriarch(setting: Setting, regularizer: str = "top_score_difference", eta: float = 0.6, k: int = 5) -> Method:
    """Generation 0: eta * CE + (1 - eta) * R, without a teacher.

    Args:
      setting: the run.
      regularizer: R. "top_score_difference"; "label_smoothing", the cross-entropy with the uniform distribution, so that the sum is
        the cross-entropy with labels smoothed by 1 - eta; or "confidence_penalty", the negative entropy, so that the sum is eta times
        CE - beta * H with beta = (1 - eta) / eta.
      eta: in (0, 1]; 1 is the strict patriarch.
      k: of the top-score difference: number of classes, the first included; 2 to the number of classes.

    Returns:
      A Method whose teacher is None. R's share of the loss is reported as the teacher's.

    Raises:
      UserError: a field is out of range.
    """
    if not 0 < eta <= 1:
        raise UserError(f"method.eta is {eta}; it must lie in (0, 1]")
    if regularizer not in REGULARIZERS:
        raise UserError(f"method.regularizer is {regularizer!r}; known: {', '.join(REGULARIZERS)}")
    if regularizer == "top_score_difference" and not 2 <= k <= setting.num_classes:
        raise UserError(f"method.k is {k}; it must lie in 2..{setting.num_classes}, the number of classes")

    def penalty_B(logits_BxC):
        if regularizer == "top_score_difference":
            return losses.top_score_difference(logits_BxC, k)
        if regularizer == "label_smoothing":
            return losses.uniform_cross_entropy(logits_BxC)
        return losses.negative_entropy(logits_BxC)

    def loss(logits_BxC, labels_B, signal):
        del signal
        ce = losses.cross_entropy(logits_BxC, labels_B)
        if eta == 1:
            return Losses(loss=ce, ce=ce, teacher=jnp.zeros(()))
        penalty = (1 - eta) * penalty_B(logits_BxC).mean()
        return Losses(loss=eta * ce + penalty, ce=ce, teacher=penalty)

    return Method(init=lambda state, given: None, signal=lambda *_: None, loss=loss, end_epoch=unchanged)


def distillation(setting: Setting, weight_ce: float = 0.6, temperature: float = 1.0, guide_logits: str = "forward") -> Method:
    """A student of one frozen teacher: weight_ce * CE + (1 - weight_ce) * T^2 * KL( softmax(teacher / T) || softmax(student / T) ).

    Args:
      setting: the run, with one teacher, of any architecture.
      weight_ce: lambda, in 0..1.
      temperature: T > 0, softens both; 1 in the paper of the generations, 4 is usual for a large teacher and a small student.
      guide_logits: "forward" runs the teacher on each batch; "table" runs it once on the training set, where augmentation is off.

    Returns:
      A Method whose teacher is what `init` is given.

    Raises:
      UserError: a field is out of range, or there is not just one teacher.
    """
    if not 0 <= weight_ce <= 1:
        raise UserError(f"method.weight_ce is {weight_ce}; it must lie in 0..1")
    if not temperature > 0:
        raise UserError(f"method.temperature is {temperature}; it must be positive")
    if guide_logits not in ("forward", "table"):
        raise UserError(f"method.guide_logits is {guide_logits!r}; known: forward, table")
    if len(setting.teachers) != 1:
        raise UserError(f"method distillation has one teacher; `teachers` names {len(setting.teachers)}")
    model = setting.teachers[0]

    def signal(teacher, inputs, ids_B, key):
        del key
        return frozen_logits(model, teacher, inputs, ids_B)

    def loss(logits_BxC, labels_B, teacher_logits_BxC):
        ce = losses.cross_entropy(logits_BxC, labels_B)
        kl = losses.kl_divergence(teacher_logits_BxC, logits_BxC, temperature, temperature).mean()
        taught = (1 - weight_ce) * temperature**2 * kl
        return Losses(loss=weight_ce * ce + taught, ce=ce, teacher=taught)

    def predict(teacher, inputs):
        return model.apply(variables(teacher), inputs, train=False)

    return Method(
        init=lambda state, given: given[0],
        signal=signal,
        loss=loss,
        end_epoch=unchanged,
        wants_logits=guide_logits == "table",
        predict=predict if guide_logits == "forward" else None,
    )

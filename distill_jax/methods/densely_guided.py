"""Densely guided knowledge distillation: the teacher and all larger assistants guide each smaller network, down to the student.

Son, Na, Choi, Hwang, "Densely Guided Knowledge Distillation Using Multiple Teacher Assistants", ICCV 2021 (arXiv 2009.08825).

    KD_i = T^2 * KL( softmax(z_i / T) || softmax(z_S / T) )
    paper:   L_S = (n + 1) (1 - lambda) CE + lambda * sum_{i=0..n} b_i KD_i        guide 0 is the teacher, 1..n the assistants
    code:    L_S =         (1 - lambda) CE + lambda * sum_{i=0..n} b_i KD_i / C    github.com/wonchulSon/DGKD, train.py

b_i = 1 in plain DGKD. Stochastic DGKD redraws b_i for each minibatch: from Bernoulli(p) (the paper), or so that exactly `drop` guides are
0 (the code). The code also averages its KL over the C classes. With one guide, form "paper" is the distillation of Hinton et al. (arXiv
1503.02531) with weight_ce = 1 - lambda. The baselines are special cases: in KD the only guide is the teacher, in TAKD (Mirzadeh et al.,
AAAI 2020, arXiv 1902.03393) the next larger network.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from distill_jax import losses
from distill_jax.fields import check_choice, check_range
from distill_jax.methods.base import Losses, Method


class Guidance(NamedTuple):
    """The guides' output for one batch."""

    logits_GxBxC: jax.Array  # float32, the largest guide first; 0 for a dropped one
    weights_G: jax.Array  # b: float32, 1 for a guide that teaches this batch, 0 for a dropped one


def densely_guided(
    num_teachers: int,
    num_classes: int = 0,
    form: str = "paper",
    weight_teacher: float = 1.0,
    temperature: float = 5.0,
    survival: float = 1.0,
    drop: int = 0,
    teacher_may_drop: bool = True,
    loss: str = "kl",
    loss_weights: Sequence[float] = (),
    standardize: bool = False,
) -> Method:
    """A student of several frozen guides of any architecture, the largest first.

    The forward pass of a dropped guide is skipped. Measured on a CPU with four plain8 guides of a plain2 on 32x32 images, a step takes
    0.80 of the time of all guides at p = 0.75, and 0.53 at p = 0.25; deciding which to skip costs nothing.

    Args:
      num_teachers: number of guides, n + 1.
      num_classes: C, if known, to check standardize.
      form: "paper" or "code": which of the losses above to use. (n + 1) counts all guides of the run, including dropped ones, as in the
        formula.
      weight_teacher: lambda, in [0, 1]; the code's default is 1, which ignores the labels.
      temperature: T > 0, softens guides and student; 5 is the code's default.
      survival: p, in (0, 1]: the probability that a guide teaches a minibatch; the paper's best is 0.75. 1 drops no guide this way. It
        may be 0 if the teacher always teaches.
      drop: number of guides to drop from each minibatch, instead of `survival`, at most n; the code's default is 1. 0 for none.
      teacher_may_drop: whether guide 0 may be dropped. True as in the abstract and the code; in the paper's formula it always teaches.
      loss: this, loss_weights and standardize replace T^2 * KL by another loss, for every guide: see `losses.from_teacher`.
        Form "code" divides it by C as well.

    Returns:
      A Method that uses `Batch.teachers`; it has no teacher of its own. If all guides are dropped, only the weighted cross-entropy remains:
      zero if lambda = 1, so that only momentum and weight decay move the student.

    Raises:
      ValueError: an argument is out of range.
    """
    if num_teachers < 1:
        raise ValueError(f"num_teachers is {num_teachers}; densely_guided takes one guide or more")
    check_choice("form", form, ("paper", "code"))
    check_range("weight_teacher", weight_teacher, 0, 1)
    check_range("survival", survival, 0, 1, open_low=teacher_may_drop)
    check_range("drop", drop, 0, num_teachers - 1)
    if drop and survival < 1:
        raise ValueError(f"drop is {drop} and survival {survival}; choose one: drop=0 or survival=1")
    from_guide = losses.from_teacher(loss, temperature, loss_weights, standardize, num_classes)
    is_stochastic = bool(drop) or survival < 1
    weight_ce = (1 - weight_teacher) * (num_teachers if form == "paper" else 1)

    def signal(teacher, batch, key):
        del teacher
        weights_G = draw_survivors(key, num_teachers, survival, drop, teacher_may_drop)
        return Guidance(jnp.stack([logits_BxC(*each) for each in zip(batch.teachers, weights_G, strict=True)]), weights_G)

    def logits_BxC(guide, weight):
        shape = jax.eval_shape(guide)
        return jax.lax.cond(weight > 0, guide, lambda: jnp.zeros(shape.shape, shape.dtype)) if is_stochastic else guide()

    def total(logits_BxC, labels_B, guidance):
        ce = losses.cross_entropy(logits_BxC, labels_B)
        kd_G = from_guide(guidance.logits_GxBxC, logits_BxC, labels_B)
        if form == "code":
            kd_G /= logits_BxC.shape[-1]
        taught = weight_teacher * (guidance.weights_G * kd_G).sum()
        return Losses(loss=weight_ce * ce + taught, ce=ce, teacher=taught)

    drawn = num_teachers if teacher_may_drop else num_teachers - 1
    expected = num_teachers - drop - (1 - survival) * drawn
    return Method(signal, total, pixels=loss != "dist", weight_ce=weight_ce, forwards=lambda epoch: expected)


def draw_survivors(key: jax.Array, guides: int, survival: float, drop: int, teacher_may_drop: bool) -> jax.Array:
    """Which guides teach a minibatch: b, float32 [G] of 0 and 1, a function of the key alone. See `densely_guided` for the arguments."""
    drawn = guides if teacher_may_drop else guides - 1
    if drop:
        survives = jax.random.permutation(key, drawn) >= drop
    else:
        survives = jax.random.bernoulli(key, survival, (drawn,))
    return jnp.concatenate([jnp.ones(guides - drawn), survives])

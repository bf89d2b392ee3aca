"""Densely guided knowledge distillation: the teacher and all larger assistants guide each smaller network, down to the student.

Son, Na, Choi, Hwang, "Densely Guided Knowledge Distillation Using Multiple Teacher Assistants", ICCV 2021 (arXiv 2009.08825).

    KD_i = T^2 * KL( softmax(z_i / T) || softmax(z_S / T) )
    paper:   L_S = (n + 1) (1 - lambda) CE + lambda * sum_{i=0..n} b_i KD_i        guide 0 is the teacher, 1..n the assistants
    code:    L_S =         (1 - lambda) CE + lambda * sum_{i=0..n} b_i KD_i / C    github.com/wonchulSon/DGKD, train.py

b_i = 1 in plain DGKD. Stochastic teaching draws b_i anew for each minibatch: from Bernoulli(p) (the paper), or so that exactly `drop`
guides are 0 (the code). The code's KL is a mean over the classes as well, C of them. With one guide, form "paper" is the distillation
of Hinton et al. (arXiv 1503.02531) with weight_ce = 1 - lambda. Its baselines are settings of it: the teacher as only guide (KD), or
the next larger network as only guide (TAKD, Mirzadeh et al., AAAI 2020, arXiv 1902.03393).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from distill_jax import losses
from distill_jax.errors import UserError
from distill_jax.methods.base import Losses, Method, Setting, frozen_logits, unchanged, variables

FORMS = ("paper", "code")


class Guidance(NamedTuple):
    """What the guides say of one batch."""

    logits_GxBxC: jax.Array  # float32, the largest guide first
    weights_G: jax.Array  # b: float32, 1 for a guide that teaches this batch, 0 for a dropped one


def densely_guided(
    setting: Setting,
    form: str = "paper",
    weight_teacher: float = 1.0,
    temperature: float = 5.0,
    survival: float = 1.0,
    drop: int = 0,
    teacher_may_drop: bool = True,
    guide_logits: str = "forward",
) -> Method:
    """A student of several frozen guides, of any architectures, the largest first.

    The forward of a dropped guide is left out. Measured on a CPU, four plain8 guides of a plain2 on 32x32 images: a step takes 0.80
    times as long as with the forwards computed and weighted by 0 at p = 0.75, 0.53 at p = 0.25, and no longer at p = 1.

    Args:
      setting: the run, with one teacher or more.
      form: "paper" or "code": which of the losses above. (n + 1) counts the guides of the run; dropped ones too, as the formula reads.
      weight_teacher: lambda, in 0..1; the code's default is 1, which leaves the labels out.
      temperature: T > 0, softens guides and student; 5 is the code's default.
      survival: p, in 0..1: the probability that a guide teaches a minibatch; the paper's best is 0.75. 1 for no such draw.
      drop: number of guides that are dropped from each minibatch, instead of `survival`; the code's default is 1. 0 for none.
      teacher_may_drop: whether guide 0 is in the draw. True as in the abstract and the code; the paper's formula has it always teach.
      guide_logits: "forward" runs the guides on each batch; "table" runs them once on the training set, where augmentation is off.

    Returns:
      A Method whose teacher is the tuple of guides that `init` is given. Where all guides are dropped, the cross-entropy is left, with
      its weight: nothing if lambda = 1, so that such a minibatch moves the student by momentum and weight decay alone. On unseen
      inputs its teacher is guide 0.

    Raises:
      UserError: a field is out of range, or there is no guide.
    """
    guides = setting.teachers
    if not guides:
        raise UserError("method densely_guided needs a guide or more; `teachers` names none")
    check_fields("method", len(guides), form, weight_teacher, temperature, survival, drop, teacher_may_drop, guide_logits)
    skips_forwards = guide_logits == "forward" and (drop or survival < 1)

    def signal(teacher, inputs, ids_B, key):
        weights_G = draw_survivors(key, len(guides), survival, drop, teacher_may_drop)

        def logits_BxC(model, guide, weight):
            def speak():
                return frozen_logits(model, guide, inputs, ids_B)

            def be_silent():
                return jnp.zeros((len(ids_B), setting.num_classes))

            return jax.lax.cond(weight > 0, speak, be_silent) if skips_forwards else speak()

        return Guidance(jnp.stack([logits_BxC(*each) for each in zip(guides, teacher, weights_G, strict=True)]), weights_G)

    def loss(logits_BxC, labels_B, guidance):
        ce = losses.cross_entropy(logits_BxC, labels_B)
        kl_GxB = losses.kl_divergence(guidance.logits_GxBxC, logits_BxC, temperature, temperature)
        kd_G = temperature**2 * kl_GxB.mean(axis=1)
        if form == "code":
            kd_G /= logits_BxC.shape[-1]
        weight_ce = (1 - weight_teacher) * (len(guides) if form == "paper" else 1)
        taught = weight_teacher * (guidance.weights_G * kd_G).sum()
        return Losses(loss=weight_ce * ce + taught, ce=ce, teacher=taught)

    def predict(teacher, inputs):
        return guides[0].apply(variables(teacher[0]), inputs, train=False)

    return Method(
        init=lambda state, given: given,
        signal=signal,
        loss=loss,
        end_epoch=unchanged,
        wants_logits=guide_logits == "table",
        predict=predict if guide_logits == "forward" else None,
    )


def draw_survivors(key: jax.Array, guides: int, survival: float, drop: int, teacher_may_drop: bool) -> jax.Array:
    """Which guides teach a minibatch: b, float32 [G] of 0 and 1, a function of the key alone. See `densely_guided` for the fields."""
    drawn = guides if teacher_may_drop else guides - 1
    if drop:
        survives = jax.random.permutation(key, drawn) >= drop
    else:
        survives = jax.random.bernoulli(key, survival, (drawn,))
    return jnp.concatenate([jnp.ones(guides - drawn), survives])


def check_fields(
    where: str,
    guides: int,
    form: str,
    weight_teacher: float,
    temperature: float,
    survival: float,
    drop: int,
    teacher_may_drop: bool,
    guide_logits: str,
) -> None:
    """Raises UserError for a field of `densely_guided` that is out of range; `where` is the config's part that it stands in."""
    if form not in FORMS:
        raise UserError(f"{where}.form is {form!r}; known: {', '.join(FORMS)}")
    for name, value in {"weight_teacher": weight_teacher, "survival": survival}.items():
        if not 0 <= value <= 1:
            raise UserError(f"{where}.{name} is {value}; it must lie in 0..1")
    if not temperature > 0:
        raise UserError(f"{where}.temperature is {temperature}; it must be positive")
    drawn = guides if teacher_may_drop else guides - 1
    if not 0 <= drop <= drawn:
        raise UserError(f"{where}.drop is {drop}; it must lie in 0..{drawn}, the number of guides that may be dropped")
    if drop and survival < 1:
        raise UserError(f"{where}.drop is {drop} and {where}.survival {survival}; choose one: drop=0 or survival=1")
    if guide_logits not in ("forward", "table"):
        raise UserError(f"{where}.guide_logits is {guide_logits!r}; known: forward, table")

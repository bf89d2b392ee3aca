"""Snapshot Distillation: the last snapshot of each learning-rate cycle teaches the next cycle.

Yang, Xie, Su, Yuille, "Snapshot Distillation: Teacher-Student Optimization in One Generation", CVPR 2019 (arXiv 1812.00123).

A run has K cycles of a cosine learning rate. In the first, the network learns from the labels alone. At the end of each cycle, a copy of
the network (weights and BatchNorm statistics) is frozen; it is the teacher for the whole of the next cycle:

    L = (1 + 1/T) * CE(y, softmax(z_student)) + KL( softmax(z_teacher / T) || softmax(z_student) )

Only the teacher is softened, by T > 1, and there is no factor T^2. The student keeps its momentum: only the learning rate restarts. The
cost is one forward pass in inference mode per step, from the second cycle on.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from distill_jax import losses
from distill_jax.fields import check_range
from distill_jax.methods.base import Losses, Method, Network


def snapshot_distillation(
    apply: Callable[[Network, Any], jax.Array], cycle_ends: tuple[int, ...], temperature: float = 2.0, symmetric: bool = False
) -> Method:
    """Snapshot Distillation.

    Args:
      apply: (network, inputs) -> logits [B, C] in inference mode, with the student's architecture.
      cycle_ends: the numbers of finished epochs at which the learning-rate cycles end, increasing; two or more.
      temperature: T > 0, softens the teacher. The paper uses 2 or 3.
      symmetric: also soften the student, and multiply the KL by T^2 (arXiv 1503.02531); our addition.

    Returns:
      A Method whose teacher is None in the first cycle and a copy of the network afterwards. jit specialises the step on this, so a
      teacher costs nothing in the first cycle.

    Raises:
      ValueError: an argument is out of range.
    """
    check_range("temperature", temperature, 0.01, 100)
    if len(cycle_ends) < 2:
        raise ValueError(f"cycle_ends is {cycle_ends}; it must have two or more entries: there is a teacher only from the second cycle on")

    def signal(teacher, batch, key):
        del key
        return None if teacher is None else apply(teacher, batch.inputs)

    def loss(logits_BxC, labels_B, teacher_logits_BxC):
        ce = losses.cross_entropy(logits_BxC, labels_B)
        if teacher_logits_BxC is None:
            return Losses(loss=ce, ce=ce, teacher=jnp.zeros(()))
        if symmetric:
            kl = losses.distillation(teacher_logits_BxC, logits_BxC, temperature, labels=labels_B)
        else:
            kl = losses.mean(losses.kl_divergence(teacher_logits_BxC, logits_BxC, teacher_temperature=temperature), labels_B)
        return Losses(loss=(1 + 1 / temperature) * ce + kl, ce=ce, teacher=kl)

    def end_epoch(teacher, network, epochs_done):
        return jax.tree.map(jnp.copy, network) if epochs_done in cycle_ends[:-1] else teacher

    return Method(signal, loss, end_epoch=end_epoch, predict=apply, pixels=True, forwards=lambda epoch: float(epoch > cycle_ends[0]))

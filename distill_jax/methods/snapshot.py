"""Snapshot Distillation: the last snapshot of each learning-rate cycle teaches the next cycle.

Yang, Xie, Su, Yuille, "Snapshot Distillation: Teacher-Student Optimization in One Generation", CVPR 2019 (arXiv 1812.00123).

A run has K cycles of a cosine learning rate. In the first one the network learns from the labels alone. At the end of each cycle
a copy of the network, weights and BatchNorm statistics, is frozen; during the whole of the next cycle it is the teacher:

    L = (1 + 1/T) * CE(y, softmax(z_student)) + KL( softmax(z_teacher / T) || softmax(z_student) )

Only the teacher is softened, by T > 1, and there is no factor T^2. The student itself goes on, with its momentum: only the learning
rate jumps. That costs one inference forward a step, from the second cycle on.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from distill_jax import losses
from distill_jax.errors import UserError
from distill_jax.methods.base import Losses, Method, Setting, variables


class Snapshot(struct.PyTreeNode):
    """A frozen network of the student's architecture."""

    params: Any
    batch_stats: Any


def take_snapshot(state) -> Snapshot:
    """Copies the student. A copy, since the train step donates the student's own buffers."""
    return jax.tree.map(jnp.copy, Snapshot(params=state.params, batch_stats=state.batch_stats))


def snapshot_distillation(setting: Setting, temperature: float = 2.0, symmetric: bool = False) -> Method:
    """Snapshot Distillation.

    Args:
      setting: the model, and the epochs at which its learning-rate cycles end.
      temperature: T > 0, softens the teacher. The paper uses 2 or 3.
      symmetric: our addition, the KD-style variant (arXiv 1503.02531): the student is softened as well and the KL is multiplied by
        T^2, which keeps the size of its gradient.

    Returns:
      A Method whose teacher is None in the first cycle and a `Snapshot` afterwards. jit specialises the step on that, so the first
      cycle pays for no teacher.

    Raises:
      UserError: temperature is not positive.
    """
    if not temperature > 0:
        raise UserError(f"method.temperature is {temperature}; it must be positive")

    def predict(teacher, inputs):
        return setting.model.apply(variables(teacher), inputs, train=False)

    def signal(teacher, inputs, ids_B, key):
        del ids_B, key
        return None if teacher is None else predict(teacher, inputs)

    def loss(logits_BxC, labels_B, teacher_logits_BxC):
        ce = losses.cross_entropy(logits_BxC, labels_B)
        if teacher_logits_BxC is None:
            return Losses(loss=ce, ce=ce, teacher=jnp.zeros(()))
        if symmetric:
            kl = temperature**2 * losses.kl_divergence(teacher_logits_BxC, logits_BxC, temperature, temperature).mean()
        else:
            kl = losses.kl_divergence(teacher_logits_BxC, logits_BxC, teacher_temperature=temperature).mean()
        return Losses(loss=(1 + 1 / temperature) * ce + kl, ce=ce, teacher=kl)

    def end_epoch(state, epochs_done):
        return take_snapshot(state) if epochs_done in setting.cycle_ends[:-1] else state.teacher

    return Method(init=lambda state, given: None, signal=signal, loss=loss, end_epoch=end_epoch, predict=predict)

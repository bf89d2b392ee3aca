"""Training on the labels alone: the baseline for every method."""

import jax.numpy as jnp

from distill_jax import losses
from distill_jax.fields import check_range
from distill_jax.methods.base import Losses, Method


def supervised(label_smoothing: float = 0.0) -> Method:
    """Cross-entropy with the labels; no teacher.

    Args:
      label_smoothing: e in [0, 1): (1 - e) * CE + e * cross-entropy with the uniform distribution (Szegedy et al., arXiv 1512.00567).
        To add it to another method: method.name="supervised+snapshot". It takes e of the cross-entropy's weight there: see `combine`.

    Returns:
      A Method without a teacher.

    Raises:
      ValueError: label_smoothing is out of range.
    """
    check_range("label_smoothing", label_smoothing, 0, 1, open_high=True)

    def loss(logits_BxC, labels_B, signal):
        del signal
        ce = losses.cross_entropy(logits_BxC, labels_B)
        if label_smoothing == 0:
            return Losses(loss=ce, ce=ce, teacher=jnp.zeros(()))
        uniform = losses.mean(losses.uniform_cross_entropy(logits_BxC), labels_B)
        return Losses(loss=(1 - label_smoothing) * ce + label_smoothing * uniform, ce=ce, teacher=jnp.zeros(()))

    return Method(signal=lambda teacher, batch, key: None, loss=loss, pixels=True, weight_ce=1 - label_smoothing)

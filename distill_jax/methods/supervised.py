"""Plain training on the labels: the baseline that stands beside every method."""

import jax.numpy as jnp

from distill_jax import losses
from distill_jax.errors import UserError
from distill_jax.methods.base import Losses, Method, Setting, unchanged


def supervised(setting: Setting, label_smoothing: float = 0.0) -> Method:
    """Cross-entropy with the labels; no teacher.

    Args:
      setting: the run.
      label_smoothing: e in [0, 1): (1 - e) * CE + e * cross-entropy with the uniform distribution (Szegedy et al., arXiv 1512.00567).
        With another method it adds up: method.name="supervised+snapshot".

    Raises:
      UserError: label_smoothing is out of range.
    """
    del setting
    if not 0 <= label_smoothing < 1:
        raise UserError(f"method.label_smoothing is {label_smoothing}; it must lie in [0, 1)")

    def loss(logits_BxC, labels_B, signal):
        del signal
        ce = losses.cross_entropy(logits_BxC, labels_B)
        if label_smoothing == 0:
            return Losses(loss=ce, ce=ce, teacher=jnp.zeros(()))
        uniform = losses.uniform_cross_entropy(logits_BxC).mean()
        return Losses(loss=(1 - label_smoothing) * ce + label_smoothing * uniform, ce=ce, teacher=jnp.zeros(()))

    return Method(init=lambda state, given: None, signal=lambda *_: None, loss=loss, end_epoch=unchanged)

"""Plain training on the labels: the baseline that stands beside every method."""

import jax.numpy as jnp

from distill_jax import losses
from distill_jax.methods.base import Losses, Method, Setting, unchanged


def supervised(setting: Setting) -> Method:
    """Cross-entropy with the labels; no teacher."""
    del setting

    def loss(logits_BxC, labels_B, signal):
        del signal
        ce = losses.cross_entropy(logits_BxC, labels_B)
        return Losses(loss=ce, ce=ce, teacher=jnp.zeros(()))

    return Method(init=lambda state, given: None, signal=lambda *_: None, loss=loss, end_epoch=unchanged)

"""A method of your own. Run in this file's folder:

    python ../run.py --config.method.name=my_methods:class_means --config.method.weight=0.3 --workdir=../runs/class_means

A method is a function that takes options and returns a Method. Arguments named like a field of methods.Setting are filled in by the run.
"""

import jax
import jax.numpy as jnp

from distill_jax import losses
from distill_jax.methods import Losses, Method


def class_means(num_classes: int, weight: float = 0.5, momentum: float = 0.99) -> Method:
    """Soft labels learned during training: for each class, a running mean of the predictions whose arg-max is that class."""

    def init(network):
        return jnp.full((num_classes, num_classes), 1 / num_classes)

    def signal(means_CxC, batch, key):
        return means_CxC

    def loss(logits_BxC, labels_B, means_CxC):
        ce = losses.cross_entropy(logits_BxC, labels_B)
        taught = weight * -(means_CxC[labels_B] * jax.nn.log_softmax(logits_BxC)).sum(axis=1).mean()
        return Losses(loss=ce + taught, ce=ce, teacher=taught)

    def observe(means_CxC, ids_B, logits_BxC):
        probs_BxC = jax.nn.softmax(logits_BxC)
        said_BxC = jax.nn.one_hot(probs_BxC.argmax(axis=1), num_classes)
        counts_C = said_BxC.sum(axis=0)
        batch_means_CxC = said_BxC.T @ probs_BxC / jnp.maximum(counts_C, 1)[:, None]
        new_CxC = momentum * means_CxC + (1 - momentum) * batch_means_CxC
        return jnp.where(counts_C[:, None] > 0, new_CxC, means_CxC)

    return Method(signal, loss, init, observe=observe)

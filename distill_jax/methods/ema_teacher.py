"""An EMA teacher: the running average of the network's weights teaches the network.

Tarvainen, Valpola, "Mean teachers are better role models", NeurIPS 2017 (arXiv 1703.01780), where the average teaches a semi-supervised
network by a squared error. Here it distils in supervised training (our choice):

    L = CE(y, z) + w * T^2 * KL( softmax(z_average / T) || softmax(z / T) )
    average_t = d_t * average_{t-1} + (1 - d_t) * network_t,      d_t = min(d, 1 - 1 / (t + 1))

d_t is that of the official code: up to step d / (1 - d) the teacher is the plain mean of all networks so far, the initial one included.
BatchNorm statistics are averaged like weights (our choice).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from distill_jax import losses
from distill_jax.fields import check_range
from distill_jax.methods.base import Losses, Method, Network


class Average(struct.PyTreeNode):
    """The averaged network."""

    network: Network
    steps: jax.Array  # int32 []: t


def ema_teacher(apply: Callable[[Network, Any], jax.Array], decay: float = 0.999, temperature: float = 1.0, weight: float = 1.0) -> Method:
    """Distillation from the running average of the weights.

    Args:
      apply: (network, inputs) -> logits [B, C] in inference mode, with the student's architecture.
      decay: d, in [0, 1); the average spans about 1 / (1 - d) steps.
      temperature: T > 0, softens both.
      weight: w >= 0.

    Returns:
      A Method whose teacher is an `Average`. It costs one forward pass in inference mode per step.

    Raises:
      ValueError: an argument is out of range.
    """
    check_range("decay", decay, 0, 1, open_high=True)
    check_range("temperature", temperature, 0.01, 100)
    check_range("weight", weight, 0)

    def init(network):
        return Average(jax.tree.map(jnp.copy, network), jnp.zeros((), jnp.int32))

    def signal(average, batch, key):
        del key
        return apply(average.network, batch.inputs)

    def loss(logits_BxC, labels_B, average_BxC):
        ce = losses.cross_entropy(logits_BxC, labels_B)
        taught = weight * losses.distillation(average_BxC, logits_BxC, temperature, labels=labels_B)
        return Losses(loss=ce + taught, ce=ce, teacher=taught)

    def follow(average, network):
        steps = average.steps + 1
        d = jnp.minimum(decay, 1 - 1 / (steps + 1))
        return Average(jax.tree.map(lambda old, new: d * old + (1 - d) * new, average.network, network), steps)

    def predict(average, inputs):
        return apply(average.network, inputs)

    return Method(signal, loss, init, follow=follow, predict=predict, pixels=True, forwards=lambda epoch: 1.0)

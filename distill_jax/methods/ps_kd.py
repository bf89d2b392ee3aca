"""Progressive self-knowledge distillation: the labels give way to the network's own predictions of the previous epoch.

Kim et al., "Self-Knowledge Distillation with Progressive Refinement of Targets", ICCV 2021 (arXiv 2006.12000).

    L_n = H( (1 - a_t) y_n + a_t p_n,  softmax(z_n) ),    a_t = a_T * t / T

H(p, q) is the cross-entropy, p_n the network's softmax for sample n at its last visit, t the epoch from 1, and T their number. There is no
temperature. At its first visit, a sample has only its label.
"""

import jax
import jax.numpy as jnp
from flax import struct

from distill_jax import losses
from distill_jax.fields import check_range
from distill_jax.methods.base import Losses, Method
from distill_jax.methods.long_short_term import BY_ID, table_rows


class Predictions(struct.PyTreeNode):
    """Logits by sample id. Rows beyond the training set stay unused."""

    logits: jax.Array  # float32 [N, C]
    seen: jax.Array  # bool [N]
    weight: jax.Array  # float32 []: a_t of the current epoch


class PastPrediction(struct.PyTreeNode):
    """The rows of one batch."""

    logits_BxC: jax.Array
    weight_B: jax.Array  # a_t; 0 for a sample that has not been seen


def ps_kd(num_examples: int, num_classes: int, num_devices: int = 1, epochs: int = 0, weight: float = 0.8) -> Method:
    """Progressive self-knowledge distillation.

    Args:
      num_examples: N, size of the training set; ids lie in [0, N).
      num_classes: C.
      num_devices: number of devices that the table is split over.
      epochs: T, the length of the run; 1 or more.
      weight: a_T, in [0, 1]: the weight of the past prediction in the last epoch; 0.8 in the paper.

    Returns:
      A Method whose teacher is `Predictions`: one table, written in training at no extra forward pass.

    Raises:
      ValueError: an argument is out of range.
    """
    check_range("epochs", epochs, 1)
    check_range("weight", weight, 0, 1)
    rows = table_rows(num_examples, num_devices)

    def weight_of(epoch):
        return weight * min(epoch, epochs) / epochs

    def init(network):
        del network
        return Predictions(jnp.zeros((rows, num_classes)), jnp.zeros(rows, bool), jnp.float32(weight_of(1)))

    def signal(past, batch, key):
        del key
        logits_BxC, seen_B = (column.at[batch.ids].get(**BY_ID) for column in (past.logits, past.seen))
        return PastPrediction(logits_BxC, jnp.where(seen_B, past.weight, 0))

    def loss(logits_BxC, labels_B, past):
        hard_B = losses.soft_cross_entropy(jax.nn.one_hot(labels_B, num_classes), logits_BxC)
        soft_B = losses.soft_cross_entropy(jax.nn.softmax(past.logits_BxC), logits_BxC)
        taught = (past.weight_B * soft_B).mean()
        return Losses(loss=((1 - past.weight_B) * hard_B).mean() + taught, ce=hard_B.mean(), teacher=taught)

    def observe(past, ids_B, logits_BxC):
        return past.replace(logits=past.logits.at[ids_B].set(logits_BxC, **BY_ID), seen=past.seen.at[ids_B].set(True, **BY_ID))

    def end_epoch(past, network, epochs_done):
        del network
        return past.replace(weight=jnp.full_like(past.weight, weight_of(epochs_done + 1)))

    by_sample = Predictions(logits=True, seen=True, weight=False)
    return Method(signal, loss, init, end_epoch, observe=observe, by_sample=by_sample, weight_ce=1 - weight)

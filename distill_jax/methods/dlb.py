"""Self-distillation from the last mini-batch (DLB): half of each batch was in the previous one, whose predictions teach it.

Shen et al., "Self-Distillation from the Last Mini-Batch for Consistency Regularization", CVPR 2022 (arXiv 2203.16172).

    L = CE(batch) + a * T^2 * KL( softmax(z_previous / T) || softmax(z / T) )        the KL averages over the repeated half

An epoch is a sequence of halves h_0, h_1, ..., and batch t is (h_t, h_{t+1}). At the same batch size, an epoch of as many steps as with
other methods shows about half of the samples, each twice (our choice, so that all methods have the same number of steps). Each visit has
its own augmentation (our choice). The first half of an epoch's first batch has no teacher.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from distill_jax import losses
from distill_jax.data.batches import permutation
from distill_jax.fields import check_range
from distill_jax.methods.base import Losses, Method


class LastHalf(struct.PyTreeNode):
    """The second half of the last batch: H = B / 2 samples."""

    ids: jax.Array  # int32 [H]
    logits: jax.Array  # float32 [H, C]


class Repeated(struct.PyTreeNode):
    """The teacher of a batch's first half."""

    logits_HxC: jax.Array
    is_repeated_H: jax.Array  # bool


def dlb(batch_size: int, num_classes: int, num_examples: int = 0, temperature: float = 3.0, weight: float = 1.0) -> Method:
    """Self-distillation from the last mini-batch.

    Args:
      batch_size: B; even.
      num_classes: C.
      num_examples: size of the training set, if known, to check batch_size.
      temperature: T > 0, softens both; 3 in the paper.
      weight: a >= 0; 1 in the paper.

    Returns:
      A Method whose teacher is `LastHalf`. It runs no network but the student.

    Raises:
      ValueError: an argument is out of range.
    """
    check_even(batch_size, "dlb")
    if 0 < num_examples < 2 * batch_size:
        raise ValueError(f"batch_size is {batch_size}, but there are {num_examples} examples; dlb needs at least two batches per epoch")
    check_range("temperature", temperature, 0.01, 100)
    check_range("weight", weight, 0)
    half = batch_size // 2

    def init(network):
        del network
        return LastHalf(jnp.full(half, -1, jnp.int32), jnp.zeros((half, num_classes)))

    def signal(last, batch, key):
        del key
        return Repeated(last.logits, batch.ids[:half] == last.ids)

    def loss(logits_BxC, labels_B, repeated):
        ce = losses.cross_entropy(logits_BxC, labels_B)
        taught = weight * losses.distillation(repeated.logits_HxC, logits_BxC[:half], temperature, where=repeated.is_repeated_H)
        return Losses(loss=ce + taught, ce=ce, teacher=taught)

    def observe(last, ids_B, logits_BxC):
        del last
        return LastHalf(ids_B[half:], logits_BxC[half:])

    return Method(signal, loss, init, observe=observe, order=overlapping_order)


def overlapping_order(seed: int, epoch: int, labels_N: np.ndarray, batch_size: int) -> np.ndarray:
    """Batches whose first half is the second half of the one before; see `methods.base.OrderFn`."""
    half, steps = batch_size // 2, len(labels_N) // batch_size
    halves = permutation(seed, epoch, len(labels_N))[: (steps + 1) * half].reshape(steps + 1, half)
    return np.concatenate([halves[:-1], halves[1:]], axis=1)


def check_even(batch_size: int, name: str) -> None:
    if batch_size < 2 or batch_size % 2:
        raise ValueError(f"batch_size is {batch_size}; {name} needs an even one")

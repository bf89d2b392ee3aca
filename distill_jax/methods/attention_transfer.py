"""Attention transfer (AT): the student's hidden layers attend to the same positions as the teacher's.

Zagoruyko, Komodakis, "Paying More Attention to Attention", ICLR 2017 (arXiv 1612.03928), activation-based.

    L = CE + b * sum_j mean( (Q_S^j - Q_T^j)^2 )        Q^j = q^j / ||q^j||,  q^j(pixel) = mean over the channels of A^j(pixel)^2

A^j is the output of the j-th stage (models/maps.py); the mean is over pixels and samples, as in the official code, where b = 1000. The
numbers of channels may differ, the sizes may not. To add Hinton's distillation: method.name="distillation+attention_transfer".
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from distill_jax import losses
from distill_jax.fields import check_range
from distill_jax.methods.base import Losses, Method


def attention_transfer(num_teachers: int = 1, weight: float = 1000.0) -> Method:
    """A student whose attention follows that of one frozen network.

    Args:
      num_teachers: 1.
      weight: b >= 0.

    Returns:
      A Method that uses the feature maps of `Batch.teachers`; it has no teacher of its own.

    Raises:
      ValueError: an argument is out of range.
    """
    if num_teachers != 1:
        raise ValueError(f"num_teachers is {num_teachers}; attention_transfer takes one")
    check_range("weight", weight, 0)

    def signal(teacher, batch, key):
        del teacher, key
        _, maps = batch.teachers[0](maps=True)
        return [attention(each) for each in maps]

    def loss(logits_BxC, labels_B, attended, maps: Sequence[jax.Array]):
        ce = losses.cross_entropy(logits_BxC, labels_B)
        pairs = zip(attended, maps, strict=True)
        taught = weight * sum(((attention(ours) - theirs) ** 2).mean() for theirs, ours in pairs)
        return Losses(loss=ce + taught, ce=ce, teacher=taught)

    return Method(signal, loss, maps=True, forwards=lambda epoch: 1.0)


def attention(maps_BxHxWxC: jax.Array) -> jax.Array:
    """Where a layer is active: the normalised mean square over the channels, float32 [B, H * W]."""
    q_BxP = (maps_BxHxWxC.astype(jnp.float32) ** 2).mean(axis=-1).reshape(len(maps_BxHxWxC), -1)
    return q_BxP / jnp.sqrt(jnp.maximum((q_BxP**2).sum(axis=-1, keepdims=True), 1e-24))

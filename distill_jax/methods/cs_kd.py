"""Class-wise self-knowledge distillation (CS-KD): a sample is taught by the network's prediction for another sample of its class.

Yun et al., "Regularizing Class-wise Predictions via Self-knowledge Distillation", CVPR 2020 (arXiv 2003.13964).

    L = CE(x, y) + l * T^2 * KL( softmax(z(x') / T) || softmax(z(x) / T) )        x' has the class of x; no gradient through z(x')

The official code passes a second batch of partners x' through the network. Here a batch consists of pairs, and each sample is the other's
partner (our choice): one forward pass, and the same number of samples per step as for other methods.
"""

import jax
import jax.numpy as jnp
import numpy as np

from distill_jax import losses
from distill_jax.data.batches import permutation
from distill_jax.fields import check_range
from distill_jax.methods.base import Losses, Method
from distill_jax.methods.dlb import check_even


def cs_kd(batch_size: int, temperature: float = 4.0, weight: float = 1.0) -> Method:
    """Class-wise self-knowledge distillation.

    Args:
      batch_size: B; even.
      temperature: T > 0, softens both; 4 in the paper.
      weight: l >= 0; 1 in the official code.

    Returns:
      A Method without a teacher of its own: the loss finds both of a pair in the batch. A sample whose partner has another class (the
      last of a class with an odd number of samples) learns from its label alone.

    Raises:
      ValueError: an argument is out of range.
    """
    check_even(batch_size, "cs_kd")
    check_range("temperature", temperature, 0.01, 100)
    check_range("weight", weight, 0)
    half = batch_size // 2

    def loss(logits_BxC, labels_B, signal):
        del signal
        ce = losses.cross_entropy(logits_BxC, labels_B)
        partners_BxC = jax.lax.stop_gradient(jnp.roll(logits_BxC, half, axis=0))
        has_partner_B = labels_B == jnp.roll(labels_B, half)
        taught = weight * losses.distillation(partners_BxC, logits_BxC, temperature, where=has_partner_B)
        return Losses(loss=ce + taught, ce=ce, teacher=taught)

    return Method(signal=lambda teacher, batch, key: None, loss=loss, order=paired_order)


def paired_order(seed: int, epoch: int, labels_N: np.ndarray, batch_size: int) -> np.ndarray:
    """Batches in which samples i and i + B / 2 are a random pair of one class; see `methods.base.OrderFn`.

    No sample occurs twice in an epoch. The last samples of classes with an odd number of them are paired with each other.
    """
    half, steps = batch_size // 2, len(labels_N) // batch_size
    ids = permutation(seed, epoch, len(labels_N))
    ids = ids[np.argsort(labels_N[ids], kind="stable")]  # by class, in random order within a class
    labels = labels_N[ids]
    is_last = np.append(labels[1:] != labels[:-1], True)
    counts = np.bincount(labels)
    is_odd = is_last & (counts[labels] % 2 == 1)
    ids = np.concatenate([ids[~is_odd], ids[is_odd]])
    pairs = ids[: len(ids) // 2 * 2].reshape(-1, 2)
    pairs = pairs[np.argsort(permutation(seed, epoch, len(ids))[pairs[:, 0]], kind="stable")]
    return pairs[: steps * half].reshape(steps, half, 2).swapaxes(1, 2).reshape(steps, batch_size)

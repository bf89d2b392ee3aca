"""Teacher-free distillation (Tf-KD): a fixed distribution that favours the label takes the teacher's place.

Yuan et al., "Revisiting Knowledge Distillation via Label Smoothing Regularization", CVPR 2020 (arXiv 1909.11723).

    L = (1 - a) * CE(y, z) + a * T^2 * KL( softmax(log p_y / T) || softmax(z / T) )        p_y(k) = u for k = y, (1 - u) / (C - 1) otherwise

This is the paper's "reg". The public code differs: it takes softmax(p_y / T), which is nearly uniform, and softens the teacher alone; here
both are softened, and T^2 keeps the size of the gradient, as in `distillation` (our choice). The paper's "self" needs no method of its own:
it is `distillation` at a temperature, by a finished run of the same network.
"""

import jax
import jax.numpy as jnp

from distill_jax import losses
from distill_jax.fields import check_range
from distill_jax.methods.base import Losses, Method


def tf_kd(num_classes: int, weight: float = 0.1, temperature: float = 20.0, confidence: float = 0.99) -> Method:
    """Teacher-free distillation by a fixed distribution.

    Args:
      num_classes: C.
      weight: a, in [0, 1].
      temperature: T > 0, softens both; the paper advises 20 or more.
      confidence: u, the probability of the label, in (1 / C, 1).

    Returns:
      A Method without a teacher.

    Raises:
      ValueError: an argument is out of range.
    """
    check_range("weight", weight, 0, 1)
    check_range("temperature", temperature, 0.01, 100)
    check_range("confidence", confidence, 1 / num_classes, 1, open_low=True, open_high=True)
    other = (1 - confidence) / (num_classes - 1)

    def loss(logits_BxC, labels_B, signal):
        del signal
        ce = losses.cross_entropy(logits_BxC, labels_B)
        fixed_BxC = jnp.log(jnp.where(jax.nn.one_hot(labels_B, num_classes, dtype=bool), confidence, other))
        taught = weight * losses.distillation(fixed_BxC, logits_BxC, temperature, labels=labels_B)
        return Losses(loss=(1 - weight) * ce + taught, ce=ce, teacher=taught)

    return Method(signal=lambda teacher, batch, key: None, loss=loss, pixels=True, weight_ce=1 - weight)

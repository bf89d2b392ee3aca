"""A small CNN for small images, such as the 8x8 digits."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from distill_jax.models.layers import batch_norm


class SmallCNN(nn.Module):
    """Three 3x3 convolutions with BatchNorm (the last two halve the image), global average pooling, a dense layer. Our own design.

    Attributes:
      num_classes: number of classes, C.
      filters: channels of each convolution.
      dtype: computation dtype; parameters, BatchNorm statistics and logits stay float32.
    """

    num_classes: int
    filters: tuple[int, int, int] = (16, 32, 64)
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images_BxHxWxC: jax.Array, train: bool = False) -> jax.Array:
        """Returns logits, float32 [B, C]. With train=True, BatchNorm normalises by the batch and updates `batch_stats`."""
        norm = batch_norm(train, self.dtype)
        x = images_BxHxWxC
        for layer, (filters, strides) in enumerate(zip(self.filters, (1, 2, 2), strict=True)):
            x = nn.Conv(filters, (3, 3), strides, padding=1, use_bias=False, dtype=self.dtype, name=f"conv{layer + 1}")(x)
            x = nn.relu(norm(name=f"norm{layer + 1}")(x))
            self.sow("intermediates", f"stage{layer + 1}", x)
        features_BxF = jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
        return nn.Dense(self.num_classes, name="head")(features_BxF)

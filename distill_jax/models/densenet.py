"""DenseNet-BC for 32x32 images (Huang et al., "Densely Connected Convolutional Networks", 2017, arXiv 1608.06993)."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from distill_jax.models.layers import Conv, batch_norm

BOTTLENECK = 4  # channels of a bottleneck, in multiples of the growth rate
COMPRESSION = 0.5  # fraction of the channels that a transition keeps


class DenseNet(nn.Module):
    """Three dense blocks of (depth - 4) / 6 bottleneck layers, separated by transitions that halve the image and the channels.

    Attributes:
      depth: L = 6n + 4.
      growth: k, the channels that each layer adds.
      num_classes: number of classes, C.
      dtype: computation dtype; parameters, BatchNorm statistics and logits stay float32.
    """

    depth: int
    growth: int
    num_classes: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images_BxHxWx3: jax.Array, train: bool = False) -> jax.Array:
        """Returns logits, float32 [B, C]. With train=True, BatchNorm normalises by the batch and updates `batch_stats`."""
        norm = batch_norm(train, self.dtype)
        conv = functools.partial(Conv, dtype=self.dtype)

        def dense_layer(x, name):
            y = conv(BOTTLENECK * self.growth, (1, 1), name=f"{name}_conv1")(nn.relu(norm(name=f"{name}_norm1")(x)))
            y = conv(self.growth, (3, 3), padding=1, name=f"{name}_conv2")(nn.relu(norm(name=f"{name}_norm2")(y)))
            return jnp.concatenate([x, y], axis=-1)

        def transition(x, name):
            x = conv(int(x.shape[-1] * COMPRESSION), (1, 1), name=f"{name}_conv")(nn.relu(norm(name=f"{name}_norm")(x)))
            return nn.avg_pool(x, (2, 2), (2, 2))

        x = conv(2 * self.growth, (3, 3), padding=1, name="stem_conv")(images_BxHxWx3)
        for block in (1, 2, 3):
            for layer in range((self.depth - 4) // 6):
                x = dense_layer(x, f"block{block}_layer{layer + 1}")
            self.sow("intermediates", f"stage{block}", x)
            if block < 3:
                x = transition(x, f"transition{block}")
        x = nn.relu(norm(name="final_norm")(x))
        features_BxF = jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
        return nn.Dense(self.num_classes, name="head")(features_BxF)

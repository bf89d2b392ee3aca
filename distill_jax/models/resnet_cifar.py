"""ResNets for 32x32 images (He et al., "Deep Residual Learning for Image Recognition", 2016, arXiv 1512.03385, section 4.2)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from distill_jax.models.layers import Conv, batch_norm

DEPTHS = (8, 14, 20, 26, 32, 44, 56, 110)
SHORTCUTS = ("pad", "projection")


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut around them. The first convolution may halve the image and add channels."""

    filters: int
    strides: int
    shortcut: str
    dtype: Any
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, inputs_BxHxWxC: jax.Array) -> jax.Array:
        strides = (self.strides, self.strides)
        x = Conv(self.filters, (3, 3), strides, padding=1, dtype=self.dtype)(inputs_BxHxWxC)
        x = nn.relu(self.norm()(x))
        x = Conv(self.filters, (3, 3), padding=1, dtype=self.dtype)(x)
        x = self.norm()(x)

        residual = inputs_BxHxWxC
        if residual.shape != x.shape:
            if self.shortcut == "projection":
                residual = Conv(self.filters, (1, 1), strides, dtype=self.dtype, name="shortcut_conv")(residual)
                residual = self.norm(name="shortcut_norm")(residual)
            else:
                residual = subsample_and_pad(residual, self.strides, self.filters)
        return nn.relu(x + residual)


def subsample_and_pad(inputs_BxHxWxC: jax.Array, strides: int, filters: int) -> jax.Array:
    """The parameter-free shortcut (option A): takes every `strides`-th pixel and zero-pads the channels on both sides."""
    missing = filters - inputs_BxHxWxC.shape[-1]
    subsampled = inputs_BxHxWxC[:, ::strides, ::strides]
    return jnp.pad(subsampled, ((0, 0), (0, 0), (0, 0), (missing // 2, missing - missing // 2)))


class ResNet(nn.Module):
    """6n + 2 layers: a 3x3 stem, three stages of n basic blocks with 16, 32 and 64 channels, global average pooling, a dense layer.

    Attributes:
      depth: 6n + 2.
      num_classes: number of classes, C.
      shortcut: in blocks that change the shape, "pad" (option A of He et al.) or "projection" (1x1 convolution and BatchNorm).
      dtype: computation dtype; parameters, BatchNorm statistics and logits stay float32.
    """

    depth: int
    num_classes: int
    shortcut: str = "pad"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images_BxHxWx3: jax.Array, train: bool = False) -> jax.Array:
        """Returns logits, float32 [B, C]. With train=True, BatchNorm normalises by the batch and updates `batch_stats`."""
        norm = batch_norm(train, self.dtype)
        x = Conv(16, (3, 3), padding=1, dtype=self.dtype, name="stem_conv")(images_BxHxWx3)
        x = nn.relu(norm(name="stem_norm")(x))
        for stage, filters in enumerate((16, 32, 64)):
            for block in range((self.depth - 2) // 6):
                strides = 2 if stage > 0 and block == 0 else 1
                name = f"stage{stage + 1}_block{block + 1}"
                x = BasicBlock(filters, strides, self.shortcut, self.dtype, norm, name=name)(x)
            self.sow("intermediates", f"stage{stage + 1}", x)
        features_BxF = jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
        return nn.Dense(self.num_classes, name="head")(features_BxF)

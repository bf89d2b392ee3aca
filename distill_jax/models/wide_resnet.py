"""Wide ResNets for 32x32 images (Zagoruyko & Komodakis, "Wide Residual Networks", 2016, arXiv 1605.07146), without dropout."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from distill_jax.models.layers import Conv, batch_norm


class PreActivationBlock(nn.Module):
    """BatchNorm, ReLU, 3x3 convolution, twice, with an identity shortcut.

    Where the channels change, the shortcut is a 1x1 convolution of the activated input without BatchNorm, as in the authors' code.
    """

    filters: int
    strides: int
    dtype: Any
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, inputs_BxHxWxC: jax.Array) -> jax.Array:
        strides = (self.strides, self.strides)
        activated = nn.relu(self.norm(name="norm1")(inputs_BxHxWxC))
        x = Conv(self.filters, (3, 3), strides, padding=1, dtype=self.dtype, name="conv1")(activated)
        x = nn.relu(self.norm(name="norm2")(x))
        x = Conv(self.filters, (3, 3), padding=1, dtype=self.dtype, name="conv2")(x)
        if inputs_BxHxWxC.shape[-1] == self.filters:
            return inputs_BxHxWxC + x
        return Conv(self.filters, (1, 1), strides, dtype=self.dtype, name="shortcut_conv")(activated) + x


class WideResNet(nn.Module):
    """WRN-d-k: a 3x3 stem of 16 channels, three stages of (d - 4) / 6 blocks with 16k, 32k and 64k channels, pooling, a dense layer.

    Attributes:
      depth: d = 6n + 4.
      widen_factor: k, the multiple of 16, 32 and 64 channels.
      num_classes: number of classes, C.
      dtype: computation dtype; parameters, BatchNorm statistics and logits stay float32.
    """

    depth: int
    widen_factor: int
    num_classes: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images_BxHxWxC: jax.Array, train: bool = False) -> jax.Array:
        """Returns logits, float32 [B, C]. With train=True, BatchNorm normalises by the batch and updates `batch_stats`."""
        norm = batch_norm(train, self.dtype)
        x = Conv(16, (3, 3), padding=1, dtype=self.dtype, name="stem_conv")(images_BxHxWxC)
        for stage, filters in enumerate((16, 32, 64)):
            for block in range((self.depth - 4) // 6):
                strides = 2 if stage > 0 and block == 0 else 1
                name = f"stage{stage + 1}_block{block + 1}"
                x = PreActivationBlock(filters * self.widen_factor, strides, self.dtype, norm, name=name)(x)
            self.sow("intermediates", f"stage{stage + 1}", x)
        x = nn.relu(norm(name="final_norm")(x))
        features_BxF = jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
        return nn.Dense(self.num_classes, name="head")(features_BxF)

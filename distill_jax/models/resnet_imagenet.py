"""ResNets for 224x224 images (He et al., "Deep Residual Learning for Image Recognition", 2016, arXiv 1512.03385, table 1).

He-normal initialisation as in the paper. The last BatchNorm of each block starts with scale 0, so that the block starts as its shortcut
(Goyal et al., 2017, arXiv 1706.02677, section 5.1). This is our choice; the paper starts it at 1.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from distill_jax.models.layers import Conv, batch_norm

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}  # depth -> blocks of each stage
VERSIONS = ("v1", "v1.5")


class Block(nn.Module):
    """Convolutions with BatchNorm and a shortcut: a 1x1 convolution with BatchNorm where the shape changes, otherwise the identity.

    Attributes:
      convolutions: filters, kernel size and stride of each.
      strides: stride of the whole block.
    """

    convolutions: tuple[tuple[int, int, int], ...]
    strides: int
    dtype: Any
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, inputs_BxHxWxC: jax.Array) -> jax.Array:
        x = inputs_BxHxWxC
        for layer, (filters, size, strides) in enumerate(self.convolutions, start=1):
            x = Conv(filters, (size, size), strides, padding=size // 2, dtype=self.dtype, name=f"conv{layer}")(x)
            if layer < len(self.convolutions):
                x = nn.relu(self.norm(name=f"norm{layer}")(x))
        x = self.norm(scale_init=nn.initializers.zeros, name=f"norm{layer}")(x)

        residual = inputs_BxHxWxC
        if residual.shape != x.shape:
            residual = Conv(x.shape[-1], (1, 1), self.strides, dtype=self.dtype, name="shortcut_conv")(residual)
            residual = self.norm(name="shortcut_norm")(residual)
        return nn.relu(residual + x)


def block_convolutions(depth: int, version: str, filters: int, strides: int) -> tuple[tuple[int, int, int], ...]:
    """(filters, kernel size, stride) of a block's convolutions: two if depth < 50, otherwise the three of a bottleneck."""
    if depth < 50:
        return (filters, 3, strides), (filters, 3, 1)
    first, second = (strides, 1) if version == "v1" else (1, strides)
    return (filters, 1, first), (filters, 3, second), (4 * filters, 1, 1)


class ImageNetResNet(nn.Module):
    """A 7x7 stem with stride 2, a 3x3 max pool, four stages with 64, 128, 256 and 512 filters, global average pooling, a dense layer.

    Attributes:
      depth: a key of `BLOCKS`.
      num_classes: number of classes, C.
      version: where a bottleneck halves the image: "v1", in its first 1x1 convolution, as in the paper; "v1.5", in its 3x3 convolution, as
        in torchvision. No difference at depths 18 and 34.
      dtype: computation dtype; parameters, BatchNorm statistics and logits stay float32.
    """

    depth: int
    num_classes: int
    version: str = "v1.5"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images_BxHxWxC: jax.Array, train: bool = False) -> jax.Array:
        """Returns logits, float32 [B, C]. With train=True, BatchNorm normalises by the batch and updates `batch_stats`."""
        norm = batch_norm(train, self.dtype)
        x = Conv(64, (7, 7), 2, padding=3, dtype=self.dtype, name="stem_conv")(images_BxHxWxC)
        x = nn.relu(norm(name="stem_norm")(x))
        x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
        for stage, blocks in enumerate(BLOCKS[self.depth]):
            for block in range(blocks):
                strides = 2 if stage > 0 and block == 0 else 1
                convolutions = block_convolutions(self.depth, self.version, 64 * 2**stage, strides)
                x = Block(convolutions, strides, self.dtype, norm, name=f"stage{stage + 1}_block{block + 1}")(x)
        features_BxF = jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
        return nn.Dense(self.num_classes, name="head")(features_BxF)

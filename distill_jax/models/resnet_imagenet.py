"""ResNets for 224x224 images (He et al., "Deep Residual Learning for Image Recognition", 2016, arXiv 1512.03385, table 1).

He-normal initialisation as in the paper. The last BatchNorm of each block starts with scale 0, so that the block starts as its shortcut
(Goyal et al., 2017, arXiv 1706.02677, section 5.1). This is our choice; the paper starts it at 1.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from distill_jax.models.layers import Conv, normalization

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}  # depth -> blocks of each stage
VERSIONS = ("v1", "v1.5")


class Block(nn.Module):
    """Convolutions with BatchNorm and a shortcut: a 1x1 convolution with BatchNorm where the shape changes, otherwise the identity.

    Attributes:
      convolutions: filters, kernel size, stride and dilation of each.
      strides: stride of the whole block.
    """

    convolutions: tuple[tuple[int, int, int, int], ...]
    strides: int
    dtype: Any
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, inputs_BxHxWxC: jax.Array) -> jax.Array:
        x = inputs_BxHxWxC
        for layer, (filters, size, strides, dilation) in enumerate(self.convolutions, start=1):
            spatial = {"padding": dilation * (size // 2), "kernel_dilation": dilation}
            x = Conv(filters, (size, size), strides, dtype=self.dtype, name=f"conv{layer}", **spatial)(x)
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


def dilated(convolutions: tuple[tuple[int, int, int], ...], dilation: int) -> tuple[tuple[int, int, int, int], ...]:
    """The convolutions of a block without its stride; those after the one that had it are dilated instead."""
    result = []
    for filters, size, strides in convolutions:
        result.append((filters, size, 1, dilation))
        dilation *= strides
    return tuple(result)


def stages(
    images_BxHxWxC: jax.Array, depth: int, version: str, width: int, output_stride: int, dtype: Any, norm: Callable[..., nn.Module]
) -> dict[str, jax.Array]:
    """The outputs {C2, C3, C4, C5} of the four stages, [B, H / s, W / s, C] with s = 4, 8, 16, 32. Called in a compact method.

    With output_stride 16 or 8, s goes no further: later stages keep the resolution, and dilate their 3x3 convolutions instead of halving
    the image, as in DeepLab (Chen et al., arXiv 1706.05587), so that every second place has the values of the network that halves.
    """
    x = Conv(width, (7, 7), 2, padding=3, dtype=dtype, name="stem_conv")(images_BxHxWxC)
    x = nn.relu(norm(name="stem_norm")(x))
    x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
    outputs, stride, dilation = {}, 4, 1
    for stage, blocks in enumerate(BLOCKS[depth], start=1):
        for block in range(1, blocks + 1):
            strides = 2 if stage > 1 and block == 1 else 1
            convolutions = block_convolutions(depth, version, width * 2 ** (stage - 1), strides)
            if strides * stride > output_stride:
                convolutions, dilation, strides = dilated(convolutions, dilation), strides * dilation, 1
            else:
                convolutions, stride = tuple((*each, dilation) for each in convolutions), strides * stride
            x = Block(convolutions, strides, dtype, norm, name=f"stage{stage}_block{block}")(x)
        outputs[f"C{stage + 1}"] = x
    return outputs


class ImageNetResNet(nn.Module):
    """A 7x7 stem with stride 2, a 3x3 max pool, four stages with 64, 128, 256 and 512 filters, global average pooling, a dense layer.

    Attributes:
      depth: a key of `BLOCKS`.
      num_classes: number of classes, C.
      version: where a bottleneck halves the image: "v1", in its first 1x1 convolution, as in the paper; "v1.5", in its 3x3 convolution, as
        in torchvision. No difference at depths 18 and 34.
      width: filters of the first stage; 32 gives a network of half the width.
      norm: see `layers.normalization`.
      dtype: computation dtype; parameters, BatchNorm statistics and logits stay float32.
    """

    depth: int
    num_classes: int
    version: str = "v1.5"
    width: int = 64
    norm: str = "batch"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images_BxHxWxC: jax.Array, train: bool = False) -> jax.Array:
        """Returns logits, float32 [B, C]. With train=True, BatchNorm normalises by the batch and updates `batch_stats`."""
        norm = normalization(self.norm, train, self.dtype)
        outputs = stages(images_BxHxWxC, self.depth, self.version, self.width, 32, self.dtype, norm)
        for name, x in outputs.items():
            self.sow("intermediates", name, x)
        features_BxF = jnp.mean(outputs["C5"], axis=(1, 2), dtype=jnp.float32)
        return nn.Dense(self.num_classes, name="head")(features_BxF)


class Trunk(nn.Module):
    """An `ImageNetResNet` without its head, for networks with other heads; its parameters have the same names.

    Attributes: as there; output_stride: 8, 16 or 32, see `stages`.
    """

    depth: int
    version: str = "v1.5"
    width: int = 64
    output_stride: int = 32
    norm: str = "batch"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images_BxHxWxC: jax.Array, train: bool = False) -> dict[str, jax.Array]:
        """Returns {C2, C3, C4, C5}; see `stages`."""
        norm = normalization(self.norm, train, self.dtype)
        return stages(images_BxHxWxC, self.depth, self.version, self.width, self.output_stride, self.dtype, norm)

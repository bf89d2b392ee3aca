"""DeepLabV3 (Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", 2017, arXiv 1706.05587) on an ImageNet ResNet.

As in torchvision and mmsegmentation, a 3x3 convolution stands between the paper's last 1x1 convolution and the classifier. Left out (our
choice): the multi-grid of dilations in the last stage, and the auxiliary head that some implementations train beside it.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from distill_jax.models.layers import GROUP, Conv, batch_norm
from distill_jax.models.resnet_imagenet import Trunk


class DeepLabV3(nn.Module):
    """A dilated ResNet, atrous spatial pyramid pooling (ASPP) with image pooling, a 3x3 convolution, and a classifier of each pixel.

    Attributes:
      depth: of the ResNet, a key of `resnet_imagenet.BLOCKS`.
      num_classes: number of classes, C, the background included.
      output_stride: of the trunk: 16 or 8, as in the paper, or 32.
      rates: dilations of the 3x3 convolutions of the ASPP, at output stride 16; twice as large at 8, as in the paper, and half at 32.
      channels: of each branch of the ASPP.
      dropout: before the classifier (0.1 in mmsegmentation).
      version: as in `ImageNetResNet`.
      width: as in `ImageNetResNet`.
      norm: of the trunk, see `layers.normalization`. The head has BatchNorm where the trunk's is frozen. With "group", its groups have 8
        channels whatever `channels`, a multiple of 8: the pooled map has one pixel, so a group of one channel would be a constant.
      dtype: computation dtype; parameters, BatchNorm statistics and logits stay float32.
    """

    depth: int
    num_classes: int
    output_stride: int = 16
    rates: tuple[int, ...] = (6, 12, 18)
    channels: int = 256
    dropout: float = 0.1
    version: str = "v1.5"
    width: int = 64
    norm: str = "batch"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images_BxHxWxC: jax.Array, train: bool = False) -> jax.Array:
        """Returns logits, float32 [B, H, W, C]: those of the trunk's resolution, enlarged (bilinear)."""
        trunk = Trunk(self.depth, self.version, self.width, self.output_stride, self.norm, self.dtype, name="trunk")
        group_norm = functools.partial(nn.GroupNorm, None, group_size=GROUP, epsilon=1e-5, dtype=self.dtype)
        head_norm = group_norm if self.norm == "group" else batch_norm(train, self.dtype)

        def layer(x, size, name, dilation=1):
            spatial = {"padding": dilation * (size // 2), "kernel_dilation": dilation}
            x = Conv(self.channels, (size, size), dtype=self.dtype, name=f"{name}_conv", **spatial)(x)
            return nn.relu(head_norm(name=f"{name}_norm")(x))

        x = trunk(images_BxHxWxC, train)["C5"]
        pooled = layer(x.mean(axis=(1, 2), keepdims=True), 1, "aspp_pooling")
        branches = [layer(x, 1, "aspp_1x1"), jnp.broadcast_to(pooled, (*x.shape[:3], self.channels))]
        branches += [layer(x, 3, f"aspp_{number}", rate) for number, rate in enumerate(self.scaled_rates, start=1)]
        x = layer(jnp.concatenate(branches, axis=-1), 1, "aspp_project")
        x = nn.Dropout(self.dropout, deterministic=not train)(layer(x, 3, "last"))
        logits = nn.Conv(self.num_classes, (1, 1), dtype=jnp.float32, name="classifier")(x.astype(jnp.float32))
        return enlarged(logits, self.output_stride, *images_BxHxWxC.shape[1:3])

    @property
    def scaled_rates(self) -> Sequence[int]:
        return [max(1, rate * 16 // self.output_stride) for rate in self.rates]


def enlarged(logits_BxHxWxC: jax.Array, stride: int, height: int, width: int) -> jax.Array:
    """Logits of every `stride`-th pixel resized (bilinear) to images of height x width pixels.

    The factor is `stride` whatever the size: if the stride does not divide it, as with crops of 513 pixels, resizing 33 cells to 513
    pixels would shift each by a different distance, up to 7 pixels, which no convolution can undo.
    """
    batch, rows, columns, classes = logits_BxHxWxC.shape
    large = jax.image.resize(logits_BxHxWxC, (batch, rows * stride, columns * stride, classes), "bilinear")
    return large[:, :height, :width]

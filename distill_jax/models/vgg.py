"""VGG with BatchNorm for 32x32 images (Simonyan & Zisserman, 2015, arXiv 1409.1556), as used in the distillation literature.

The layers and their initialisation are those of github.com/HobbitLong/RepDistiller, models/vgg.py (Tian et al., 2020, arXiv 1910.10699):
one dense layer instead of three and, at 32x32, three max pools instead of five, so that the last two stages both see 4x4 pixels.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from distill_jax.models.layers import batch_norm, he_normal_fan_out

# depth -> convolutions of each stage; the depth counts the original's three dense layers
CONVOLUTIONS = {8: (1, 1, 1, 1, 1), 11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
FILTERS = (64, 128, 256, 512, 512)
POOLED_STAGES = 3  # a 2x2 max pool follows each of the first stages


class VGG(nn.Module):
    """Five stages of 3x3 convolutions with bias, BatchNorm and ReLU; global average pooling; a dense layer. Takes images of 8x8 or more.

    Attributes:
      depth: a key of `CONVOLUTIONS`.
      num_classes: number of classes, C.
      dtype: computation dtype; parameters, BatchNorm statistics and logits stay float32.
    """

    depth: int
    num_classes: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images_BxHxWxC: jax.Array, train: bool = False) -> jax.Array:
        """Returns logits, float32 [B, C]. With train=True, BatchNorm normalises by the batch and updates `batch_stats`."""
        norm = batch_norm(train, self.dtype)
        conv = functools.partial(nn.Conv, kernel_size=(3, 3), padding=1, kernel_init=he_normal_fan_out, dtype=self.dtype)
        x = images_BxHxWxC
        for stage, (filters, convolutions) in enumerate(zip(FILTERS, CONVOLUTIONS[self.depth], strict=True)):
            for layer in range(convolutions):
                place = f"{stage + 1}_{layer + 1}"
                x = nn.relu(norm(name=f"norm{place}")(conv(filters, name=f"conv{place}")(x)))
            self.sow("intermediates", f"stage{stage + 1}", x)
            if stage < POOLED_STAGES:
                x = nn.max_pool(x, (2, 2), (2, 2))
        features_BxF = jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
        return nn.Dense(self.num_classes, kernel_init=nn.initializers.normal(0.01), name="head")(features_BxF)

"""VGG with BatchNorm for 32x32 images (Simonyan & Zisserman, 2015, arXiv 1409.1556), in the form of the distillation literature.

That form is models/vgg.py of github.com/HobbitLong/RepDistiller (Tian et al., 2020, arXiv 1910.10699): one dense layer instead of three,
and at 32x32 three max pools instead of five, so that the last two stages both work at 4x4. Its initialisation is kept as well.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from distill_jax.models.layers import batch_norm, he_normal

# depth -> convolutions of each stage; the depth counts the three dense layers of the original
CONVOLUTIONS = {8: (1, 1, 1, 1, 1), 11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
FILTERS = (64, 128, 256, 512, 512)
POOLED_STAGES = 3  # a 2x2 max pool follows each of the first stages


class VGG(nn.Module):
    """Five stages of 3x3 convolutions with bias, BatchNorm and ReLU; mean over the image; a dense layer. Images of 8x8 or more.

    Attributes:
      depth: a key of `CONVOLUTIONS`.
      num_classes: C.
      dtype: of the compute. Parameters, BatchNorm statistics and logits are float32 always.
    """

    depth: int
    num_classes: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images_BxHxWxC: jax.Array, train: bool = False) -> jax.Array:
        """Returns logits, float32 [B, C]. With train=True, BatchNorm uses the batch and updates `batch_stats`."""
        norm = batch_norm(train, self.dtype)
        conv = functools.partial(nn.Conv, kernel_size=(3, 3), padding=1, kernel_init=he_normal, dtype=self.dtype)
        x = images_BxHxWxC
        for stage, (filters, convolutions) in enumerate(zip(FILTERS, CONVOLUTIONS[self.depth], strict=True)):
            for layer in range(convolutions):
                place = f"{stage + 1}_{layer + 1}"
                x = nn.relu(norm(name=f"norm{place}")(conv(filters, name=f"conv{place}")(x)))
            if stage < POOLED_STAGES:
                x = nn.max_pool(x, (2, 2), (2, 2))
        features_BxF = jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
        return nn.Dense(self.num_classes, kernel_init=nn.initializers.normal(0.01), name="head")(features_BxF)

"""A network of your own. Run in this file's folder:

    python ../run.py --config.model.name=my_nets:Mixer --config.model.width=32 --workdir=../runs/mixer

The class needs a field num_classes; its other fields are options and need defaults. Its last dense layer must be called "head".
"""

import jax.numpy as jnp
from flax import linen as nn


class Mixer(nn.Module):
    """Patches of 2x2 pixels, mixed across positions and across channels (after Tolstikhin et al., 2021, arXiv 2105.01601)."""

    num_classes: int
    width: int = 32
    blocks: int = 2

    @nn.compact
    def __call__(self, images_BxHxWxC, train=False):
        x_BxHxWxD = nn.Conv(self.width, (2, 2), strides=2)(images_BxHxWxC)
        x_BxPxD = x_BxHxWxD.reshape(x_BxHxWxD.shape[0], -1, self.width)
        for _ in range(self.blocks):
            mixed = jnp.swapaxes(nn.Dense(x_BxPxD.shape[1])(jnp.swapaxes(nn.LayerNorm()(x_BxPxD), 1, 2)), 1, 2)
            x_BxPxD = x_BxPxD + nn.gelu(mixed)
            x_BxPxD = x_BxPxD + nn.gelu(nn.Dense(self.width)(nn.LayerNorm()(x_BxPxD)))
        return nn.Dense(self.num_classes, name="head")(x_BxPxD.mean(axis=1))

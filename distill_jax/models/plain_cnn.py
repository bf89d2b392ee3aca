"""The plain CNNs of the teacher-assistant papers (Mirzadeh et al., 2020, arXiv 1902.03393; Son et al., 2021, arXiv 2009.08825).

The layers are those of github.com/wonchulSon/DGKD, plain_cnn_cifar.py. The code initialises weights and biases with PyTorch's default,
uniform in +-1/sqrt(fan_in). We use He normal, with fan-in for the hidden dense layers and fan-out for the convolutions, and zero biases.
Each convolution is followed by BatchNorm, so its scale does not change any activation in training. A dense layer has no norm after it:
in plain8, whose dense layer goes from 1024 to 64 units, fan-out would make the input of `head` four times as large.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from distill_jax.models.layers import batch_norm, he_normal_fan_out

# name -> (layers, units of the hidden dense layers); in layers, a number is a convolution with that many channels, "M" a max pool
LAYERS = {
    "plain2": ((32, "M", 32, "M"), ()),
    "plain4": ((32, 32, "M", 64, 64, "M"), ()),
    "plain6": ((32, 32, "M", 64, 64, "M", 128, 128), ()),
    "plain8": ((32, 32, "M", 64, 64, "M", 128, 128, "M", 256, 256, "M"), (64,)),
    "plain10": ((32, 32, "M", 64, 64, "M", 128, 128, "M", 256, 256, 256, 256, "M"), (512,)),
    "plain2_cifar10": ((16, "M", 16, "M"), ()),
    "plain4_cifar10": ((16, 16, "M", 32, 32, "M"), ()),
    "plain6_cifar10": ((16, 16, "M", 32, 32, "M", 64, 64, "M"), ()),
    "plain8_cifar10": ((16, 16, "M", 32, 32, "M", 64, 64, "M", 128, 128, "M"), (64,)),
    "plain10_cifar10": ((32, 32, "M", 64, 64, "M", 128, 128, "M", 256, 256, 256, 256, "M"), (128,)),
}


class PlainCNN(nn.Module):
    """3x3 convolutions with bias, BatchNorm and ReLU, 2x2 max pools, then dense layers with ReLU in between.

    Max pools are skipped once the image is one pixel high or wide (our choice), so that networks with four pools also take 8x8 images;
    at the papers' 32x32, none is skipped. The first dense layer ties a trained network to its image size.

    Attributes:
      layout: a key of `LAYERS`. "plain<n>" is the papers' network for CIFAR-100, "plain<n>_cifar10" the one for CIFAR-10.
      num_classes: number of classes, C.
      dtype: computation dtype; parameters, BatchNorm statistics and logits stay float32.
    """

    layout: str
    num_classes: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images_BxHxWxC: jax.Array, train: bool = False) -> jax.Array:
        """Returns logits, float32 [B, C]. With train=True, BatchNorm normalises by the batch and updates `batch_stats`."""
        norm = batch_norm(train, self.dtype)
        conv = functools.partial(nn.Conv, kernel_size=(3, 3), padding=1, kernel_init=he_normal_fan_out, dtype=self.dtype)
        layers, hidden = LAYERS[self.layout]
        x, convolutions = images_BxHxWxC, 0
        for place, layer in enumerate(layers):
            if layer == "M":
                x = nn.max_pool(x, (2, 2), (2, 2)) if min(x.shape[1:3]) > 1 else x
            else:
                convolutions += 1
                x = nn.relu(norm(name=f"norm{convolutions}")(conv(layer, name=f"conv{convolutions}")(x)))
                if layers[place + 1 : place + 2] in ((), ("M",)):
                    self.sow("intermediates", f"stage{layers[:place].count('M') + 1}", x)
        x = x.reshape(x.shape[0], -1)
        for i, units in enumerate(hidden):
            x = nn.relu(nn.Dense(units, kernel_init=nn.initializers.he_normal(), dtype=self.dtype, name=f"dense{i + 1}")(x))
        return nn.Dense(self.num_classes, name="head")(x.astype(jnp.float32))

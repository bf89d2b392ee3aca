"""FCOS: one-stage object detection without anchors (Tian et al., ICCV 2019, arXiv 1904.01355).

A feature pyramid (FPN; Lin et al., CVPR 2017, arXiv 1612.03144) over a trunk's maps C3, C4, C5, and two towers of convolutions with
GroupNorm, shared by its five levels. Each location of each level gives class logits, its distances to the four sides of a box, and how
central it is in that box. What these mean, and the loss: distill_jax/tasks/anchor_free.py.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from distill_jax.models.layers import GROUP, Conv
from distill_jax.models.resnet_imagenet import Trunk

STRIDES = (8, 16, 32, 64, 128)  # pixels, of the levels P3 to P7
RARE = 0.01  # probability of each class at the start, so that the many locations without an object do not swamp the first steps
FURTHEST = 8.0  # largest logarithm of a distance in strides; a distance must stay finite, whatever a step does


class Outputs(NamedTuple):
    """FCOS's outputs for each location: those of P3 row by row, then those of P4, ..., P7; L in all. float32."""

    logits_BxLxC: jax.Array  # of each class by itself: sigmoid, not softmax
    distances_BxLx4: jax.Array  # to the left, top, right and bottom side of the box, in pixels; > 0
    centerness_BxL: jax.Array  # a logit


class Pyramid(nn.Module):
    """FPN: maps P3 to P7 of equal width from C3, C4, C5; P6 and P7 are made from P5."""

    channels: int
    dtype: Any

    @nn.compact
    def __call__(self, maps: Sequence[jax.Array]) -> list[jax.Array]:
        def conv(name, size=3, strides=1):
            init = nn.initializers.lecun_uniform()
            return Conv(self.channels, (size, size), strides, size // 2, use_bias=True, kernel_init=init, dtype=self.dtype, name=name)

        levels, above = [], None
        for number, x in zip((5, 4, 3), reversed(maps), strict=True):
            x = conv(f"lateral{number}", size=1)(x)
            if above is not None:
                x += above.repeat(2, axis=1).repeat(2, axis=2)[:, : x.shape[1], : x.shape[2]]
            above = x
            levels.insert(0, conv(f"out{number}")(x))
        levels.append(conv("out6", strides=2)(levels[-1]))
        levels.append(conv("out7", strides=2)(nn.relu(levels[-1])))
        return levels


class Heads(nn.Module):
    """The two towers and their outputs, for one level."""

    num_classes: int
    channels: int
    convolutions: int
    dtype: Any

    @nn.compact
    def __call__(self, map_BxHxWxF: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns, in float32, logits [B, HW, C], logarithms of distances before the level's scale [B, HW, 4], and centerness [B, HW]."""

        def conv(filters, name, dtype, **options):
            init = nn.initializers.normal(0.01)
            return Conv(filters, (3, 3), padding=1, use_bias=True, kernel_init=init, dtype=dtype, name=name, **options)

        def tower(kind):
            x = map_BxHxWxF
            for layer in range(1, self.convolutions + 1):
                x = conv(self.channels, f"{kind}_conv{layer}", self.dtype)(x)
                x = nn.relu(nn.GroupNorm(None, group_size=GROUP, epsilon=1e-5, dtype=self.dtype, name=f"{kind}_norm{layer}")(x))
            return x

        def flat(x):
            return x.astype(jnp.float32).reshape(x.shape[0], -1, x.shape[-1])

        classes, boxes = tower("class"), tower("box")
        rare = nn.initializers.constant(-math.log((1 - RARE) / RARE))
        logits = flat(conv(self.num_classes, "logits", jnp.float32, bias_init=rare)(classes))
        logarithms, centerness = (flat(conv(count, name, jnp.float32)(boxes)) for count, name in ((4, "distances"), (1, "centerness")))
        return logits, logarithms, centerness[..., 0]


class Detector(nn.Module):
    """Pyramid and heads over a trunk's maps.

    Attributes:
      num_classes: C, without a background class.
      channels: of the pyramid and the towers; a multiple of 8.
      convolutions: of each tower.
      dtype: computation dtype; outputs stay float32.
    """

    num_classes: int
    channels: int = 256
    convolutions: int = 4
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, maps: Sequence[jax.Array]) -> Outputs:
        """Takes C3, C4 and C5."""
        heads = Heads(self.num_classes, self.channels, self.convolutions, self.dtype, name="heads")
        scales = self.param("scales", nn.initializers.ones, (len(STRIDES),))  # learned, one a level
        levels = Pyramid(self.channels, self.dtype, name="pyramid")(maps)
        logits, logarithms, centerness = zip(*(heads(level) for level in levels), strict=True)
        scaled = [jnp.exp(jnp.minimum(scales[level] * x, FURTHEST)) * STRIDES[level] for level, x in enumerate(logarithms)]
        return Outputs(*(jnp.concatenate(parts, axis=1) for parts in (logits, scaled, centerness)))


class FCOS(nn.Module):
    """FCOS on an ImageNet ResNet.

    Attributes:
      depth: of the ResNet, a key of `resnet_imagenet.BLOCKS`.
      num_classes: C, without a background class.
      channels: of the pyramid and the towers, 256 in the paper; a multiple of 8.
      convolutions: of each tower, 4 in the paper.
      version: as in `ImageNetResNet`.
      width: as in `ImageNetResNet`.
      norm: of the trunk, see `layers.normalization`.
      dtype: computation dtype; parameters, BatchNorm statistics and outputs stay float32.
    """

    depth: int
    num_classes: int
    channels: int = 256
    convolutions: int = 4
    version: str = "v1.5"
    width: int = 64
    norm: str = "batch"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images_BxHxWxC: jax.Array, train: bool = False) -> Outputs:
        """For the layout of the outputs see `Outputs`. With train=True, norm="batch" uses and updates the batch's statistics."""
        maps = Trunk(self.depth, self.version, self.width, 32, self.norm, self.dtype, name="trunk")(images_BxHxWxC, train)
        detector = Detector(self.num_classes, self.channels, self.convolutions, self.dtype, name="detector")
        return detector([maps["C3"], maps["C4"], maps["C5"]])

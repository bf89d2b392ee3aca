"""Layers shared by the networks for images."""

import functools
from collections.abc import Callable
from typing import Any

from flax import linen as nn

from distill_jax.models.convolution import conv

# For convolutions only: in a dense layer from many inputs to few outputs, activations would blow up.
he_normal_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
Conv = functools.partial(nn.Conv, use_bias=False, kernel_init=he_normal_fan_out, conv_general_dilated=conv)


def batch_norm(train: bool, dtype: Any) -> Callable[..., nn.Module]:
    """BatchNorm with momentum 0.9 for the running statistics. With train=True, it normalises by the batch and updates them."""
    return functools.partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=dtype)


NORMS = ("batch", "frozen", "group")
GROUPS = 32  # of GroupNorm in a trunk
GROUP = 8  # channels of a group of GroupNorm in a head: 32 groups of the usual 256 channels


def normalization(kind: str, train: bool, dtype: Any) -> Callable[..., nn.Module]:
    """The normalisation layers of a network.

    Args:
      kind: "batch", BatchNorm; "frozen", BatchNorm whose statistics stay those that were loaded, also in training, while scale and bias
        are trained (detection and segmentation train on batches too small for statistics); or "group", GroupNorm with 32 groups (Wu & He,
        arXiv 1803.08494).
      train: as for `batch_norm`.
      dtype: computation dtype.
    """
    if kind == "group":
        return functools.partial(nn.GroupNorm, num_groups=GROUPS, epsilon=1e-5, dtype=dtype)
    return batch_norm(train and kind != "frozen", dtype)

"""What the networks for images share: He-normal convolutions, and one BatchNorm."""

import functools
from collections.abc import Callable
from typing import Any

from flax import linen as nn

he_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
Conv = functools.partial(nn.Conv, use_bias=False, kernel_init=he_normal)


def batch_norm(train: bool, dtype: Any) -> Callable[..., nn.Module]:
    """BatchNorm whose running means keep 0.9 of their value at each step; with train=True it uses the batch and updates them."""
    return functools.partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=dtype)

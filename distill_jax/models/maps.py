"""The feature maps of a network for images, one per resolution."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax import linen as nn


def with_maps(apply: Callable[..., Any], *arguments: Any, **options: Any) -> tuple[Any, list[jax.Array]]:
    """The result of a module's `apply`, and the feature maps computed on the way.

    Returns:
      apply(*arguments, **options), and for each resolution, from the largest, the last output [B, H, W, C] of a submodule that has it. In a
      ResNet these are the ends of the stages. Maps of one place, and a network without maps, such as one for text, leave nothing.
    """
    caught: dict[tuple[int, ...], jax.Array] = {}

    def catch(next_function, args, kwargs, context):
        output = next_function(*args, **kwargs)
        if context.module.path and getattr(output, "ndim", 0) == 4 and output.shape[1:3] != (1, 1):
            caught[output.shape[1:3]] = output
        return output

    with nn.intercept_methods(catch):
        result = apply(*arguments, **options)
    return result, [caught[size] for size in sorted(caught, reverse=True)]


def sizes(maps: Sequence[jax.Array]) -> str:
    """The resolutions in words."""
    return ", ".join(f"{each.shape[2]}x{each.shape[1]}" for each in maps) or "none"

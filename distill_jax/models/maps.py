"""The feature maps of a network for images: the outputs of its stages, marked with self.sow("intermediates", "stage1", x)."""

from collections.abc import Callable, Sequence
from typing import Any

import jax


def with_maps(apply: Callable[..., Any], *arguments: Any, mutable: Sequence[str] = (), **options: Any) -> tuple[Any, list[jax.Array]]:
    """The result of a module's `apply`, and the feature maps computed on the way.

    Returns:
      apply(*arguments, mutable=mutable, **options), and the maps [B, H, W, C], in the order of their names. Maps of one place are left out;
      a network without maps, such as one for text, has none.
    """
    result, updated = apply(*arguments, mutable=[*mutable, "intermediates"], **options)
    marked = jax.tree.leaves(updated.pop("intermediates", {}))
    maps = [each for each in marked if each.ndim == 4 and each.shape[1:3] != (1, 1)]
    return (result, updated) if mutable else result, maps


def sizes(maps: Sequence[jax.Array]) -> str:
    """Their sizes in words."""
    return ", ".join(f"{each.shape[2]}x{each.shape[1]}" for each in maps) or "none"

"""Optimizers: gradients to updates."""

from typing import Any

import jax
import optax

from distill_jax import models


def scaled_rate(fields, batch_size: int) -> float:
    """The learning rate for a batch size: scaled linearly if optimizer.reference_batch_size is set (Goyal et al., arXiv 1706.02677)."""
    return fields.learning_rate * (batch_size / fields.reference_batch_size if fields.reference_batch_size else 1)


def create(fields, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Creates the optimizer described by the config fields `optimizer.*` (see default_config.py).

    Args:
      fields: config.optimizer. "sgd": the gradient of the L2 penalty is added before momentum, for every parameter, as in the vision
        papers. "adamw": decoupled decay (Loshchilov & Hutter, arXiv 1711.05101) of parameters with two or more axes; biases and
        normalisation scales do not decay. With either, the gradient is first clipped to `clip_norm`, by its global norm; finally, the
        updates of the trunk (`models.in_trunk`) are multiplied by `trunk_rate`, weight decay included.
      schedule: learning rate of each iteration.

    Raises:
      ValueError: unknown name.
    """
    clip_norm, trunk_rate = fields.get("clip_norm", 0.0), fields.get("trunk_rate", 1.0)
    parts = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
    parts.append(_create(fields, schedule))
    if trunk_rate != 1:
        parts.append(optax.masked(optax.scale(trunk_rate), _is_trunk))
    return optax.chain(*parts) if len(parts) > 1 else parts[0]  # a chain of one would change the state that older checkpoints hold


def _create(fields, schedule: optax.Schedule) -> optax.GradientTransformation:
    if fields.name == "sgd":
        return optax.chain(optax.add_decayed_weights(fields.weight_decay), optax.sgd(schedule, fields.momentum, fields.nesterov))
    if fields.name == "adamw":
        return optax.adamw(schedule, weight_decay=fields.weight_decay, mask=_decays)
    raise ValueError(f"name is {fields.name!r}; known: sgd, adamw")


def _decays(params: Any) -> Any:
    """Whether a parameter decays under "adamw". The biases of flax's attention have two axes: heads, and features of a head."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: leaf.ndim > 1 and getattr(path[-1], "key", "") != "bias", params)


def _is_trunk(params: dict[str, Any]) -> dict[str, bool]:
    return {layer: models.in_trunk(layer, params) for layer in params}

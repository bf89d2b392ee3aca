"""What turns gradients into updates."""

import jax
import optax


def scaled_rate(fields, batch_size: int) -> float:
    """The learning rate of a batch size: proportional to it, if optimizer.reference_batch_size asks for that (Goyal et al., 1706.02677)."""
    return fields.learning_rate * (batch_size / fields.reference_batch_size if fields.reference_batch_size else 1)


def create(fields, schedule: optax.Schedule) -> optax.GradientTransformation:
    """The optimizer that the fields `optimizer.*` of a config describe (see default_config.py).

    Args:
      fields: config.optimizer. "sgd": the L2 penalty's gradient is added before the momentum, on every parameter, as in the papers on
        vision. "adamw": decoupled decay (Loshchilov & Hutter, arXiv 1711.05101) of what has two axes or more: biases and
        normalisation scales do not decay.
      schedule: learning rate of each iteration.

    Raises:
      ValueError: an unknown name.
    """
    if fields.name == "sgd":
        return optax.chain(optax.add_decayed_weights(fields.weight_decay), optax.sgd(schedule, fields.momentum, fields.nesterov))
    if fields.name == "adamw":
        return optax.adamw(schedule, weight_decay=fields.weight_decay, mask=lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params))
    raise ValueError(f"name is {fields.name!r}; known: sgd, adamw")

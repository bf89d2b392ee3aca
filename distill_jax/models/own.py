"""A user's own network, by import path; distill_jax/models/__init__.py lists the requirements."""

import dataclasses
import inspect

from flax import linen as nn

from distill_jax import imports
from distill_jax.models import options


def find(name: str) -> type[nn.Module]:
    """Returns the class of "module:class".

    Raises:
      ValueError: it cannot be imported or does not meet the requirements; the message begins with "name".
    """
    try:
        network = imports.load(name)
    except ValueError as error:
        raise ValueError(f"name is {name!r}; {error}") from error
    if not (inspect.isclass(network) and issubclass(network, nn.Module)):
        raise ValueError(f"name is {name!r}; it must be a subclass of flax.linen.Module")
    if "train" not in inspect.signature(network.__call__).parameters:
        raise ValueError(f"name is {name!r}; its __call__ must take an argument train, as in __call__(self, inputs, train=False)")
    fields = {field.name: field for field in dataclasses.fields(network) if field.init}
    if "num_classes" not in fields:
        raise ValueError(f"name is {name!r}; the class must have a field num_classes")
    for field in fields.keys() - set(options.NOT_OPTIONS):
        if options.default(fields[field]) is dataclasses.MISSING:
            raise ValueError(f"name is {name!r}; its field {field} must have a default")
    return network

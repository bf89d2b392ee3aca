"""The distillation methods. A new one is a new file here and a line in `METHODS`."""

import inspect

from distill_jax.errors import UserError
from distill_jax.methods.base import Losses, Method, Setting
from distill_jax.methods.combined import combine
from distill_jax.methods.long_short_term import long_short_term
from distill_jax.methods.snapshot import snapshot_distillation
from distill_jax.methods.supervised import supervised

__all__ = ["METHODS", "Losses", "Method", "Setting", "create"]

METHODS = {
    "long_short_term": long_short_term,
    "snapshot": snapshot_distillation,
    "supervised": supervised,
}


def create(name: str, setting: Setting, **fields) -> Method:
    """The method `name` with its fields `method.*`.

    Args:
      name: one of `METHODS`, or several with + between them: their teachers add up, and each has its fields in `method.<its name>.*`.
      setting: the run it serves.
      **fields: of the method.

    Raises:
      UserError: the method, or one of its fields, is unknown.
    """
    if "+" in name:
        names = name.split("+")
        for field in fields:
            if field not in names:
                raise UserError(f"method.{field} is no field of method {name!r}; it has the fields of {', '.join(names)}")
        return combine([create(member, setting, **fields.get(member, {})) for member in names])
    if name not in METHODS:
        raise UserError(f"method.name is {name!r}; known: {', '.join(sorted(METHODS))}")
    known = list(inspect.signature(METHODS[name]).parameters)[1:]
    for field in fields:
        if field not in known:
            raise UserError(f"method.{field} is no field of method {name!r}, which has: {', '.join(known) or 'none'}")
    return METHODS[name](setting, **fields)

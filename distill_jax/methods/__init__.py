"""The distillation methods. A new one is a new file here and a line in `METHODS`."""

import inspect

from distill_jax.errors import UserError
from distill_jax.methods.base import FrozenLogits, FrozenNetwork, Losses, Method, Setting
from distill_jax.methods.combined import combine
from distill_jax.methods.densely_guided import densely_guided
from distill_jax.methods.generations import distillation, patriarch
from distill_jax.methods.long_short_term import long_short_term
from distill_jax.methods.snapshot import snapshot_distillation
from distill_jax.methods.supervised import supervised

__all__ = ["METHODS", "FrozenLogits", "FrozenNetwork", "Losses", "Method", "Setting", "create"]

METHODS = {
    "densely_guided": densely_guided,
    "distillation": distillation,
    "long_short_term": long_short_term,
    "patriarch": patriarch,
    "snapshot": snapshot_distillation,
    "supervised": supervised,
}
TAUGHT_BY_OTHERS = ("distillation", "densely_guided")  # methods whose teachers are other runs' networks


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
        settings = [setting if member in TAUGHT_BY_OTHERS else setting._replace(teachers=()) for member in names]
        return combine([create(member, own, **fields.get(member, {})) for member, own in zip(names, settings, strict=True)])
    if name not in METHODS:
        raise UserError(f"method.name is {name!r}; known: {', '.join(sorted(METHODS))}")
    if setting.teachers and name not in TAUGHT_BY_OTHERS:
        raise UserError(f"`teachers` names {len(setting.teachers)}, but method {name!r} takes none; {', '.join(TAUGHT_BY_OTHERS)} do")
    known = list(inspect.signature(METHODS[name]).parameters)[1:]
    for field in fields:
        if field not in known:
            raise UserError(f"method.{field} is no field of method {name!r}, which has: {', '.join(known) or 'none'}")
    return METHODS[name](setting, **fields)

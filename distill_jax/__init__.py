"""Teacher-student training in JAX: a distillation method is a record of pure functions, and one train step serves them all.

import distill_jax

network = distill_jax.load("runs/sd_digits")   # the trained network of a finished run
probabilities = network.predict(images)
distill_jax.train(config, "runs/mine")         # the same as run.py, with a config from configs/*.py

Also: methods, losses, models, make_train_step, and UserError, which is raised for bad input.
"""

import importlib
from typing import Any

__all__ = ["UserError", "load", "losses", "make_train_step", "methods", "models", "train"]

_HOMES = {"UserError": "errors", "load": "trained", "make_train_step": "step", "train": "study"}
_MODULES = ("losses", "methods", "models")


def __getattr__(name: str) -> Any:
    """Imports names lazily: jax takes seconds to import, and `run.py --help` and reports do not need it."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"distill_jax.{_HOMES[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"distill_jax.{name}")
    raise AttributeError(f"module 'distill_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

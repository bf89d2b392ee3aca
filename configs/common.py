"""The base of every experiment: the fields and their defaults are in distill_jax/default_config.py."""

from distill_jax.default_config import get_config

__all__ = ["get_config"]

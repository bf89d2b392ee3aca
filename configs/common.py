"""What every experiment starts from: the fields and their defaults stand in distill_jax/default_config.py."""

from distill_jax.default_config import get_config

__all__ = ["get_config"]

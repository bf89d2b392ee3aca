from distill_jax.data.dataset import Dataset
from distill_jax.data.sources import load, load_config

__all__ = ["Dataset", "load", "load_config"]

from distill_jax.data.dataset import Dataset
from distill_jax.data.sources import load

__all__ = ["Dataset", "load"]

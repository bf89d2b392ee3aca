"""Data sets: readers by name, batches, augmentation and streaming."""

from distill_jax.data.dataset import Dataset, describe
from distill_jax.data.sources import load, load_config

__all__ = ["Dataset", "describe", "load", "load_config"]

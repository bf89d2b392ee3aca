"""The base of every experiment: the fields and their defaults are in distill_jax/default_config.py."""

from distill_jax.default_config import get_config

__all__ = ["get_config", "get_voc_config"]


def get_voc_config(task: str):
    """The base of the experiments on PASCAL VOC at full size."""
    config = get_config()
    config.batch_size = 16
    config.checkpoint_every = 1
    config.data.name = "voc:VOCdevkit"
    config.data.task = task
    config.data.crop_padding = 0
    config.optimizer.learning_rate = 0.01
    config.optimizer.nesterov = False
    return config

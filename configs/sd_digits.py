"""Snapshot Distillation on scikit-learn's 8x8 digits: the quickstart, with real images and no download.

python run.py
"""

from configs import common


def get_config():
    config = common.get_config()
    config.epochs = 60
    config.batch_size = 64
    config.eval_every = 5
    config.checkpoint_every = 20
    config.data.name = "digits"
    config.data.crop_padding = 1
    config.data.flip = False  # a mirrored digit is no longer that digit
    config.model.name = "small_cnn"
    config.schedule.cycles = 3
    config.method.name = "snapshot"
    config.method.temperature = 2.0  # T, softens the teacher
    config.method.symmetric = False  # True: soften the student as well, and multiply the KL by T^2
    return config

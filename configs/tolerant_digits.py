"""Tolerant teachers on scikit-learn's 8x8 digits: a patriarch and three generations of students.

python run.py --config=configs/tolerant_digits.py
"""

from configs import sd_digits
from configs.tolerant_cifar100 import generations


def get_config():
    config = sd_digits.get_config()
    config.epochs = 30
    config.schedule.cycles = 1
    config.method = {"name": "supervised"}
    config.stages = generations()
    config.stages.generations = 3
    return config

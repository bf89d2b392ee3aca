"""A comparison on scikit-learn's 8x8 digits, in two minutes on a CPU: a demonstration that says nothing about the methods.

python -m distill_jax.compare configs/comparison_digits.py --workdir=runs/comparison_digits
"""

from configs import sd_digits


def get_config():
    config = sd_digits.get_config()
    config.seeds = 3
    config.epochs = 20
    config.eval_every = 10
    config.data.train_examples = 200
    config.data.validation_examples = 300
    config.schedule.cycles = 1
    config.method = {"name": "supervised"}
    return config


def get_arms():
    rates = [{"optimizer": {"learning_rate": rate}} for rate in (0.05, 0.1)]
    temperatures = [{"method": {"temperature": temperature}} for temperature in (2.0, 3.0)]
    return {
        "cosine": ({}, rates),
        "sd": ({"schedule": {"cycles": 2}, "method": {"name": "snapshot"}}, temperatures),
        "born_again": ({"method": {"name": "distillation"}, "teachers": ("arm:cosine",)}, temperatures),
    }

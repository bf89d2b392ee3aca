"""A small comparison: two arms, two tries."""

from helpers import make_config

from distill_jax.comparison import Arm

RATES = [{"optimizer": {"learning_rate": rate}} for rate in (1e-4, 0.05)]
ARMS = {
    "cosine": Arm({}, RATES),
    "born_again": Arm({"method": {"name": "distillation"}, "teachers": ("arm:cosine",)}, RATES),
}


def tiny(**fields):
    """100 digits, an epoch of 5 steps, two final seeds."""
    own = {"epochs": 1, "seeds": 2, "batch_size": 20, "schedule__cycles": 1, "model__name": "plain2_cifar10", "eval_every": 2}
    return make_config(**own | {"method": {"name": "supervised"}, "data__train_examples": 100, "data__validation_examples": 50} | fields)

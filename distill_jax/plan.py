"""The shape of a run: its epochs, steps and cycles, and the learning rate of each step."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from distill_jax import checks, optimizers, schedules, sharding
from distill_jax.data import Dataset
from distill_jax.data.dataset import count
from distill_jax.errors import UserError
from distill_jax.tasks import TASKS

MOST_STEPS = 50_000_000  # per run


class Plan(NamedTuple):
    """The shape of a run."""

    epochs: int
    steps_per_epoch: int
    batch_size: int
    cycle_ends: tuple[int, ...]  # in finished epochs, increasing; the last is `epochs`
    learning_rates: np.ndarray  # one per step
    evaluated_on: str  # "test", or "validation" if one is held out from the training set
    metric: str = "accuracy"  # of the task: the result that counts

    @property
    def steps(self) -> int:
        return self.epochs * self.steps_per_epoch

    @property
    def result(self) -> str:
        """The name of the result that counts, such as test_accuracy."""
        return f"{self.evaluated_on}_{self.metric}"


def make_plan(config: ConfigDict, dataset: Dataset, mesh: Mesh) -> tuple[Plan, Callable[[Any], Any]]:
    """The shape of a run, and its learning-rate schedule."""
    sharding.check_batch_size(config.batch_size, mesh)
    num_examples = count(dataset.train)
    steps_per_epoch = num_examples // config.batch_size
    if steps_per_epoch == 0:
        raise UserError(f"batch_size is {config.batch_size}, but the training set has only {num_examples} examples")
    steps = config.epochs * steps_per_epoch
    if steps > MOST_STEPS:
        raise UserError(f"epochs is {config.epochs}, which makes {steps:,} steps; at most {MOST_STEPS:,} are allowed")
    with checks.naming("schedule"):
        rate = optimizers.scaled_rate(config.optimizer, config.batch_size)
        schedule = schedules.create(config.schedule, rate, config.epochs, steps_per_epoch)
        ends = schedules.cycle_ends(config.epochs, config.schedule.cycles, config.schedule.cycle_epochs)
    rates = np.asarray(jax.vmap(schedule)(jnp.arange(steps)))  # on the host: a log line must not wait for the device
    metric = TASKS[dataset.task].metric
    return Plan(config.epochs, steps_per_epoch, config.batch_size, ends, rates, dataset.evaluated_on, metric), schedule

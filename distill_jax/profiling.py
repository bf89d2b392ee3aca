"""A trace of some train steps, for TensorBoard."""

import contextlib
import itertools
import pathlib
from collections.abc import Iterator

import jax

from distill_jax import logs, processes
from distill_jax.experiment import Experiment

WARM_UP = 5  # steps before the trace: the first ones compile


@contextlib.contextmanager
def traced(exp: Experiment, steps: int, folder: pathlib.Path) -> Iterator[Experiment]:
    """The experiment, with a trace of a number of its train steps written in folder/profile. 0 steps: the experiment itself.

    Only the first process writes one. A run that ends earlier is traced until its end.
    """
    if not steps or not processes.is_first():
        yield exp
        return
    numbers, traced_steps = itertools.count(), []

    def train_step(*arguments):
        number = next(numbers)
        if number == WARM_UP:
            jax.profiler.start_trace(folder / "profile")
        with jax.profiler.StepTraceAnnotation("train_step", step_num=number):
            result = exp.train_step(*arguments)
        if WARM_UP <= number < WARM_UP + steps:
            traced_steps.append(number)
            if len(traced_steps) == steps:
                stop(result)
        return result

    def stop(result=None):
        jax.block_until_ready(result)
        jax.profiler.stop_trace()
        logs.say(f"trace of {len(traced_steps)} steps: pip install xprof; tensorboard --logdir={folder}")

    try:
        yield exp._replace(train_step=train_step)
    finally:
        if 0 < len(traced_steps) < steps:
            stop()

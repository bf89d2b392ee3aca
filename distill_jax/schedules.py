"""Learning-rate schedules, one value per iteration, and the arithmetic of cycles."""

from collections import Counter
from collections.abc import Callable, Sequence

import jax.numpy as jnp
import optax


def cycle_ends(epochs: int, cycles: int = 1, cycle_epochs: Sequence[int] = ()) -> tuple[int, ...]:
    """The number of finished epochs at which each cycle ends.

    Args:
      epochs: length of the run.
      cycles: number of cycles, of nearly equal length in whole epochs (unused if `cycle_epochs` is given).
      cycle_epochs: length of each cycle in epochs; they must add up to `epochs`.

    Returns:
      Increasing tuple, one entry per cycle; the last is `epochs`. 164 epochs in 3 cycles: (55, 109, 164).

    Raises:
      ValueError: the lengths do not add up, or there are more cycles than epochs.
    """
    if not cycle_epochs:
        if not 1 <= cycles <= epochs:
            raise ValueError(f"cycles is {cycles}; it must lie in 1..epochs = {epochs}")
        return tuple(round(k * epochs / cycles) for k in range(1, cycles + 1))
    if any(length != int(length) or length < 1 for length in cycle_epochs) or sum(cycle_epochs) != epochs:
        raise ValueError(f"cycle_epochs is {tuple(cycle_epochs)}; it must be positive integers that add up to epochs = {epochs}")
    return tuple(sum(cycle_epochs[: k + 1]) for k in range(len(cycle_epochs)))


def cyclic_cosine(peaks: Sequence[float], ends: Sequence[int]) -> optax.Schedule:
    """Cosine annealing to zero in every cycle, with a warm restart between cycles.

    Iteration i of a cycle of L iterations, i = 0..L-1, has the rate 0.5 * peak * (1 + cos(pi * i / L)). This is Snapshot
    Distillation's schedule (arXiv 1812.00123) with its 1-based iteration counted from 0, as in SGDR (arXiv 1608.03983): the first
    iteration has the full peak rate, and none has a rate of exactly zero (our choice).

    Args:
      peaks: the first rate of each cycle.
      ends: the iteration at which each cycle ends, increasing; as many as peaks.

    Raises:
      ValueError: their numbers differ.
    """
    return _cyclic(optax.cosine_decay_schedule, peaks, ends)


def cyclic_poly(peaks: Sequence[float], ends: Sequence[int], power: float) -> optax.Schedule:
    """ "Poly" decay to zero in every cycle: iteration i of a cycle of L iterations has the rate peak * (1 - i / L)^power.

    With power 0.9 the schedule of DeepLab (Chen et al., arXiv 1706.05587); with power 1 and a warm-up that of BERT's fine-tuning (Devlin
    et al., 2019, arXiv 1810.04805), except that here the rate decays during the warm-up too. That several cycles restart it is our
    choice. Arguments as for `cyclic_cosine`.
    """
    return _cyclic(lambda peak, length: optax.polynomial_schedule(peak, 0.0, power, length), peaks, ends)


def _cyclic(decay: Callable[[float, int], optax.Schedule], peaks: Sequence[float], ends: Sequence[int]) -> optax.Schedule:
    lengths = [end - start for start, end in zip((0, *ends), ends, strict=False)]
    return optax.join_schedules([decay(peak, length) for peak, length in zip(peaks, lengths, strict=True)], list(ends[:-1]))


def step_decay(learning_rate: float, boundaries: Sequence[int], factor: float) -> optax.Schedule:
    """Multiplies the rate by `factor` at each iteration in `boundaries`; twice where one occurs twice."""
    factors = {boundary: factor**count for boundary, count in Counter(boundaries).items()}
    return optax.piecewise_constant_schedule(learning_rate, factors)


def with_warmup(schedule: optax.Schedule, steps: int) -> optax.Schedule:
    """Scales the rate of iteration i < steps by (i + 1) / steps (our choice of form; Goyal et al., arXiv 1706.02677)."""
    return lambda step: schedule(step) * jnp.minimum(1.0, (step + 1) / steps)


def create(schedule, learning_rate: float, epochs: int, steps_per_epoch: int) -> optax.Schedule:
    """Creates the schedule described by the config fields `schedule.*` (see default_config.py).

    Args:
      schedule: config.schedule.
      learning_rate: the peak, before the factor of a warm-up.
      epochs: length of the run.
      steps_per_epoch: iterations per epoch.

    Raises:
      ValueError: a field is out of range; the message begins with its name.
    """
    if not 0 <= schedule.warmup_epochs <= epochs:
        raise ValueError(f"warmup_epochs is {schedule.warmup_epochs}; it must lie in 0..epochs = {epochs}")
    warmup_steps = round(schedule.warmup_epochs * steps_per_epoch)
    rate = _without_warmup(schedule, learning_rate, epochs, steps_per_epoch)
    return with_warmup(rate, warmup_steps) if warmup_steps else rate


def _without_warmup(schedule, learning_rate: float, epochs: int, steps_per_epoch: int) -> optax.Schedule:
    if schedule.name in ("cosine", "poly"):
        ends = cycle_ends(epochs, schedule.cycles, schedule.cycle_epochs)
        amplitudes = tuple(schedule.amplitudes) or (1.0,) * len(ends)
        if len(amplitudes) != len(ends):
            raise ValueError(f"amplitudes has {len(amplitudes)} entries; it must have {len(ends)}, one per cycle")
        peaks, last_steps = [learning_rate * a for a in amplitudes], [end * steps_per_epoch for end in ends]
        return cyclic_cosine(peaks, last_steps) if schedule.name == "cosine" else cyclic_poly(peaks, last_steps, schedule.power)
    if schedule.name == "step":
        if schedule.amplitudes:
            raise ValueError(f"amplitudes is {tuple(schedule.amplitudes)}, which is for cosine and poly; the schedule is step")
        return step_decay(learning_rate, [round(part * epochs * steps_per_epoch) for part in schedule.boundaries], schedule.factor)
    raise ValueError(f"name is {schedule.name!r}; known: cosine, poly, step")

"""The one train step that serves every method."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import optax
from flax import linen as nn

from distill_jax.data.batches import gather
from distill_jax.methods.base import Batch, Method
from distill_jax.models.maps import with_maps
from distill_jax.state import TrainState
from distill_jax.tasks import TASKS, Task, TrainMetrics


def make_train_step(
    model: nn.Module,
    method: Method,
    optimizer: optax.GradientTransformation,
    augment: Callable[[dict, jax.Array], dict],
    to_inputs: Callable[[dict], Any],
    teachers: Sequence[Callable[[Any, dict], jax.Array]] = (),
    task: Task = TASKS["classification"],
) -> Callable[..., tuple[TrainState, TrainMetrics, jax.Array | None]]:
    """Builds the pure function train_step(state, epoch_metrics, source, batch, key) -> (state, epoch_metrics, logits_BxC).

    Jit it with the first argument donated. `batch` has "id" (int32 [B]), which indexes the rows of the arrays in `source`, [N, ...]; or it
    has all data, and `source` is {}. `key` is the run's key; the step's randomness is a function of it and of state.step, so a resumed run
    repeats it. The returned logits are those that the method observes; None if it observes none.

    Args:
      model: flax module from inputs to float32 logits [B, C], or to the outputs of another task.
      method: the distillation method.
      optimizer: turns gradients into updates; includes the learning-rate schedule.
      augment: (batch, key) -> batch, as the student and its teachers see the samples.
      to_inputs: batch -> inputs of the model: normalisation.
      teachers: for each entry of TrainState.given, (entry, augmented batch) -> logits [B, C]; see Batch.teachers.
      task: what the outputs and the batch's labels mean.
    """

    def train_step(state, epoch_metrics, source, batch, key):
        batch = gather(source, batch)
        augmentation_key, dropout_key, teacher_key = jax.random.split(jax.random.fold_in(key, state.step), 3)
        view = augment(batch, augmentation_key)
        inputs, labels = to_inputs(view), task.labels(view)
        asked = tuple(partial(speak, network, view) for speak, network in zip(teachers, state.given, strict=True))
        signal = method.signal(state.teacher, Batch(inputs, batch["id"], asked), teacher_key)

        def loss_fn(params):
            options = {"train": True, "mutable": ["batch_stats"], "rngs": {"dropout": dropout_key}}
            (logits_BxC, updated), maps = with_maps(model.apply, state.network | {"params": params}, inputs, **options)
            losses = task.loss(method, logits_BxC, labels, signal, *([maps] if method.maps else []))
            return losses.loss, (losses, logits_BxC, updated.get("batch_stats", {}))

        gradients, (losses, logits_BxC, batch_stats) = jax.grad(loss_fn, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        step_metrics = task.train_metrics.single_from_model_output(**task.measure(losses, logits_BxC, labels))
        if method.observes == "clean":
            logits_BxC = model.apply(state.network, to_inputs(batch), train=False)
        state = state.replace(step=state.step + 1, params=params, batch_stats=batch_stats, opt_state=opt_state)
        state = state.replace(teacher=method.follow(state.teacher, state.network)) if method.follow else state
        return state, epoch_metrics.merge(step_metrics), logits_BxC if method.observe else None

    return train_step

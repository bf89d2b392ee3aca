"""The state of a run and the one train step that serves every method."""

from collections.abc import Callable
from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax
from clu import metrics
from flax import linen as nn
from flax import struct

from distill_jax.methods.base import Method, Teacher, variables


class TrainState(struct.PyTreeNode):
    """Everything that changes during a run."""

    step: jax.Array  # int32 []: finished iterations
    params: Any  # float32
    batch_stats: Any  # float32 running means and variances; {} for a model without BatchNorm
    opt_state: optax.OptState
    teacher: Teacher


@flax.struct.dataclass
class TrainMetrics(metrics.Collection):
    """Means over the steps since the epoch began. They accumulate on the device: the host fetches them when it logs."""

    loss: metrics.Average.from_output("loss")
    loss_ce: metrics.Average.from_output("loss_ce")
    loss_teacher: metrics.Average.from_output("loss_teacher")
    train_accuracy: metrics.Accuracy


def init_state(model: nn.Module, optimizer: optax.GradientTransformation, inputs: Any, key: jax.Array) -> TrainState:
    """A fresh state, its teacher None: a function of `key` alone; of `inputs` [B, ...] only the shapes matter."""
    variables = model.init(key, inputs, train=False)
    params = variables["params"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        opt_state=optimizer.init(params),
        teacher=None,
    )


def gather(source: dict[str, jax.Array], batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Adds to a batch the rows of `source`, arrays [N, ...] on the device, that `batch["id"]` names.

    A streamed batch carries its data with it and comes with an empty source.
    """
    rows = {name: array.at[batch["id"]].get(mode="promise_in_bounds") for name, array in source.items()}
    return batch | rows


def make_train_step(
    model: nn.Module, method: Method, optimizer: optax.GradientTransformation, prepare: Callable[..., Any]
) -> Callable[..., tuple[TrainState, TrainMetrics, jax.Array]]:
    """Builds the pure function train_step(state, epoch_metrics, source, batch, key) -> (state, epoch_metrics, logits_BxC).

    Args:
      model: flax module; its `apply` takes what `prepare` returns.
      method: the distillation method.
      optimizer: turns gradients into updates; the learning-rate schedule is inside.
      prepare: (batch, key) -> model inputs: augmentation and normalisation.

    Returns:
      A function to be jitted with its first argument donated. `key` is the run's key; the step's own randomness is a function of it
      and of state.step, so a resumed run repeats it. The logits returned are those that the method observes.
    """

    def train_step(state, epoch_metrics, source, batch, key):
        batch = gather(source, batch)
        augmentation_key, dropout_key, teacher_key = jax.random.split(jax.random.fold_in(key, state.step), 3)
        inputs = prepare(batch, augmentation_key)
        signal = method.signal(state.teacher, inputs, batch["id"], teacher_key)

        def loss_fn(params):
            logits_BxC, updated = model.apply(
                variables(state.replace(params=params)), inputs, train=True, mutable=["batch_stats"], rngs={"dropout": dropout_key}
            )
            losses = method.loss(logits_BxC, batch["label"], signal)
            return losses.loss, (losses, logits_BxC, updated.get("batch_stats", {}))

        gradients, (losses, logits_BxC, batch_stats) = jax.grad(loss_fn, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        observed = TrainMetrics.single_from_model_output(
            loss=losses.loss, loss_ce=losses.ce, loss_teacher=losses.teacher, logits=logits_BxC, labels=batch["label"]
        )
        if method.observes_clean_view:
            logits_BxC = model.apply(variables(state), prepare(batch, None), train=False)
        state = state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            opt_state=opt_state,
        )
        return state, epoch_metrics.merge(observed), logits_BxC

    return train_step

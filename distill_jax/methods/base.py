"""What a distillation method is: a record of pure functions, in the spirit of optax's GradientTransformation."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import linen as nn
from flax import struct
from jax.sharding import Mesh

Teacher = Any  # a pytree; None where there is no teacher (yet)
Signal = Any  # what the teacher says of one batch: a pytree of arrays, or None


class FrozenNetwork(struct.PyTreeNode):
    """A network that another run trained. Part of the state, but not of its checkpoints: it is read from that run again."""

    params: Any
    batch_stats: Any


class FrozenLogits(struct.PyTreeNode):
    """What such a network says of every training sample, where augmentation is off; not in the checkpoints either."""

    logits: jax.Array  # float32 [N, C], by sample id


class Setting(NamedTuple):
    """What a method may know of the run it serves."""

    model: nn.Module
    cycle_ends: tuple[int, ...]  # finished epochs at which each learning-rate cycle ends; the last is the run's length
    num_examples: int = 0  # of the training set; ids are below it
    num_classes: int = 0
    mesh: Mesh | None = None  # the devices
    teachers: tuple[nn.Module, ...] = ()  # the architectures of the networks that `init` is given


class Losses(NamedTuple):
    """A batch's loss and its parts; scalars."""

    loss: jax.Array  # what is minimised
    ce: jax.Array  # cross-entropy with the labels, unweighted
    teacher: jax.Array  # what the teacher adds, weighted as in `loss`; 0 without a teacher


class Method(NamedTuple):
    """A distillation method.

    Every function is pure. `signal` and `loss` are traced into the jitted step, `observe` and `predict` are jitted by themselves;
    `init` and `end_epoch` run between epochs.
    """

    # (state, given) -> Teacher: the teacher before the first step. `given` has a FrozenNetwork for each of Setting.teachers
    init: Callable[[Any, tuple], Teacher]
    # (teacher, inputs, ids_B, key) -> Signal: computed outside the differentiated function, so no gradient can reach the teacher
    signal: Callable[[Teacher, Any, jax.Array, jax.Array], Signal]
    # (logits_BxC, labels_B, signal) -> Losses
    loss: Callable[[jax.Array, jax.Array, Signal], Losses]
    # (state, epochs_done) -> Teacher: the teacher of the next epoch
    end_epoch: Callable[[Any, int], Teacher]
    # (teacher, ids_B, logits_BxC) -> Teacher: what it learns of a batch after the step; None if it does not look. A call of its own, the
    # teacher donated: a table that is read and written within one compiled program is copied as a whole, twice a step
    observe: Callable[[Teacher, jax.Array, jax.Array], Teacher] | None = None
    # whether `observe` gets the logits of a clean pass (no augmentation, inference mode), a forward more, and not those of the step
    observes_clean_view: bool = False
    # whether `given` has FrozenLogits instead: the teachers' forwards are run once, on the training set without augmentation
    wants_logits: bool = False
    # (teacher, inputs) -> logits_BxC of unseen inputs; None if the teacher cannot tell. For evaluation only.
    predict: Callable[[Teacher, Any], jax.Array] | None = None


def unchanged(state, epochs_done: int) -> Teacher:
    """An `end_epoch` for methods whose teacher never changes."""
    del epochs_done
    return state.teacher


def variables(network: Any) -> dict[str, Any]:
    """A network, anything with `params` and `batch_stats`, as flax's `apply` takes it."""
    return {"params": network.params, "batch_stats": network.batch_stats}


def frozen_logits(model: nn.Module, teacher: FrozenNetwork | FrozenLogits, inputs: Any, ids_B: jax.Array) -> jax.Array:
    """What a frozen teacher says of a batch, float32 [B, C]: its forward in inference mode, or its rows of the table."""
    if isinstance(teacher, FrozenLogits):
        return teacher.logits.at[ids_B].get(mode="promise_in_bounds")
    return model.apply(variables(teacher), inputs, train=False)

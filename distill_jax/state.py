"""The state of a run, and its layout over the devices."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from clu.metrics import Collection
from flax import struct
from jax.sharding import Mesh

from distill_jax import logs, sharding
from distill_jax.errors import Diverged
from distill_jax.methods.base import Method, Network, Teacher
from distill_jax.tasks import TrainMetrics


class TrainState(struct.PyTreeNode):
    """Everything that changes during a run, plus the frozen networks of other runs.

    The metrics of an epoch are apart: the step donates the state, and the log still reads the metrics while the next step runs.
    """

    step: jax.Array  # int32 []: finished iterations
    params: Any  # float32
    batch_stats: Any  # float32 running means and variances; {} for a model without BatchNorm
    opt_state: optax.OptState
    teacher: Teacher = None  # the method's own
    given: tuple[Any, ...] = ()  # a pytree for each of config.teachers; never in a checkpoint, since their own runs keep them

    @property
    def network(self) -> Network:
        return {"params": self.params, "batch_stats": self.batch_stats}


def init_state(network: Network, optimizer: optax.GradientTransformation) -> TrainState:
    """The state of a network that is not yet trained, without a teacher."""
    return TrainState(jnp.zeros((), jnp.int32), network["params"], network["batch_stats"], optimizer.init(network["params"]))


def layout(method: Method, mesh: Mesh) -> TrainState:
    """The layout of a state as a tree prefix: a copy on every device, except that tables with one row per sample are split by row."""
    whole, rows = sharding.replicated(mesh), sharding.rows(mesh)
    teacher = jax.tree.map(lambda by_sample: rows if by_sample else whole, method.by_sample)
    return TrainState(whole, whole, whole, whole, teacher, given=whole)


def saved(state: TrainState, epoch_metrics: Collection) -> dict[str, Any]:
    """The content of a checkpoint, without networks trained by other runs: those runs keep them."""
    kept = {name: getattr(state, name) for name in ("step", "params", "batch_stats", "opt_state", "teacher")}
    return {"state": kept, "epoch_metrics": epoch_metrics}


def empty_metrics(mesh: Mesh, kind: type[Collection] = TrainMetrics) -> Collection:
    """The metrics of an epoch before its first step; `kind` is the task's."""
    return sharding.put(kind.empty(), sharding.replicated(mesh))


def check_finite(params: Any, step: int) -> None:
    """Raises Diverged if a parameter is not finite: an epoch's last step may break the parameters without affecting its loss."""
    if not _all_finite(params):
        raise Diverged(f"a parameter is not finite after step {step}; {logs.DIVERGED}")


@jax.jit
def _all_finite(tree: Any) -> jax.Array:
    return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]))

"""Compiled functions of networks, shared by all runs of a process: equal networks are compiled once."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn
from jax.sharding import Mesh

from distill_jax import sharding
from distill_jax.data import batches
from distill_jax.specs import Spec
from distill_jax.tasks import TASKS

shared = functools.lru_cache(maxsize=64)


@shared
def inference(module: nn.Module) -> Callable[[Any, Any], jax.Array]:
    """(network, inputs) -> logits, float32 [B, C], in inference mode. The same function for equal modules."""
    return functools.partial(module.apply, train=False)


@shared
def init(module: nn.Module, mesh: Mesh) -> Callable[[jax.Array, Any], dict[str, Any]]:
    """(key, inputs [B, ...]) -> a fresh network, a function of the key alone; of the inputs, only the shapes matter."""

    def init_network(key, inputs):
        variables = module.init(key, inputs, train=False)
        return {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}

    # XLA's CPU compiler takes long to optimize random number generators, 84 s for ResNet-110 with jax 0.12, and this program runs once.
    is_cpu = mesh.devices.flat[0].platform == "cpu"
    options = {"xla_backend_optimization_level": 1} if is_cpu else {}
    return jax.jit(init_network, out_shardings=sharding.replicated(mesh), compiler_options=options)


def predict(apply: Callable[[Any, Any], Any], spec: Spec, mesh: Mesh, predict: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """(network, source, batch) -> the task's predictions for a batch, on every device: [B, ...] such as logits [B, C].

    `predict` replaces the task's own function (outputs, batch) -> predictions.
    """
    return _predict(apply, spec._replace(model=()), mesh, predict or TASKS[spec.task].predict)


@shared
def _predict(apply, spec, mesh, predict):
    def predict_batch(network, source, batch):
        batch = batches.gather(source, batch)
        return predict(apply(network, spec.to_inputs(batch)), batch)

    return jax.jit(predict_batch, out_shardings=sharding.replicated(mesh))

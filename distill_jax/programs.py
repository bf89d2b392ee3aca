"""Compiled functions of a network that all runs of a process share: networks that are equal are compiled once, whoever trains them."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn
from jax.sharding import Mesh

from distill_jax import sharding
from distill_jax.data import batches
from distill_jax.specs import Spec

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

    return jax.jit(init_network, out_shardings=sharding.replicated(mesh))


def predict(apply: Callable[[Any, Any], jax.Array], spec: Spec, mesh: Mesh) -> Callable[..., jax.Array]:
    """(network, source, batch) -> the logits of a batch of samples, [B, C], on every device."""
    return _predict(apply, spec._replace(model=()), mesh)


@shared
def _predict(apply, spec, mesh):
    def predict_batch(network, source, batch):
        return apply(network, spec.to_inputs(batches.gather(source, batch)))

    return jax.jit(predict_batch, out_shardings=sharding.replicated(mesh))

"""Devices: the only file that deals with meshes.

There is one mesh axis, "data", over all devices. Batches are split along it, parameters are replicated, and jit inserts the collectives.
BatchNorm statistics are therefore those of the whole batch, and the same program runs on one device, on eight, or on a pod.
"""

import os
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from distill_jax.errors import UserError


def check_backend() -> None:
    """Raises UserError if JAX finds no device."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), f"none of JAX_PLATFORMS={os.environ.get('JAX_PLATFORMS', '')!r}")
        raise UserError(f"JAX finds no device: {reason}; check JAX_PLATFORMS and JAX_NUM_CPU_DEVICES") from error


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """A one-axis mesh over `devices` (default: all)."""
    # Not jax.make_mesh, which refuses the GPUs of several hosts.
    return Mesh(np.array(jax.devices() if devices is None else devices), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """A full copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def rows(mesh: Mesh) -> NamedSharding:
    """The first axis split over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def abstract(tree: Any, shardings: Any) -> Any:
    """Abstract arrays like those of a pytree, with the shardings given by a tree prefix."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree, jax.tree.broadcast(shardings, tree)
    )


def put(tree: Any, sharding: NamedSharding) -> Any:
    """Puts host arrays, identical on every process, on the devices as global arrays."""

    def put_array(array):
        array = np.asarray(array)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    return jax.tree.map(put_array, tree)


def own_rows(count: int, mesh: Mesh) -> np.ndarray:
    """Indices, ascending, of the rows that belong to this process's devices when `count` rows are split over all devices."""
    slices = rows(mesh).addressable_devices_indices_map((count,)).values()
    return np.unique(np.concatenate([np.arange(count)[index] for index in slices]))


def put_own_rows(tree: Any, count: int, mesh: Mesh) -> Any:
    """Builds global device arrays of `count` rows from host arrays with each process's `own_rows`."""
    return jax.tree.map(lambda array: jax.make_array_from_process_local_data(rows(mesh), array, (count, *array.shape[1:])), tree)


def fetch(batches: Iterator[Any]) -> Any:
    """Copies pytrees of replicated arrays [B, ...] to the host and concatenates them: [sum of B, ...].

    Each is copied while the next is computed, so the devices hold at most two.
    """
    on_host, last = [], next(batches)
    for batch in batches:
        on_host.append(jax.device_get(last))
        last = batch
    return jax.tree.map(lambda *parts: np.concatenate(parts), *on_host, jax.device_get(last))


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Raises UserError unless the batch splits evenly over the mesh."""
    if batch_size % mesh.size:
        raise UserError(f"batch_size is {batch_size}; it must be a multiple of the number of devices, {mesh.size}")

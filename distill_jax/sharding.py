"""Devices: the only file that knows meshes and processes.

One mesh axis, "data", over all devices. Batches are split along it, parameters are replicated, and jit inserts the collectives: so
BatchNorm's means are those of the whole batch, and the same program runs on one device, on eight, or on a pod.
"""

import functools
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from distill_jax.errors import UserError


def is_cluster() -> bool:
    """Whether the environment says that this is one of several processes: a Slurm step of several tasks, or a host of a TPU pod slice."""
    tasks, hosts = os.environ.get("SLURM_STEP_NUM_TASKS", "1"), os.environ.get("TPU_WORKER_HOSTNAMES", "")
    return int(tasks) > 1 or "," in hosts


def join(coordinator: str | None, processes: int | None, process: int | None, timeout: int) -> None:
    """Makes this process one of several that train together; to be called before JAX is used.

    Args:
      coordinator: address and port of process 0; None, as in the next two, where JAX can find it out: on TPU pods and under Slurm.
      processes: how many there are.
      process: which one this is, from 0.
      timeout: seconds to wait for the others. If they do not come, one line says so and the process ends.

    Raises:
      UserError: an argument is wrong, or JAX cannot find out what is None.
    """
    if coordinator is not None and ":" not in coordinator:
        raise UserError(f"--coordinator is {coordinator!r}; it must be the address and a free port of process 0, HOST:PORT")

    def give_up():
        missing = f"process {process} of {processes} waited at {coordinator}" if coordinator else "the others were waited for"
        sys.stderr.write(f"error: {missing} for {timeout} s, and not all have joined; start them all, or allow more with --join_timeout\n")
        sys.stderr.flush()
        os._exit(1)

    alarm = threading.Timer(timeout, give_up)  # JAX's own time-out ends the process with a page of C++
    alarm.daemon = True
    alarm.start()
    try:
        jax.distributed.initialize(coordinator, processes, process, initialization_timeout=timeout + 60)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise UserError(f"--distributed: {reason}; give --coordinator (with a port that is free), --processes and --process") from error
    finally:
        alarm.cancel()


def is_first_process() -> bool:
    """Whether this is the process that writes logs and summaries."""
    return jax.process_index() == 0


def on_first_process(action: Callable[[], Any]) -> None:
    """Runs `action` on process 0; the others wait for it.

    Raises:
      UserError: on process 0 what `action` raised, on the others that it did.
    """
    error = None
    if is_first_process():
        try:
            action()
        except UserError as raised:
            error = raised
    if from_first_process(int(error is not None)):
        raise error or UserError("process 0 has stopped; its own message says why")


def from_first_process(value: Any) -> np.ndarray:
    """What process 0 says: its number or array; the others' has the same shape and dtype."""
    return np.asarray(multihost_utils.broadcast_one_to_all(np.asarray(value)))


def wait_for_all() -> None:
    """Returns once every process has come here."""
    multihost_utils.sync_global_devices("wait_for_all")


def topology() -> str:
    """The devices and processes of this run: where they are the same, so is every bit of its results."""
    return f"{jax.device_count()} x {jax.devices()[0].device_kind}, processes: {jax.process_count()}"


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """A one-axis mesh over `devices` (default: all of them)."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def rows(mesh: Mesh) -> NamedSharding:
    """The first axis split over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def put(tree: Any, sharding: NamedSharding) -> Any:
    """Host arrays, the same on every process, as global device arrays."""

    def put_array(array):
        array = np.asarray(array)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    return jax.tree.map(put_array, tree)


def own_rows(count: int, mesh: Mesh) -> np.ndarray:
    """Which of `count` rows, split over all devices, belong to the devices of this process; ascending."""
    slices = rows(mesh).addressable_devices_indices_map((count,)).values()
    return np.unique(np.concatenate([np.arange(count)[index] for index in slices]))


def put_own_rows(tree: Any, count: int, mesh: Mesh) -> Any:
    """Host arrays that hold the `own_rows` of each process, as global device arrays of `count` rows."""
    return jax.tree.map(lambda array: jax.make_array_from_process_local_data(rows(mesh), array, (count, *array.shape[1:])), tree)


def zeros(shape: tuple[int, ...], dtype: Any, mesh: Mesh) -> jax.Array:
    """A device array of zeros, its first axis split over the devices."""
    return jax.jit(functools.partial(jnp.zeros, shape, dtype), out_shardings=rows(mesh))()


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Raises UserError unless the batch splits evenly over the mesh."""
    if batch_size % mesh.size:
        raise UserError(f"batch_size is {batch_size}; it must be a multiple of the number of devices, {mesh.size}")

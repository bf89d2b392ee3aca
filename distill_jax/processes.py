"""Several processes that train together: the only file that knows of them. All run the same program; the first one writes the files.

A process that is alone is the first one, waits for nobody, and needs none of this.
"""

import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

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


def are_several() -> bool:
    return jax.process_count() > 1


def is_first() -> bool:
    """Whether this is the process that writes logs and summaries."""
    return jax.process_index() == 0


def on_first(action: Callable[[], Any]) -> None:
    """Runs `action` on process 0; the others wait for it.

    Raises:
      UserError: on process 0 what `action` raised, on the others that it did.
    """
    error = None
    if is_first():
        try:
            action()
        except UserError as raised:
            error = raised
    if from_first(int(error is not None)):
        raise error or UserError("process 0 has stopped; its own message says why")


def from_first(value: Any) -> np.ndarray:
    """What process 0 says: its number or array; the others' has the same shape and dtype."""
    return np.asarray(multihost_utils.broadcast_one_to_all(np.asarray(value)))


def wait_for_all() -> None:
    """Returns once every process has come here."""
    multihost_utils.sync_global_devices("wait_for_all")


def topology() -> str:
    """The devices and processes of this run: where they are the same, so is every bit of its results."""
    return f"{jax.device_count()} x {jax.devices()[0].device_kind}, processes: {jax.process_count()}"


def are_preempted(step: int) -> bool:
    """Whether one of them got SIGTERM and this is the step, the same for all, after which they stop. To be asked after every step."""
    return multihost_utils.reached_preemption_sync_point(step)

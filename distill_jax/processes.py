"""Multiple processes that train together; no other file deals with them. All run the same program; the first one writes the files.

A single process is the first one, waits for nobody, and needs none of this.
"""

import contextlib
import itertools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from distill_jax.errors import UserError

QUESTIONS = itertools.count(1)  # numbers the checks of `preemption` over the whole invocation: JAX needs a new number for each


def is_cluster() -> bool:
    """Whether the environment indicates multiple processes: a Slurm step with several tasks, or a TPU pod slice with several hosts."""
    tasks, hosts = os.environ.get("SLURM_STEP_NUM_TASKS", "1"), os.environ.get("TPU_WORKER_HOSTNAMES", "")
    return int(tasks) > 1 or "," in hosts


def is_one_of_several(distributed: bool | None, coordinator: str | None, processes: int | None, process: int | None) -> bool:
    """Whether this process should join others, according to the command line or else to the environment."""
    named = coordinator is not None or processes is not None or process is not None
    return named or is_cluster() if distributed is None else distributed


def join(coordinator: str | None, processes: int | None, process: int | None, timeout: int) -> None:
    """Joins the processes that train together. Call it before JAX is used.

    Args:
      coordinator: address and port of process 0. This and the next two may be None where JAX detects them: on TPU pods and under Slurm.
      processes: number of processes.
      process: index of this one, from 0.
      timeout: seconds to wait for the others. If they do not join, the process reports it in one line and exits.

    Raises:
      UserError: an argument is wrong, or JAX cannot detect one that is None.
    """
    if coordinator is None and (processes is not None or process is not None):
        raise UserError("--processes and --process also need --coordinator: the address and a free port of process 0, HOST:PORT")
    if coordinator is not None and ":" not in coordinator:
        raise UserError(f"--coordinator is {coordinator!r}; it must be the address and a free port of process 0, HOST:PORT")

    keep_gloo_quiet()

    def give_up():
        missing = f"process {process} of {processes} waited at {coordinator}" if coordinator else "waited for the other processes"
        sys.stderr.write(f"error: {missing} for {timeout} s, but not all joined; start them all, or wait longer with --join_timeout\n")
        sys.stderr.flush()
        os._exit(1)

    alarm = threading.Timer(timeout, give_up)  # JAX's own time-out ends the process with a page of C++
    alarm.daemon = True
    alarm.start()
    try:
        jax.distributed.initialize(coordinator, processes, process, own_gpus(), initialization_timeout=timeout + 60)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise UserError(f"--distributed: {reason}; set --coordinator (with a free port), --processes and --process") from error
    finally:
        alarm.cancel()


def own_gpus() -> list[int] | None:
    """`local_device_ids` of jax.distributed.initialize: [] for all GPUs that this process sees, None to leave the choice to JAX.

    Under Slurm, JAX gives each task of a node one of the GPUs that it sees, by its number. All but one would be idle if it is the only
    task, and most tasks would find none if each sees only its own.
    """
    tasks, nodes = os.environ.get("SLURM_STEP_NUM_TASKS"), os.environ.get("SLURM_STEP_NUM_NODES")
    is_only_task, sees_one = tasks is not None and tasks == nodes, "," not in os.environ.get("CUDA_VISIBLE_DEVICES", ",")
    return [] if (is_only_task or sees_one) and "JAX_LOCAL_DEVICE_IDS" not in os.environ else None


def keep_gloo_quiet() -> None:
    """Reserves standard output for Python: Gloo, which connects CPUs, prints a line for each connection to C's. What NCCL_DEBUG asks for
    goes to standard error."""
    sys.stdout.flush()
    own = os.dup(sys.stdout.fileno())
    with open(os.devnull, "w") as nowhere:
        os.dup2(2 if "NCCL_DEBUG" in os.environ else nowhere.fileno(), 1)
    sys.stdout = open(own, "w", encoding=sys.stdout.encoding, errors="backslashreplace", buffering=1)


def are_several() -> bool:
    return jax.process_count() > 1


def is_first() -> bool:
    """Whether this is the process that writes logs and summaries."""
    return jax.process_index() == 0


def on_first(action: Callable[[], Any]) -> None:
    """Runs `action` on process 0; the others wait for it.

    Raises:
      UserError: on process 0, the error that `action` raised; on the others, that it raised one.
    """
    error = None
    if is_first():
        try:
            action()
        except UserError as raised:
            error = raised
    if from_first(int(error is not None)):
        raise error or UserError("process 0 has stopped; see its message for the reason")


def on_first_only(ask: Callable[[], bool | int]) -> int:
    """The answer of process 0, on all processes."""
    return int(from_first(int(ask()) if is_first() else 0))


def from_first(value: Any) -> np.ndarray:
    """The number or array of process 0; the values on the others must have the same shape and dtype."""
    return np.asarray(multihost_utils.broadcast_one_to_all(np.asarray(value)))


def wait_for_all() -> None:
    """Returns once every process has reached this call."""
    multihost_utils.sync_global_devices("wait_for_all")


def topology() -> str:
    """The devices and processes of this run. While they (and the CPU cores that XLA uses) stay the same, its results are bit-identical on
    CPUs; on GPUs this needs XLA's deterministic operations."""
    return f"{jax.device_count()} x {jax.devices()[0].device_kind}, processes: {jax.process_count()}"


def devices() -> str:
    """Human-readable description of this run's devices."""
    count = jax.device_count()
    several = f" of {jax.process_count()} processes" if are_several() else ""
    return f"{count} {jax.devices()[0].device_kind} device{'s' * (count > 1)}{several}"


@contextlib.contextmanager
def preemption() -> Iterator[Callable[[], int]]:
    """Yields asked_to_stop(): the number of the signal that asks this run to save and exit, 0 for none. Call it after every step.

    With one process, SIGTERM and SIGINT no longer end it; a second signal acts as usual. With several, SIGTERM to any one stops all of
    them after the same step, and SIGINT acts as usual.
    """
    if are_several():
        yield lambda: signal.SIGTERM if multihost_utils.reached_preemption_sync_point(next(QUESTIONS)) else 0
        return
    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0  # only the main thread receives signals
        return
    with caught_signals() as received:
        yield lambda: received[0] if received else 0


@contextlib.contextmanager
def caught_signals() -> Iterator[list[int]]:
    """Within the context, SIGTERM and SIGINT are appended to the yielded list; the second signal acts as usual."""
    received = []
    before = {}

    def restore():
        for number, handler in before.items():
            signal.signal(number, handler)

    def catch(number, frame):
        del frame
        received.append(number)
        restore()

    for number in (signal.SIGTERM, signal.SIGINT):
        before[number] = signal.signal(number, catch)
    try:
        yield received
    finally:
        restore()

"""Several processes that train together: the only file that knows of them. All run the same program; the first one writes the files.

A process on its own is the first one, waits for nobody, and needs none of this.
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

QUESTIONS = itertools.count(1)  # of `are_preempted`, over the whole invocation: JAX agrees on a number that comes once


def is_cluster() -> bool:
    """Whether the environment says that this is one of several processes: a Slurm step of several tasks, or a host of a TPU pod slice."""
    tasks, hosts = os.environ.get("SLURM_STEP_NUM_TASKS", "1"), os.environ.get("TPU_WORKER_HOSTNAMES", "")
    return int(tasks) > 1 or "," in hosts


def is_one_of_several(distributed: bool | None, coordinator: str | None, processes: int | None, process: int | None) -> bool:
    """Whether this process is to join others: as the flags of the command line say or, where they do not, the environment does."""
    named = coordinator is not None or processes is not None or process is not None
    return named or is_cluster() if distributed is None else distributed


def join(coordinator: str | None, processes: int | None, process: int | None, timeout: int) -> None:
    """Makes this process one of several that train together. Call it before JAX is used.

    Args:
      coordinator: address and port of process 0; None, as in the next two, where JAX finds it out: on TPU pods and under Slurm.
      processes: how many there are.
      process: which one this is, from 0.
      timeout: seconds to wait for the others. If they do not come, the process says so in one line and ends.

    Raises:
      UserError: an argument is wrong, or JAX cannot find out what is None.
    """
    if coordinator is None and (processes is not None or process is not None):
        raise UserError("--processes and --process need --coordinator as well: the address and a free port of process 0, HOST:PORT")
    if coordinator is not None and ":" not in coordinator:
        raise UserError(f"--coordinator is {coordinator!r}; it must be the address and a free port of process 0, HOST:PORT")

    keep_gloo_quiet()

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


def keep_gloo_quiet() -> None:
    """Leaves standard output to Python alone: Gloo, which connects CPUs, prints a line for each connection to that of C."""
    sys.stdout.flush()
    own = os.dup(sys.stdout.fileno())
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    sys.stdout = open(own, "w", encoding=sys.stdout.encoding, errors="backslashreplace", buffering=1)


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


def on_first_only(ask: Callable[[], bool | int]) -> int:
    """The answer of process 0, for all of them."""
    return int(from_first(int(ask()) if is_first() else 0))


def from_first(value: Any) -> np.ndarray:
    """The number or array of process 0; those of the others have the same shape and dtype."""
    return np.asarray(multihost_utils.broadcast_one_to_all(np.asarray(value)))


def wait_for_all() -> None:
    """Returns once every process has come here."""
    multihost_utils.sync_global_devices("wait_for_all")


def topology() -> str:
    """The devices and processes of this run: where they are the same, so is every bit of its results."""
    return f"{jax.device_count()} x {jax.devices()[0].device_kind}, processes: {jax.process_count()}"


def devices() -> str:
    """The devices of this run, for people."""
    count = jax.device_count()
    several = f" of {jax.process_count()} processes" if are_several() else ""
    return f"{count} {jax.devices()[0].device_kind} device{'s' * (count > 1)}{several}"


@contextlib.contextmanager
def preemption() -> Iterator[Callable[[], int]]:
    """Yields asked_to_stop(): the number of the signal that asks this run to save itself and leave, 0 for none. Ask it after every step.

    One process: SIGTERM and SIGINT no longer end it; a second signal acts as it did before. Of several, any one that gets SIGTERM stops
    all of them, after the same step. SIGINT ends them as always.
    """
    if are_several():
        yield lambda: signal.SIGTERM if multihost_utils.reached_preemption_sync_point(next(QUESTIONS)) else 0
        return
    with caught_signals() as received:
        yield lambda: received[0] if received else 0


@contextlib.contextmanager
def caught_signals() -> Iterator[list[int]]:
    """Within the context, the numbers of SIGTERM and SIGINT go into the list that it yields; the second signal acts as before."""
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

"""Leaving in good order when the machine is taken away or the user presses Ctrl-C."""

import contextlib
import signal
from collections.abc import Callable, Iterator

from distill_jax import processes


@contextlib.contextmanager
def watched() -> Iterator[Callable[[int], int]]:
    """Yields asked_to_stop(step): the number of the signal that asks this run to save after `step` and leave, 0 for none.

    One process: SIGTERM and SIGINT no longer end it; a second signal acts as it did before. Of several, any one that gets SIGTERM stops
    all of them, after the same step: see `processes.are_preempted`. SIGINT ends them as always.
    """
    if processes.are_several():
        yield lambda step: signal.SIGTERM if processes.are_preempted(step) else 0
        return
    with caught_signals() as received:
        yield lambda step: received[0] if received else 0


@contextlib.contextmanager
def caught_signals() -> Iterator[list[int]]:
    """Within the context, the numbers of SIGTERM and SIGINT are put into the list that it yields; then both act as before."""
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

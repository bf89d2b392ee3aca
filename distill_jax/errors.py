"""Errors that reach the user as one line, without a stack trace."""

import contextlib
import signal
from collections.abc import Iterator


class UserError(Exception):
    """An error in the config, the data or the command line. The message names the field or file and says what to do."""


class Diverged(UserError):
    """The loss or a parameter is not finite."""


@contextlib.contextmanager
def prefixed(prefix: str) -> Iterator[None]:
    """Prefixes the message of a UserError with what it is about; "" leaves it as it is."""
    try:
        yield
    except UserError as error:
        raise type(error)(f"{prefix}: {error}" if prefix else str(error)) from error


class Interrupted(Exception):
    """A signal stopped the run after it saved its state; repeating the command resumes it.

    Args:
      signal_number: the signal.
      advice: what was saved, and what to do.
    """

    def __init__(self, signal_number: int, advice: str):
        super().__init__(f"stopped by {signal.Signals(signal_number).name}; {advice}")
        self.signal_number = signal_number

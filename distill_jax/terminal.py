"""What a terminal shows: the progress line at its bottom, or rows alone; imports nothing slow."""

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from typing import TextIO


def show(text: str) -> None:
    """Prints a line that the next one replaces, if standard output is a terminal; "" clears it. Cut where it would wrap."""
    if sys.stdout.isatty():
        print(f"\r\033[K{text[: shutil.get_terminal_size().columns - 1]}", end="", flush=True)


@contextlib.contextmanager
def only_rows() -> Iterator[TextIO]:
    """Standard output for rows of data, in UTF-8; whatever else is printed within the context goes to standard error.

    If the reader stops early, as `head` does, the context ends without an error.
    """
    output = sys.stdout
    output.reconfigure(encoding="utf-8", errors="surrogateescape")  # file names may not be UTF-8
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield output
        output.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())  # for what Python flushes when it exits

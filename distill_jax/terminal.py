"""The progress line at the bottom of a terminal; imports nothing slow."""

import shutil
import sys


def show(text: str) -> None:
    """Prints a line that the next one replaces, if standard output is a terminal; "" clears it. Cut where it would wrap."""
    if sys.stdout.isatty():
        print(f"\r\033[K{text[: shutil.get_terminal_size().columns - 1]}", end="", flush=True)

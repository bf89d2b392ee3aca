"""The progress line at the bottom of a terminal; imports nothing slow."""

import sys


def show(text: str) -> None:
    """Prints a line that the next one replaces, if standard output is a terminal; "" clears it."""
    if sys.stdout.isatty():
        print(f"\r\033[K{text}", end="", flush=True)

"""Reads text, JSON and hashes of files. What is wrong with a file, or with writing one, becomes a one-line error."""

import contextlib
import hashlib
import json
import pathlib
from collections.abc import Iterator
from typing import Any

from distill_jax.errors import UserError

ELSEWHERE = "restore it, or choose another --workdir"  # the usual advice about a damaged file


@contextlib.contextmanager
def naming_unwritable(name: str, advice: str = "") -> Iterator[None]:
    """Turns an OSError into a UserError that says that `name` cannot be written, and, with `advice`, what to do."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{name} cannot be written: {error.strerror or error}{advice and f'; {advice}'}") from error


def sha256(path: pathlib.Path) -> str:
    """The SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def decoded(line: bytes) -> str:
    """A line as text: UTF-8, or Latin-1 if it is not valid UTF-8."""
    try:
        return line.decode("utf-8-sig")
    except UnicodeDecodeError:
        return line.decode("latin-1")


def read_text(path: pathlib.Path) -> str:
    """The content of a text file.

    Raises:
      UserError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error


def read_json(path: pathlib.Path, advice: str = ELSEWHERE) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
      UserError: the file is missing, truncated or something else; `advice` says what to do.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise UserError(f"{path} is damaged ({' '.join(str(error).split())}); {advice}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; {advice}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: it does not hold a JSON object; {advice}")
    return content


def read_jsonl(path: pathlib.Path, is_finished: bool = False) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl, [] if there is none. In a run that is not finished, a kill may have cut the last one: it is left out.

    Raises:
      UserError: any other line is damaged.
    """
    texts = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    lines = []
    for number, text in enumerate(texts, start=1):
        try:
            line = json.loads(text)
            is_line = isinstance(line, dict) and isinstance(line.get("step"), int)
        except ValueError:
            is_line = False
        if is_line:
            lines.append(line)
        elif number < len(texts) or is_finished:
            raise UserError(f"{path} is damaged: line {number} is not what a run writes; {ELSEWHERE}")
    return lines

"""Readers of JSON files. The content is treated as user input: anything wrong with it becomes a one-line error."""

import json
import pathlib
from typing import Any

from distill_jax.errors import UserError

ELSEWHERE = "restore it, or choose another --workdir"  # the usual advice about a damaged file


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


def read_jsonl(path: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of a file; [] if it does not exist. A line cut short by a kill, and anything after it, is left out."""
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            break
        if not isinstance(line, dict) or not isinstance(line.get("step"), int):
            break
        lines.append(line)
    return lines

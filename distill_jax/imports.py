"""Loads users' own networks and methods by import path."""

import importlib
import os
import sys
import traceback
from typing import Any


def load(path: str) -> Any:
    """Returns the object named by "module:attribute"; the module may be in the current directory or anywhere on `sys.path`.

    Raises:
      ValueError: the path is malformed, there is no such module or attribute, or importing the module failed. The message is one line
        without the path itself, to which the caller prepends the name of its argument.
    """
    module_name, _, attribute = path.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), attribute]):
        raise ValueError("an import path has the form module:name, such as my_nets:TinyViT")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # permanently: the module may import its neighbours later, inside its functions
    importlib.invalidate_caches()  # the file may be newer than the last import
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}."):
            advice = "start Python in its folder, or add that to PYTHONPATH"
            raise ValueError(f"there is no module {error.name} in the current directory or on sys.path; {advice}") from error
        raise ValueError(f"importing {module_name} failed{_place(error)}: {one_line(error)}") from error
    if not hasattr(module, attribute):
        raise ValueError(f"module {module_name} ({getattr(module, '__file__', 'built in')}) has no {attribute}")
    return getattr(module, attribute)


def one_line(error: BaseException) -> str:
    """An exception's type and message, without line breaks."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def _place(error: BaseException) -> str:
    """Where in the imported module the error was raised; "" for a syntax error, whose message gives the place."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename not in (__file__, importlib.__file__)]
    frames = [frame for frame in frames if not frame.filename.startswith("<frozen importlib")]
    return f" in {frames[0].filename}, line {frames[0].lineno}" if frames else ""

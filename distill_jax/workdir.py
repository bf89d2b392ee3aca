"""A run's folder: which config it belongs to, who may write in it, and its files."""

import contextlib
import fcntl
import json
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from distill_jax import processes
from distill_jax.errors import UserError
from distill_jax.files import naming_unwritable, read_json

SCHEMA = 2  # of a workdir's files; 1: those without a "schema" in config.json
FILES = (  # what runs write, change or delete
    "metrics.jsonl", "summary.json", "checkpoints", "snapshots", "damaged", "data.json", "teachers.json", "initial.json",
    "tokenizer.json", "network.json", "predictions.json", "eval.json", "ensemble.json", "table.md", "events.out.*", "features_*.npz",
    "linear_probe_*.json", "seed_*", "profile", "export", "predictions", "pictures", "confusion.json", "average_precision.json",
)  # fmt: skip
KINDS = {"model": str, "epochs": int, "params_sha256": str}  # types of what is read from a summary
AGAIN = "delete it and repeat the run's command to write it again"


def check_path(folder: pathlib.Path) -> None:
    """Raises UserError for a workdir that cannot be written or read back."""
    if re.match(r"\w+:/", str(folder)):
        raise UserError(f"workdir {folder} is in an object store; --workdir must be on a mounted file system, such as one from gcsfuse")
    try:
        str(folder.absolute()).encode()
    except UnicodeEncodeError as error:
        name = str(folder).encode(errors="backslashreplace").decode()
        raise UserError(f"workdir {name} has characters that this locale cannot encode; set a UTF-8 one, such as LC_ALL=C.UTF-8") from error
    special = sorted(set(str(folder.resolve())) & set("*?[]\\"))
    if special:
        raise UserError(
            f"workdir {folder.resolve()} has {' '.join(special)} in its path, which orbax treats as a pattern; choose another name"
        )
    found = processes.on_first_only(lambda: not (folder / "config.json").exists() and any(any(folder.glob(name)) for name in FILES))
    if found:
        raise UserError(f"workdir {folder} has files of a run but no config.json; restore it, or choose another --workdir")


def claim(folder: pathlib.Path, config: Mapping[str, Any]) -> None:
    """Makes a folder the workdir of a config: writes config.json.

    Raises:
      UserError: it cannot be written.
    """

    def write():
        with naming_unwritable(f"workdir {folder}", "choose another with --workdir"):
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / "config.json", {**config, "schema": SCHEMA})

    processes.on_first(write)


def is_claimed(folder: pathlib.Path) -> bool:
    """Whether a folder is the workdir of a config. The first process decides for all."""
    return exists(folder / "config.json")


def exists(path: pathlib.Path) -> bool:
    """Whether a path exists. The first process decides for all: a shared file system may show it to others later."""
    return bool(processes.on_first_only(path.exists))


def has_checkpoint(folder: pathlib.Path) -> bool:
    """Whether a run has saved a checkpoint. The first process decides for all."""
    return bool(processes.on_first_only(lambda: any(path.name.isdigit() for path in (folder / "checkpoints").glob("*"))))


def load_config(folder: pathlib.Path) -> tuple[dict[str, Any], int]:
    """The config of a run as nested dicts, its lists as tuples, and the schema of its workdir.

    Raises:
      UserError: the folder is not a workdir.
    """
    path = folder / "config.json"
    if not path.exists():
        raise UserError(f"{path} does not exist; is {folder} the workdir of a run?")
    config = read_json(path)
    schema = config.pop("schema", 1)
    return _with_tuples(config), schema


def load_summary(folder: pathlib.Path) -> dict[str, Any]:
    """The summary.json of a finished run.

    Raises:
      UserError: the run is not finished, or the file is damaged.
    """
    path = folder / "summary.json"
    if not path.exists():
        raise UserError(f"{folder}: the run is not finished; repeat its command until it finishes")
    summary = read_json(path, AGAIN)
    if not is_summary(summary):
        raise UserError(f"{path} is damaged: it is not the summary of a run; {AGAIN}")
    return summary


def is_summary(content: Any) -> bool:
    """Whether it has the form of a summary: of one run, or of several seeds or stages."""
    if not isinstance(content, dict):
        return False
    if "runs" in content:
        return isinstance(content.get("seeds"), list) and are_summaries(content["runs"])
    results = [content.get(f"{split}_{content.get('metric', 'accuracy')}") for split in ("test", "validation")]
    is_own = any(isinstance(value, float) for value in results) and all(isinstance(content.get(name), KINDS[name]) for name in KINDS)
    return is_own and ("stages" not in content or are_summaries(content["stages"]) and all("stage" in run for run in content["stages"]))


def are_summaries(content: Any) -> bool:
    return isinstance(content, list) and len(content) > 0 and all(is_summary(each) for each in content)


def remember(path: pathlib.Path, facts: Mapping[str, Any], same: Callable[[str, Any], bool] | None = None) -> None:
    """Records what a run depends on in a new workdir; in an existing one, checks that it has not changed.

    Args:
      path: the file.
      facts: by name.
      same: (name, recorded value) -> whether it still holds; by default, equality with the fact. Only names in the file are checked.

    Raises:
      UserError: something has changed since the run began.
    """
    if not exists(path):
        write_json(path, facts)
        return
    for name, value in read_json(path).items():
        if not (same(name, value) if same else facts.get(name) == value):
            raise UserError(
                f"{path}: {name} was {_shown(value)} when this run began and is {_shown(facts.get(name))} now; restore what has changed, "
                "or choose another --workdir"
            )


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def is_moving(target: pathlib.Path) -> bool:
    """Whether `move_into` has begun and the caller has not yet completed it."""
    return exists(target) or exists(_unfinished(target))


def move_into(folder: pathlib.Path, target: pathlib.Path, stages: Collection[str]) -> None:
    """Moves a run, or a family of runs, into a new sub-folder of its own folder; leaves a copy of config.json for the caller to replace.

    If interrupted, the next call finishes the move.

    Raises:
      UserError: a run is training there.
    """
    if target.exists():
        return
    unfinished = _unfinished(target)
    with contextlib.ExitStack() as stack:
        for path in [folder, *(path.parent for path in folder.glob("*/lock"))]:
            _lock(path, stack)
        unfinished.mkdir(exist_ok=True)
        for path in folder.iterdir():
            is_of_run = path.name in stages or any(path.match(name) for name in FILES)
            if is_of_run and path != unfinished:
                path.rename(unfinished / path.name)
        shutil.copyfile(folder / "config.json", unfinished / "config.json")
        unfinished.rename(target)


def _unfinished(target: pathlib.Path) -> pathlib.Path:
    return target.with_name(target.name + ".tmp")


@contextlib.contextmanager
def exclusive(folder: pathlib.Path) -> Iterator[None]:
    """Keeps other runs from training in a workdir, and makes its folder. The lock ends with the (first) process, however that ends.

    Raises:
      UserError: another run is training there, or the folder cannot be written.
    """
    with contextlib.ExitStack() as stack:
        processes.on_first(lambda: _lock(folder, stack))
        yield


def _lock(folder: pathlib.Path, stack: contextlib.ExitStack) -> None:
    with naming_unwritable(f"workdir {folder}", "choose another with --workdir"):
        folder.mkdir(parents=True, exist_ok=True)
        file = stack.enter_context((folder / "lock").open("w"))
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(f"workdir {folder} is in use by another run; wait until it ends, or choose another with --workdir") from error


def snapshot_path(folder: pathlib.Path, epoch: int) -> pathlib.Path:
    """The folder of the network at the end of a cycle."""
    return folder / "snapshots" / f"epoch_{epoch}"


def write_json(path: pathlib.Path, content: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_text(path: pathlib.Path, content: str) -> None:
    """Writes a file completely or not at all, on the first process only."""
    if not processes.is_first():
        return
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(content, encoding="utf-8")
    os.replace(temporary, path)


def _with_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _with_tuples(item) for name, item in value.items()}
    return tuple(_with_tuples(item) for item in value) if isinstance(value, list) else value

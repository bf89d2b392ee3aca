"""Checks of a config, and the tie between a workdir and the config it belongs to."""

import contextlib
import fcntl
import json
import pathlib
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from distill_jax import logs, processes
from distill_jax.errors import UserError

# These may differ when a run is resumed: they do not change what it computes.
HARMLESS = ("log_every", "data.dir")


def check(config: ConfigDict) -> None:
    """Raises UserError, naming the field, if a number of the config lies outside its range."""
    for field in ("seeds", "epochs", "batch_size", "log_every", "eval_every", "checkpoint_every"):
        if config[field] < 1:
            raise UserError(f"{field} is {config[field]}; it must be at least 1")
    not_negative = (
        "seed", "data.train_examples", "data.validation_examples", "data.crop_padding", "data.image_size", "optimizer.weight_decay",
        "optimizer.reference_batch_size",
    )  # fmt: skip
    for field in not_negative:
        if flatten(config)[field] < 0:
            raise UserError(f"{field} is {flatten(config)[field]}; it must not be negative")
    if not config.optimizer.learning_rate > 0:
        raise UserError(f"optimizer.learning_rate is {config.optimizer.learning_rate}; it must be positive")
    if not 0 <= config.optimizer.momentum < 1:
        raise UserError(f"optimizer.momentum is {config.optimizer.momentum}; it must lie in [0, 1)")


def claim(workdir: pathlib.Path, config: ConfigDict) -> None:
    """Writes config.json into a new workdir; in an old one, sees to it that the config is the same.

    Raises:
      UserError: the workdir cannot be written, or belongs to another config; the message lists the fields that differ.
    """

    def write():
        path = workdir / "config.json"
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                logs.write_json(path, config.to_dict())
        except OSError as error:
            raise UserError(f"workdir {workdir} cannot be written: {error.strerror}; choose another with --workdir") from error

    processes.on_first(write)
    check_claim(workdir, config)


def check_claim(workdir: pathlib.Path, config: ConfigDict) -> None:
    """Raises UserError if a workdir belongs to another config; one that belongs to none is left as it is."""
    if not (workdir / "config.json").exists():
        return
    theirs, ours = flatten(load(workdir)), flatten(config)
    differing = [
        f"{field} is {theirs.get(field)!r} there and {ours.get(field)!r} here"
        for field in sorted(theirs.keys() | ours.keys())
        if field not in HARMLESS and json.dumps(theirs.get(field)) != json.dumps(ours.get(field))
    ]
    if differing:
        raise UserError(f"workdir {workdir} belongs to another config: {'; '.join(differing)}. Choose another with --workdir.")


def remember(path: pathlib.Path, facts: dict[str, Any]) -> None:
    """Writes into a new workdir what its run is built on; in an old one, sees to it that it is still the same.

    Raises:
      UserError: it has changed since the run began.
    """
    if not path.exists():
        logs.write_json(path, facts)
        return
    for name, value in logs.read_json(path).items():
        if facts.get(name) != value:
            raise UserError(
                f"{path}: {name} was {value} when this run began and is {facts.get(name)} now; restore it, or choose another --workdir"
            )


@contextlib.contextmanager
def exclusive(workdir: pathlib.Path) -> Iterator[None]:
    """Keeps other runs from training in a workdir; the lock goes with the process (the first one of several), however that ends.

    Raises:
      UserError: another run is training there.
    """
    with contextlib.ExitStack() as stack:

        def lock():
            file = stack.enter_context((workdir / "lock").open("w"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(
                    f"workdir {workdir} is in use by another run; wait for its end, or choose another with --workdir"
                ) from error

        processes.on_first(lock)
        yield


def load(workdir: pathlib.Path) -> dict[str, Any]:
    """The config of a run, as nested dicts.

    Raises:
      UserError: the folder is no workdir of a run.
    """
    path = workdir / "config.json"
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; is {workdir} the workdir of a run?") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def flatten(config: ConfigDict | dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"data.name": ..., ...}"""
    flat = {}
    for name, value in config.items():
        nested = isinstance(value, ConfigDict | dict)
        flat |= flatten(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return flat

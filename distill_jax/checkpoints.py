"""Checkpoints: the only file that uses orbax.

A checkpoint is written completely or not at all (orbax renames a finished folder). A finished checkpoint gets a manifest with the SHA-256
of each of its files; one that does not match its manifest is set aside, never used and never deleted.
"""

import contextlib
import hashlib
import io
import json
import os
import pathlib
import re
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp

from distill_jax import files, logs, processes, workdir
from distill_jax.errors import UserError

KEEP = 2  # checkpoints; the older one is used if the newest is damaged
MANIFEST = "manifest.json"
NONE, ALL_DAMAGED = -1, -2  # instead of the newest intact step


class Manager(ocp.CheckpointManager):
    """Orbax's, which leaves preemption to `processes`."""

    def reached_preemption(self, step: int) -> bool:
        """False. Orbax would ask JAX with the step's number; JAX then expects the other questions, of `processes.preemption`, to go on
        from there, and does not answer them."""
        del step
        return False


def open_manager(directory: pathlib.Path) -> Manager:
    """The checkpoints of a run. Saving is synchronous: when `save` returns, the step may donate its buffers."""
    options = ocp.CheckpointManagerOptions(max_to_keep=KEEP, enable_async_checkpointing=False)
    return Manager(directory.resolve(), options=options)


def save(manager: ocp.CheckpointManager, step: int, tree: Any) -> None:
    """Writes a pytree of arrays as the checkpoint of `step`.

    Raises:
      UserError: it cannot be written; earlier checkpoints are untouched.
    """
    folder = pathlib.Path(manager.directory) / str(step)
    with told_if_not_saved(folder):
        manager.save(step, args=ocp.args.StandardSave(tree))
    write_manifest(folder)


def write_manifest(folder: pathlib.Path) -> None:
    """Writes the hashes of a folder's files into it, and the devices they were written on. All processes wait for the first, which writes:
    if one ended before, the cluster might end the others too, and leave the folder unfinished."""

    def write():
        with told_if_not_saved(folder):
            content = {"schema": workdir.SCHEMA, "topology": processes.topology(), "files": file_hashes(folder)}
            workdir.write_json(folder / MANIFEST, content)

    processes.on_first(write)


def schema(manager: ocp.CheckpointManager, step: int) -> int:
    """The workdir.SCHEMA under which the checkpoint of `step` was written."""
    return files.read_json(pathlib.Path(manager.directory) / str(step) / MANIFEST).get("schema", 1)


@contextlib.contextmanager
def told_if_not_saved(path: pathlib.Path) -> Iterator[None]:
    """Turns the errors of orbax and TensorStore on a full disk into one line, and keeps their threads from printing pages of them."""
    noise = io.StringIO()
    try:
        with contextlib.redirect_stderr(noise):
            try:
                yield
            except BaseException:
                time.sleep(0.5)  # TensorStore's other writes fail a little later, and print that too
                raise
    except (OSError, ValueError) as error:
        said = " ".join(str(error).split())
        code = re.search(r"os_error_code='(\d+)'", said)  # among TensorStore's other details, in any order
        reason = os.strerror(int(code[1])) if code else said
        raise UserError(f"{path} cannot be saved: {reason}. Repeat the command to continue from the previous checkpoint") from error
    sys.stderr.write(noise.getvalue())


def restore(manager: ocp.CheckpointManager, step: int, like: Any) -> Any:
    """The checkpoint of `step`, with the structure, shapes, dtypes and shardings of the pytree `like`, whose leaves may be abstract.

    The checkpoint may come from a different number of devices or processes. A message then says so, since a step's sums are taken in a
    different order.

    Raises:
      UserError: the checkpoint holds something else.
    """
    folder = pathlib.Path(manager.directory) / str(step)
    saved_on = files.read_json(folder / MANIFEST).get("topology")
    if saved_on != processes.topology():
        logs.say(
            f"the checkpoint was saved on {saved_on}; this run continues on {processes.topology()}, so its results will be close to those "
            "of an uninterrupted run, but not bit-identical"
        )
    try:
        return manager.restore(step, args=ocp.args.StandardRestore(like))
    except (KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{folder} does not fit this run: {reason}; choose another --workdir") from error


def latest_step(manager: ocp.CheckpointManager, repair: bool = False) -> int | None:
    """The step of the newest intact checkpoint, None if there is none.

    Args:
      manager: of a run's checkpoints.
      repair: move damaged checkpoints to `damaged/` beside them, and say so. For the run itself: while it trains, a checkpoint that it
        has not finished looks damaged to others.

    Raises:
      UserError: to repair means to lose all of several checkpoints. A single one may be that of a run killed while it saved its first.
    """
    step = processes.on_first_only(lambda: newest_intact(manager, repair))
    if step == ALL_DAMAGED:
        raise UserError(f"{manager.directory}: all checkpoints are damaged; restore them, or delete the folder to train from the beginning")
    manager.reload()
    return None if step == NONE else step


def newest_intact(manager: ocp.CheckpointManager, repair: bool) -> int:
    """See `latest_step`; negative if there is none."""
    steps = sorted(manager.all_steps(), reverse=True)
    folders = {step: pathlib.Path(manager.directory) / str(step) for step in steps}
    intact = next((step for step in steps if is_intact(folders[step])), NONE)
    if repair and intact == NONE and len(steps) > 1:
        return ALL_DAMAGED
    for step in steps if repair else ():
        if step > intact:
            instead = "starting from the beginning" if intact == NONE else "using the one before it"
            logs.say(f"checkpoint {folders[step]} is damaged or unfinished; moved to {set_aside(folders[step])}, {instead}")
    return intact


def is_intact(folder: pathlib.Path) -> bool:
    """Whether the files of a folder match its manifest, byte for byte."""
    try:
        return json.loads((folder / MANIFEST).read_text())["files"] == file_hashes(folder)
    except (OSError, ValueError, LookupError, TypeError):
        return False


def file_hashes(folder: pathlib.Path) -> dict[str, str]:
    """SHA-256 of every file below a folder except the manifest, by relative path."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {str(path.relative_to(folder)): files.sha256(path) for path in paths}


def set_aside(folder: pathlib.Path) -> pathlib.Path:
    """Moves a checkpoint to a unique name in `damaged/`, next to the checkpoints' folder."""
    damaged = folder.parent.with_name("damaged")
    damaged.mkdir(exist_ok=True)
    target = damaged / f"{folder.name}-{len(list(damaged.iterdir()))}"
    return folder.rename(target)


def save_weights(path: pathlib.Path, weights: Any) -> None:
    """Writes a network's weights, a pytree such as {"params": ..., "batch_stats": ...}, replacing any older version.

    Raises:
      UserError: they cannot be written.
    """
    with told_if_not_saved(path), ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path.resolve(), weights, force=True)
        checkpointer.wait_until_finished()
    write_manifest(path)


def has_weights(path: pathlib.Path) -> bool:
    """Whether weights were saved there and their files, if their hashes were recorded, are intact."""
    return path.exists() and (not (path / MANIFEST).exists() or is_intact(path))


def load_weights(path: pathlib.Path, like: Any) -> Any:
    """Reads what `save_weights` wrote, with the structure, shapes, dtypes and shardings of the pytree `like`.

    Raises:
      UserError: `path` does not exist, or its files are damaged.
    """
    if not has_weights(path):
        raise UserError(f"{path} is {'damaged' if path.exists() else 'missing'}")
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            return checkpointer.restore(path.resolve(), like)
    except Exception as error:  # orbax and TensorStore raise nearly anything on damaged files
        raise UserError(f"{path} is damaged, or holds a different network") from error


def sha256(tree: Any) -> str:
    """SHA-256 of the bytes of a pytree's arrays, with the leaves ordered by key path."""
    digest = hashlib.sha256()
    for path, leaf in sorted(jax.tree.leaves_with_path(tree), key=lambda item: jax.tree_util.keystr(item[0])):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(jax.device_get(leaf).tobytes())
    return digest.hexdigest()

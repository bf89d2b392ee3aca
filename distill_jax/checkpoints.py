"""Checkpoints: the only file that knows orbax.

A checkpoint is written whole or not at all (orbax renames a finished folder). When it is finished, a manifest with the SHA-256 of
each of its files is put inside; a checkpoint that does not match its manifest is set aside, never used and never deleted.
"""

import contextlib
import hashlib
import io
import json
import pathlib
import re
import sys
from collections.abc import Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp

from distill_jax import logs, processes
from distill_jax.errors import UserError

KEEP = 2  # checkpoints; the older one stands in for a damaged newest
MANIFEST = "manifest.json"


def open_manager(directory: pathlib.Path) -> ocp.CheckpointManager:
    """The checkpoints of a run. Saving is synchronous: when `save` returns, the step may donate its buffers."""
    options = ocp.CheckpointManagerOptions(max_to_keep=KEEP, enable_async_checkpointing=False)
    return ocp.CheckpointManager(directory.resolve(), options=options)


def save(manager: ocp.CheckpointManager, step: int, tree: Any) -> None:
    """Writes a pytree of arrays as the checkpoint of `step`.

    Raises:
      UserError: it cannot be written; those before it are untouched.
    """
    folder = pathlib.Path(manager.directory) / str(step)
    with told_if_not_saved(folder):
        manager.save(step, args=ocp.args.StandardSave(tree))
        if processes.is_first():
            logs.write_json(folder / MANIFEST, {"topology": processes.topology(), "files": file_hashes(folder)})


@contextlib.contextmanager
def told_if_not_saved(path: pathlib.Path) -> Iterator[None]:
    """Makes one line of what orbax and TensorStore say of a full disk; the loose ends of their threads would print pages more."""
    noise = io.StringIO()
    try:
        with contextlib.redirect_stderr(noise):
            yield
    except (OSError, ValueError) as error:
        said = " ".join(str(error).split())
        reason = re.findall(r": ([^:]*) \[os_error_code", said) or [said]
        raise UserError(f"{path} cannot be saved: {reason[-1]}. The same command goes on from the checkpoint before it") from error
    sys.stderr.write(noise.getvalue())


def restore(manager: ocp.CheckpointManager, step: int, like: Any) -> Any:
    """The checkpoint of `step`, with the structure, shapes, dtypes and shardings of the pytree `like`.

    It may come from another number of devices or processes; that is told, since the sums of a step are then taken in another order.
    """
    saved_on = logs.read_json(pathlib.Path(manager.directory) / str(step) / MANIFEST)["topology"]
    if saved_on != processes.topology():
        logs.say(f"saved on {saved_on}; goes on on {processes.topology()}: from here on close to, but no longer bit for bit, the same run")
    return manager.restore(step, args=ocp.args.StandardRestore(jax.tree.map(ocp.utils.to_shape_dtype_struct, like)))


def latest_step(manager: ocp.CheckpointManager) -> int | None:
    """The step of the newest intact checkpoint, None if there is none. Damaged ones are moved to `damaged/` beside it, and told."""
    step = int(processes.from_first(newest_intact(manager) if processes.is_first() else 0))
    manager.reload()
    return None if step < 0 else step


def newest_intact(manager: ocp.CheckpointManager) -> int:
    """See `latest_step`; -1 for none."""
    for step in sorted(manager.all_steps(), reverse=True):
        folder = pathlib.Path(manager.directory) / str(step)
        if is_intact(folder):
            return step
        logs.say(f"checkpoint {folder} is damaged or unfinished; moved to {set_aside(folder)}, using the one before it")
    return -1


def is_intact(folder: pathlib.Path) -> bool:
    """Whether the files of a checkpoint are those of its manifest, byte for byte."""
    try:
        return json.loads((folder / MANIFEST).read_text())["files"] == file_hashes(folder)
    except (OSError, ValueError, LookupError, TypeError):
        return False


def file_hashes(folder: pathlib.Path) -> dict[str, str]:
    """SHA-256 of every file below a folder but the manifest, by relative path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def set_aside(folder: pathlib.Path) -> pathlib.Path:
    """Moves a checkpoint to a name of its own in `damaged/`, a sibling of the checkpoints' folder."""
    damaged = folder.parent.with_name("damaged")
    damaged.mkdir(exist_ok=True)
    target = damaged / f"{folder.name}-{len(list(damaged.iterdir()))}"
    return folder.rename(target)


def save_weights(path: pathlib.Path, weights: Any) -> None:
    """Writes a network's weights, a pytree such as {"params": ..., "batch_stats": ...}, over an older version if there is one.

    Raises:
      UserError: they cannot be written.
    """
    with told_if_not_saved(path), ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path.resolve(), weights, force=True)


def load_weights(path: pathlib.Path, like: Any) -> Any:
    """Reads what `save_weights` wrote, with the structure, shapes, dtypes and shardings of `like`.

    Raises:
      UserError: there is nothing at `path`.
    """
    if not path.exists():
        raise UserError(f"{path}: no weights there")
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(path.resolve(), jax.tree.map(ocp.utils.to_shape_dtype_struct, like))


def params_sha256(params: Any) -> str:
    """SHA-256 of the parameters' bytes, the leaves in the order of their key paths."""
    digest = hashlib.sha256()
    for path, leaf in sorted(jax.tree.leaves_with_path(params), key=lambda item: jax.tree_util.keystr(item[0])):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(jax.device_get(leaf).tobytes())
    return digest.hexdigest()

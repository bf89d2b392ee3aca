"""Networks that finished runs left in their workdirs: teachers, members of ensembles, extractors of features."""

import functools
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import Mesh

from distill_jax import checkpoints, configuration, logs, models, sharding
from distill_jax.data import Dataset
from distill_jax.errors import UserError
from distill_jax.methods.base import FrozenNetwork

STAGE = "stage:"


class Trained(NamedTuple):
    """A finished run."""

    workdir: pathlib.Path
    config: dict[str, Any]
    summary: dict[str, Any]
    model: nn.Module


def resolve(name: str, workdir: pathlib.Path | None) -> pathlib.Path:
    """The folder that an entry of `teachers` means: a workdir, or, as stage:NAME, a stage of the family that `workdir` belongs to."""
    if not name.startswith(STAGE):
        return pathlib.Path(name).expanduser()
    if workdir is None:
        raise UserError(f"{name} names a stage, but this run is no stage of a family")
    return workdir.parent / name.removeprefix(STAGE)


def find(workdir: pathlib.Path, dtype: str = "float32") -> Trained:
    """A finished run by its workdir; `dtype` is that of its network's compute here.

    Raises:
      UserError: the run is not there, is not finished, or is several runs.
    """
    config = configuration.load(workdir)
    if not (workdir / "summary.json").exists():
        raise UserError(f"{workdir}: the run is not finished; run its command again, to its end, first")
    summary = logs.read_json(workdir / "summary.json")
    if "runs" in summary or "stages" in summary:
        folders = sorted(str(path.parent) for path in workdir.glob("*/summary.json"))
        raise UserError(f"{workdir} holds several runs; name one of them: {', '.join(folders)}")
    model = models.create(num_classes=summary["num_classes"], dtype=dtype, vocabulary_size=summary["vocabulary_size"], **config["model"])
    return Trained(workdir, config, summary, model)


def find_all(names: Sequence[str], workdir: pathlib.Path | None, dtype: str) -> tuple[Trained, ...]:
    return tuple(find(resolve(name, workdir), dtype) for name in names)


def find_below(workdir: pathlib.Path) -> list[Trained]:
    """The stages of a finished family, or the seeds of a finished run, in their order."""
    configuration.load(workdir)
    summary = logs.read_json(workdir / "summary.json") if (workdir / "summary.json").exists() else {}
    if "runs" in summary:
        return [find(workdir / f"seed_{seed}") for seed in summary["seeds"]]
    if "stages" in summary:
        return [find(workdir / stage["stage"]) for stage in summary["stages"]]
    raise UserError(f"{workdir} holds no finished family of runs; name the workdirs with --members")


def check_fits(teacher: Trained, dataset: Dataset, input_shape: tuple[int, ...]) -> None:
    """Raises UserError unless a network can speak about this data: the same classes, inputs and words."""
    theirs, where = teacher.summary, f"teacher {teacher.workdir}"
    if theirs["num_classes"] != dataset.num_classes:
        raise UserError(f"{where} knows {theirs['num_classes']} classes; {dataset.name} has {dataset.num_classes}")
    if tuple(theirs["input_shape"]) != tuple(input_shape):
        raise UserError(f"{where} takes inputs of shape {tuple(theirs['input_shape'])}; those of {dataset.name} are {tuple(input_shape)}")
    if dataset.tokenizer and (teacher.workdir / "tokenizer.json").read_text() != dataset.tokenizer:
        raise UserError(f"{where} has another vocabulary than {dataset.name} here; train both on the same data.*")


def load(trained: Trained, mesh: Mesh) -> FrozenNetwork:
    """The network of a run's last epoch, on every device.

    Raises:
      UserError: its files are missing or are not those that the run left.
    """
    inputs = jnp.zeros((1, *trained.summary["input_shape"]), jnp.int32 if trained.summary["vocabulary_size"] else jnp.float32)
    shapes = jax.eval_shape(functools.partial(trained.model.init, train=False), jax.random.key(0), inputs)
    like = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding.replicated(mesh)),
        {"params": shapes["params"], "batch_stats": shapes.get("batch_stats", {})},
    )
    path = snapshot_path(trained.workdir, trained.summary["epochs"])
    weights = checkpoints.load_weights(path, like)
    if checkpoints.params_sha256(weights["params"]) != trained.summary["params_sha256"]:
        raise UserError(f"{path}: not the weights that the run's summary.json tells of; train that network again")
    return FrozenNetwork(params=weights["params"], batch_stats=weights["batch_stats"])


def snapshot_path(workdir: pathlib.Path, epoch: int) -> pathlib.Path:
    """Where the network of a cycle's end is kept."""
    return workdir / "snapshots" / f"epoch_{epoch}"

"""Builds summary.json when a run finishes."""

import functools
import importlib.metadata
import pathlib
import platform
import statistics
import subprocess
from typing import Any

import jax

from distill_jax import checkpoints, evaluate, logs, processes, sharding, workdir
from distill_jax.experiment import Experiment, forward_passes
from distill_jax.state import TrainState

LIBRARIES = ("distill_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def write(
    exp: Experiment, seed: int, folder: pathlib.Path, state: TrainState, history: list[dict[str, Any]], provenance: dict[str, Any]
) -> dict[str, Any]:
    """Writes summary.json and, if missing, the network's weights; returns the content of summary.json."""
    path = workdir.snapshot_path(folder, exp.plan.epochs)
    if not workdir.exists(path):
        checkpoints.save_weights(path, state.network)
    summary = summarise(exp, seed, state, history) | provenance
    if len(exp.plan.cycle_ends) > 1 and exp.task.ensemble:
        summary |= evaluate_snapshots(exp, folder, state)
    workdir.write_json(folder / "summary.json", summary)
    return summary


def summarise(exp: Experiment, seed: int, state: TrainState, history: list[dict[str, Any]]) -> dict[str, Any]:
    """The result of the last epoch, with that of the best epoch beside it under its own name."""
    plan, spec, last = exp.plan, exp.spec, history[-1]
    epochs = [line for line in history if line["step"] % plan.steps_per_epoch == 0]
    speeds = [line["images_per_second"] for line in epochs if line.get("images_per_second")]
    return {
        "schema": workdir.SCHEMA,
        "method": exp.config.method.name,
        "model": exp.config.model.name,
        "dataset": exp.config.data.name,
        "evaluated_on": plan.evaluated_on,
        "task": spec.task,
        "metric": plan.metric,
        "num_classes": spec.num_classes,
        "classes": list(spec.classes),
        "input_shape": list(spec.input_shape),
        "input_mean": list(spec.input_mean),
        "input_std": list(spec.input_std),
        "vocabulary_size": spec.vocabulary_size,
        "seed": seed,
        "epochs": plan.epochs,
        "steps": plan.steps,
        "forward_passes": forward_passes(exp),
        "num_params": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        **({"train_accuracy": last["train_accuracy"]} if "train_accuracy" in last else {}),
        f"best_{plan.result}": max(line[plan.result] for line in epochs if plan.result in line),
        **{name: value for name, value in last.items() if name.startswith((f"{plan.evaluated_on}_", "teacher_"))},
        "ece_bins": evaluate.ECE_BINS,
        "images_per_second": statistics.median(speeds) if speeds else None,
        "wall_seconds": last["wall_seconds"],
        "params_sha256": checkpoints.sha256(state.params),
        "weights_sha256": checkpoints.sha256(state.network),
    }


def evaluate_snapshots(exp: Experiment, folder: pathlib.Path, state: TrainState) -> dict[str, Any]:
    """Evaluates the snapshots at the ends of the cycles, each alone and as an ensemble; {} if one is missing or damaged, for which all
    processes take the first one's word."""
    paths = [workdir.snapshot_path(folder, epoch) for epoch in exp.plan.cycle_ends]
    for path in paths:
        if not processes.on_first_only(lambda path=path: checkpoints.has_weights(path)):
            logs.say(f"no ensemble of snapshots: {path} is missing or damaged")
            return {}
    like = sharding.abstract(state.network, sharding.replicated(exp.data.mesh))
    members = [exp.predict(checkpoints.load_weights(path, like)) for path in paths]
    return {"snapshot_ensemble": exp.task.ensemble(members, exp.data.dataset)}


@functools.cache
def provenance() -> dict[str, Any]:
    """What produced a result: the commit of this code ("-dirty" with changes, "" outside a git checkout), library versions, devices."""
    here = pathlib.Path(__file__).parent
    command = ["git", "-C", str(here), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        tracked = subprocess.run(["git", "-C", str(here), "ls-files", "--error-unmatch", __file__], capture_output=True, timeout=10)
        described = subprocess.run(command, capture_output=True, text=True, timeout=10)
        commit = described.stdout.strip() if tracked.returncode == described.returncode == 0 else ""
    except (OSError, subprocess.TimeoutExpired):
        commit = ""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    return {"commit": commit, "versions": versions, "device": processes.topology()}

"""Where a run starts: from its newest checkpoint, from another network's weights, or from scratch."""

import os
import pathlib
from typing import Any

import jax

from distill_jax import checkpoints, initial, logs, methods, programs, sharding, specs, state, trained, workdir
from distill_jax.experiment import Experiment, predict_with
from distill_jax.state import TrainState
from distill_jax.tasks import TrainMetrics


def init_or_restore(exp: Experiment, folder: pathlib.Path, key: jax.Array, manager: Any) -> tuple[TrainState, TrainMetrics, int]:
    """The initial state, the metrics of its epoch so far, and the number of finished steps.

    1. There is an intact checkpoint: resumes from the newest one.
    2. config.initial is set: starts from the weights of another network, or from those of its trunk.
    3. Otherwise: starts from a fresh state, a function of the key.
    """
    given = load_given(exp, folder)
    step = checkpoints.latest_step(manager, repair=True)
    if step is not None:
        logs.say(f"resuming after step {step} of {exp.plan.steps}")
        restored, epoch_metrics = restore(exp, manager, step)
        return restored.replace(given=given), epoch_metrics, step
    fresh = exp.init(key)
    if name := exp.config.initial:
        run = trained.find(trained.resolve(name, folder))
        fresh = exp.begin(initial.load(name, run, fresh.network, exp.data.mesh, exp.spec.classes))
        workdir.write_json(folder / "initial.json", {name: trained.weights_hash(run)})
    return fresh.replace(given=given), state.empty_metrics(exp.data.mesh, exp.task.train_metrics), 0


def restore(exp: Experiment, manager: Any, step: int) -> tuple[TrainState, TrainMetrics]:
    """The state and the metrics of its epoch so far, from the checkpoint of a step."""
    like = abstract_state(exp, step // exp.plan.steps_per_epoch)
    metrics = sharding.abstract(jax.eval_shape(exp.task.train_metrics.empty), sharding.replicated(exp.data.mesh))
    content = state.saved(like, metrics)
    if checkpoints.schema(manager, step) == 1:
        content["state"]["teacher"] = _of_schema_1(exp, like.teacher)
    content = checkpoints.restore(manager, step, content)
    teacher = jax.tree.unflatten(jax.tree.structure(like.teacher), jax.tree.leaves(content["state"].pop("teacher")))
    return like.replace(**content["state"], teacher=teacher), content["epoch_metrics"]


def abstract_state(exp: Experiment, epochs_done: int) -> TrainState:
    """Shapes, dtypes and shardings of the state after `epochs_done` epochs, without the frozen networks of other runs."""
    fresh = jax.eval_shape(exp.begin, exp.spec.abstract_network(exp.config.dtype))
    *_, teacher = methods.abstract_teachers(exp.method, fresh.network, epochs_done)
    return sharding.abstract(fresh.replace(teacher=teacher), state.layout(exp.method, exp.data.mesh))


def load_given(exp: Experiment, folder: pathlib.Path) -> tuple[Any, ...]:
    """For TrainState.given: the networks of config.teachers, or tables [N, C] of their logits for each training sample.

    Raises:
      UserError: a teacher has changed since the run in `folder` began, or its files are missing or damaged.
    """
    runs = {name: trained.find(trained.resolve(name, folder)) for name in exp.config.teachers}
    if runs:
        hashes = {name: trained.recorded_hashes(run) for name, run in runs.items()}
        by_path = {os.path.abspath(name): each for name, each in hashes.items()}  # one folder has several spellings

        def same(name, recorded):
            return recorded in by_path.get(os.path.abspath(name), ())

        workdir.remember(folder / "teachers.json", {name: each[0] for name, each in hashes.items()}, same)
    networks = tuple(trained.load_variables(run, exp.data.mesh) for run in runs.values())
    if not methods.wants_table(**exp.config.method):
        return networks
    return tuple(_table(exp, spec, network) for spec, network in zip(exp.teachers, networks, strict=True))


def _table(exp: Experiment, spec: specs.Spec, network: Any) -> jax.Array:
    apply = programs.inference(spec.module(exp.config.dtype))
    logits = predict_with(exp.data, exp.plan.batch_size, spec, apply, split="train")(network)
    return sharding.put(logits, sharding.replicated(exp.data.mesh))


def _of_schema_1(exp: Experiment, teacher: Any) -> Any:
    """The teacher in the form of schema-1 checkpoints: with a None for each guide of densely_guided."""
    names, guides = exp.config.method.name.split("+"), (None,) * len(exp.config.teachers)
    if len(names) == 1:
        return guides if names == ["densely_guided"] else teacher
    return tuple(guides if name == "densely_guided" else each for name, each in zip(names, teacher, strict=True))

"""A run, from top to bottom: state, epochs, steps, evaluation, checkpoint, summary."""

import contextlib
import pathlib
import signal
import statistics
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
from clu import parameter_overview
from ml_collections import ConfigDict

from distill_jax import checkpoints, configuration, logs, networks, preemption, processes, sharding, stages
from distill_jax.data.batches import training_batches
from distill_jax.errors import Interrupted, UserError
from distill_jax.methods import FrozenLogits, FrozenNetwork
from distill_jax.methods.base import variables
from distill_jax.program import Program, build, predict_test, predict_train, test_metrics
from distill_jax.step import TrainMetrics, TrainState
from distill_jax.summary import summarise, summarise_seeds

Given = FrozenNetwork | FrozenLogits


def train(config: ConfigDict, workdir: pathlib.Path) -> dict[str, Any]:
    """Trains what a config describes; resumes, if it was begun in this workdir.

    With config.seeds > 1, each seed has a run of its own in workdir/seed_<seed>, all with the same compiled functions. A family of
    runs (config.stages.name) has a folder for each of its stages in there.

    Returns:
      The content of workdir/summary.json.

    Raises:
      UserError: bad input, or a loss that is not finite.
      Interrupted: by SIGTERM or SIGINT, after saving.
    """
    folders = seed_folders(config, workdir)
    owners = {workdir: config} | {folder: config_of_seed(config, seed) for seed, folder in folders.items() if folder != workdir}
    for folder, owner in owners.items():
        configuration.check_claim(folder, owner)
    summaries = train_stages(config, folders, owners)
    summary = summaries[0] if config.seeds == 1 else summarise_seeds(summaries)
    logs.write_json(workdir / "summary.json", summary)
    if config.stages.name:
        table = stages.family(config).table(summary["stages"])
        logs.write_text(workdir / "table.md", table + "\n")
        logs.say(table)
    spread = f" (mean of {config.seeds} seeds, standard deviation {summary['test_accuracy_std']:.2%})" if config.seeds > 1 else ""
    logs.say(f"{workdir}: {summary['evaluated_on']} accuracy {summary['test_accuracy']:.2%}{spread}")
    return summary


def seed_folders(config: ConfigDict, workdir: pathlib.Path) -> dict[int, pathlib.Path]:
    """Where each seed's files are."""
    if config.seeds == 1:
        return {config.seed: workdir}
    return {seed: workdir / f"seed_{seed}" for seed in range(config.seed, config.seed + config.seeds)}


def config_of_seed(config: ConfigDict, seed: int) -> ConfigDict:
    """The config under which one of several seeds is a run of its own."""
    return ConfigDict(config.to_dict() | {"seed": seed, "seeds": 1})


def train_stages(config: ConfigDict, folders: dict[int, pathlib.Path], owners: dict[pathlib.Path, ConfigDict]) -> list[dict[str, Any]]:
    """One stage after the other, each for all seeds: a summary a seed; in a family that of its last stage, all of them under "stages".

    `owners` has the folders above the runs, which become their configs' once the first program is built: a mistake leaves no trace.
    """
    families = {seed: stages.expand(config_of_seed(config, seed)) for seed in folders}
    done = {seed: [] for seed in folders}
    for name in families[config.seed]:
        configs = {seed: families[seed][name] for seed in folders}
        summaries = train_seeds(configs, {seed: folder / name for seed, folder in folders.items()}, owners)
        for seed, summary in zip(folders, summaries, strict=True):
            done[seed].append({"stage": name} | summary)
    if not config.stages.name:
        return summaries
    families_summaries = [runs[-1] | {"stages": runs} for runs in done.values()]
    for folder, summary in zip(folders.values(), families_summaries, strict=True):
        logs.write_json(folder / "summary.json", summary)
    return families_summaries


def train_seeds(
    configs: dict[int, ConfigDict], folders: dict[int, pathlib.Path], owners: dict[pathlib.Path, ConfigDict]
) -> list[dict[str, Any]]:
    """Runs that differ in their seeds alone, by seed: one program for all. Finished ones are not repeated."""
    program, summaries = None, []
    for seed, folder in folders.items():
        summary = finished(configs[seed], folder)
        if summary is None:
            if program is None:
                program = build(configs[seed], folder)
                for above, owner in owners.items():
                    configuration.claim(above, owner)
            summary = run(program, configs[seed].seed, folder)
        summaries.append(summary)
    return summaries


def finished(config: ConfigDict, workdir: pathlib.Path) -> dict[str, Any] | None:
    """The summary of a workdir's run, if that is finished.

    Raises:
      UserError: the workdir belongs to another config.
    """
    configuration.check_claim(workdir, config)
    if not (workdir / "summary.json").exists():
        return None
    summary = logs.read_json(workdir / "summary.json")
    logs.say(f"{workdir}: finished before, {summary['evaluated_on']} accuracy {summary['test_accuracy']:.2%}")
    return summary


def run(program: Program, seed: int, workdir: pathlib.Path) -> dict[str, Any]:
    """One run of one seed: see `train`."""
    config = config_of_seed(program.config, seed)
    summary = finished(config, workdir)
    if summary is not None:
        return summary
    configuration.claim(workdir, config)
    with configuration.exclusive(workdir):
        summary = train_epochs(program, seed, workdir)
        processes.wait_for_all()  # what the first process wrote is there when the others go on
    return summary


def train_epochs(program: Program, seed: int, workdir: pathlib.Path) -> dict[str, Any]:
    """All of a run, or the rest of it, in a workdir that is its own: the content of summary.json."""
    config, plan = program.config, program.plan
    init_key, step_key = jax.random.split(jax.random.key(seed))
    if program.dataset.tokenizer:
        logs.write_text(workdir / "tokenizer.json", program.dataset.tokenizer)
    configuration.remember(workdir / "data.json", program.data_fingerprint)
    manager = checkpoints.open_manager(workdir / "checkpoints")
    state, epoch_metrics, step = start(program, workdir, init_key, manager)
    log = logs.RunLog(workdir, plan, config.log_every, step)
    teacher_logits = None  # of the test set; they last as long as the teacher

    with preemption.watched() as asked_to_stop, contextlib.closing(log):
        for epoch in range(step // plan.steps_per_epoch + 1, plan.epochs + 1):
            first = log.step - (epoch - 1) * plan.steps_per_epoch
            batches = training_batches(program.dataset.train, seed, epoch, first, plan.batch_size, program.mesh)
            for batch in log.timed(batches):
                state, epoch_metrics, logits = program.train_step(state, epoch_metrics, program.train_source, batch, step_key)
                if program.observe:
                    state = state.replace(teacher=program.observe(state.teacher, batch["id"], logits))
                log.after_step(epoch_metrics)
                stopping = asked_to_stop(log.step)
                if stopping:
                    break

            line = log.train_line(log.step, epoch_metrics)
            check_finite(state.params, log.step)
            if log.step < epoch * plan.steps_per_epoch:
                save_and_leave(manager, log.step, state, epoch_metrics, stopping)

            cycle_ended = epoch in plan.cycle_ends
            if cycle_ended or epoch % config.eval_every == 0:
                if program.predict_teacher and state.teacher is not None and teacher_logits is None:
                    teacher_logits = predict_test(program, program.predict_teacher, state.teacher)
                line |= test_metrics(program, state, teacher_logits)
            log.end_epoch(line)

            epoch_metrics = empty_metrics(program)
            teacher = program.method.end_epoch(state, epoch)
            if teacher is not state.teacher:
                state, teacher_logits = state.replace(teacher=teacher), None
            if cycle_ended:
                checkpoints.save_weights(networks.snapshot_path(workdir, epoch), variables(state))
            stopping = stopping or asked_to_stop(log.step)
            if stopping:
                save_and_leave(manager, log.step, state, epoch_metrics, stopping)
            if cycle_ended or epoch % config.checkpoint_every == 0:
                save(manager, log.step, state, epoch_metrics)

    summary = summarise(program, seed, workdir, state, log.history)
    logs.write_json(workdir / "summary.json", summary)
    return summary


def start(program: Program, workdir: pathlib.Path, key: jax.Array, manager) -> tuple[TrainState, TrainMetrics, int]:
    """The state to begin with, the metrics of its epoch so far, and the number of finished steps.

    A new run starts from its key. An old one takes its newest intact checkpoint; the kind of teacher that is in there follows from the
    method, which is asked what it has after that many epochs.
    """
    state, step = program.init(key), checkpoints.latest_step(manager)
    state = state.replace(teacher=program.method.init(state, load_teachers(program, workdir)))
    if step is None:
        logs.say(parameter_overview.get_parameter_overview(state.params, include_stats=False))
        return load_initial(program, workdir, state), empty_metrics(program), 0
    for epoch in range(1, step // program.plan.steps_per_epoch + 1):
        state = state.replace(teacher=program.method.end_epoch(state, epoch))
    saved = checkpoints.restore(manager, step, {"state": without_given(state), "epoch_metrics": empty_metrics(program)})
    logs.say(f"resuming after step {step}, in epoch {step // program.plan.steps_per_epoch + 1}")
    return with_given(saved["state"], state), saved["epoch_metrics"], step


def load_teachers(program: Program, workdir: pathlib.Path) -> tuple[Given, ...]:
    """The networks of config.teachers; or, where the method wants just that, what they say of each training sample."""
    config, given = program.config, []
    trained = networks.find_all(config.teachers, workdir, config.dtype)
    if trained:
        configuration.remember(
            workdir / "teachers.json", {name: run.summary["params_sha256"] for name, run in zip(config.teachers, trained, strict=True)}
        )
    for run, predict in zip(trained, program.predict_given, strict=True):
        network = networks.load(run, program.mesh)
        if program.method.wants_logits:
            logits = predict_train(program, predict, variables(network))
            given.append(FrozenLogits(sharding.put(logits, sharding.replicated(program.mesh))))
        else:
            given.append(network)
    return tuple(given)


def load_initial(program: Program, workdir: pathlib.Path, state: TrainState) -> TrainState:
    """The state with the weights of config.initial, if that names a run."""
    if not program.config.initial:
        return state
    trained = networks.find(networks.resolve(program.config.initial, workdir))
    network = networks.load(trained, program.mesh)
    if jax.tree.map(jnp.shape, network.params) != jax.tree.map(jnp.shape, state.params):
        raise UserError(f"initial: {trained.workdir} holds a {trained.summary['model']}, this run trains another network")
    return state.replace(params=network.params, batch_stats=network.batch_stats)


def is_given(node: Any) -> bool:
    return isinstance(node, Given)


def without_given(state: TrainState) -> TrainState:
    """What a checkpoint holds: the networks that other runs trained are left to those runs."""
    return jax.tree.map(lambda node: None if is_given(node) else node, state, is_leaf=is_given)


def with_given(saved: TrainState, state: TrainState) -> TrainState:
    """A state from a checkpoint, with the given networks of `state`."""
    return jax.tree.map(lambda leaf, own: own if leaf is None else leaf, saved, state, is_leaf=lambda leaf: leaf is None)


def empty_metrics(program: Program) -> TrainMetrics:
    return sharding.put(TrainMetrics.empty(), sharding.replicated(program.mesh))


def check_finite(params: Any, step: int) -> None:
    """The last step of an epoch may have broken the parameters without a trace in its loss."""
    if not all_finite(params):
        raise UserError(
            f"a parameter is not finite after step {step}; the checkpoints are from before that. "
            "Try a lower optimizer.learning_rate, in a new --workdir"
        )


@jax.jit
def all_finite(tree: Any) -> jax.Array:
    return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]))


def save(manager, step: int, state: TrainState, epoch_metrics: TrainMetrics) -> None:
    checkpoints.save(manager, step, {"state": without_given(state), "epoch_metrics": epoch_metrics})


def save_and_leave(manager, step: int, state: TrainState, epoch_metrics: TrainMetrics, signal_number: int) -> NoReturn:
    save(manager, step, state, epoch_metrics)
    raise Interrupted(
        f"stopped by {signal.Signals(signal_number).name}; saved after step {step}. The same command resumes there", signal_number
    )


def evaluate_checkpoint(config: ConfigDict, workdir: pathlib.Path) -> dict[str, Any]:
    """Evaluates the newest checkpoint of a workdir, or of each of its seeds and stages, on the test set.

    Returns:
      The content of workdir/eval.json: one run's results, or a list of them under "runs".

    Raises:
      UserError: the workdir has no checkpoint, or belongs to another config.
    """
    folders, runs = seed_folders(config, workdir), []
    families = {seed: stages.expand(config_of_seed(config, seed)) for seed in folders}
    for name in families[config.seed]:
        program = None
        for seed, folder in folders.items():
            stage = families[seed][name]
            claim_trained(stage, folder / name)
            program = program or build(stage, folder / name)
            runs.append(({"stage": name} if name else {}) | evaluate_run(program, stage.seed, folder / name))
    result = runs[0] if len(runs) == 1 else {"test_accuracy": statistics.mean(run["test_accuracy"] for run in runs), "runs": runs}
    logs.write_json(workdir / "eval.json", result)
    logs.say(f"{workdir / 'eval.json'}: test accuracy {result['test_accuracy']:.2%}")
    return result


def claim_trained(config: ConfigDict, workdir: pathlib.Path) -> None:
    if not (workdir / "checkpoints").is_dir():
        raise UserError(f"workdir {workdir} has no checkpoint to evaluate; train first, with the same --config and --workdir")
    configuration.claim(workdir, config)


def evaluate_run(program: Program, seed: int, workdir: pathlib.Path) -> dict[str, Any]:
    """The newest checkpoint of one run: its step and its test metrics."""
    state, _, step = start(program, workdir, jax.random.key(seed), checkpoints.open_manager(workdir / "checkpoints"))
    if step == 0:
        raise UserError(f"workdir {workdir} has no intact checkpoint to evaluate")
    return {"seed": seed, "step": step, **test_metrics(program, state, None)}

"""A run, from top to bottom: data, state, epochs, steps, evaluation, checkpoint, summary."""

import contextlib
import functools
import pathlib
import signal
import statistics
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
import optax
from clu import parameter_overview
from jax.sharding import Mesh
from ml_collections import ConfigDict

from distill_jax import checkpoints, configuration, evaluate, logs, methods, models, preemption, schedules, sharding
from distill_jax.data import Dataset, augment, load
from distill_jax.data.batches import epoch_order
from distill_jax.errors import Interrupted, UserError
from distill_jax.step import TrainMetrics, TrainState, init_state, make_train_step


class Program(NamedTuple):
    """What all runs of a config share, whatever their seed: built once, compiled once."""

    config: ConfigDict
    mesh: Mesh
    dataset: Dataset
    train_source: dict[str, jax.Array]  # the training set, on the device
    test_source: dict[str, jax.Array]
    plan: logs.Plan
    method: methods.Method
    init: Callable[[jax.Array], TrainState]  # of a key; without the teacher
    train_step: Callable[..., tuple[TrainState, TrainMetrics, jax.Array]]
    observe: Callable[..., Any] | None  # (teacher, ids, logits) -> teacher
    predict: Callable[..., jax.Array]  # (variables, source, batch) -> logits
    predict_teacher: Callable[..., jax.Array] | None  # (teacher, source, batch) -> logits


def build(config: ConfigDict) -> Program:
    """Reads the data and makes the functions of a config.

    Raises:
      UserError: a field of the config, or the data it names, will not do.
    """
    configuration.check(config)
    mesh = sharding.make_mesh()
    sharding.check_batch_size(config.batch_size, mesh)
    dataset = load(config.data.name, config.data.dir, config.data.train_examples)
    num_examples = len(dataset.train["label"])
    steps_per_epoch = num_examples // config.batch_size
    if steps_per_epoch == 0:
        raise UserError(f"batch_size is {config.batch_size}, but the training set has only {num_examples} examples")

    schedule = schedules.create(config.schedule, config.optimizer.learning_rate, config.epochs, steps_per_epoch)
    cycle_ends = schedules.cycle_ends(config.epochs, config.schedule.cycles, config.schedule.cycle_epochs)
    optimizer = optax.chain(
        optax.add_decayed_weights(config.optimizer.weight_decay),
        optax.sgd(schedule, config.optimizer.momentum, config.optimizer.nesterov),
    )
    model = models.create(num_classes=dataset.num_classes, dtype=config.dtype, **config.model)
    setting = methods.Setting(model, cycle_ends, num_examples, dataset.num_classes, mesh)
    method = methods.create(setting=setting, **config.method)
    mean, std = augment.channel_statistics(dataset.train["image"])
    prepare = augment.make_prepare(mean, std, config.data.crop_padding, config.data.flip)
    example = prepare({name: rows[:1] for name, rows in dataset.train.items()}, None)

    whole = sharding.replicated(mesh)
    jit_predict = functools.partial(jax.jit, out_shardings=whole)
    return Program(
        config=config,
        mesh=mesh,
        dataset=dataset,
        train_source=sharding.put(dataset.train, whole),
        test_source=sharding.put(dataset.test, whole),
        plan=logs.Plan(
            epochs=config.epochs,
            steps_per_epoch=steps_per_epoch,
            batch_size=config.batch_size,
            cycle_ends=cycle_ends,
            learning_rates=np.asarray(jax.vmap(schedule)(jnp.arange(config.epochs * steps_per_epoch))),
        ),
        method=method,
        init=jax.jit(functools.partial(init_state, model, optimizer, example), out_shardings=whole),
        train_step=jax.jit(make_train_step(model, method, optimizer, prepare), donate_argnums=0),
        observe=method.observe and jax.jit(method.observe, donate_argnums=0),
        predict=jit_predict(evaluate.make_predict(functools.partial(model.apply, train=False), prepare)),
        predict_teacher=method.predict and jit_predict(evaluate.make_predict(method.predict, prepare)),
    )


def train(config: ConfigDict, workdir: pathlib.Path) -> dict[str, Any]:
    """Trains what a config describes; resumes, if it was begun in this workdir.

    With config.seeds > 1, each seed has a run of its own in workdir/seed_<seed>, all with the same compiled functions.

    Returns:
      The content of workdir/summary.json.

    Raises:
      UserError: bad input, or a loss that is not finite.
      Interrupted: by SIGTERM or SIGINT, after saving.
    """
    program = build(config)
    if config.seeds == 1:
        return run(program, config.seed, workdir)
    configuration.claim(workdir, config)
    seeds = range(config.seed, config.seed + config.seeds)
    summary = summarise_seeds([run(program, seed, workdir / f"seed_{seed}") for seed in seeds])
    logs.write_json(workdir / "summary.json", summary)
    logs.say(
        f"{workdir}: test accuracy of {config.seeds} seeds {summary['test_accuracy']:.2%}, "
        f"standard deviation {summary['test_accuracy_std']:.2%}"
    )
    return summary


def run(program: Program, seed: int, workdir: pathlib.Path) -> dict[str, Any]:
    """One run of one seed: see `train`."""
    config, plan = program.config, program.plan
    configuration.claim(workdir, config_of_seed(config, seed))
    if (workdir / "summary.json").exists():
        summary = logs.read_json(workdir / "summary.json")
        logs.say(f"{workdir}: finished before, test accuracy {summary['test_accuracy']:.2%}")
        return summary

    init_key, step_key = jax.random.split(jax.random.key(seed))
    manager = checkpoints.open_manager(workdir / "checkpoints")
    state, epoch_metrics, step = start(program, init_key, manager)
    log = logs.RunLog(workdir, plan, config.log_every, step)
    teacher_logits = None  # of the test set; they last as long as the teacher

    with preemption.caught_signals() as signals, contextlib.closing(log):
        for epoch in range(step // plan.steps_per_epoch + 1, plan.epochs + 1):
            order = epoch_order(seed, epoch, len(program.dataset.train["label"]), plan.batch_size)
            for ids_B in order[log.step - (epoch - 1) * plan.steps_per_epoch :]:
                batch = {"id": sharding.put(ids_B, sharding.rows(program.mesh))}
                state, epoch_metrics, logits = program.train_step(state, epoch_metrics, program.train_source, batch, step_key)
                if program.observe:
                    state = state.replace(teacher=program.observe(state.teacher, batch["id"], logits))
                log.after_step(epoch_metrics)
                if signals:
                    break

            line = log.train_line(log.step, epoch_metrics)
            check_finite(state.params, log.step)
            if log.step < epoch * plan.steps_per_epoch:
                save_and_leave(manager, log.step, state, epoch_metrics, signals[0])

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
                checkpoints.save_weights(snapshot_path(workdir, epoch), variables(state))
            if signals:
                save_and_leave(manager, log.step, state, epoch_metrics, signals[0])
            if cycle_ended or epoch % config.checkpoint_every == 0:
                save(manager, log.step, state, epoch_metrics)

    summary = summarise(program, seed, workdir, state, log.history)
    logs.write_json(workdir / "summary.json", summary)
    logs.say(f"{workdir}: test accuracy {summary['test_accuracy']:.2%} after {plan.epochs} epochs")
    return summary


def start(program: Program, key: jax.Array, manager) -> tuple[TrainState, TrainMetrics, int]:
    """The state to begin with, the metrics of its epoch so far, and the number of finished steps.

    A new run starts from its key. An old one takes its newest intact checkpoint; the kind of teacher that is in there follows from the
    method, which is asked what it has after that many epochs.
    """
    state, step = program.init(key), checkpoints.latest_step(manager)
    state = state.replace(teacher=program.method.init(state))
    if step is None:
        logs.say(parameter_overview.get_parameter_overview(state.params, include_stats=False))
        return state, empty_metrics(program), 0
    for epoch in range(1, step // program.plan.steps_per_epoch + 1):
        state = state.replace(teacher=program.method.end_epoch(state, epoch))
    saved = checkpoints.restore(manager, step, {"state": state, "epoch_metrics": empty_metrics(program)})
    logs.say(f"resuming after step {step}, in epoch {step // program.plan.steps_per_epoch + 1}")
    return saved["state"], saved["epoch_metrics"], step


def empty_metrics(program: Program) -> TrainMetrics:
    return sharding.put(TrainMetrics.empty(), sharding.replicated(program.mesh))


def variables(state: TrainState) -> dict[str, Any]:
    """The student's network, as flax's `apply` takes it."""
    return {"params": state.params, "batch_stats": state.batch_stats}


def snapshot_path(workdir: pathlib.Path, epoch: int) -> pathlib.Path:
    """Where the network of a cycle's end is kept."""
    return workdir / "snapshots" / f"epoch_{epoch}"


def predict_test(program: Program, predict: Callable[..., jax.Array], network: Any) -> np.ndarray:
    """Logits of the test set, float32 [N, C]."""
    return evaluate.predict_all(
        functools.partial(predict, network),
        program.test_source,
        len(program.dataset.test["label"]),
        program.plan.batch_size,
        program.mesh,
    )


def test_metrics(program: Program, state: TrainState, teacher_logits: np.ndarray | None) -> dict[str, float]:
    """The student on the test set, and how often the teacher's arg-max there is the student's."""
    logits = predict_test(program, program.predict, variables(state))
    metrics = evaluate.classification_metrics(logits, program.dataset.test["label"])
    if teacher_logits is not None:
        metrics["teacher_agreement"] = evaluate.agreement(logits, teacher_logits)
    return metrics


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
    checkpoints.save(manager, step, {"state": state, "epoch_metrics": epoch_metrics})


def save_and_leave(manager, step: int, state: TrainState, epoch_metrics: TrainMetrics, signal_number: int) -> NoReturn:
    save(manager, step, state, epoch_metrics)
    raise Interrupted(
        f"stopped by {signal.Signals(signal_number).name}; saved after step {step}. The same command resumes there", signal_number
    )


def summarise(program: Program, seed: int, workdir: pathlib.Path, state: TrainState, history: list[dict]) -> dict[str, Any]:
    """The content of summary.json. The result is that of the last epoch; the best one stands beside it, under its own name."""
    plan, last = program.plan, history[-1]
    epochs = [line for line in history if line["step"] % plan.steps_per_epoch == 0]
    summary = {
        "method": program.config.method.name,
        "model": program.config.model.name,
        "dataset": program.config.data.name,
        "seed": seed,
        "epochs": plan.epochs,
        "steps": plan.steps,
        "num_params": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        "train_accuracy": last["train_accuracy"],
        "test_accuracy": last["test_accuracy"],
        "best_test_accuracy": max(line["test_accuracy"] for line in epochs if "test_accuracy" in line),
        "test_top5": last["test_top5"],
        "test_nll": last["test_nll"],
        "test_ece": last["test_ece"],
        "ece_bins": evaluate.ECE_BINS,
        "images_per_second": statistics.median(line["images_per_second"] for line in epochs),
        "wall_seconds": last["wall_seconds"],
        "params_sha256": checkpoints.params_sha256(state.params),
    }
    if len(plan.cycle_ends) > 1:
        summary["snapshot_ensemble"] = evaluate_snapshots(program, workdir, state)
    return summary


def evaluate_snapshots(program: Program, workdir: pathlib.Path, state: TrainState) -> dict[str, Any]:
    """The networks at the cycles' ends, each alone, and the mean of their probabilities."""
    labels = program.dataset.test["label"]
    members = []
    for epoch in program.plan.cycle_ends:
        network = checkpoints.load_weights(snapshot_path(workdir, epoch), variables(state))
        members.append(predict_test(program, program.predict, network))
    accuracies = [evaluate.classification_metrics(logits, labels)["test_accuracy"] for logits in members]
    return {**evaluate.classification_metrics(evaluate.ensemble(members), labels), "members_test_accuracy": accuracies}


def summarise_seeds(summaries: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the seeds, the standard deviation (n - 1) of each result as <name>_std, and the summaries themselves under "runs"."""
    first = summaries[0]
    shared = ("method", "model", "dataset", "epochs", "steps", "num_params", "ece_bins")
    measured = [name for name, value in first.items() if isinstance(value, float)]
    summary = {name: first[name] for name in shared} | {"seeds": [summary["seed"] for summary in summaries]}
    for name in measured:
        values = [run[name] for run in summaries]
        summary[name] = statistics.mean(values)
        summary[f"{name}_std"] = statistics.stdev(values)
    return summary | {"runs": summaries}


def evaluate_checkpoint(config: ConfigDict, workdir: pathlib.Path) -> dict[str, Any]:
    """Evaluates the newest checkpoint of a workdir, or of each of its seeds, on the test set.

    Returns:
      The content of workdir/eval.json.

    Raises:
      UserError: the workdir has no checkpoint, or belongs to another config.
    """
    program = build(config)
    if config.seeds == 1:
        result = evaluate_run(program, config.seed, workdir)
    else:
        seeds = range(config.seed, config.seed + config.seeds)
        runs = [evaluate_run(program, seed, workdir / f"seed_{seed}") for seed in seeds]
        result = {"test_accuracy": statistics.mean(run["test_accuracy"] for run in runs), "runs": runs}
    logs.write_json(workdir / "eval.json", result)
    logs.say(f"{workdir / 'eval.json'}: test accuracy {result['test_accuracy']:.2%}")
    return result


def evaluate_run(program: Program, seed: int, workdir: pathlib.Path) -> dict[str, Any]:
    """The newest checkpoint of one seed: its step and its test metrics."""
    if not (workdir / "checkpoints").is_dir():
        raise UserError(f"workdir {workdir} has no checkpoint to evaluate; train first, with the same --config and --workdir")
    configuration.claim(workdir, config_of_seed(program.config, seed))
    state, _, step = start(program, jax.random.key(seed), checkpoints.open_manager(workdir / "checkpoints"))
    if step == 0:
        raise UserError(f"workdir {workdir} has no intact checkpoint to evaluate")
    return {"seed": seed, "step": step, **test_metrics(program, state, None)}


def config_of_seed(config: ConfigDict, seed: int) -> ConfigDict:
    """The config under which one of several seeds is a run of its own."""
    return ConfigDict(config.to_dict() | {"seed": seed, "seeds": 1})

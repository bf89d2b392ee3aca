"""What a config stands for: data on the devices and compiled functions, built once for all its seeds."""

import functools
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from distill_jax import configuration, evaluate, logs, methods, models, networks, optimizers, schedules, sharding
from distill_jax.data import Dataset, augment, batches, load_config, streaming
from distill_jax.data.dataset import fingerprint
from distill_jax.errors import UserError
from distill_jax.methods.base import variables
from distill_jax.step import TrainMetrics, TrainState, init_state, make_train_step


class Program(NamedTuple):
    """What all runs of a config share, whatever their seed."""

    config: ConfigDict
    mesh: Mesh
    dataset: Dataset
    data_fingerprint: dict[str, Any]
    input_shape: tuple[int, ...]  # of one sample, as the network gets it
    channel_statistics: tuple[np.ndarray, np.ndarray] | None  # mean and standard deviation by which images are normalised
    train_source: dict[str, jax.Array]  # the training set, on the devices; {} if it is streamed
    test_source: dict[str, jax.Array]
    plan: logs.Plan
    method: methods.Method
    init: Callable[[jax.Array], TrainState]  # of a key; without the teacher
    train_step: Callable[..., tuple[TrainState, TrainMetrics, jax.Array]]
    observe: Callable[..., Any] | None  # (teacher, ids, logits) -> teacher
    predict: Callable[..., jax.Array]  # (variables, source, batch) -> logits
    predict_teacher: Callable[..., jax.Array] | None  # (teacher, source, batch) -> logits
    predict_given: tuple[Callable[..., jax.Array], ...]  # of each of config.teachers: (variables, source, batch) -> logits


def build(config: ConfigDict, workdir: pathlib.Path | None = None) -> Program:
    """Reads the data and makes the functions of a config.

    Args:
      config: of one run, or of several that differ in their seed alone.
      workdir: of one of them; needed where config.teachers names stages beside it.

    Raises:
      UserError: a field of the config, or the data or the teachers that it names, will not do.
    """
    configuration.check(config)
    mesh = sharding.make_mesh()
    sharding.check_batch_size(config.batch_size, mesh)
    dataset = load_config(config.data)
    if batches.is_streamed(dataset.train) and config.data.crop_padding:
        raise UserError(f"data.crop_padding is {config.data.crop_padding}, but streamed images are random crops already; set it to 0")
    num_examples = len(dataset.train["label"])
    steps_per_epoch = num_examples // config.batch_size
    if steps_per_epoch == 0:
        raise UserError(f"batch_size is {config.batch_size}, but the training set has only {num_examples} examples")

    learning_rate = optimizers.scaled_rate(config.optimizer, config.batch_size)
    schedule = schedules.create(config.schedule, learning_rate, config.epochs, steps_per_epoch)
    cycle_ends = schedules.cycle_ends(config.epochs, config.schedule.cycles, config.schedule.cycle_epochs)
    optimizer = optimizers.create(config.optimizer, schedule)
    model = models.create(num_classes=dataset.num_classes, dtype=config.dtype, vocabulary_size=dataset.vocabulary_size, **config.model)
    statistics = channel_statistics(dataset)
    prepare = make_prepare(statistics, config)
    example = prepare({name: np.zeros((1, *rows.shape[1:]), rows.dtype) for name, rows in dataset.train.items() if name != "label"}, None)
    teachers = networks.find_all(config.teachers, workdir, config.dtype)
    for teacher in teachers:
        networks.check_fits(teacher, dataset, example.shape[1:])
    setting = methods.Setting(model, cycle_ends, num_examples, dataset.num_classes, mesh, tuple(teacher.model for teacher in teachers))
    method = methods.create(setting=setting, **config.method)
    if method.wants_logits and is_augmented(dataset, config):
        raise UserError("method.guide_logits is 'table', which takes data.crop_padding=0 and data.flip=False, and images in memory")

    whole = sharding.replicated(mesh)
    jit_predict = functools.partial(jax.jit, out_shardings=whole)

    def predict_with(model):
        return jit_predict(evaluate.make_predict(functools.partial(model.apply, train=False), prepare))

    return Program(
        config=config,
        mesh=mesh,
        dataset=dataset,
        data_fingerprint=fingerprint(dataset),
        input_shape=example.shape[1:],
        channel_statistics=statistics,
        train_source=batches.source(dataset.train, mesh),
        test_source=batches.source(dataset.test, mesh),
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
        predict=predict_with(model),
        predict_teacher=method.predict and jit_predict(evaluate.make_predict(method.predict, prepare)),
        predict_given=tuple(predict_with(teacher.model) for teacher in teachers),
    )


def channel_statistics(dataset: Dataset) -> tuple[np.ndarray, np.ndarray] | None:
    """Mean and standard deviation by which images are normalised: the training set's own, or of streamed ones ImageNet's."""
    if "image" not in dataset.train:
        return None
    return (streaming.MEAN, streaming.STD) if batches.is_streamed(dataset.train) else augment.channel_statistics(dataset.train["image"])


def make_prepare(statistics: tuple[np.ndarray, np.ndarray] | None, config: ConfigDict) -> Callable[..., jax.Array]:
    """(batch, key) -> model inputs: images augmented and normalised; without their statistics sentences, as they are."""
    if statistics is None:
        return lambda batch, key: batch["tokens"]
    return augment.make_prepare(*statistics, config.data.crop_padding, config.data.flip)


def is_augmented(dataset: Dataset, config: ConfigDict) -> bool:
    return "image" in dataset.train and bool(batches.is_streamed(dataset.train) or config.data.crop_padding or config.data.flip)


def predict_test(program: Program, predict: Callable[..., jax.Array], network: Any) -> np.ndarray:
    """Logits of the test set, float32 [N, C]."""
    return predict_split(program, functools.partial(predict, network, program.test_source), program.dataset.test)


def predict_train(program: Program, predict: Callable[..., jax.Array], network: Any) -> np.ndarray:
    """Logits of the training set without augmentation, float32 [N, C]."""
    return predict_split(program, functools.partial(predict, network, program.train_source), program.dataset.train)


def predict_split(program: Program, predict: Callable[..., jax.Array], rows: dict[str, Any]) -> np.ndarray:
    return evaluate.predict_all(predict, batches.evaluation_batches(rows, program.plan.batch_size, program.mesh), len(rows["label"]))


def test_metrics(program: Program, state: TrainState, teacher_logits: np.ndarray | None) -> dict[str, float]:
    """The student on the test set; and, with its teacher's logits there, how far both agree and how soft the teacher is."""
    logits = predict_test(program, program.predict, variables(state))
    metrics = evaluate.classification_metrics(logits, program.dataset.test["label"]) | evaluate.score_profile(logits)
    if teacher_logits is not None:
        metrics["teacher_agreement"] = evaluate.agreement(logits, teacher_logits)
        metrics["teacher_entropy"] = evaluate.mean_entropy(teacher_logits)
    return metrics

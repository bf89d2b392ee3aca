"""What a config describes: data on the devices, a method, and compiled functions. Built once for all seeds."""

import functools
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from distill_jax import (
    checks,
    configuration,
    methods,
    optimizers,
    programs,
    sharding,
    specs,
    state,
    workdir,
)
from distill_jax.data import Dataset, augment, batches, load_config, streaming
from distill_jax.data.dataset import check_crop, count, fingerprint
from distill_jax.errors import UserError
from distill_jax.models.maps import sizes as map_sizes
from distill_jax.models.maps import with_maps
from distill_jax.plan import Plan, make_plan
from distill_jax.state import TrainState, init_state
from distill_jax.step import make_train_step
from distill_jax.tasks import TASKS, Task, pictures

# Fields on which the compiled functions do not depend. Of teachers, they depend on the specs or, for a table, only on the number.
NOT_IN_PROGRAMS = ("seed", "seeds", "teachers", "initial", "stages", "log_every", "eval_every", "checkpoint_every")


class Data(NamedTuple):
    """A data set on the devices."""

    dataset: Dataset
    mesh: Mesh
    train: dict[str, jax.Array]  # {} if it is streamed
    test: dict[str, jax.Array]
    fingerprint: dict[str, Any]  # identifies the data, so that a resumed run can detect changes


class Experiment(NamedTuple):
    """What all runs of a config share, whatever the seed."""

    config: ConfigDict
    data: Data
    spec: specs.Spec  # of the network being trained
    plan: Plan
    task: Task
    method: methods.Method
    teachers: tuple[specs.Spec, ...]  # of the networks that config.teachers names
    init: Callable[[jax.Array], TrainState]  # key -> the first state of a fresh network
    begin: Callable[[Any], TrainState]  # network -> its first state, with the method's first teacher
    train_step: Callable[..., tuple[TrainState, Any, jax.Array | None]]  # see step.py
    observe: Callable[..., Any] | None  # (teacher, ids, logits) -> teacher
    predict: Callable[[Any], Any]  # network -> the task's predictions of the test set, [N, ...], such as logits [N, C]
    # state -> the same of its teacher, None if it has none yet; None if no teacher can predict it
    predict_teacher: Callable[[TrainState], Any] | None
    pictures: Callable[[Any], list[np.ndarray]] | None  # network -> pictures, uint8 [H, W, 3]; None if the task draws none


def load_data(config: ConfigDict, tokenizer: str = "") -> Data:
    """Reads the data set of a config and, unless it is streamed, puts it on all devices. For `tokenizer` see `data.load`."""
    mesh, dataset = sharding.make_mesh(), load_config(config.data, tokenizer)
    return Data(dataset, mesh, batches.source(dataset.train, mesh), batches.source(dataset.test, mesh), fingerprint(dataset))


def remember_data(folder: pathlib.Path, data: Data) -> None:
    """Writes data.json into a new workdir; in an old one, checks that the data have not changed.

    Raises:
      UserError: they have.
    """
    schema = workdir.load_config(folder)[1]
    facts = data.fingerprint if schema == workdir.SCHEMA else fingerprint(data.dataset, schema)
    workdir.remember(folder / "data.json", facts)


def build(
    config: ConfigDict,
    data: Data,
    teachers: Sequence[specs.Spec] = (),
    recorded: specs.Spec | None = None,
    start: specs.Spec | None = None,
) -> Experiment:
    """Builds the functions of a config; nothing is compiled or written yet.

    Args:
      config: of one run, or of several that differ only in their seed.
      data: of config.data.
      teachers: specs of the networks that config.teachers names.
      recorded: for a run that has begun, the recorded spec of its network, so that its normalisation does not change.
      start: for a new run, the spec of the pre-trained network or encoder that config.initial names: see `specs.completed`.

    Raises:
      UserError: a field of the config is out of range, or does not fit the data or the teachers.
    """
    dataset, mesh = data.dataset, data.mesh
    check_crop(dataset, config.data.crop_padding)
    plan, schedule = make_plan(config, dataset, mesh)
    task, table = TASKS[dataset.task], methods.wants_table(**config.method)
    spec = recorded or specs.completed(make_spec(config, dataset), start)
    spec.abstract_network(config.dtype)  # raises if the network cannot take such inputs
    model = spec.module(config.dtype)
    apply = programs.inference(model)
    method = make_method(config, data, plan, apply)
    check_method(config, method, dataset, spec, teachers)
    with checks.naming("optimizer"):
        optimizer = optimizers.create(config.optimizer, schedule)
    layout = state.layout(method, mesh)
    views = augment.make_augment(config.data.crop_padding, config.data.flip and dataset.task == "classification")
    frozen = [(teacher, teacher.module(config.dtype)) for teacher in teachers]
    speak = [from_table if table else functools.partial(from_forward, *each) for each in frozen]
    train_step = make_train_step(model, method, optimizer, views, spec.to_inputs, speak, task)

    @functools.partial(jax.jit, out_shardings=layout)
    def begin(network):
        return init_state(network, optimizer).replace(teacher=method.init(network))

    def init(key):
        return begin(programs.init(model, mesh)(key, np.zeros(spec.example.shape, spec.example.dtype)))

    return Experiment(
        config=config,
        data=data,
        spec=spec,
        plan=plan,
        task=task,
        method=method,
        teachers=tuple(teachers),
        init=init,
        begin=begin,
        train_step=jax.jit(train_step, donate_argnums=0, out_shardings=(layout, layout.step, sharding.rows(mesh))),
        observe=method.observe and jax.jit(method.observe, donate_argnums=0, out_shardings=layout.teacher),
        predict=predict_with(data, plan.batch_size, spec, apply),
        predict_teacher=make_predict_teacher(data, plan.batch_size, method, spec, [] if table else frozen),
        pictures=pictures.make(apply, spec, dataset, mesh),
    )


def sharing(exp: Experiment, others: Iterable[Experiment]) -> Experiment:
    """The experiment with the compiled functions of another that computes the same: stages often differ only in their teachers' weights."""
    for other in others:
        if exp.data is other.data and _program(exp) == _program(other):
            return other._replace(config=exp.config, teachers=exp.teachers)
    return exp


def _program(exp: Experiment) -> tuple[Any, ...]:
    """Equal for experiments whose functions are compiled to the same programs, if their data is the same."""
    fields = {name: value for name, value in configuration.resolved(exp.config).items() if name not in NOT_IN_PROGRAMS}
    teachers = len(exp.teachers) if methods.wants_table(**exp.config.method) else exp.teachers
    return fields, exp.spec, teachers


def make_method(config: ConfigDict, data: Data, plan: Plan, apply: Callable[[Any, Any], jax.Array]) -> methods.Method:
    """The method of a config, for a student whose forward pass in inference mode is `apply`."""
    setting = methods.Setting(
        apply=apply,
        cycle_ends=plan.cycle_ends,
        num_examples=count(data.dataset.train),
        num_classes=data.dataset.num_classes,
        num_devices=data.mesh.size,
        num_teachers=len(config.teachers),
        epochs=plan.epochs,
        batch_size=plan.batch_size,
    )
    with checks.naming("method"):
        return methods.create(setting=setting, **config.method.to_dict())


def make_spec(config: ConfigDict, dataset: Dataset) -> specs.Spec:
    """The spec of a new network to be trained on a data set."""
    images = dataset.train.get("image")
    statistics = ((), ())
    if images is not None:
        streamed = batches.is_streamed(dataset.train)
        statistics = (streaming.MEAN, streaming.STD) if streamed else augment.channel_statistics(images)
    mean, std = (tuple(float(value) for value in values) for values in statistics)
    return specs.Spec(
        model=config.model.to_dict(),
        num_classes=dataset.num_classes,
        input_shape=tuple(dataset.train["tokens" if images is None else "image"].shape[1:]),
        input_mean=mean,
        input_std=std,
        classes=dataset.classes,
        vocabulary_size=dataset.vocabulary_size,
        image_size=config.data.image_size,
        downsample=config.data.downsample,
        tokenizer=dataset.tokenizer,
        sentences=dataset.sentences,
        task=dataset.task,
    )


def check_method(config: ConfigDict, method: methods.Method, dataset: Dataset, spec: specs.Spec, teachers: Sequence[specs.Spec]) -> None:
    """Raises UserError unless a method suits the task, the data, and the networks."""
    table = methods.wants_table(**config.method)
    TASKS[dataset.task].check(config, method)
    if table and is_augmented(dataset, config):
        raise UserError("method.guide_logits is 'table', which needs data.crop_padding=0, data.flip=False, and images in memory")
    if method.observes == "clean" and batches.is_streamed(dataset.train):
        raise UserError("method.view is 'clean', which needs images in memory: streamed ones come as random crops")
    if method.maps:
        check_maps(config, spec, teachers, table)


def check_maps(config: ConfigDict, spec: specs.Spec, teachers: Sequence[specs.Spec], table: bool) -> None:
    """Raises UserError unless the student and its teachers have feature maps of the same sizes."""
    if table:
        raise UserError(f"method.guide_logits is 'table', but {config.method.name} needs the teachers' feature maps, not only their logits")

    def sizes(each):
        apply = functools.partial(with_maps, each.module().apply, train=False)
        return map_sizes(jax.eval_shape(apply, each.abstract_network(), each.example)[1])

    ours = sizes(spec)
    for teacher in teachers:
        theirs = sizes(teacher)
        if theirs != ours or ours == "none":
            names = f"those of {teacher.model['name']} are {theirs}, those of {spec.model['name']} {ours}"
            how = '. A network marks its maps: self.sow("intermediates", "stage1", x)' if "none" in (ours, theirs) else ""
            raise UserError(f"method.name is {config.method.name!r}, which compares feature maps of equal sizes; {names}{how}")


def from_forward(spec: specs.Spec, module: Any, network: Any, view: dict[str, jax.Array], maps: bool = False) -> Any:
    """A frozen network's logits for an augmented batch, float32 [B, C], normalised as in its own training; with maps=True also its maps."""
    logits_BxC, hidden = with_maps(module.apply, network, spec.to_inputs(view), train=False)
    return (logits_BxC, hidden) if maps else logits_BxC


def from_table(table_NxC: jax.Array, view: dict[str, jax.Array]) -> jax.Array:
    """A frozen network's stored logits for a batch, float32 [B, C]."""
    return table_NxC.at[view["id"]].get(mode="promise_in_bounds")


def make_predict_teacher(
    data: Data, batch_size: int, method: methods.Method, spec: specs.Spec, frozen: Sequence[tuple[specs.Spec, Any]]
) -> Callable[[TrainState], Any] | None:
    """See Experiment.predict_teacher. With several frozen networks, the first one is used."""
    if method.predict:
        own = predict_with(data, batch_size, spec, method.predict)
        return lambda state: None if state.teacher is None else own(state.teacher)
    if frozen:
        first_spec, module = frozen[0]
        first = predict_with(data, batch_size, first_spec, programs.inference(module))
        return lambda state: first(state.given[0])
    return None


def predict_with(
    data: Data, batch_size: int, spec: specs.Spec, apply: Callable[[Any, Any], Any], split: str = "test"
) -> Callable[[Any], Any]:
    """Builds predict(network) -> the task's predictions of a whole split without augmentation: [N, ...] such as logits [N, C]."""
    rows, source = (data.dataset.train, data.train) if split == "train" else (data.dataset.test, data.test)

    predict_batch = programs.predict(apply, spec, data.mesh)

    def predict(network):
        results = (predict_batch(network, source, batch) for batch in batches.evaluation_batches(rows, batch_size, data.mesh))
        return jax.tree.map(lambda array: array[: count(rows)], sharding.fetch(results))

    return predict


def forward_passes(exp: Experiment) -> int:
    """How many samples a run passes forward through a network in training: the student's own passes, and those of its teachers."""
    extra = sum(exp.method.forwards(epoch) for epoch in range(1, exp.plan.epochs + 1))
    own = exp.plan.epochs * (2 if exp.method.observes == "clean" else 1)
    tables = len(exp.teachers) * count(exp.data.dataset.train) if methods.wants_table(**exp.config.method) else 0
    return round((own + extra) * exp.plan.steps_per_epoch * exp.plan.batch_size) + tables


def is_augmented(dataset: Dataset, config: ConfigDict) -> bool:
    return "image" in dataset.train and bool(batches.is_streamed(dataset.train) or config.data.crop_padding or config.data.flip)


def evaluate_network(exp: Experiment, network: Any, teacher: Any, folder: pathlib.Path | None = None) -> dict[str, float]:
    """The student's metrics on the test set; given its teacher's predictions, also those that compare the two. For `folder` see `Task`."""
    return exp.task.evaluate(exp.predict(network), exp.data.dataset, teacher, folder)

"""Shared helpers: a run small enough for every test, and ways to build, run, disturb and inspect it."""

import contextlib
import io
import json
import pathlib

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image
from sklearn.datasets import load_sample_images
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from configs import sd_digits, text_trec, tolerant_digits
from distill_jax import checkpoints, experiment, files, jobs, sharding, specs, study, trained
from distill_jax import start as starting
from distill_jax.data import load
from distill_jax.data.batches import epoch_order
from distill_jax.errors import UserError
from distill_jax.state import empty_metrics

ROOT = pathlib.Path(__file__).parent.parent
STEPS = 20
TINY = [
    "--config.epochs=4", "--config.batch_size=40", "--config.eval_every=1", "--config.checkpoint_every=1", "--config.log_every=2",
    "--config.data.train_examples=200", "--config.schedule.cycles=2",
]  # fmt: skip


def make_config(**fields):
    """200 digits, a small network, 4 epochs of 5 steps, 2 cycles; `data__name` means data.name."""
    config = sd_digits.get_config()
    config.epochs = 4
    config.batch_size = 40
    config.eval_every = 1
    config.checkpoint_every = 1
    config.log_every = 2
    config.data.train_examples = 200
    config.schedule.cycles = 2
    return with_fields(config, **fields)


def family_config(**fields):
    """A patriarch and two generations of students, 2 epochs each."""
    config = make_config(epochs=2, eval_every=2, schedule__cycles=1, method=ConfigDict({"name": "supervised"}))
    config.stages = tolerant_digits.get_config().stages
    config.stages.generations = 2
    return with_fields(config, **fields)


def student_config(*teachers, **fields):
    """One epoch of a student taught by finished runs."""
    own = {"epochs": 1, "schedule__cycles": 1, "method": ConfigDict({"name": "distillation"}), "teachers": tuple(map(str, teachers))}
    return make_config(**own | fields)


def text_config(folder, source=text_trec, **fields):
    """Six epochs of a small network on the fixture `sentences`."""
    config = source.get_config()
    config.model = ConfigDict({"name": "text_cnn", "feature_maps": 8, "width": 16})
    data = {"data__dir": str(folder), "data__name": "text:train", "data__text__test": "test"}
    training = {"epochs": 6, "batch_size": 32, "checkpoint_every": 2, "optimizer__learning_rate": 0.01}
    return with_fields(config, **data | training | fields)


def with_fields(config, **fields):
    """A copy of the config with other values of some fields, data__name for data.name."""
    config = config.copy_and_resolve_references()
    for name, value in fields.items():
        *parts, last = name.split("__")
        part = config
        for each in parts:
            part = part[each]
        with part.unlocked():
            part[last] = value
    return config


def build(config, folder=pathlib.Path("nowhere")):
    """The experiment of one run; its teachers `stage:NAME` are finished runs beside `folder`."""
    runs = [trained.find(trained.resolve(name, folder)) for name in config.teachers]
    exp = experiment.build(config, experiment.load_data(config), [run.spec for run in runs])
    for run in runs:
        specs.check_fits(f"teacher {run.folder}", run.spec, exp.spec, exp.data.dataset.name)
    return exp


def run(exp, seed, folder):
    """Trains a run of an experiment, or the rest of it; returns its summary."""
    return study.run(exp, jobs.make_job("", seed, pathlib.Path(folder), jobs.config_of_seed(exp.config, seed)))


class Crash(Exception):
    pass


def crash():
    raise Crash


def act_at(exp, step, action):
    """The experiment, with an action before one of its train steps."""

    def train_step(state, *args):
        if int(state.step) == step:
            action()
        return exp.train_step(state, *args)

    return exp._replace(train_step=train_step)


def read_lines(folder):
    return files.read_jsonl(folder / "metrics.jsonl")


def read_events(folder, name):
    """TensorBoard's points of a curve: [(step, value), ...]."""
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    return [(event.step, float(make_ndarray(event.tensor_proto))) for event in events.Tensors(name)]


def damage(folder, how):
    """Flips a bit of the largest file below a folder, truncates it by half, or removes it."""
    victim = max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = victim.read_bytes()
    if how == "flip":
        victim.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    elif how == "cut":
        victim.write_bytes(content[: len(content) // 2])
    else:
        victim.unlink()


@contextlib.contextmanager
def crash_in(stage, step):
    """Within the context, `study.train` crashes before the given step of a stage."""
    run_job = study.run
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Crash):
        patch.setattr(study, "run", lambda exp, job, *rest: run_job(act_at(exp, step, crash) if job.stage == stage else exp, job, *rest))
        yield


def start(exp):
    """A fresh state and the step key, for seed 0."""
    init_key, step_key = jax.random.split(jax.random.key(0))
    return exp.init(init_key), step_key


def start_in(exp, folder):
    """The state with which a run starts or resumes in a workdir, including its teachers; for seed 0."""
    state, _, _ = starting.init_or_restore(exp, folder, jax.random.key(0), checkpoints.open_manager(folder / "checkpoints"))
    return state


def batch_of(exp, ids_B):
    return {"id": sharding.put(np.asarray(ids_B, np.int32), sharding.rows(exp.data.mesh))}


def step(exp, state, key, ids_B):
    """One train step: the state after it, and the logits that the method observes."""
    state, _, logits = exp.train_step(state, empty_metrics(exp.data.mesh), exp.data.train, batch_of(exp, ids_B), key)
    return state, logits


def run_epoch(exp, state, key, epoch):
    epoch_metrics = empty_metrics(exp.data.mesh)
    for ids_B in epoch_order(0, epoch, 200, 40):
        state, epoch_metrics, _ = exp.train_step(state, epoch_metrics, exp.data.train, batch_of(exp, ids_B), key)
    return state, epoch_metrics


def bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def prepare_tfds(builder, directory):
    builder(data_dir=str(directory), file_format="array_record").download_and_prepare()


def write_npz(path, images, labels, test=None, **arrays):
    """Writes an npz for data.name=npz:PATH; its test set is `test`, (images, labels), or else the training set."""
    test_images, test_labels = test or (images, labels)
    np.savez(path, train_images=images, train_labels=labels, test_images=test_images, test_labels=test_labels, **arrays)
    return f"npz:{path}"


COLOURS = ("red", "green", "blue")


def colours_config(path, brightness=0, names=COLOURS, **fields):
    """Two epochs on 60 RGB images of three colours, written as an npz; 30 others are the test set."""
    rng, parts = np.random.default_rng(brightness), []
    for count in (60, 30):
        labels = np.arange(count) % 3
        images = rng.integers(brightness, brightness + 60, (count, 8, 8, 3), np.uint8)
        images[np.arange(count), :, :, labels] += 60
        parts.append((images, labels))
    own = {"epochs": 2, "batch_size": 20, "eval_every": 2, "schedule__cycles": 1, "method": ConfigDict({"name": "supervised"})}
    data = {"data__name": write_npz(path, *parts[0], parts[1], class_names=np.array(names)), "data__train_examples": 0}
    return make_config(**own | data | {"data__crop_padding": 0} | fields)


def png(pixels: np.ndarray) -> io.BytesIO:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    buffer.seek(0)
    return buffer


def write_images(folder, per_class=(60, 63), test=17):
    """Writes pieces of scikit-learn's two photographs, one per class, as JPEGs of many sizes."""
    rng = np.random.default_rng(0)
    for name, photograph, count in zip(("china", "flower"), load_sample_images().images, per_class, strict=True):
        for part, number in (("train", count), ("val", test)):
            (folder / part / name).mkdir(parents=True)
            for row in range(number):
                width, height = rng.integers(20, 60, 2)
                left, top = rng.integers(0, 640 - width), rng.integers(0, 427 - height)
                piece = Image.fromarray(photograph[top : top + height, left : left + width])
                piece.save(folder / part / name / f"{row:03d}.JPEG", quality=95)


def loading_fails(match: str, *arguments) -> None:
    """load(*arguments) must raise a one-line UserError that matches."""
    with pytest.raises(UserError, match=match) as caught:
        load(*arguments)
    assert "\n" not in str(caught.value)


AWKWARD = [0.1 + 0.2, 1e-308 / 3, 5e-324, 1.0, 123456789.12345678, -0.0]  # numbers that easily lose digits or a sign


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def write_run(folder, seed=0, on="test", **fields):
    """Writes the result files of a finished run; returns its summary."""
    summary = {
        "method": "snapshot", "evaluated_on": on, "seed": seed, "num_params": 1234, "input_mean": [0.1, 1 / 3],
        "train_accuracy": 0.5 + seed / 70, f"best_{on}_accuracy": 0.4 + seed / 7,
        f"{on}_accuracy": 0.3 + seed / 7, f"{on}_nll": 1.5, f"{on}_ece": AWKWARD[0],
        "snapshot_ensemble": {f"{on}_accuracy": 0.25, "members_test_accuracy": [0.1, AWKWARD[1]]}, "params_sha256": f"{seed}e1234",
    } | fields  # fmt: skip
    write(folder / "summary.json", summary)
    write(folder / "config.json", {"seed": seed, "seeds": 1, "data": {"name": "digits", "empty": {}}, "boundaries": [0.5, AWKWARD[4]]})
    write(folder / "metrics.jsonl", "".join(json.dumps({"step": step, "loss": x}) + "\n" for step, x in enumerate(AWKWARD)))
    return summary


def refused(call, message):
    """A command exits with a one-line error."""
    with pytest.raises(SystemExit) as stop:
        call()
    assert str(stop.value.code).startswith("error: ") and "\n" not in str(stop.value.code)
    assert message in str(stop.value.code)


def torch_resnet(torch, depth, num_classes):
    """A ResNet with torchvision's names, independent of ours."""
    nn = torch.nn
    blocks, is_deep = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}[depth], depth >= 50

    class Block(nn.Module):
        def __init__(self, before, width, stride):
            super().__init__()
            after = width * (4 if is_deep else 1)
            shapes = [(before, width, 1, 1), (width, width, 3, stride), (width, after, 1, 1)]
            shapes = shapes if is_deep else [(before, width, 3, stride), (width, width, 3, 1)]
            for number, (into, out, size, step) in enumerate(shapes, 1):
                self.add_module(f"conv{number}", nn.Conv2d(into, out, size, step, size // 2, bias=False))
                self.add_module(f"bn{number}", nn.BatchNorm2d(out))
            self.count, self.downsample = len(shapes), None
            if stride > 1 or before != after:
                self.downsample = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

        def forward(self, x):
            y = x
            for number in range(1, self.count + 1):
                y = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(y))
                y = y.relu() if number < self.count else y
            return (y + (x if self.downsample is None else self.downsample(x))).relu()

    model, before = nn.Module(), 64
    model.conv1, model.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
    for stage, count in enumerate(blocks):
        layers = []
        for block in range(count):
            layers.append(Block(before, 64 * 2**stage, 2 if stage and not block else 1))
            before = 64 * 2**stage * (4 if is_deep else 1)
        model.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
    model.fc = nn.Linear(before, num_classes)

    def forward(x):
        x = nn.functional.max_pool2d(model.bn1(model.conv1(x)).relu(), 3, 2, 1)
        for stage in range(1, 5):
            x = getattr(model, f"layer{stage}")(x)
        return model.fc(x.mean(dim=(2, 3)))

    return model.eval(), forward


def random_network(module, inputs, seed=0):
    """Normal random values, positive variances."""
    random, shapes = np.random.default_rng(seed), jax.eval_shape(module.init, jax.random.key(0), inputs)
    network = jax.tree.map(lambda leaf: 0.3 * random.standard_normal(leaf.shape, np.float32), dict(shapes))
    network = jax.tree_util.tree_map_with_path(lambda path, leaf: abs(leaf) + 0.5 if path[-1].key in ("var", "scale") else leaf, network)
    return {"params": network["params"], "batch_stats": network.get("batch_stats", {})}

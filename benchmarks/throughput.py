"""Images per second of one train step as the training loop calls it, excluding compilation.

    python benchmarks/throughput.py                                   # ResNet-20, batch 128, float32
    python benchmarks/throughput.py --model=resnet32 --dtype=bfloat16
    python benchmarks/throughput.py --guides=3                        # also DGKD with 1 to 3 guides, each as large as the student;
                                                                      # with a table of their logits, augmentation is off
    python benchmarks/throughput.py --torch                           # also PyTorch (pip install -e '.[bench]')

The cases take turns, block by block, so that noise on the machine affects all alike; a ratio is the median of the blocks' ratios.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from distill_jax import default_config, experiment, methods, models, sharding
from distill_jax.data import Dataset, batches
from distill_jax.experiment import Data, Experiment
from distill_jax.state import TrainState, empty_metrics

NUM_CLASSES, NUM_IMAGES = 100, 2048
Block = Callable[[int], None]  # runs the given number of steps and waits for the last


def random_images(count: int = NUM_IMAGES, size: int = 32, classes: int = NUM_CLASSES) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, size, size, 3), np.uint8)
    return {"image": images, "label": rng.integers(0, classes, count).astype(np.int32)}


def on_devices(rows: dict[str, np.ndarray], classes: int, mesh: Mesh) -> Data:
    return Data(Dataset("random", classes, rows, rows), mesh, batches.source(rows, mesh), test={}, fingerprint={})


def make_experiment(data: Data, batch_size: int, model: str, dtype: str = "float32", guides: int = 0, **method) -> Experiment:
    """Two cycles of ten epochs with a method, given by its name and options; each guide is a network like the student's."""
    config = default_config.get_config()
    config.epochs, config.schedule.cycles = 20, 2
    config.batch_size, config.dtype, config.model.name = batch_size, dtype, model
    config.method, config.teachers = ConfigDict(method), ("guide",) * guides
    if methods.wants_table(**method):  # the table requires the same samples in each epoch
        config.data.crop_padding, config.data.flip = 0, False
    return experiment.build(config, data, (experiment.make_spec(config, data.dataset),) * guides)


def start(exp: Experiment, cycle: int = 1) -> TrainState:
    """A state in the given learning-rate cycle; the second cycle's teacher and every guide are the initial network."""
    state = exp.init(jax.random.key(0))
    if cycle > 1:
        state = state.replace(teacher=exp.method.end_epoch(state.teacher, state.network, exp.plan.cycle_ends[0]))
    guide = state.network
    if methods.wants_table(**exp.config.method):
        logits = np.random.default_rng(2).standard_normal((len(exp.data.dataset.train["label"]), exp.spec.num_classes), np.float32)
        guide = sharding.put(logits, sharding.replicated(exp.data.mesh))
    return state.replace(given=tuple(jax.tree.map(jnp.copy, guide) for _ in exp.teachers))


def random_batch(exp: Experiment, rng: np.random.Generator) -> dict[str, jax.Array]:
    ids = rng.choice(len(exp.data.dataset.train["label"]), exp.plan.batch_size, replace=False).astype(np.int32)
    return {"id": sharding.put(ids, sharding.rows(exp.data.mesh))}


def repeated(exp: Experiment, state: TrainState) -> Block:
    """Wraps a train step in the training loop."""
    epoch_metrics, rng, key = empty_metrics(exp.data.mesh), np.random.default_rng(1), jax.random.key(1)

    def block(steps):
        nonlocal state, epoch_metrics
        for _ in range(steps):
            batch = random_batch(exp, rng)
            state, epoch_metrics, logits = exp.train_step(state, epoch_metrics, exp.data.train, batch, key)
            if exp.observe:
                state = state.replace(teacher=exp.observe(state.teacher, batch["id"], logits))
        jax.block_until_ready((state, epoch_metrics))

    return block


def measure(blocks: dict[str, Block], arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds per step of each block, one number per repeat. The first calls compile and are not counted."""
    for block in blocks.values():
        block(3)
    seconds = {name: [] for name in blocks}
    for _ in range(arguments.repeats):
        for name, block in blocks.items():
            start = time.perf_counter()
            block(arguments.steps)
            seconds[name].append((time.perf_counter() - start) / arguments.steps)
    return seconds


def report(seconds: dict[str, list[float]], batch_size: int) -> str:
    first = next(iter(seconds.values()))
    lines = ["| step | images/s, median | min | max | time / supervised |", "|---|---|---|---|---|"]
    for name, values in seconds.items():
        speeds = [batch_size / value for value in values]
        ratio = statistics.median(value / base for value, base in zip(values, first, strict=True))
        lines.append(f"| {name} | {statistics.median(speeds):.0f} | {min(speeds):.0f} | {max(speeds):.0f} | {ratio:.3f} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> str:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--dtype", default="float32", choices=sorted(models.DTYPES))
    parser.add_argument("--steps", type=int, default=10, help="steps per block")
    parser.add_argument("--repeats", type=int, default=7, help="blocks of each variant")
    parser.add_argument("--guides", type=int, default=0, help="time DGKD with 1 to this many guides")
    parser.add_argument("--torch", action="store_true", help="also time PyTorch's step of the same ResNet")
    arguments = parser.parse_args(argv)

    data = on_devices(random_images(), NUM_CLASSES, sharding.make_mesh(jax.devices()[:1]))

    def block(cycle=1, **method):
        exp = make_experiment(data, arguments.batch_size, arguments.model, arguments.dtype, **method)
        return repeated(exp, start(exp, cycle))

    blocks = {
        "supervised": block(name="supervised"),
        "SD, cycle 1": block(name="snapshot"),
        "SD, cycle >= 2": block(cycle=2, name="snapshot"),
        "LSTSD": block(name="long_short_term"),
    }
    for guides in range(1, arguments.guides + 1):
        for source in ("forward", "table"):
            name = f"DGKD, guides: {guides}, {source}"
            blocks[name] = block(guides=guides, name="densely_guided", guide_logits=source)
    if arguments.torch:
        import torch_resnet

        blocks["supervised, PyTorch"] = torch_resnet.block(arguments, random_images())
    device = jax.devices()[0]
    table = report(measure(blocks, arguments), arguments.batch_size)
    setting = f"{arguments.model}, batch {arguments.batch_size}, {arguments.dtype}"
    print(f"{device.platform} ({device.device_kind}), jax {jax.__version__}: {setting}")
    print(table)
    return table


if __name__ == "__main__":
    main()

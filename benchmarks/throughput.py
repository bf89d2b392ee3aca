"""Images per second of one train step, as the training loop calls it, without compilation.

    python benchmarks/throughput.py                                   # ResNet-20, batch 128, float32
    python benchmarks/throughput.py --model=resnet32 --dtype=bfloat16
    python benchmarks/throughput.py --guides=3                        # DGKD with 1 to 3 guides too, each as large as the student
    python benchmarks/throughput.py --torch                           # beside PyTorch (pip install -e '.[bench]')

The variants are timed in turn, block by block, so that a noisy machine hits all of them; a ratio is the median of the blocks' ratios.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax.sharding import Mesh

from distill_jax import methods, models, sharding
from distill_jax.data import augment, batches
from distill_jax.step import TrainMetrics, TrainState, init_state, make_train_step

NUM_CLASSES, NUM_IMAGES = 100, 2048
Block = Callable[[int], None]  # runs so many steps and waits for the last


def random_images(count: int = NUM_IMAGES, size: int = 32, classes: int = NUM_CLASSES) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, size, size, 3), np.uint8)
    return {"image": images, "label": rng.integers(0, classes, count).astype(np.int32)}


class Step(NamedTuple):
    """A method's step, compiled when it is first called, and what it is called with."""

    mesh: Mesh
    train_step: Callable
    observe: Callable | None
    state: TrainState
    epoch_metrics: TrainMetrics
    source: dict[str, jax.Array]
    key: jax.Array

    def batch(self, rng: np.random.Generator, batch_size: int) -> dict[str, jax.Array]:
        ids = rng.choice(len(self.source["label"]), batch_size, replace=False).astype(np.int32)
        return {"id": sharding.put(ids, sharding.rows(self.mesh))}


def jax_step(
    model: nn.Module,
    data: dict[str, np.ndarray],
    mesh: Mesh,
    method_name: str,
    cycle: int = 1,
    guides: int = 0,
    num_classes: int = NUM_CLASSES,
    **fields,
) -> Step:
    """A method's step in a cycle of the learning rate; the teacher of the second, and each guide, is the initial network."""
    setting = methods.Setting(model, (1, 2), len(data["label"]), num_classes, mesh, (model,) * guides)
    method = methods.create(method_name, setting, **fields)
    optimizer = optax.chain(optax.add_decayed_weights(1e-4), optax.sgd(0.1, 0.9, nesterov=True))
    prepare = augment.make_prepare(*augment.channel_statistics(data["image"]), crop_padding=4, flip=True)
    example = prepare({"image": data["image"][:1]}, None)
    whole = sharding.replicated(mesh)
    state = jax.jit(lambda key: init_state(model, optimizer, example, key), out_shardings=whole)(jax.random.key(0))
    state = state.replace(teacher=method.init(state, tuple(make_guide(method, state) for _ in range(guides))))
    if cycle > 1:
        state = state.replace(teacher=method.end_epoch(state, 1))
    return Step(
        mesh=mesh,
        train_step=jax.jit(make_train_step(model, method, optimizer, prepare), donate_argnums=0),
        observe=method.observe and jax.jit(method.observe, donate_argnums=0),
        state=state,
        epoch_metrics=sharding.put(TrainMetrics.empty(), whole),
        source=batches.source(data, mesh),
        key=jax.random.key(1),
    )


def jax_block(method_name: str, cycle: int, arguments: argparse.Namespace, guides: int = 0, **fields) -> Block:
    model, mesh = models.create(arguments.model, NUM_CLASSES, arguments.dtype), sharding.make_mesh(jax.devices()[:1])
    return repeated(jax_step(model, random_images(), mesh, method_name, cycle, guides, **fields), arguments.batch_size)


def repeated(step: Step, batch_size: int) -> Block:
    """The training loop around a step."""
    state, epoch_metrics, rng = step.state, step.epoch_metrics, np.random.default_rng(1)

    def block(steps):
        nonlocal state, epoch_metrics
        for _ in range(steps):
            batch = step.batch(rng, batch_size)
            state, epoch_metrics, logits = step.train_step(state, epoch_metrics, step.source, batch, step.key)
            if step.observe:
                state = state.replace(teacher=step.observe(state.teacher, batch["id"], logits))
        jax.block_until_ready((state, epoch_metrics))

    return block


def make_guide(method: methods.Method, state: TrainState) -> methods.FrozenNetwork | methods.FrozenLogits:
    """What stands for another run's network."""
    if method.wants_logits:
        return methods.FrozenLogits(jax.random.normal(jax.random.key(2), (NUM_IMAGES, NUM_CLASSES)))
    return jax.tree.map(jnp.copy, methods.FrozenNetwork(state.params, state.batch_stats))


def measure(blocks: dict[str, Block], arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds a step of each block, one number a repeat; the first calls, which compile, are not counted."""
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
    parser.add_argument("--steps", type=int, default=10, help="a block")
    parser.add_argument("--repeats", type=int, default=7, help="blocks of each variant")
    parser.add_argument("--guides", type=int, default=0, help="the most guides of DGKD")
    parser.add_argument("--torch", action="store_true", help="PyTorch's step of the same ResNet, in turn with ours")
    arguments = parser.parse_args(argv)

    blocks = {
        "supervised": jax_block("supervised", 1, arguments),
        "SD, cycle 1": jax_block("snapshot", 1, arguments),
        "SD, cycle >= 2": jax_block("snapshot", 2, arguments),
        "LSTSD": jax_block("long_short_term", 2, arguments),
    }
    for guides in range(1, arguments.guides + 1):
        for source in ("forward", "table"):
            blocks[f"DGKD, guides: {guides}, {source}"] = jax_block("densely_guided", 1, arguments, guides, guide_logits=source)
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

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

import jax
import jax.numpy as jnp
import numpy as np
import optax

from distill_jax import methods, models, sharding
from distill_jax.data import augment
from distill_jax.step import TrainMetrics, TrainState, init_state, make_train_step

NUM_CLASSES, NUM_IMAGES = 100, 2048
Block = Callable[[int], None]  # runs so many steps and waits for the last


def random_images() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (NUM_IMAGES, 32, 32, 3), np.uint8)
    return {"image": images, "label": rng.integers(0, NUM_CLASSES, NUM_IMAGES).astype(np.int32)}


def jax_block(method_name: str, cycle: int, arguments: argparse.Namespace, guides: int = 0, **fields) -> Block:
    """A method's step in a cycle of the learning rate; the teacher of the second, and each guide, is the initial network."""
    data = random_images()
    model = models.create(arguments.model, NUM_CLASSES, arguments.dtype)
    setting = methods.Setting(model, (1, 2), NUM_IMAGES, NUM_CLASSES, sharding.make_mesh(jax.devices()[:1]), (model,) * guides)
    method = methods.create(method_name, setting, **fields)
    optimizer = optax.chain(optax.add_decayed_weights(1e-4), optax.sgd(0.1, 0.9, nesterov=True))
    prepare = augment.make_prepare(*augment.channel_statistics(data["image"]), crop_padding=4, flip=True)
    example = prepare({"image": data["image"][:1]}, None)
    state = jax.jit(lambda key: init_state(model, optimizer, example, key))(jax.random.key(0))
    state = state.replace(teacher=method.init(state, tuple(make_guide(method, state) for _ in range(guides))))
    if cycle > 1:
        state = state.replace(teacher=method.end_epoch(state, 1))
    train_step = jax.jit(make_train_step(model, method, optimizer, prepare), donate_argnums=0)
    observe = method.observe and jax.jit(method.observe, donate_argnums=0)
    source = jax.device_put(data)
    rng = np.random.default_rng(1)
    epoch_metrics, key = TrainMetrics.empty(), jax.random.key(1)

    def block(steps):
        nonlocal state, epoch_metrics
        for _ in range(steps):
            batch = {"id": jax.device_put(rng.choice(NUM_IMAGES, arguments.batch_size, replace=False).astype(np.int32))}
            state, epoch_metrics, logits = train_step(state, epoch_metrics, source, batch, key)
            if observe:
                state = state.replace(teacher=observe(state.teacher, batch["id"], logits))
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

"""A train step on 1, 2, 4, ... devices with the total batch size fixed: its time, and what the devices exchange.

    python benchmarks/scaling.py                                        # ResNet-20, batch 128, 32x32 images
    python benchmarks/scaling.py --devices 16 --model=resnet50 --image_size=224 --batch_size=256 --classes=1000 --steps=0

Needs that many devices. JAX_NUM_CPU_DEVICES sets the number of CPU threads: the bytes are then those of a pod, the times are not.
With --steps=0 nothing runs, so that you can inspect a program for a larger machine.
"""

import argparse
import statistics
from collections import Counter

import jax
import numpy as np
import throughput
from collectives import collective_bytes, ring_bytes

from distill_jax import sharding
from distill_jax.state import empty_metrics

METHODS = {"supervised": ("supervised", 1), "SD, cycle >= 2": ("snapshot", 2), "LSTSD": ("long_short_term", 1)}


def main(argv: list[str] | None = None) -> str:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--image_size", type=int, default=32)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--batch_size", type=int, default=128, help="over all devices")
    parser.add_argument("--steps", type=int, default=3, help="steps per block; 0 to compile only")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args(argv)
    if jax.device_count() < max(arguments.devices):
        parser.error(f"{jax.device_count()} devices found; for CPU threads set JAX_NUM_CPU_DEVICES={max(arguments.devices)}")

    rows = throughput.random_images(2 * arguments.batch_size, arguments.image_size, arguments.classes)
    lines = [
        "| devices | method | ms per step | all-reduce | all-gather | other | bytes sent per device, ring |",
        "|---|---|---|---|---|---|---|",
    ]
    for devices in arguments.devices:
        mesh = sharding.make_mesh(jax.devices()[:devices])
        data = throughput.on_devices(rows, arguments.classes, mesh)
        for name, (method, cycle) in METHODS.items():
            exp = throughput.make_experiment(data, arguments.batch_size, arguments.model, name=method)
            state, batch = throughput.start(exp, cycle), throughput.random_batch(exp, np.random.default_rng(0))
            programs = [exp.train_step.lower(state, empty_metrics(mesh), data.train, batch, jax.random.key(1)).compile()]
            if exp.observe:
                logits = sharding.put(np.zeros((arguments.batch_size, arguments.classes), np.float32), sharding.rows(mesh))
                programs.append(exp.observe.lower(state.teacher, batch["id"], logits).compile())
            found = sum((Counter(collective_bytes(program)) for program in programs), Counter())
            reduced, gathered, timed = found["all-reduce"], found["all-gather"], "-"
            if arguments.steps:
                seconds = throughput.measure({name: throughput.repeated(exp, state)}, arguments)[name]
                timed = f"{statistics.median(seconds) * 1e3:.0f}"
            others = sum(found.values()) - reduced - gathered
            lines.append(f"| {devices} | {name} | {timed} | {reduced:,} | {gathered:,} | {others:,} | {ring_bytes(found, devices):,} |")
            print(lines[-1], flush=True)
    params = sum(leaf.size for leaf in jax.tree.leaves(exp.spec.abstract_network()["params"]))
    print(f"{arguments.model}, {params:,} parameters, batch {arguments.batch_size}, {jax.devices()[0].device_kind}, jax {jax.__version__}")
    table = "\n".join(lines)
    print(table)
    return table


if __name__ == "__main__":
    main()

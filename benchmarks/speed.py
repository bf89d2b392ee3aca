"""Methods, networks and dtypes on whatever device there is, next to PyTorch: one row per case in results/speed/<device>.csv.

    python benchmarks/speed.py                                                   # everything; PyTorch if it is installed
    python benchmarks/speed.py --models=resnet20,wrn16_2 --dtypes=float32 --steps=3 --repeats=5     # what a CPU can do in minutes

The steps of one network and dtype take turns, block by block, so that noise on the machine affects all alike; a ratio is the median of
the blocks' ratios. Memory is that of the compiled step, per device: its arguments (state, data, batch) and its temporary arrays.
"""

import argparse
import importlib.util
import pathlib
import statistics
import time
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from throughput import NUM_CLASSES, NUM_IMAGES, make_experiment, measure, on_devices, random_batch, random_images, repeated, start

from distill_jax import models, sharding
from distill_jax.archive import to_csv
from distill_jax.data import batches, text
from distill_jax.experiment import Data, Experiment
from distill_jax.state import TrainState, empty_metrics
from distill_jax.summary import provenance

MODELS = ("resnet20", "resnet32", "wrn16_2", "plain10", "small_cnn", "resnet18", "text_cnn", "transformer")
SIDES = {"resnet18": 64}  # pixels; 32 for the others
VOCABULARY, LENGTH = 10_000, 64
METHODS: dict[str, dict[str, Any]] = {  # the arguments of throughput.make_experiment
    "supervised": {"name": "supervised"},
    "SD, cycle 1": {"name": "snapshot"},
    "SD, cycle >= 2": {"name": "snapshot"},
    "LSTSD": {"name": "long_short_term"},
    "SD + LSTSD, cycle >= 2": {"name": "snapshot+long_short_term"},
    "KD": {"name": "distillation", "guides": 1},
    "DGKD, guides: 3, forward": {"name": "densely_guided", "guides": 3},
    "DGKD, guides: 3, table": {"name": "densely_guided", "guides": 3, "guide_logits": "table"},
}
RESULTS = pathlib.Path(__file__).parent.parent / "results" / "speed"


def random_data(model: str) -> Data:
    """Images, or sentences if the network is for text."""
    mesh = sharding.make_mesh()
    if not models.is_text(model):
        return on_devices(random_images(size=SIDES.get(model, 32)), NUM_CLASSES, mesh)
    rng = np.random.default_rng(0)
    sentences = [text.Row(1, "", (" ".join(f"w{word}" for word in row),)) for row in rng.integers(0, VOCABULARY, (NUM_IMAGES, LENGTH))]
    split, settings = (sentences, rng.integers(0, NUM_CLASSES, NUM_IMAGES)), {"max_length": LENGTH, "vocabulary_size": VOCABULARY}
    dataset = text.tokenized("random", NUM_CLASSES, split, split, ConfigDict(settings))
    return Data(dataset, mesh, batches.source(dataset.train, mesh), test={}, fingerprint={})


def compiled(exp: Experiment, state: TrainState) -> tuple[Experiment, dict[str, Any]]:
    """The experiment with its step compiled, and what that took."""
    batch = random_batch(exp, np.random.default_rng(1))
    arguments = state, empty_metrics(exp.data.mesh), exp.data.train, batch, jax.random.key(1)
    lowered, began = exp.train_step.lower(*arguments), time.perf_counter()
    step = lowered.compile()
    seconds, memory = time.perf_counter() - began, step.memory_analysis()
    facts = {"argument_bytes": memory.argument_size_in_bytes, "temporary_bytes": memory.temp_size_in_bytes}
    return exp._replace(train_step=step), {"compile_seconds": round(seconds, 2)} | facts


def cases(model: str, dtype: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each method, and one for PyTorch's supervised step where there is a twin of the network."""
    data, blocks, facts = random_data(model), {}, {}
    for name, arguments in METHODS.items():
        exp = make_experiment(data, options.batch_size, model, dtype, **arguments)
        state = start(exp, cycle=2 if name.endswith("cycle >= 2") else 1)
        exp, facts[name] = compiled(exp, state)
        blocks[name] = repeated(exp, state)
    if importlib.util.find_spec("torch") and model.startswith("resnet") and model not in SIDES:
        import torch_resnet

        twin = argparse.Namespace(model=model, batch_size=options.batch_size, dtype=dtype)
        blocks["supervised, PyTorch"] = torch_resnet.block(twin, random_images())
    seconds = measure(blocks, options)
    return [{"model": model, "dtype": dtype, "method": name} | facts.get(name, {}) | speeds(name, seconds, options) for name in blocks]


def speeds(name: str, seconds: dict[str, list[float]], options: argparse.Namespace) -> dict[str, Any]:
    row = {"batch_size": options.batch_size, "images_per_second": round(options.batch_size / statistics.median(seconds[name]), 1)}
    for column, base in (("time_over_supervised", "supervised"), ("time_over_pytorch", "supervised, PyTorch")):
        if base in seconds:
            row[column] = round(statistics.median(ours / other for ours, other in zip(seconds[name], seconds[base], strict=True)), 3)
    return row


def main(argv: list[str] | None = None) -> pathlib.Path:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=10, help="steps per block")
    parser.add_argument("--repeats", type=int, default=7, help="blocks of each case")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS)
    options = parser.parse_args(argv)

    device = jax.devices()[0]
    where = {"platform": device.platform, "devices": jax.device_count()} | provenance()
    rows, path = [], options.out / f"{device.device_kind.replace(' ', '_').lower()}.csv"
    options.out.mkdir(parents=True, exist_ok=True)
    for model in options.models.split(","):
        for dtype in options.dtypes.split(","):
            for row in cases(model, dtype, options):
                rows.append(row | where)
                print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)
            path.write_text(to_csv(rows, ("model", "dtype", "method")))  # after every network: an interrupted run keeps what it has
    print(path)
    return path


if __name__ == "__main__":
    main()

"""Pictures of a network's predictions for a few test samples, drawn whenever a run is evaluated."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from distill_jax import programs
from distill_jax.data import Dataset, batches
from distill_jax.data.dataset import count
from distill_jax.specs import Spec
from distill_jax.tasks import TASKS

SAMPLES = 4


def make(apply: Callable[[Any, Any], Any], spec: Spec, dataset: Dataset, mesh: Mesh) -> Callable[[Any], list[np.ndarray]] | None:
    """Builds (network) -> pictures, uint8 [H, W, 3], of samples spread evenly over the test set; None if the task draws none."""
    task, images = TASKS[dataset.task], dataset.test.get("image")
    if task.show is None:
        return None
    rows = np.linspace(0, count(dataset.test) - 1, min(SAMPLES, count(dataset.test))).astype(np.int32)
    padded = np.resize(rows, -(-len(rows) // mesh.size) * mesh.size)
    show = programs.predict(apply, spec, mesh, task.show)

    def draw(network):
        (batch,) = batches.in_given_order(dataset.test, padded[None], mesh)
        shown = jax.device_get(show(network, {}, batch))
        picked = [jax.tree.map(lambda array, number=number: array[number], shown) for number in range(len(rows))]
        return [task.draw(images.load(int(row), None), each, dataset, int(row)) for row, each in zip(rows, picked, strict=True)]

    return draw

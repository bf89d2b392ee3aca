"""The order of the samples, and the batches that a step gets."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from distill_jax import sharding
from distill_jax.data import streaming


def epoch_order(seed: int, epoch: int, num_examples: int, batch_size: int) -> np.ndarray:
    """The sample ids of every training batch of an epoch, a function of (seed, epoch) alone.

    Returns:
      int32 [num_examples // batch_size, batch_size]; no id occurs twice. The rest of the permutation sits this epoch out.
    """
    order = np.random.default_rng((seed, epoch)).permutation(num_examples).astype(np.int32)
    steps = num_examples // batch_size
    return order[: steps * batch_size].reshape(steps, batch_size)


def evaluation_order(num_examples: int, batch_size: int) -> np.ndarray:
    """All ids in order, int32 [ceil(num_examples / batch_size), batch_size]; id 0 fills the last row, to be cut off afterwards."""
    steps = -(-num_examples // batch_size)
    order = np.zeros(steps * batch_size, np.int32)
    order[:num_examples] = np.arange(num_examples)
    return order.reshape(steps, batch_size)


def is_streamed(rows: dict[str, Any]) -> bool:
    """Whether the images of a split are on disk."""
    return isinstance(rows.get("image"), streaming.StreamedImages)


def source(rows: dict[str, Any], mesh: Mesh) -> dict[str, jax.Array]:
    """What of a split is held by every device: all of it, or nothing of one that is streamed."""
    return {} if is_streamed(rows) else sharding.put(rows, sharding.replicated(mesh))


def training_batches(
    rows: dict[str, Any], seed: int, epoch: int, first: int, batch_size: int, mesh: Mesh
) -> Iterator[dict[str, jax.Array]]:
    """The batches of an epoch from the `first` one on, split over the devices.

    Of data in `source` a batch holds the ids, "id" [B]; of streamed images "image" and "label" as well. A process reads the rows that
    its own devices get.
    """
    order = epoch_order(seed, epoch, len(rows["label"]), batch_size)[first:]
    return _batches(rows, order, (seed, epoch), mesh)


def evaluation_batches(rows: dict[str, Any], batch_size: int, mesh: Mesh) -> Iterator[dict[str, jax.Array]]:
    """Batches of a whole split, see `evaluation_order`, as those of training."""
    return _batches(rows, evaluation_order(len(rows["label"]), batch_size), None, mesh)


def _batches(rows: dict[str, Any], order_SxB: np.ndarray, crop_seed: tuple[int, int] | None, mesh: Mesh) -> Iterator[dict[str, jax.Array]]:
    if not is_streamed(rows):
        for ids_B in order_SxB:
            yield {"id": sharding.put(ids_B, sharding.rows(mesh))}
        return
    batch_size = order_SxB.shape[1]
    own = sharding.own_rows(batch_size, mesh)
    for batch in streaming.batches(rows["image"], order_SxB[:, own], crop_seed):
        yield sharding.put_own_rows(batch, batch_size, mesh)

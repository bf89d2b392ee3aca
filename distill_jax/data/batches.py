"""The order of the samples, and the batches made from them."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from distill_jax import sharding
from distill_jax.data import scenes, streaming
from distill_jax.data.dataset import count as count_of
from distill_jax.data.dataset import strata


def permutation(seed: int, epoch: int, num_examples: int) -> np.ndarray:
    """All ids in random order, int32 [num_examples]: a function of the arguments alone.

    NumPy guarantees PCG64's bits for a given seed, but not how `permutation` uses them; a test pins that.
    """
    return np.random.Generator(np.random.PCG64((seed, epoch))).permutation(num_examples).astype(np.int32)


def epoch_order(seed: int, epoch: int, num_examples: int, batch_size: int) -> np.ndarray:
    """Sample ids of each training batch of an epoch: a function of (seed, epoch) alone.

    Returns:
      int32 [num_examples // batch_size, batch_size], without repeated ids. Leftover samples are not used in this epoch.
    """
    order = permutation(seed, epoch, num_examples)
    steps = num_examples // batch_size
    return order[: steps * batch_size].reshape(steps, batch_size)


def evaluation_order(num_examples: int, batch_size: int) -> np.ndarray:
    """All ids in order, int32 [ceil(num_examples / batch_size), batch_size]; the last row is padded with id 0, to be cut off later."""
    steps = -(-num_examples // batch_size)
    order = np.zeros(steps * batch_size, np.int32)
    order[:num_examples] = np.arange(num_examples)
    return order.reshape(steps, batch_size)


def is_streamed(rows: dict[str, Any]) -> bool:
    """Whether the images of a split are on disk."""
    return isinstance(rows.get("image"), streaming.StreamedImages | scenes.StreamedScenes)


def source(rows: dict[str, Any], mesh: Mesh) -> dict[str, jax.Array]:
    """The part of a split held on every device: all of it, or nothing if it is streamed."""
    return {} if is_streamed(rows) else sharding.put(rows, sharding.replicated(mesh))


def gather(source: dict[str, jax.Array], batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Adds to a batch the rows of `source` (arrays [N, ...] on the device) given by `batch["id"]`.

    A streamed batch already contains its data, and its source is empty.
    """
    return batch | {name: array.at[batch["id"]].get(mode="promise_in_bounds") for name, array in source.items()}


def training_batches(
    rows: dict[str, Any], seed: int, epoch: int, first: int, batch_size: int, mesh: Mesh, order: Callable[..., np.ndarray] | None = None
) -> Iterator[dict[str, jax.Array]]:
    """The batches of an epoch from batch `first` on, sharded over the devices.

    A batch holds the ids of its samples, "id" [B], and for streamed images also "image" and its labels. Each process reads only the rows
    of its own devices. `order` is a method's own (methods.base.OrderFn); None for `epoch_order`.
    """
    ids = order(seed, epoch, strata(rows), batch_size) if order else epoch_order(seed, epoch, count_of(rows), batch_size)
    return _batches(rows, ids[first:], (seed, epoch), mesh, first if order else None)


def evaluation_batches(rows: dict[str, Any], batch_size: int, mesh: Mesh) -> Iterator[dict[str, jax.Array]]:
    """The batches of a whole split in order, in the same form as in training; see `evaluation_order` for the last one."""
    return _batches(rows, evaluation_order(count_of(rows), batch_size), None, mesh)


def in_given_order(rows: dict[str, Any], ids_SxB: np.ndarray, mesh: Mesh) -> Iterator[dict[str, jax.Array]]:
    """The batches of some samples, in the form of `evaluation_batches`."""
    return _batches(rows, ids_SxB, None, mesh)


def _batches(
    rows: dict[str, Any], order_SxB: np.ndarray, crop_seed: tuple[int, int] | None, mesh: Mesh, first: int | None = None
) -> Iterator[dict[str, jax.Array]]:
    if not is_streamed(rows):
        for ids_B in order_SxB:
            yield {"id": sharding.put(ids_B, sharding.rows(mesh))}
        return
    batch_size = order_SxB.shape[1]
    own = sharding.own_rows(batch_size, mesh)
    for batch in streaming.batches(rows["image"], order_SxB[:, own], crop_seed, first):
        yield sharding.put_own_rows(batch, batch_size, mesh)


def in_order(rows: dict[str, Any], count: int, batch_size: int) -> Iterator[dict[str, np.ndarray]]:
    """The samples of a whole split on the host, in batches [batch_size, ...]; the last is padded with row 0, to be cut off later."""
    order = evaluation_order(count, batch_size)
    if is_streamed(rows):
        return iter(streaming.batches(rows["image"], order, None))
    return ({name: column[ids_B] for name, column in rows.items() if name != "label"} for ids_B in order)

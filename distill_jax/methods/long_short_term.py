"""Long Short-Term Sample Distillation: the network's earlier predictions for a sample teach it.

Jiang et al., "Long Short-Term Sample Distillation", AAAI 2020 (arXiv 2003.00739).

The abstract fixes the idea: one generation, no teacher forward pass; each sample has its own teachers, and its signal has a long-term
part, from several epochs ago, and a more up-to-date short-term part. The formula is our choice from those that fit this description:

    L_n = CE(y_n, z_n) + weight_short * KD(short_n, z_n) + weight_long * KD(long_n, z_n)
    KD(t, z) = T^2 * KL( softmax(t / T) || softmax(z / T) )

short_n are the logits of sample n at its last visit, stored during training. long_n are what short_n were at the end of the previous
mini-generation (a fixed number of epochs): those of its last epoch, or of an earlier one for a sample that this epoch left out with its
partial batch. They do not change within a mini-generation. A term is absent for a sample until its signal exists.
"""

import math

import jax
import jax.numpy as jnp
from flax import struct

from distill_jax import losses
from distill_jax.fields import check_choice, check_range
from distill_jax.methods.base import Losses, Method

ROW_MULTIPLE = 1024  # tables are padded to a multiple of this, to split evenly over, and move between, any usual number of devices
BY_ID = {"mode": "promise_in_bounds", "unique_indices": True}  # how rows are read and written


def table_rows(num_examples: int, num_devices: int) -> int:
    """The number of rows of a table with one row per sample, which is split over the devices."""
    multiple = math.lcm(ROW_MULTIPLE, num_devices)
    return -(-num_examples // multiple) * multiple


class SampleTable(struct.PyTreeNode):
    """Logits by sample id. Rows beyond the training set stay unused."""

    short: jax.Array  # [N, C]
    long: jax.Array  # [N, C]
    has_short: jax.Array  # bool [N]
    has_long: jax.Array  # bool [N]


class SampleSignal(struct.PyTreeNode):
    """The rows of one batch."""

    short_BxC: jax.Array
    long_BxC: jax.Array
    has_short_B: jax.Array
    has_long_B: jax.Array


def write_rows(table: SampleTable, ids_B: jax.Array, logits_BxC: jax.Array) -> SampleTable:
    """Stores the network's logits for a batch; no id may occur twice in `ids_B`."""
    return table.replace(
        short=table.short.at[ids_B].set(logits_BxC.astype(table.short.dtype), **BY_ID),
        has_short=table.has_short.at[ids_B].set(True, **BY_ID),
    )


def read_rows(table: SampleTable, ids_B: jax.Array) -> SampleSignal:
    """Reads the rows of a batch, in float32."""
    rows = jax.tree.map(lambda column: column.at[ids_B].get(**BY_ID), table)
    return SampleSignal(rows.short.astype(jnp.float32), rows.long.astype(jnp.float32), rows.has_short, rows.has_long)


def long_short_term(
    num_examples: int,
    num_classes: int,
    num_devices: int = 1,
    epochs: int = 0,
    temperature: float = 2.0,
    weight_long: float = 0.5,
    weight_short: float = 0.5,
    generation_epochs: int = 5,
    symmetric: bool = True,
    view: str = "training",
    table_dtype: str = "float32",
) -> Method:
    """Long Short-Term Sample Distillation.

    Args:
      num_examples: N, size of the training set; ids lie in [0, N).
      num_classes: C.
      num_devices: number of devices that the tables are split over.
      epochs: length of the run, if known, to check generation_epochs.
      temperature: T > 0.
      weight_long: weight of the long-term term; 0 leaves it out.
      weight_short: weight of the short-term term; 0 leaves it out.
      generation_epochs: length of a mini-generation, in epochs.
      symmetric: soften teacher and student and multiply by T^2; False softens the teacher alone, without the factor, as in Snapshot
        Distillation.
      view: which logits to store. "training": those of the step itself, with augmentation and dropout, at no cost. "clean": those of the
        same weights in inference mode on the unaugmented sample, at one more forward pass per step.
      table_dtype: "float32", or "bfloat16" for half the memory. Use bfloat16 on accelerators only: on a CPU, XLA's scatter converts the
        whole table at each step.

    Returns:
      A Method whose teacher is a `SampleTable`.

    Raises:
      ValueError: an argument is out of range.
    """
    check_range("temperature", temperature, 0.01, 100)
    check_range("weight_long", weight_long, 0)
    check_range("weight_short", weight_short, 0)
    check_range("generation_epochs", generation_epochs, 1)
    if weight_long and 0 < epochs <= generation_epochs:
        raise ValueError(
            f"generation_epochs is {generation_epochs}, but epochs is {epochs}: there would be no long-term signal; "
            "choose a smaller value, or set weight_long to 0"
        )
    check_choice("view", view, ("training", "clean"))
    check_choice("table_dtype", table_dtype, ("float32", "bfloat16"))
    rows = table_rows(num_examples, num_devices)

    def init(network):
        del network
        logits, unseen = jnp.zeros((rows, num_classes), table_dtype), jnp.zeros(rows, bool)
        return SampleTable(short=logits, long=jnp.copy(logits), has_short=unseen, has_long=jnp.copy(unseen))

    def signal(table, batch, key):
        del key
        return read_rows(table, batch.ids)

    def term(weight, teacher_BxC, exists_B, logits_BxC):
        if weight == 0:
            return 0.0
        if symmetric:
            return weight * losses.distillation(teacher_BxC, logits_BxC, temperature, where=exists_B)
        kl_B = losses.kl_divergence(teacher_BxC, logits_BxC, teacher_temperature=temperature)
        return weight * jnp.where(exists_B, kl_B, 0).mean()

    def loss(logits_BxC, labels_B, rows):
        ce = losses.cross_entropy(logits_BxC, labels_B)
        short = term(weight_short, rows.short_BxC, rows.has_short_B, logits_BxC)
        long = term(weight_long, rows.long_BxC, rows.has_long_B, logits_BxC)
        return Losses(loss=ce + short + long, ce=ce, teacher=jnp.asarray(short + long))

    def end_epoch(table, network, epochs_done):
        del network
        if epochs_done % generation_epochs:
            return table
        return table.replace(long=jnp.copy(table.short), has_long=jnp.copy(table.has_short))

    observes = "clean" if view == "clean" else "step"
    return Method(signal, loss, init, end_epoch, observe=write_rows, observes=observes, by_sample=True)

"""Long Short-Term Sample Distillation: every sample is taught by what the network said of it before.

Jiang et al., "Long Short-Term Sample Distillation", AAAI 2020 (arXiv 2003.00739).

The abstract fixes the idea: one generation, no forward of a teacher; the signal of each sample has a long-term part, from several epochs
ago, and a short-term part, more up to date; the teachers of each sample are its own. The formula is our choice, of the family that fits:

    L_n = CE(y_n, z_n) + weight_short * KD(short_n, z_n) + weight_long * KD(long_n, z_n)
    KD(t, z) = T^2 * KL( softmax(t / T) || softmax(z / T) )

short_n holds the logits of sample n at its last visit, written as it is trained on. long_n holds those of the last epoch of the previous
mini-generation, a fixed number of epochs, and does not change within one. A term is absent for a sample until its signal exists.
"""

import jax
import jax.numpy as jnp
from flax import struct

from distill_jax import losses, sharding
from distill_jax.errors import UserError
from distill_jax.methods.base import Losses, Method, Setting

ROW_MULTIPLE = 1024  # rows are rounded up, so that a table splits evenly over any usual number of devices, and moves between them


class SampleTable(struct.PyTreeNode):
    """Logits by sample id, the rows split over the devices. Rows beyond the training set stay unused."""

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
    """Stores what the network said of a batch; `ids_B` holds no id twice."""
    options = {"mode": "promise_in_bounds", "unique_indices": True}
    return table.replace(
        short=table.short.at[ids_B].set(logits_BxC.astype(table.short.dtype), **options),
        has_short=table.has_short.at[ids_B].set(True, **options),
    )


def read_rows(table: SampleTable, ids_B: jax.Array) -> SampleSignal:
    """What is known of a batch, in float32."""
    rows = jax.tree.map(lambda column: column.at[ids_B].get(mode="promise_in_bounds", unique_indices=True), table)
    return SampleSignal(rows.short.astype(jnp.float32), rows.long.astype(jnp.float32), rows.has_short, rows.has_long)


def long_short_term(
    setting: Setting,
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
      setting: the model's run; the tables have a row for each of its training samples.
      temperature: T > 0.
      weight_long: of the long-term term; 0 leaves it out.
      weight_short: of the short-term term; 0 leaves it out.
      generation_epochs: length of a mini-generation in epochs.
      symmetric: soften teacher and student and multiply by T^2; False softens the teacher alone, without the factor, as Snapshot
        Distillation does.
      view: which logits are stored: "training", those of the step itself, of the augmented image and with dropout, at no cost; or
        "clean", those of the same weights in inference mode on the sample as it is, one forward more a step.
      table_dtype: float32, or bfloat16, which halves the memory; for accelerators, since XLA's scatter on a CPU converts the whole
        table at each step.

    Returns:
      A Method whose teacher is a `SampleTable`.

    Raises:
      UserError: a field is out of range.
    """
    if not temperature > 0:
        raise UserError(f"method.temperature is {temperature}; it must be positive")
    for name, weight in (("weight_long", weight_long), ("weight_short", weight_short)):
        if weight < 0:
            raise UserError(f"method.{name} is {weight}; it must not be negative")
    if generation_epochs < 1:
        raise UserError(f"method.generation_epochs is {generation_epochs}; it must be at least 1")
    if view not in ("training", "clean"):
        raise UserError(f"method.view is {view!r}; known: training, clean")
    if table_dtype not in ("float32", "bfloat16"):
        raise UserError(f"method.table_dtype is {table_dtype!r}; known: float32, bfloat16")

    def init(state, given):
        del state, given
        rows = -(-setting.num_examples // ROW_MULTIPLE) * ROW_MULTIPLE

        def logits():
            return sharding.zeros((rows, setting.num_classes), jnp.dtype(table_dtype), setting.mesh)

        def unseen():
            return sharding.zeros((rows,), jnp.bool_, setting.mesh)

        return SampleTable(short=logits(), long=logits(), has_short=unseen(), has_long=unseen())

    def signal(table, inputs, ids_B, key):
        del inputs, key
        return read_rows(table, ids_B)

    def term(weight, teacher_BxC, exists_B, logits_BxC):
        if weight == 0:
            return 0.0
        if symmetric:
            kl_B = temperature**2 * losses.kl_divergence(teacher_BxC, logits_BxC, temperature, temperature)
        else:
            kl_B = losses.kl_divergence(teacher_BxC, logits_BxC, teacher_temperature=temperature)
        return weight * jnp.where(exists_B, kl_B, 0).mean()

    def loss(logits_BxC, labels_B, rows):
        ce = losses.cross_entropy(logits_BxC, labels_B)
        short = term(weight_short, rows.short_BxC, rows.has_short_B, logits_BxC)
        long = term(weight_long, rows.long_BxC, rows.has_long_B, logits_BxC)
        return Losses(loss=ce + short + long, ce=ce, teacher=jnp.asarray(short + long))

    def end_epoch(state, epochs_done):
        table = state.teacher
        if epochs_done % generation_epochs:
            return table
        return table.replace(long=jnp.copy(table.short), has_long=jnp.copy(table.has_short))

    return Method(init=init, signal=signal, loss=loss, end_epoch=end_epoch, observe=write_rows, observes_clean_view=view == "clean")

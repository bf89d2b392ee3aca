"""The definition of a distillation method: a record of pure functions, in the spirit of optax's GradientTransformation.

    teacher = method.init(network)
    for epoch in range(1, epochs + 1):
        for batch in batches:
            signal = method.signal(teacher, batch, key)         # outside the differentiated function
            loss = method.loss(logits, labels, signal).loss     # inside it
            if method.follow:
                teacher = method.follow(teacher, network)           # the network after the step
            if method.observe:
                teacher = method.observe(teacher, batch.ids, logits)
        teacher = method.end_epoch(teacher, network, epoch)

The batches are random unless the method has an `order` of its own. A network is what flax's `apply` takes: {"params": ..., "batch_stats":
...}. `examples/own_loop.py` is such a loop, without `follow`.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

Teacher = Any  # a pytree of arrays; None if there is no teacher (yet)
Signal = Any  # the teacher's output for one batch: a pytree of arrays, or None
Network = Any  # {"params": ..., "batch_stats": ...}


class Batch(NamedTuple):
    """What a teacher sees."""

    inputs: Any  # the same as the student's, augmented and normalised: [B, ...]
    ids: jax.Array  # int32 [B]: each sample's row in the training set
    # one function for each frozen network of another run, computed when called: () -> its logits for this batch, [B, C];
    # (maps=True) -> its logits and its feature maps, see `Method.maps`
    teachers: tuple[Callable[..., Any], ...] = ()


class Losses(NamedTuple):
    """A batch's loss and its parts; scalars."""

    loss: jax.Array  # what is minimised
    ce: jax.Array  # cross-entropy with the labels, unweighted
    teacher: jax.Array  # the teacher's term, weighted as in `loss`; 0 without a teacher


class InitFn(Protocol):
    def __call__(self, network: Network) -> Teacher:
        """The teacher before the first step, given the student's initial network."""


class SignalFn(Protocol):
    def __call__(self, teacher: Teacher, batch: Batch, key: jax.Array) -> Signal:
        """The teacher's output for a batch. Traced into the step outside the differentiated function: no gradient reaches the teacher.

        `key` is random and differs from step to step; a resumed run repeats it.
        """


class LossFn(Protocol):
    def __call__(self, logits_BxC: jax.Array, labels_B: jax.Array, signal: Signal, *maps: Sequence[jax.Array]) -> Losses:
        """The loss of a batch, given the student's logits (float32 [B, C]) and the labels (int32 [B]); for `Method.maps` also its maps.

        For `Method.pixels` also with one label per pixel: [B, H, W, C] and [B, H, W], negative where there is none.
        """


class ObserveFn(Protocol):
    def __call__(self, teacher: Teacher, ids_B: jax.Array, logits_BxC: jax.Array) -> Teacher:
        """Updates the teacher with a batch after its step. A separate jitted call, with the teacher donated."""


class FollowFn(Protocol):
    def __call__(self, teacher: Teacher, network: Network) -> Teacher:
        """Updates the teacher with the student's network after each step. Traced into the step."""


class OrderFn(Protocol):
    def __call__(self, seed: int, epoch: int, labels_N: np.ndarray, batch_size: int) -> np.ndarray:
        """The ids of an epoch's batches, int32 [N // batch_size, batch_size]: a function of its arguments alone, so that a resumed run
        repeats it. No id may occur twice in a batch, since tables are written by id."""


class EndEpochFn(Protocol):
    def __call__(self, teacher: Teacher, network: Network, epochs_done: int) -> Teacher:
        """The teacher for the next epoch, given the number of finished epochs (from 1).

        Must copy what it keeps of `network`: the step donates the student's buffers. Must work in `jax.eval_shape`, for runs that resume.
        """


class PredictFn(Protocol):
    def __call__(self, teacher: Teacher, inputs: Any) -> jax.Array:
        """The teacher's logits, [B, C], for inputs it has never seen. For evaluation only."""


class ForwardsFn(Protocol):
    def __call__(self, epoch: int) -> float:
        """Forward passes per sample in an epoch (from 1), besides the student's own; their expected number if it is random."""


def no_teacher(network: Network) -> Teacher:
    """An `init` for methods that start without a teacher."""
    del network


def keep_teacher(teacher: Teacher, network: Network, epochs_done: int) -> Teacher:
    """An `end_epoch` for methods whose teacher changes only in `observe` or `follow`, if at all."""
    del network, epochs_done
    return teacher


def no_forwards(epoch: int) -> float:
    """A `forwards` for methods that run no network but the student."""
    del epoch
    return 0.0


class Method(NamedTuple):
    """A distillation method: `signal`, `loss`, and whatever else it needs."""

    signal: SignalFn
    loss: LossFn
    init: InitFn = no_teacher
    end_epoch: EndEpochFn = keep_teacher
    # A separate call, since reading and writing a table within one compiled program copies the whole table, twice per step.
    observe: ObserveFn | None = None
    observes: str = "step"  # logits passed to `observe`: "step", those of the step; "clean", those of the unaugmented samples
    # Whether the teacher is a table with one row per sample, split evenly over the devices; or a tree of such bools, as in ps_kd.py.
    by_sample: Any = False
    follow: FollowFn | None = None
    order: OrderFn | None = None  # None: each epoch is a random permutation
    maps: bool = False  # whether `loss` takes the student's feature maps, and `signal` asks the teachers for theirs: see models/maps.py
    predict: PredictFn | None = None
    pixels: bool = False  # whether `loss` also takes a label for each pixel: logits [B, H, W, C], labels [B, H, W], means by `losses.mean`
    weight_ce: float = 1.0  # weight of the cross-entropy with the labels in `loss`, at its smallest: `combine` adds up what is left
    forwards: ForwardsFn = no_forwards  # the method's cost, for comparisons; excludes the extra pass of observes="clean"


def abstract_teachers(method: Method, network: Any, epochs: int) -> Iterator[Any]:
    """Shapes and dtypes of a method's teacher, given those of the network: before the first epoch, and after each of `epochs`."""
    teacher = jax.eval_shape(method.init, network)
    yield teacher
    for epoch in range(1, epochs + 1):
        teacher = jax.eval_shape(lambda *arguments, epoch=epoch: method.end_epoch(*arguments, epoch), teacher, network)
        yield teacher


class Setting(NamedTuple):
    """What a run provides. A method takes what it needs as arguments of the same names."""

    apply: Callable[[Network, Any], jax.Array]  # (network, inputs) -> logits [B, C], in inference mode: the student's architecture
    cycle_ends: tuple[int, ...]  # finished epochs at which each learning-rate cycle ends; the last is the run's length
    num_examples: int  # in the training set; ids are smaller
    num_classes: int
    num_devices: int = 1
    num_teachers: int = 0  # frozen networks of other runs
    epochs: int = 0  # length of the run; 0 if unknown
    batch_size: int = 0  # 0 if unknown

"""Several methods at once: each keeps its own teacher and adds that teacher's term to a single cross-entropy."""

from collections.abc import Sequence

from distill_jax.methods.base import Losses, Method


def combine(members: Sequence[Method]) -> Method:
    """The sum of methods (our choice): L = CE + sum_i (L_i - CE).

    Args:
      members: the methods.

    Returns:
      A Method whose teacher is the tuple of the members' teachers.
    """

    def init(network):
        return tuple(member.init(network) for member in members)

    def signal(teachers, batch, key):
        return tuple(member.signal(teacher, batch, key) for member, teacher in zip(members, teachers, strict=True))

    def loss(logits_BxC, labels_B, signals):
        parts = [member.loss(logits_BxC, labels_B, said) for member, said in zip(members, signals, strict=True)]
        ce = parts[0].ce
        return Losses(loss=ce + sum(part.loss - ce for part in parts), ce=ce, teacher=sum(part.teacher for part in parts))

    def end_epoch(teachers, network, epochs_done):
        return tuple(member.end_epoch(teacher, network, epochs_done) for member, teacher in zip(members, teachers, strict=True))

    def observe(teachers, ids_B, logits_BxC):
        return tuple(
            member.observe(teacher, ids_B, logits_BxC) if member.observe else teacher
            for member, teacher in zip(members, teachers, strict=True)
        )

    observers = [member for member in members if member.observe]
    return Method(
        signal,
        loss,
        init,
        end_epoch,
        observe=observe if observers else None,
        observes="clean" if any(member.observes == "clean" for member in observers) else "step",
        by_sample=tuple(member.by_sample for member in members),
        forwards=lambda epoch: sum(member.forwards(epoch) for member in members),
    )

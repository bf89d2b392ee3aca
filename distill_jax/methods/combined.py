"""Several methods at once: each keeps its own teacher and adds what that teacher says to one cross-entropy."""

from collections.abc import Sequence

from distill_jax.methods.base import Losses, Method


def combine(members: Sequence[Method]) -> Method:
    """The sum of methods (our choice): L = CE + sum_i (L_i - CE).

    Args:
      members: the methods.

    Returns:
      A Method whose teacher is the tuple of theirs.
    """

    def init(state, given):
        return tuple(member.init(state, given) for member in members)

    def signal(teachers, inputs, ids_B, key):
        return tuple(member.signal(teacher, inputs, ids_B, key) for member, teacher in zip(members, teachers, strict=True))

    def loss(logits_BxC, labels_B, signals):
        parts = [member.loss(logits_BxC, labels_B, said) for member, said in zip(members, signals, strict=True)]
        ce = parts[0].ce
        return Losses(loss=ce + sum(part.loss - ce for part in parts), ce=ce, teacher=sum(part.teacher for part in parts))

    def end_epoch(state, epochs_done):
        return tuple(
            member.end_epoch(state.replace(teacher=teacher), epochs_done) for member, teacher in zip(members, state.teacher, strict=True)
        )

    def observe(teachers, ids_B, logits_BxC):
        return tuple(
            member.observe(teacher, ids_B, logits_BxC) if member.observe else teacher
            for member, teacher in zip(members, teachers, strict=True)
        )

    observes = any(member.observe for member in members)
    return Method(
        init=init,
        signal=signal,
        loss=loss,
        end_epoch=end_epoch,
        observe=observe if observes else None,
        observes_clean_view=any(member.observes_clean_view for member in members),
        wants_logits=any(member.wants_logits for member in members),
    )

"""Methods made from methods: a sum, in which each adds its teacher's term to a single cross-entropy; and a warm-up."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from distill_jax.methods.base import Losses, Method


def combine(members: Sequence[Method]) -> Method:
    """The sum of methods (our choice): L = CE + sum_i (L_i - CE).

    Args:
      members: the methods.

    Returns:
      A Method whose teacher is the tuple of the members' teachers.

    Raises:
      ValueError: several members have their own sample order, they observe different logits, or together they take all of the labels'
        weight, which is 1 + sum_i (w_i - 1), where w_i is the weight of CE in L_i.
    """
    weight_ce = _weight_of_labels(members)
    orders = [member.order for member in members if member.order]
    if len(orders) > 1:
        raise ValueError("name combines methods that each need their own sample order; keep one")
    observed = {member.observes for member in members if member.observe} or {"step"}
    if len(observed) > 1:
        raise ValueError('name combines methods that store the logits of the step with others that store those of view="clean"; choose one')

    def init(network):
        return tuple(member.init(network) for member in members)

    def signal(teachers, batch, key):
        keys = [key, *(jax.random.fold_in(key, number) for number in range(1, len(members)))]
        return tuple(member.signal(teacher, batch, own) for member, teacher, own in zip(members, teachers, keys, strict=True))

    def loss(logits_BxC, labels_B, signals, *maps):
        parts = [
            member.loss(logits_BxC, labels_B, said, *(maps if member.maps else ())) for member, said in zip(members, signals, strict=True)
        ]
        ce = parts[0].ce
        return Losses(loss=ce + sum(part.loss - ce for part in parts), ce=ce, teacher=sum(part.teacher for part in parts))

    def end_epoch(teachers, network, epochs_done):
        return tuple(member.end_epoch(teacher, network, epochs_done) for member, teacher in zip(members, teachers, strict=True))

    def observe(teachers, ids_B, logits_BxC):
        return tuple(
            member.observe(teacher, ids_B, logits_BxC) if member.observe else teacher
            for member, teacher in zip(members, teachers, strict=True)
        )

    def follow(teachers, network):
        pairs = zip(members, teachers, strict=True)
        return tuple(member.follow(teacher, network) if member.follow else teacher for member, teacher in pairs)

    return Method(
        signal,
        loss,
        init,
        end_epoch,
        observe=observe if any(member.observe for member in members) else None,
        observes=observed.pop(),
        by_sample=tuple(member.by_sample for member in members),
        follow=follow if any(member.follow for member in members) else None,
        order=orders[0] if orders else None,
        maps=any(member.maps for member in members),
        pixels=all(member.pixels for member in members),
        weight_ce=weight_ce,
        forwards=lambda epoch: sum(member.forwards(epoch) for member in members),  # more than needed if members share networks
    )


def _weight_of_labels(members: Sequence[Method]) -> float:
    weights = [member.weight_ce for member in members]
    total = 1 + sum(weight - 1 for weight in weights)
    if total < 1e-6 and total < min(weights):  # rounded; 0 is fine beside a member that ignores the labels
        taken = f"name combines methods that together take {1 - total:g} of the labels' weight of 1"
        raise ValueError(f"{taken}; give them options that leave some, such as a larger weight_ce or a smaller weight_teacher")
    return total


def warmed_up(method: Method, epochs: int) -> Method:
    """The method, with a teacher's term that grows linearly, reaching its weight in the epoch `epochs`.

    For a method whose own teacher never changes. The new teacher is a pair: the method's own, and the factor of the current epoch.
    """

    def factor_of(epoch):
        return min(1.0, epoch / epochs)

    def signal(pair, batch, key):
        return method.signal(pair[0], batch, key), pair[1]

    def loss(logits_BxC, labels_B, pair):
        parts = method.loss(logits_BxC, labels_B, pair[0])
        taught = pair[1] * parts.teacher
        return parts._replace(loss=parts.loss - parts.teacher + taught, teacher=taught)

    return method._replace(
        signal=signal,
        loss=loss,
        init=lambda network: (method.init(network), jnp.float32(factor_of(1))),
        end_epoch=lambda pair, network, epochs_done: (pair[0], jnp.full_like(pair[1], factor_of(epochs_done + 1))),
    )

"""Boxes inside jit: overlap, GIoU, and non-maximum suppression with static shapes. A box is (left, top, right, bottom) in pixels."""

import jax
import jax.numpy as jnp

TINY = 1e-6  # square pixels, below any real area; keeps quotients and their gradients finite


def area(boxes: jax.Array) -> jax.Array:
    """The area of boxes [..., 4]: [...]; 0 for a box turned inside out."""
    sides = jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return sides[..., 0] * sides[..., 1]


def intersection_and_union(one: jax.Array, other: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Areas, for boxes [..., 4] whose leading axes broadcast."""
    corners = jnp.maximum(one[..., :2], other[..., :2]), jnp.minimum(one[..., 2:], other[..., 2:])
    shared = area(jnp.concatenate(corners, axis=-1))
    return shared, area(one) + area(other) - shared


def generalized_iou(one: jax.Array, other: jax.Array) -> jax.Array:
    """IoU - (1 - union / area of the smallest box around both), in -1..1: unlike IoU, it also reflects how far apart disjoint boxes are.

    Args:
      one, other: boxes [..., 4] whose leading axes broadcast.

    References:
      Rezatofighi et al., "Generalized Intersection over Union", CVPR 2019 (arXiv 1902.09630), algorithm 1.
    """
    shared, union = intersection_and_union(one, other)
    hull = area(jnp.concatenate([jnp.minimum(one[..., :2], other[..., :2]), jnp.maximum(one[..., 2:], other[..., 2:])], axis=-1))
    return shared / jnp.maximum(union, TINY) - 1 + union / jnp.maximum(hull, TINY)


def suppress(boxes_Kx4: jax.Array, labels_K: jax.Array, overlap: float) -> jax.Array:
    """Greedy non-maximum suppression among the boxes of each class: which boxes stay, bool [K].

    From the first box to the last, a box goes if it overlaps one before it that stays, of its class, by more than `overlap` (intersection
    over union). Each round decides on all boxes at once, given the decisions of the round before, until none changes. Round n settles the
    first n boxes, so the result is exactly the greedy one. There are about as many rounds as boxes in the longest chain in which each
    decides on the next: usually few.

    Args:
      boxes_Kx4: by descending score.
      labels_K: int32, the classes.
      overlap: in 0..1.
    """
    shared, union = intersection_and_union(boxes_Kx4[:, None], boxes_Kx4[None])
    threatens_KxK = (shared > overlap * union) & (labels_K[:, None] == labels_K) & jnp.triu(jnp.ones(shared.shape, bool), k=1)

    def judge(verdicts):
        stays_K, _ = verdicts
        return ~(threatens_KxK & stays_K[:, None]).any(axis=0), stays_K

    everybody = jnp.ones(labels_K.shape, bool)
    return jax.lax.while_loop(lambda verdicts: (verdicts[0] != verdicts[1]).any(), judge, judge((everybody, everybody)))[0]

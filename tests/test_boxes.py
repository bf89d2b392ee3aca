"""GIoU by hand, and suppression against a plain loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax import average_precision, boxes


@pytest.mark.parametrize(
    "one, other, expected",
    [
        ([0, 0, 2, 2], [0, 0, 2, 2], 1),
        ([0, 0, 1, 1], [2, 0, 3, 1], 0 - (3 - 2) / 3),  # apart: a third of the hull is empty
        ([0, 0, 2, 2], [1, 1, 3, 3], 1 / 7 - (9 - 7) / 9),  # corners overlap
        ([0, 0, 4, 4], [1, 1, 3, 3], 4 / 16),  # inside: the hull is the union
        ([0, 0, 1, 1], [5, 5, 5, 5], 0 - (25 - 1) / 25),  # no area
    ],
)
def test_generalized_iou_by_hand(one, other, expected):
    pair = jnp.asarray(one, jnp.float32), jnp.asarray(other, jnp.float32)
    assert boxes.generalized_iou(*pair) == pytest.approx(expected, abs=1e-6)
    assert boxes.generalized_iou(*pair[::-1]) == pytest.approx(expected, abs=1e-6)


def test_generalized_iou_pulls_disjoint_boxes_together():
    gradient = jax.grad(boxes.generalized_iou)(jnp.array([0.0, 0, 1, 1]), jnp.array([5.0, 0, 6, 1]))
    assert gradient[2] > 0  # a right side further right helps; IoU's gradient would be zero
    assert np.isfinite(jax.grad(boxes.generalized_iou)(jnp.zeros(4), jnp.zeros(4))).all()


def greedy(box_Kx4, label_K, overlap):
    iou = average_precision.intersection_over_union(box_Kx4, box_Kx4)
    stays = []
    for k in range(len(box_Kx4)):
        if all(iou[k, earlier] <= overlap or label_K[k] != label_K[earlier] for earlier in stays):
            stays.append(k)
    return np.isin(np.arange(len(box_Kx4)), stays)


def test_suppression_equals_the_greedy_loop():
    rng = np.random.default_rng(0)
    compiled = jax.jit(boxes.suppress, static_argnums=2)
    kept = 0
    for _ in range(20):
        corner = rng.integers(0, 30, (100, 2))
        box = np.concatenate([corner, corner + rng.integers(5, 25, (100, 2))], axis=1).astype(np.float32)
        label = rng.integers(0, 3, 100)
        stays = compiled(box, label, 0.45)
        np.testing.assert_array_equal(stays, greedy(box, label, 0.45))
        kept += stays.sum()
    assert 300 < kept < 1700


def test_a_suppressed_box_suppresses_nothing():
    """A chain of 40 boxes, each of which overlaps its neighbours alone by more than half: every second stays."""
    left = np.arange(40, dtype=np.float32) * 3
    chain = np.stack([left, 0 * left, left + 10, 0 * left + 10], axis=1)
    np.testing.assert_array_equal(boxes.suppress(chain, np.zeros(40, int), 0.5), np.arange(40) % 2 == 0)
    assert boxes.suppress(chain, np.arange(40) % 2, 0.5).all()  # neighbours of different classes
    assert boxes.suppress(chain, np.zeros(40, int), 7 / 13 + 1e-6).all()

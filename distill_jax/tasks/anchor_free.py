"""What the outputs of FCOS (models/fcos.py) mean: which location must find which box, the loss, and the boxes that are found.

Tian et al., ICCV 2019, arXiv 1904.01355. A location is the centre of a cell of a level's feature map. Boxes are (left, top, right,
bottom) in pixels of the canvas, the network's input.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from distill_jax import boxes
from distill_jax.models.fcos import STRIDES, Outputs

# The paper's, on any canvas, since a level's receptive field depends on its stride: on BCCD at 128 pixels, a fifth of them gave an AP50 of
# 23 % instead of 56 % (one run each, width 16, 30 epochs).
FURTHEST = (64.0, 128.0, 256.0, 512.0, np.inf)  # pixels: the largest distance to a side of its box that a location of each level may have
RADIUS = 1.5  # strides: a location must lie this close to the centre of its box, in x and in y
NO_OBJECT = -1  # the label of a location without an object, and of a row of padding
ALPHA, GAMMA = 0.25, 2.0  # of the focal loss
CANDIDATES, OVERLAP, MOST = 1000, 0.6, 100  # boxes per image before suppression, largest overlap after it, boxes per image in the end


class Places(NamedTuple):
    """The L locations of a canvas. Host arrays, constants inside jit."""

    point_Lx2: np.ndarray  # x and y, in pixels
    stride_L: np.ndarray
    nearest_L: np.ndarray  # range of the largest distance to a side of its box, in pixels
    furthest_L: np.ndarray


class Targets(NamedTuple):
    """The target of each location of an image; for a batch, with a leading axis B."""

    label_L: jax.Array  # int32; NO_OBJECT for none
    box_Lx4: jax.Array  # meaningless without an object
    centerness_L: jax.Array  # in 0..1; 0 without an object


class FCOSLoss(NamedTuple):
    """Parts of the loss of a batch; scalars."""

    classes: jax.Array
    boxes: jax.Array
    centerness: jax.Array

    @property
    def loss(self) -> jax.Array:
        return sum(self)


class Found(NamedTuple):
    """The boxes found in each image, by descending score; unused rows have score 0."""

    box_BxNx4: jax.Array  # inside the canvas
    label_BxN: jax.Array  # int32
    score_BxN: jax.Array  # in 0..1


def places(height: int, width: int) -> Places:
    """The locations of a canvas of the given size in pixels, in the order of the network's outputs."""
    parts = []
    for level, stride in enumerate(STRIDES):
        y, x = np.mgrid[: -(-height // stride), : -(-width // stride)].reshape(2, -1)
        nearest = FURTHEST[level - 1] if level else 0.0
        parts.append([(np.stack([x, y], axis=1) + 0.5) * stride, *(np.full(len(x), value) for value in (stride, nearest, FURTHEST[level]))])
    return Places(*(np.concatenate(columns).astype(np.float32) for columns in zip(*parts, strict=True)))


def assign(at: Places, box_Mx4: jax.Array, label_M: jax.Array) -> Targets:
    """Chooses the box that each location of an image must find: the smallest of those in which it may lie.

    It may lie in a box if it is inside, within `RADIUS` strides of the centre, and the furthest side of the box is as far away as its level
    allows.

    Args:
      at: the locations.
      box_Mx4: the image's boxes, with padding.
      label_M: int32, their classes; NO_OBJECT for rows of padding.

    Returns:
      One target for each location, [L, ...].
    """
    distances_LxMx4 = _distances(at.point_Lx2[:, None], box_Mx4)
    off_centre_LxM = jnp.abs(at.point_Lx2[:, None] - (box_Mx4[:, :2] + box_Mx4[:, 2:]) / 2).max(axis=-1)
    furthest_LxM = distances_LxMx4.max(axis=-1)
    allowed_LxM = (distances_LxMx4.min(axis=-1) > 0) & (off_centre_LxM < RADIUS * at.stride_L[:, None]) & (label_M != NO_OBJECT)
    allowed_LxM &= (at.nearest_L[:, None] <= furthest_LxM) & (furthest_LxM <= at.furthest_L[:, None])
    area_LxM = jnp.where(allowed_LxM, boxes.area(box_Mx4), jnp.inf)
    chosen_L, positive_L = area_LxM.argmin(axis=1), allowed_LxM.any(axis=1)
    box_Lx4 = box_Mx4[chosen_L]
    centerness_L = jnp.where(positive_L, centerness(_distances(at.point_Lx2, box_Lx4)), 0)
    return Targets(jnp.where(positive_L, label_M[chosen_L], NO_OBJECT), box_Lx4, centerness_L)


def centerness(distances: jax.Array) -> jax.Array:
    """sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b)) of distances [..., 4] to the sides: 1 at the centre, 0 at a side (equation 3)."""
    left, top, right, bottom = jnp.moveaxis(jnp.maximum(distances, 0), -1, 0)
    across, down = (jnp.minimum(*pair) / jnp.maximum(jnp.maximum(*pair), boxes.TINY) for pair in ((left, right), (top, bottom)))
    return jnp.sqrt(across * down)


def loss(outputs: Outputs, at: Places, targets: Targets) -> FCOSLoss:
    """The loss of a batch: each part is a sum over locations, divided by the number of those with an object in the whole batch, at least 1.

    Focal loss of every class at every location; 1 - GIoU at the locations with an object, weighted by centerness; binary cross-entropy of
    their centerness. The weighting of GIoU, sampling around the centre, and centerness from the box tower are the authors' later
    improvements. They divide the second part by the sum of the weights; ours by the number of locations, like the others.

    Args:
      outputs: of the network.
      at: the locations of its canvas.
      targets: of the whole batch, with a leading axis B; `assign`, vectorised.
    """
    positive_BxL = targets.label_L != NO_OBJECT
    count = jnp.maximum(positive_BxL.sum(), 1)
    wanted_BxLxC = jax.nn.one_hot(targets.label_L, outputs.logits_BxLxC.shape[-1])  # a row of zeros without an object
    focal = optax.losses.sigmoid_focal_loss(outputs.logits_BxLxC, wanted_BxLxC, alpha=ALPHA, gamma=GAMMA)
    outside_BxL = 1 - boxes.generalized_iou(_boxes(at.point_Lx2, outputs.distances_BxLx4), targets.box_Lx4)
    entropy_BxL = optax.losses.sigmoid_binary_cross_entropy(outputs.centerness_BxL, targets.centerness_L)
    return FCOSLoss(
        focal.sum() / count,
        (targets.centerness_L * outside_BxL).sum() / count,
        jnp.where(positive_BxL, entropy_BxL, 0).sum() / count,
    )


def accuracy(logits_BxLxC: jax.Array, label_BxL: jax.Array) -> jax.Array:
    """The fraction of locations with an object at which its class is the most probable one and has a probability above 1/2."""
    sure_BxL = (logits_BxLxC.argmax(axis=-1) == label_BxL) & (logits_BxLxC.max(axis=-1) > 0)
    return sure_BxL.sum() / jnp.maximum((label_BxL != NO_OBJECT).sum(), 1)


def detect(outputs: Outputs, at: Places, height: int, width: int) -> Found:
    """The boxes that the network finds on a canvas of height x width pixels; at most `MOST` per image, by descending score.

    The score is sqrt(probability of the class * centerness), as in the authors' code. Of the best `CANDIDATES`, those stay that overlap no
    better one of their class by more than `OVERLAP`.
    """

    def of_image(logits_LxC, distances_Lx4, centerness_L):
        score_LxC = jnp.sqrt(jax.nn.sigmoid(logits_LxC) * jax.nn.sigmoid(centerness_L)[:, None])
        score_K, row_K = jax.lax.top_k(score_LxC.ravel(), min(CANDIDATES, score_LxC.size))
        place_K, label_K = jnp.divmod(row_K, score_LxC.shape[1])
        box_Kx4 = _boxes(at.point_Lx2, distances_Lx4)[place_K]
        box_Kx4 = jnp.clip(box_Kx4, 0, np.array([width, height, width, height], np.float32))
        score_K = jnp.where(boxes.suppress(box_Kx4, label_K, OVERLAP), score_K, 0)
        score_N, row_N = jax.lax.top_k(score_K, min(MOST, len(score_K)))
        return Found(box_Kx4[row_N], label_K[row_N], score_N)

    return jax.vmap(of_image)(*outputs)


def _distances(points: jax.Array, box: jax.Array) -> jax.Array:
    """From points [..., 2] to the left, top, right and bottom side of boxes [..., 4]; negative outside."""
    return jnp.concatenate([points - box[..., :2], box[..., 2:] - points], axis=-1)


def _boxes(points: jax.Array, distances: jax.Array) -> jax.Array:
    """The boxes [..., 4] at the given distances from points [..., 2]."""
    return jnp.concatenate([points - distances[..., :2], points + distances[..., 2:]], axis=-1)

"""FCOS: places and targets by hand, the loss against numpy, its gradients, and the boxes it finds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from distill_jax.models.fcos import Detector, Outputs
from distill_jax.tasks import anchor_free

ASSIGN, DETECT = jax.jit(anchor_free.assign), jax.jit(anchor_free.detect, static_argnums=(2, 3))
NONE = anchor_free.NO_OBJECT
CANVAS = 64, 96  # height, width: 8x12, 4x6, 2x3, 1x2 and 1x1 places
SIZES = [(8, 12), (4, 6), (2, 3), (1, 2), (1, 1)]
COUNT = sum(rows * columns for rows, columns in SIZES)
# two images: a large object with a small one inside, and one; the last row of the second is padding
BOXES = np.array([[[0, 0, 90, 60], [18, 18, 38, 42]], [[50, 10, 80, 30], [0, 0, 0, 0]]], np.float32)
LABELS = np.array([[2, 0], [1, NONE]])


@pytest.fixture(scope="module")
def at():
    return anchor_free.places(*CANVAS)


@jax.jit
def batch_loss(outputs, at, box_BxMx4, label_BxM):
    return anchor_free.loss(outputs, at, jax.vmap(anchor_free.assign, in_axes=(None, 0, 0))(at, box_BxMx4, label_BxM))


def random_outputs(seed=0, num_classes=3):
    rng = np.random.default_rng(seed)
    logits, centerness = rng.normal(size=(2, COUNT, num_classes)), rng.normal(size=(2, COUNT))
    return Outputs(*(jnp.asarray(x, jnp.float32) for x in (logits, rng.uniform(2, 30, (2, COUNT, 4)), centerness)))


def test_places_by_hand():
    at = anchor_free.places(16, 24)
    by_hand = [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12], [8, 8], [24, 8], [16, 16], [32, 32], [64, 64]]
    np.testing.assert_array_equal(at.point_Lx2, by_hand)
    np.testing.assert_array_equal(at.stride_L, [8] * 6 + [16] * 2 + [32, 64, 128])
    np.testing.assert_array_equal(at.nearest_L, [0] * 6 + [64] * 2 + [128, 256, 512])
    assert at.furthest_L[5] == 64 and at.furthest_L[-1] == np.inf


DETECTOR = Detector(num_classes=2, channels=8, convolutions=1)


def maps_of(canvas):
    return [np.zeros((1, -(-canvas[0] // stride), -(-canvas[1] // stride), 8), np.float32) for stride in (8, 16, 32)]


def test_the_towers_normalize_as_the_authors_code_does():
    """PyTorch's GroupNorm has an epsilon of 1e-5, flax's 1e-6."""
    found = []

    def catch(next_function, args, kwargs, context):
        if isinstance(context.module, nn.GroupNorm):
            found.append(context.module.epsilon)
        return next_function(*args, **kwargs)

    with nn.intercept_methods(catch):
        jax.eval_shape(DETECTOR.init, jax.random.key(0), maps_of(CANVAS))
    assert found and set(found) == {1e-5}


@pytest.mark.parametrize("canvas", [CANVAS, (72, 130), (33, 640)])
def test_there_is_an_output_for_each_place(canvas):
    outputs, variables = jax.eval_shape(DETECTOR.init_with_output, jax.random.key(0), maps_of(canvas))
    count = len(anchor_free.places(*canvas).stride_L)
    assert [x.shape for x in outputs] == [(1, count, 2), (1, count, 4), (1, count)]
    assert variables["params"]["scales"].shape == (5,)


def test_outputs_are_in_the_order_of_the_places(at):
    """Maps that are zero but for one pixel: the outputs of P3 that react most are those of the places there."""
    outputs, variables = jax.jit(DETECTOR.init_with_output)(jax.random.key(0), maps_of(CANVAS))
    np.testing.assert_allclose(jax.nn.sigmoid(outputs.logits_BxLxC), 0.01, rtol=0.3)
    np.testing.assert_allclose(outputs.distances_BxLx4[0] / at.stride_L[:, None], 1, rtol=0.3)  # in strides of each level
    maps = maps_of(CANVAS)
    maps[0][0, 3, 10] = 1
    changed = jax.jit(DETECTOR.apply)(variables, maps)
    change = jnp.abs(changed.logits_BxLxC - outputs.logits_BxLxC).sum(axis=(0, 2))[: 8 * 12]
    assert np.abs(at.point_Lx2[change.argmax()] - [10 * 8 + 4, 3 * 8 + 4]).max() <= 16


def test_targets_by_hand(at):
    """The small box (18, 18, 38, 42) has its centre at (28, 30): within 12 pixels of it, and inside, lie the places of P3 with x 20, 28, 36
    and y 20, 28, 36. The large one, (0, 0, 90, 60), takes of P4 the places within 24 pixels of (45, 30) that are at least 64 pixels from
    some side, and of P3 those within 12 pixels that are at most 64 from all."""
    targets = ASSIGN(at, BOXES[0], LABELS[0])
    first = targets.label_L[:96].reshape(8, 12)
    expected = np.full((8, 12), NONE)
    for row in range(8):
        for column in range(12):
            x, y = 4 + 8 * column, 4 + 8 * row
            if abs(x - 28) < 12 and abs(y - 30) < 12 and 18 < x < 38 and 18 < y < 42:
                expected[row, column] = 0
            elif abs(x - 45) < 12 and abs(y - 30) < 12:
                expected[row, column] = 2
    np.testing.assert_array_equal(first, expected)
    assert (first == 0).sum() == 9 and (first == 2).sum() == 6  # of nine places at the large box's centre, three lie in the small one's
    second = targets.label_L[96:120].reshape(4, 6)
    np.testing.assert_array_equal(np.argwhere(second == 2), [[0, 1], [1, 1], [2, 1]])  # x 24, y 8, 24, 40
    assert (targets.label_L[120:] == NONE).all()
    place = 3 * 12 + 3  # x 28, y 28
    np.testing.assert_array_equal(targets.box_Lx4[place], [18, 18, 38, 42])
    assert targets.centerness_L[place] == pytest.approx(np.sqrt(10 / 10 * 10 / 14))


def test_objects_of_any_size_find_their_level():
    at = anchor_free.places(1024, 1024)
    for level, side in enumerate((100, 200, 400, 800)):
        box = np.array([[512 - side / 2, 512 - side / 2, 512 + side / 2, 512 + side / 2]], np.float32)
        strides = at.stride_L[ASSIGN(at, box, np.zeros(1, int)).label_L == 0]
        assert 8 * 2**level in strides and set(strides) <= {8 * 2**level, 16 * 2**level}


def test_padding_gives_no_targets(at):
    targets = ASSIGN(at, BOXES[0], np.full(2, NONE))
    assert (targets.label_L == NONE).all() and not targets.centerness_L.any()


def numpy_loss(outputs, at, box_BxMx4, label_BxM):
    """Place by place, in float64."""
    parts, count = np.zeros(3), 0
    for image in range(len(label_BxM)):
        targets = ASSIGN(at, box_BxMx4[image], label_BxM[image])
        for place in range(len(at.stride_L)):
            label = int(targets.label_L[place])
            probs = 1 / (1 + np.exp(-np.asarray(outputs.logits_BxLxC[image, place], float)))
            for c, p in enumerate(probs):
                parts[0] -= 0.25 * (1 - p) ** 2 * np.log(p) if c == label else 0.75 * p**2 * np.log(1 - p)
            if label == NONE:
                continue
            count += 1
            x, y = at.point_Lx2[place]
            left, top, right, bottom = np.asarray(targets.box_Lx4[place], float)
            true, ours = np.array([x - left, y - top, right - x, bottom - y]), np.asarray(outputs.distances_BxLx4[image, place], float)
            small, large = np.minimum(true, ours), np.maximum(true, ours)

            def surface(d):
                return (d[0] + d[2]) * (d[1] + d[3])

            union, hull = surface(true) + surface(ours) - surface(small), surface(large)
            weight = np.sqrt(min(true[0], true[2]) / max(true[0], true[2]) * min(true[1], true[3]) / max(true[1], true[3]))
            parts[1] += weight * (1 - surface(small) / union + (hull - union) / hull)
            p = 1 / (1 + np.exp(-float(outputs.centerness_BxL[image, place])))
            parts[2] -= weight * np.log(p) + (1 - weight) * np.log(1 - p)
    return parts / count, count


def test_loss_equals_numpy(at):
    outputs = random_outputs()
    expected, count = numpy_loss(outputs, at, BOXES, LABELS)
    assert count > 20
    np.testing.assert_allclose(batch_loss(outputs, at, BOXES, LABELS), expected, rtol=1e-5)


def test_the_loss_is_divided_by_the_positives_of_the_whole_batch(at):
    outputs = random_outputs()
    alone, counts = [], []
    for image in range(2):
        one = [x[image : image + 1] for x in (*outputs, BOXES, LABELS)]
        alone.append(np.array(batch_loss(Outputs(*one[:3]), at, *one[3:])))
        counts.append(int((ASSIGN(at, BOXES[image], LABELS[image]).label_L != NONE).sum()))
    together = batch_loss(outputs, at, BOXES, LABELS)
    np.testing.assert_allclose(together, np.average(alone, axis=0, weights=counts), rtol=1e-5)


def test_accuracy_by_hand():
    logits = jnp.array([[[2.0, 1], [2, 1], [-1, -2], [3, 4], [5, 5]]])
    assert anchor_free.accuracy(logits, jnp.array([[0, 1, 0, 1, NONE]])) == 2 / 4  # right; wrong; below 1/2; right; no object
    assert anchor_free.accuracy(logits, jnp.full((1, 5), NONE)) == 0


def test_images_without_objects(at):
    parts = batch_loss(random_outputs(), at, BOXES, np.full((2, 2), NONE))
    assert parts.classes > 0 and parts.boxes == 0 and parts.centerness == 0


def test_gradients_go_only_where_they_should(at):
    """Boxes and centerness learn at places with an object; classes everywhere; what no place must find changes nothing."""

    def total(outputs, boxes):
        return sum(batch_loss(outputs, at, boxes, LABELS))

    of_outputs = jax.grad(total)(random_outputs(), BOXES)
    positive = np.stack([ASSIGN(at, *image).label_L != NONE for image in zip(BOXES, LABELS, strict=True)])
    assert (np.abs(of_outputs.logits_BxLxC) > 0).all()
    np.testing.assert_array_equal(of_outputs.centerness_BxL != 0, positive)
    np.testing.assert_array_equal((of_outputs.distances_BxLx4 != 0).any(axis=-1), positive)
    padded = BOXES.copy()
    padded[1, 1] = [0, 0, 50, 50]
    assert total(random_outputs(), BOXES) == total(random_outputs(), padded)


def test_perfect_outputs_are_found(at):
    """Outputs made from the targets: the loss of the boxes is 0, and the boxes found are the objects."""
    targets = jax.vmap(ASSIGN, in_axes=(None, 0, 0))(at, BOXES, LABELS)
    positive = targets.label_L != NONE
    distances = jnp.where(positive[..., None], jnp.abs(jnp.tile(at.point_Lx2, 2) - targets.box_Lx4), 1)
    logits = 20 * jax.nn.one_hot(targets.label_L, 3) - 10
    near = jnp.clip(targets.centerness_L, 1e-4, 1 - 1e-4)
    outputs = Outputs(logits, distances, jnp.log(near / (1 - near)))
    assert batch_loss(outputs, at, BOXES, LABELS).boxes == pytest.approx(0, abs=1e-6)
    found = DETECT(outputs, at, *CANVAS)
    sure = found.score_BxN > 0.1
    assert found.score_BxN.shape == (2, anchor_free.MOST) and (jnp.diff(found.score_BxN) <= 0).all()
    assert sure.sum(axis=1).tolist() == [2, 1]
    order = found.label_BxN[0, :2].argsort(descending=True)
    np.testing.assert_array_equal(found.label_BxN[0, :2][order], LABELS[0])
    np.testing.assert_allclose(found.box_BxNx4[0, :2][order], BOXES[0], atol=1e-3)
    np.testing.assert_allclose(found.box_BxNx4[1, 0], BOXES[1, 0], atol=1e-3)


def test_found_boxes_lie_on_the_canvas_and_of_two_classes_both_stay(at):
    far = random_outputs()._replace(distances_BxLx4=jnp.full((2, COUNT, 4), 500.0))
    found = DETECT(far, at, *CANVAS)
    np.testing.assert_array_equal(found.box_BxNx4[0, 0], [0, 0, 96, 64])
    assert sorted(found.label_BxN[0, :3].tolist()) == [0, 1, 2] and (found.score_BxN[0, 3:] == 0).all()

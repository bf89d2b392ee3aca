"""Average precision against hand-computed numbers, the devkit's procedure detection by detection, and COCO's own code."""

import importlib.util

import numpy as np
import pytest

from distill_jax import average_precision
from distill_jax.average_precision import AveragePrecision, Detections, Truths, voc_average_precision
from distill_jax.errors import UserError

TRUE_BOXES = np.array([[0, 0, 10, 10], [20, 20, 40, 40], [0, 0, 10, 10], [5, 5, 25, 25]], float)
TRUTHS = Truths(np.array([0, 0, 1, 2]), np.array([0, 1, 0, 1]), TRUE_BOXES, np.zeros(4, bool), np.zeros(4, bool))


def found(rows, scores, truths=TRUTHS):
    rows = np.asarray(rows, int)
    return Detections(truths.image[rows], truths.label[rows], truths.box[rows], np.asarray(scores, float))


def ap_at(*arguments, overlap=0.5):
    """Both forms at one overlap, [C] each."""
    return AveragePrecision(*(ap_OxC[0] for ap_OxC in voc_average_precision(*arguments, [overlap])))


def one_class(right, positives):
    """Both forms, for detections of one class, an image each, of which some are right; `positives` true boxes in all."""
    truths = Truths(np.arange(positives), np.zeros(positives, int), np.tile([0.0, 0, 10, 10], (positives, 1)), np.zeros(positives, bool))
    images = np.where(right, np.cumsum(right) - 1, 1000)
    count = len(right)
    detections = Detections(images, np.zeros(count, int), np.tile([0.0, 0, 10, 10], (count, 1)), -np.arange(count, dtype=float))
    return [ap_C[0] for ap_C in ap_at(detections, truths, 1)]


def test_perfect_and_empty_detectors():
    perfect = ap_at(found([0, 1, 2, 3], [0.1, 0.9, 0.5, 0.5]), TRUTHS, 2)
    np.testing.assert_array_equal(perfect, np.ones((2, 2)))
    np.testing.assert_array_equal(ap_at(found([], []), TRUTHS, 2), np.zeros((2, 2)))


def test_half_wrong_detector():
    """Every second detection is wrong: precision is 1, 1/2, 2/3, 1/2, ... By hand, for ten true boxes of which five are found."""
    right = np.array([1, 0] * 5, bool)
    hits = np.arange(1, 6)
    by_hand = (1 / 10 * hits / (2 * hits - 1)).sum()  # the precision falls from hit to hit, so the curve is its own envelope
    # recalls 0 and 0.1 are reached with precision 1, then 2/3, 3/5, 4/7, 5/9; recalls of 0.6 and above are never reached
    assert one_class(right, 10) == pytest.approx([by_hand, (1 + 1 + 2 / 3 + 3 / 5 + 4 / 7 + 5 / 9) / 11], abs=1e-15)


def test_the_envelope_takes_the_best_precision_at_a_higher_recall():
    # wrong, right, right: precisions 0, 1/2, 2/3 -> envelope 2/3 throughout, up to recall 1
    assert one_class(np.array([0, 1, 1], bool), 2) == pytest.approx([2 / 3, 2 / 3])


def test_a_box_is_found_once_and_the_better_score_finds_it():
    truths = Truths(*(column[:1] for column in TRUTHS))
    twice = Detections(np.zeros(2, int), np.zeros(2, int), np.array([[0, 0, 10, 9], [0, 0, 10, 10]], float), np.array([0.9, 0.8]))
    assert ap_at(twice, truths, 1).area[0] == 1  # the second, although closer, is wrong, but comes after recall 1
    assert ap_at(twice, truths, 1, overlap=0.95).area[0] == 0.5  # the first is not close enough: precision 1/2


def test_difficult_boxes_count_for_nothing():
    truths = TRUTHS._replace(difficult=np.array([False, True, True, True]))
    ap = ap_at(found([2, 0, 1], [0.9, 0.8, 0.7]), truths, 2).area
    assert ap[0] == 1  # finding the difficult one first is no mistake
    assert np.isnan(ap[1])  # only difficult boxes: no average precision
    metrics = average_precision.detection_metrics(voc_average_precision(found([0], [1]), truths, 2))
    assert metrics == dict.fromkeys(("test_ap50", "test_ap50_11point", "test_ap75", "test_ap", "test_ap_11point"), 1)


def test_overlap_at_the_threshold_counts():
    truths = Truths(*(column[:1] for column in TRUTHS))
    half = Detections(np.zeros(1, int), np.zeros(1, int), np.array([[0, 0, 10, 5]], float), np.ones(1))
    assert ap_at(half, truths, 1, overlap=0.5).area[0] == 1
    higher = half._replace(box=np.array([[0, 0, 10, 5.6]], float))  # right at overlaps 0.5 and 0.55, of ten
    metrics = average_precision.detection_metrics(voc_average_precision(higher, truths, 1))
    assert metrics["test_ap"] == pytest.approx(0.2) and metrics["test_ap_11point"] == pytest.approx(0.2)


def test_overlap_by_hand():
    one, other = np.array([[0, 0, 4, 4], [0, 0, 0, 0]], float), np.array([[2, 2, 6, 4], [4, 0, 8, 4], [0, 0, 4, 4]], float)
    np.testing.assert_allclose(average_precision.intersection_over_union(one, other), [[4 / 20, 0, 1], [0, 0, 0]])


def test_images_classes_and_order_do_not_mix():
    """Detections in the wrong image, or of the wrong class, are wrong; the order of the rows is of no matter."""
    right = found([0, 1, 2, 3], [0.9, 0.8, 0.7, 0.6])
    swapped = right._replace(image=np.array([1, 2, 0, 0]))
    assert ap_at(right._replace(label=1 - right.label), TRUTHS, 2).area.max() == 0
    assert ap_at(swapped, TRUTHS, 2).area[1] == 0
    shuffled = Detections(*(column[[2, 0, 3, 1]] for column in right))
    np.testing.assert_array_equal(ap_at(shuffled, TRUTHS, 2).area, [1, 1])


def devkit(detections, truths, num_classes, overlap, eleven_point):
    """VOCevaldet.m, line by line."""
    result = []
    for label in range(num_classes):
        rows = np.flatnonzero(truths.label == label)
        taken, tp, fp = set(), [], []
        own = np.flatnonzero(detections.label == label)
        for d in own[np.argsort(-detections.score[own], kind="stable")]:
            best, chosen = -np.inf, None
            for g in rows[truths.image[rows] == detections.image[d]]:
                a, b = detections.box[d], truths.box[g]
                wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
                if wide > 0 and high > 0:
                    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - wide * high
                    if wide * high / union > best:
                        best, chosen = wide * high / union, g
            if best >= overlap and truths.difficult[chosen]:
                tp, fp = [*tp, 0], [*fp, 0]
            elif best >= overlap and chosen not in taken:
                taken.add(chosen)
                tp, fp = [*tp, 1], [*fp, 0]
            else:
                tp, fp = [*tp, 0], [*fp, 1]
        positives = (~truths.difficult[rows]).sum()
        if not positives:
            result.append(np.nan)
            continue
        tp, fp = np.cumsum(tp), np.cumsum(fp)
        recall, precision = tp / positives, tp / np.maximum(tp + fp, 1)
        if eleven_point:
            result.append(sum(max(precision[recall >= t / 10], default=0) for t in range(11)) / 11)
            continue
        mrec, mpre = np.r_[0, recall, 1], np.r_[0, precision, 0]
        for i in range(len(mpre) - 2, -1, -1):
            mpre[i] = max(mpre[i], mpre[i + 1])
        steps = np.flatnonzero(mrec[1:] != mrec[:-1]) + 1
        result.append(((mrec[steps] - mrec[steps - 1]) * mpre[steps]).sum())
    return np.array(result)


def random_set(seed, images=12, num_classes=3):
    rng = np.random.default_rng(seed)

    def boxes(count):
        corner = rng.integers(0, 40, (count, 2))
        return np.concatenate([corner, corner + rng.integers(5, 30, (count, 2))], axis=1).astype(float)

    truths = Truths(rng.integers(0, images, 40), rng.integers(0, num_classes, 40), boxes(40), rng.random(40) < 0.2)
    near = rng.integers(0, 40, 120)  # most detections lie near a true box, some of them twice
    box = np.where(rng.random((120, 1)) < 0.7, truths.box[near] + rng.integers(-4, 5, (120, 4)), boxes(120))
    detections = Detections(truths.image[near], truths.label[near], box, rng.integers(0, 30, 120) / 30)
    return detections, truths


@pytest.mark.parametrize("eleven_point", [False, True])
@pytest.mark.parametrize("overlap", [0.3, 0.5, 0.75])
def test_equals_the_devkits_procedure(overlap, eleven_point):
    for seed in range(5):
        detections, truths = random_set(seed)
        ours = ap_at(detections, truths, 4, overlap=overlap)[eleven_point]
        theirs = devkit(detections, truths, 4, overlap, eleven_point)
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
        assert np.isnan(ours[3]) and 0 < ours[0] < 0.95
    name = "test_ap_11point" if eleven_point else "test_ap"
    every = [np.nanmean(devkit(detections, truths, 4, each, eleven_point)) for each in average_precision.COCO_OVERLAPS]
    assert average_precision.detection_metrics(voc_average_precision(detections, truths, 4))[name] == pytest.approx(np.mean(every))


def test_coco_average_precision():
    if importlib.util.find_spec("faster_coco_eval") is None:
        with pytest.raises(UserError, match=r"pip install 'distill_jax\[coco\]'"):
            average_precision.coco_average_precision(found([0], [1]), TRUTHS, 2)
        pytest.skip("faster-coco-eval is not installed")
    perfect = average_precision.coco_average_precision(found([0, 1, 2, 3], [0.9, 0.8, 0.7, 0.6]), TRUTHS, 2)
    assert perfect == pytest.approx({"test_coco_ap": 1, "test_coco_ap50": 1, "test_coco_ap75": 1})
    # class 0: one of two found, alone: precision 1 at the recalls 0, 0.01, ..., 0.5; class 1: nothing
    half = average_precision.coco_average_precision(found([0], [0.9]), TRUTHS, 2)
    assert half["test_coco_ap"] == pytest.approx(51 / 101 / 2)
    crowd = average_precision.coco_average_precision(found([0, 0, 2], [0.9, 0.8, 0.7]), TRUTHS._replace(crowd=np.arange(4) == 0), 2)
    assert crowd["test_coco_ap"] == pytest.approx(0.5), "those in a crowd do not count, so class 0 is found without a mistake"
    for seed in range(3):  # many boxes, none difficult: both read the same curve, one at 101 recalls, one all of it
        detections, truths = random_set(seed)
        truths = truths._replace(difficult=np.zeros(40, bool))
        coco = average_precision.coco_average_precision(detections, truths, 3)
        voc = average_precision.detection_metrics(voc_average_precision(detections, truths, 3))
        assert abs(coco["test_coco_ap50"] - voc["test_ap50"]) < 0.05

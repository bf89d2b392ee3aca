"""Average precision of detections: PASCAL VOC's, in both forms, and COCO's.

A box is (left, top, right, bottom): edges in pixels, so that its area is (right - left) * (bottom - top). VOC's files give the first and
last pixel, counted from 1: subtract 1 from xmin and ymin, and overlaps are those of the devkit, which adds 1 to each side instead.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from distill_jax.errors import UserError

COCO_OVERLAPS = np.arange(50, 100, 5) / 100


class Detections(NamedTuple):
    """Boxes found in a set of images, in any order."""

    image: np.ndarray  # int [D]: the number of the image
    label: np.ndarray  # int [D]: the class
    box: np.ndarray  # float [D, 4]
    score: np.ndarray  # float [D]; of equal scores, the earlier detection comes first


class Truths(NamedTuple):
    """The boxes that annotators marked in the same images."""

    image: np.ndarray  # int [G]
    label: np.ndarray  # int [G]
    box: np.ndarray  # float [G, 4]
    difficult: np.ndarray  # bool [G]: neither a hit nor a miss if found, and not missed if not
    crowd: np.ndarray | None = None  # bool [G]: COCO's groups of objects, all difficult; None for no box


class AveragePrecision(NamedTuple):
    """VOC's average precision of each class in both forms, float [O, C], in 0..1; NaN for a class that has no boxes but difficult ones."""

    area: np.ndarray  # since 2010: the area under the curve of the best precision at a recall or above
    eleven_point: np.ndarray  # VOC2007's: the mean of this curve at the recalls 0, 0.1, ..., 1


def voc_average_precision(
    detections: Detections, truths: Truths, num_classes: int, overlaps: Sequence[float] = COCO_OVERLAPS
) -> AveragePrecision:
    """VOC's average precision of each class. Their mean, `np.nanmean`, is the mAP; at overlap 0.5 it is called AP50.

    Detections are taken from the highest score down. Each is compared with the box of its image and class that it overlaps most. It is
    right if they overlap enough and no detection before it has found that box; it does not count if the box is difficult; otherwise it is
    wrong.

    Args:
      detections, truths: of the whole set.
      num_classes: C.
      overlaps: O times the smallest intersection over union, in 0..1, of a right detection.

    References:
      Everingham et al., "The PASCAL Visual Object Classes Challenge", IJCV 2010, section 4.2; the devkit's VOCevaldet.m and VOCap.m.
    """
    found = best_overlaps(detections, truths)
    forms = np.array([_voc(detections, truths, found, num_classes, overlap) for overlap in overlaps])
    return AveragePrecision(*forms.swapaxes(0, 1))


def detection_metrics(at_overlaps: AveragePrecision, split: str = "test") -> dict[str, float]:
    """VOC's mean average precision over the classes that have boxes, as fractions in 0..1.

    Args:
      at_overlaps: of each class at each of `COCO_OVERLAPS`.
      split: "test" or "validation"; the names of the metrics begin with it.

    Returns:
      test_ap50, test_ap75: at overlaps 0.5 and 0.75, the area under the curve; test_ap: its mean over the overlaps 0.5, 0.55, ..., 0.95.
      test_ap50_11point, test_ap_11point: the same in VOC2007's form, in which detectron2 and mmdetection report all results on VOC2007.
      All 0 if no class has boxes.
    """
    has_boxes_C = ~np.isnan(at_overlaps.area[0])
    area_O, eleven_point_O = (ap_OxC[:, has_boxes_C].mean(axis=1) if has_boxes_C.any() else np.zeros(len(ap_OxC)) for ap_OxC in at_overlaps)
    results = {
        "ap50": area_O[0],
        "ap50_11point": eleven_point_O[0],
        "ap75": area_O[5],
        "ap": area_O.mean(),
        "ap_11point": eleven_point_O.mean(),
    }
    return {f"{split}_{name}": float(value) for name, value in results.items()}


def intersection_over_union(one_Nx4: np.ndarray, other_Mx4: np.ndarray) -> np.ndarray:
    """The overlap of each pair of boxes, [N, M], in 0..1; 0 for boxes without area."""
    low = np.maximum(one_Nx4[:, None, :2], other_Mx4[None, :, :2])
    high = np.minimum(one_Nx4[:, None, 2:], other_Mx4[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=-1)
    area, other_area = ((boxes[:, 2:] - boxes[:, :2]).prod(axis=-1) for boxes in (one_Nx4, other_Mx4))
    union = area[:, None] + other_area[None] - shared
    return np.where(union > 0, shared / np.where(union > 0, union, 1), 0)


def best_overlaps(detections: Detections, truths: Truths) -> tuple[np.ndarray, np.ndarray]:
    """For each detection the true box of its image and class that it overlaps most: the overlap, float [D], and the box's row, int [D].

    The overlap is -1 where there is no such box. Of equal overlaps, the first box counts.
    """
    overlap_D, row_D = np.full(len(detections.image), -1.0), np.zeros(len(detections.image), int)
    rows_of = dict(_groups(truths.image))
    for image, own in _groups(detections.image):
        rows = rows_of.get(image)
        if rows is not None:
            iou = intersection_over_union(detections.box[own], truths.box[rows])
            iou[detections.label[own][:, None] != truths.label[rows]] = -1
            overlap_D[own], row_D[own] = iou.max(axis=1), rows[iou.argmax(axis=1)]
    return overlap_D, row_D


def _groups(values_N: np.ndarray) -> list[tuple[Any, np.ndarray]]:
    """Each value and the rows that have it."""
    order = np.argsort(values_N, kind="stable")
    values, starts = np.unique(values_N[order], return_index=True)
    return list(zip(values, np.split(order, starts[1:]), strict=True)) if len(order) else []


def _voc(detections, truths, found, num_classes, overlap) -> np.ndarray:
    """Both forms at one overlap, [2, C]."""
    overlap_D, row_D = found
    order = np.argsort(-detections.score, kind="stable")
    hits = overlap_D >= overlap
    ignored = hits & truths.difficult[row_D] if len(truths.difficult) else hits
    right = np.zeros(len(order), bool)
    candidates = order[(hits & ~ignored)[order]]
    right[candidates[np.unique(row_D[candidates], return_index=True)[1]]] = True  # the first of each box
    ap_2xC = np.full((2, num_classes), np.nan)
    for label in range(num_classes):
        positives = int((~truths.difficult[truths.label == label]).sum())
        if positives:
            ap_2xC[:, label] = _both_forms(right[order[(~ignored & (detections.label == label))[order]]], positives)
    return ap_2xC


def _both_forms(right_D: np.ndarray, positives: int) -> tuple[float, float]:
    """Average precision of one class from whether each counted detection is right, by descending score."""
    found_D = np.cumsum(right_D)
    recall_D, precision_D = found_D / positives, found_D / np.arange(1, len(found_D) + 1)
    best_D = np.maximum.accumulate(precision_D[::-1])[::-1]  # at this recall or above
    at_eleven = np.append(best_D, 0)[np.searchsorted(recall_D, np.arange(11) / 10)]
    return (np.diff(recall_D, prepend=0) * best_D).sum(), at_eleven.sum() / 11


def coco_average_precision(detections: Detections, truths: Truths, num_classes: int, split: str = "test") -> dict[str, float]:
    """COCO's average precision by faster-coco-eval, in 0..1: test_coco_ap, test_coco_ap50, test_coco_ap75.

    COCO interpolates precision at 101 recalls and takes 100 detections per image. It knows no difficult boxes: they count like any other;
    but crowds do not, whatever the number of detections inside them.

    Raises:
      UserError: faster-coco-eval is not installed.
    """
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        raise UserError("COCO's average precision needs faster-coco-eval: pip install 'distill_jax[coco]'") from error

    def entries(boxes, crowd=None):
        sides = np.concatenate([boxes.box[:, :2], boxes.box[:, 2:] - boxes.box[:, :2]], axis=1).astype(float)
        common = zip(boxes.image.tolist(), boxes.label.tolist(), sides.tolist(), sides[:, 2:].prod(axis=1).tolist(), strict=True)
        keys, is_crowd = ("image_id", "category_id", "bbox", "area"), np.zeros(len(sides), int) if crowd is None else crowd.astype(int)
        return [dict(zip(keys, values, strict=True)) | {"id": row + 1, "iscrowd": int(is_crowd[row])} for row, values in enumerate(common)]

    images = [{"id": int(image)} for image in np.union1d(truths.image, detections.image)]
    facts = {"images": images, "categories": [{"id": label} for label in range(num_classes)]}
    annotated = COCO(facts | {"annotations": entries(truths, truths.crowd)})
    scored = [entry | {"score": score} for entry, score in zip(entries(detections), detections.score.tolist(), strict=True)]
    run = COCOeval_faster(annotated, annotated.loadRes(scored), "bbox", print_function=lambda *words: None)
    run.evaluate()
    run.accumulate()
    run.summarize()
    return {
        f"{split}_{name}": max(float(value), 0.0) for name, value in zip(("coco_ap", "coco_ap50", "coco_ap75"), run.stats, strict=False)
    }

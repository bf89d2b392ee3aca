"""Average precision of detections: PASCAL VOC's, in both forms, and COCO's.

A box is (left, top, right, bottom): edges in pixels, so that its area is (right - left) * (bottom - top). VOC's files give the first and
last pixel, counted from 1: subtract 1 from xmin and ymin, and overlaps are those of the devkit, which adds 1 to each side instead.
"""

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


def voc_average_precision(
    detections: Detections, truths: Truths, num_classes: int, overlap: float = 0.5, eleven_point: bool = False
) -> np.ndarray:
    """VOC's average precision of each class. Their mean, `np.nanmean`, is the mAP; at overlap 0.5 it is called AP50.

    Detections are taken from the highest score down. Each is compared with the box of its image and class that it overlaps most. It is
    right if they overlap enough and no detection before it has found that box; it does not count if the box is difficult; otherwise it is
    wrong.

    Args:
      detections, truths: of the whole set.
      num_classes: C.
      overlap: the smallest intersection over union, in 0..1, of a right detection.
      eleven_point: VOC2007's form, the mean over the recalls 0, 0.1, ..., 1 of the best precision at that recall or above. False: that of
        later years, the area under this curve.

    Returns:
      float [C], in 0..1; NaN for a class that has no boxes but difficult ones.

    References:
      Everingham et al., "The PASCAL Visual Object Classes Challenge", IJCV 2010, section 4.2; the devkit's VOCevaldet.m and VOCap.m.
    """
    return _voc(detections, truths, best_overlaps(detections, truths), num_classes, overlap, eleven_point)


def detection_metrics(detections: Detections, truths: Truths, num_classes: int, split: str = "test") -> dict[str, float]:
    """VOC's mean average precision over the classes that have boxes, as fractions in 0..1.

    Returns:
      test_ap50, test_ap75: at overlaps 0.5 and 0.75, the area under the curve; test_ap: its mean over the overlaps 0.5, 0.55, ..., 0.95.
      test_ap50_11point, test_ap_11point: the same in VOC2007's form, in which detectron2 and mmdetection report all results on VOC2007.
      All 0 if no class has boxes.
    """
    found = best_overlaps(detections, truths)

    def means(eleven_point):
        """By overlap."""
        ap_OxC = [_voc(detections, truths, found, num_classes, overlap, eleven_point) for overlap in COCO_OVERLAPS]
        return {
            overlap: 0.0 if np.isnan(ap_C).all() else float(np.nanmean(ap_C)) for overlap, ap_C in zip(COCO_OVERLAPS, ap_OxC, strict=True)
        }

    area, eleven = means(False), means(True)
    return {
        f"{split}_ap50": area[0.5],
        f"{split}_ap50_11point": eleven[0.5],
        f"{split}_ap75": area[0.75],
        f"{split}_ap": float(np.mean(list(area.values()))),
        f"{split}_ap_11point": float(np.mean(list(eleven.values()))),
    }


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
    rows_of = {image: np.flatnonzero(truths.image == image) for image in np.unique(truths.image)}
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


def _voc(detections, truths, found, num_classes, overlap, eleven_point) -> np.ndarray:
    overlap_D, row_D = found
    order = np.argsort(-detections.score, kind="stable")
    hits = overlap_D >= overlap
    ignored = hits & truths.difficult[row_D] if len(truths.difficult) else hits
    right = np.zeros(len(order), bool)
    candidates = order[(hits & ~ignored)[order]]
    right[candidates[np.unique(row_D[candidates], return_index=True)[1]]] = True  # the first of each box
    ap_C = np.full(num_classes, np.nan)
    for label in range(num_classes):
        positives = int((~truths.difficult[truths.label == label]).sum())
        if positives:
            ap_C[label] = _area(right[order[(~ignored & (detections.label == label))[order]]], positives, eleven_point)
    return ap_C


def _area(right_D: np.ndarray, positives: int, eleven_point: bool) -> float:
    """Average precision of one class from whether each counted detection is right, by descending score."""
    found_D = np.cumsum(right_D)
    recall_D, precision_D = found_D / positives, found_D / np.arange(1, len(found_D) + 1)
    best_D = np.maximum.accumulate(precision_D[::-1])[::-1]  # at this recall or above
    if eleven_point:
        place = np.searchsorted(recall_D, np.arange(11) / 10)
        return float(np.append(best_D, 0)[place].sum() / 11)
    return float((np.diff(recall_D, prepend=0) * best_D).sum())


def coco_average_precision(detections: Detections, truths: Truths, num_classes: int, split: str = "test") -> dict[str, float]:
    """COCO's average precision by faster-coco-eval, in 0..1: test_coco_ap, test_coco_ap50, test_coco_ap75.

    COCO interpolates precision at 101 recalls and takes 100 detections per image. It knows no difficult boxes: they count like any other.

    Raises:
      UserError: faster-coco-eval is not installed.
    """
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        raise UserError("COCO's average precision needs faster-coco-eval: pip install 'distill_jax[coco]'") from error

    def entries(boxes):
        sides = np.concatenate([boxes.box[:, :2], boxes.box[:, 2:] - boxes.box[:, :2]], axis=1).astype(float)
        common = zip(boxes.image.tolist(), boxes.label.tolist(), sides.tolist(), sides[:, 2:].prod(axis=1).tolist(), strict=True)
        keys = ("image_id", "category_id", "bbox", "area")
        return [dict(zip(keys, values, strict=True)) | {"id": row, "iscrowd": 0} for row, values in enumerate(common, start=1)]

    images = [{"id": int(image)} for image in np.union1d(truths.image, detections.image)]
    facts = {"images": images, "categories": [{"id": label} for label in range(num_classes)]}
    annotated = COCO(facts | {"annotations": entries(truths)})
    scored = [entry | {"score": score} for entry, score in zip(entries(detections), detections.score.tolist(), strict=True)]
    run = COCOeval_faster(annotated, annotated.loadRes(scored), "bbox", print_function=lambda *words: None)
    run.evaluate()
    run.accumulate()
    run.summarize()
    return {
        f"{split}_{name}": max(float(value), 0.0) for name, value in zip(("coco_ap", "coco_ap50", "coco_ap75"), run.stats, strict=False)
    }

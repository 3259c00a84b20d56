"""What the tables count, for predictions from any source: keypoints, homographies, boxes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from touchline.contract import CLASS_NAMES
from touchline.overlap import iou
from training.geometry import Points, fit, fit_any, project

NEAR: Final = 0.02
"""Distance, in image widths, within which a keypoint counts as found."""


@dataclass(frozen=True, slots=True)
class PitchScore:
    """Counts over a set of pictures and the homography error of each picture, in image widths (inf: none found)."""

    labelled: int
    found: int
    shown: int
    far: int
    unlabelled_right: int
    unlabelled_wrong: int
    homography: tuple[float, ...]

    @property
    def found_share(self) -> float:
        """Share of the labelled visible keypoints shown within NEAR of their place."""
        return self.found / max(1, self.labelled)

    @property
    def false_share(self) -> float:
        """Share of the shown keypoints that lie farther than NEAR from where they belong."""
        return (self.far + self.unlabelled_wrong) / max(1, self.shown)

    @property
    def homography_median(self) -> float:
        """Median over the pictures, in image widths."""
        return float(np.percentile(self.homography, 50, method="higher")) if self.homography else float("nan")

    def row(self) -> str:
        """One line for a table."""
        return (
            f"found {100 * self.found_share:5.1f} %  false {100 * self.false_share:5.2f} % of {self.shown} "
            f"(far {self.far}, unlabelled wrong {self.unlabelled_wrong}, unlabelled right {self.unlabelled_right})  "
            f"homography {100 * self.homography_median:.2f} % "
            f"(90th percentile {100 * float(np.percentile(self.homography or (np.nan,), 90, method='higher')):.2f} %)"
        )


def homography_error(truth: Points, guess: Points, template: Points, size: tuple[int, int]) -> float:
    """Median distance, in image widths, between two homographies over a grid of pitch points inside the picture."""
    low, high = template.min(0), template.max(0)
    grid = np.stack(
        np.meshgrid(np.linspace(low[0], high[0], 22), np.linspace(low[1], high[1], 15), indexing="ij"), axis=-1
    ).reshape(-1, 2)
    where = project(truth, grid)
    with np.errstate(invalid="ignore"):
        seen = (where >= 0).all(1) & (where[:, 0] < size[0]) & (where[:, 1] < size[1])
    if not seen.any():
        return float("nan")
    distance = np.linalg.norm(project(guess, grid[seen]) - where[seen], axis=1)
    return float(np.median(np.where(np.isfinite(distance), distance, np.inf))) / size[0]


def score_pitch(
    pictures: Iterable[tuple[Points, npt.NDArray[np.bool_], npt.NDArray[np.float32], tuple[int, int]]],
    threshold: float = 0.5,
) -> PitchScore:
    """Count over pictures: (points float64 [32, 2], visible bool [32], predicted float32 [32, 3], (width, height)).

    All in the pixels of the picture. A keypoint shown where none is labelled is right if it lies within NEAR of the
    homography that the labels give. The predicted homography comes from the shown keypoints, by RANSAC.
    """
    labelled = found = shown = far = right = wrong = 0
    errors: list[float] = []
    for points, visible, predicted, size in pictures:
        limit = NEAR * size[0]
        show = predicted[:, 2] >= threshold
        near = np.linalg.norm(predicted[:, :2] - points, axis=1) <= limit
        labelled += int(visible.sum())
        found += int((visible & show & near).sum())
        shown += int(show.sum())
        far += int((visible & show & ~near).sum())
        truth = fit_any(points, visible, limit / 2)
        extra = show & ~visible
        if truth is None:
            wrong += int(extra.sum())
            continue
        expected = project(truth[1], truth[0])
        with np.errstate(invalid="ignore"):
            fits = np.linalg.norm(predicted[:, :2] - expected, axis=1) <= limit
        right += int((extra & fits).sum())
        wrong += int((extra & ~fits).sum())
        if int(truth[2].sum()) >= 5:
            guess = fit(truth[0][show], predicted[show, :2].astype(np.float64), limit / 2)
            errors.append(float("inf") if guess is None else homography_error(truth[1], guess[0], truth[0], size))
    return PitchScore(labelled, found, shown, far, right, wrong, tuple(e for e in errors if not np.isnan(e)))


def average_precision(scores: npt.NDArray[np.float32], hits: npt.NDArray[np.bool_], positives: int) -> float:
    """Area under the precision-recall curve with the precision made monotone (the all-points form of VOC and COCO)."""
    if positives == 0:
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    caught = np.cumsum(hits[order])
    recall = np.concatenate([[0.0], caught / positives, [1.0]])
    precision = np.concatenate([[1.0], caught / np.arange(1, len(order) + 1), [0.0]])
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float(((recall[1:] - recall[:-1]) * precision[1:]).sum())


def score_boxes(
    pictures: Sequence[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]], least_iou: float = 0.5
) -> dict[str, float]:
    """AP at one IoU for each class over (labels float32 [n, 5], detections float32 [m, 6]) of each picture.

    Labels are class x1 y1 x2 y2, detections x1 y1 x2 y2 score class, in the same pixels and any order.
    """
    result = {}
    for index, name in enumerate(CLASS_NAMES):
        scores: list[float] = []
        hits: list[bool] = []
        positives = 0
        for labels, detections in pictures:
            boxes = labels[labels[:, 0] == index, 1:]
            mine = detections[detections[:, 5] == index]
            mine = mine[np.argsort(-mine[:, 4], kind="stable")]
            positives += len(boxes)
            free = np.ones(len(boxes), bool)
            overlaps = iou(mine[:, :4].T.astype(np.float64), boxes.T.astype(np.float64))
            for row, overlap in zip(mine, overlaps, strict=True):
                candidates = np.where(free, overlap, -1.0)
                best = int(candidates.argmax()) if len(boxes) else -1
                hit = best >= 0 and candidates[best] >= least_iou
                if hit:
                    free[best] = False
                scores.append(float(row[4]))
                hits.append(bool(hit))
        result[name] = average_precision(np.array(scores, np.float32), np.array(hits, bool), positives)
    return result

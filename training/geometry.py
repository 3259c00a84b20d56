"""The pitch as it is really built, and homographies from it to pictures.

The subnet's table draws a 120 x 70 m pitch with boxes 20.15 m deep. Real grounds are close to 105 x 68 m with the
distances of the Laws of the Game, and the labels put keypoints 11, 12, 19 and 20 where the penalty arc meets the box.
With these proportions a homography fits labelled pictures to below one pixel; with the subnet's table to tens of them.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from touchline.pitch import CIRCLE_RADIUS_CM, KEYPOINTS_CM, REAL_KEYPOINTS_CM

Points = npt.NDArray[np.float64]

STRIDE: Final = 4
"""Input pixels per cell of the pitch network's maps."""

LINE_CLASSES: Final = 6
"""Kinds of painted line; see `line_segments`."""

REAL_CM: Final[Points] = REAL_KEYPOINTS_CM
"""float64 [32, 2]: the keypoints on a 105 x 68 m ground, in cm."""

TEMPLATES: Final[tuple[Points, ...]] = (REAL_CM, KEYPOINTS_CM)


def fit(template: Points, points: Points, tolerance: float) -> tuple[Points, npt.NDArray[np.bool_]] | None:
    """Homography float64 [3, 3] from template [n, 2] to pixels [n, 2], and its inliers; None where there is none.

    `tolerance` is RANSAC's, in pixels. Fewer than 4 points, or points on one line, give None. The sign is chosen so
    that the inliers have a positive third coordinate: what has not lies behind the camera.
    """
    if len(points) < 4:
        return None
    matrix, mask = cv2.findHomography(template, points, cv2.RANSAC, tolerance, maxIters=2000, confidence=0.999)
    if matrix is None or not np.isfinite(matrix).all() or mask.sum() < 4:
        return None
    inliers = mask.ravel().astype(bool)
    depth = template[inliers] @ matrix[2, :2] + matrix[2, 2]
    if depth.min() * depth.max() <= 0:
        return None
    return np.asarray(matrix, np.float64) * np.sign(depth[0]), inliers


def fit_any(
    points: Points, visible: npt.NDArray[np.bool_], tolerance: float
) -> tuple[Points, Points, npt.NDArray[np.bool_], float] | None:
    """The template that fits best: (template, homography, inliers bool [32], median residual in pixels).

    `points` float64 [32, 2], of which `visible` bool [32] count. More inliers win, then the smaller residual.
    """
    best: tuple[tuple[int, float], tuple[Points, Points, npt.NDArray[np.bool_], float]] | None = None
    for template in TEMPLATES:
        fitted = fit(template[visible], points[visible], tolerance)
        if fitted is None:
            continue
        matrix, mask = fitted
        inliers = np.zeros(len(points), bool)
        inliers[np.flatnonzero(visible)[mask]] = True
        residual = float(np.median(np.linalg.norm(project(matrix, template[visible]) - points[visible], axis=1)))
        rank = (-int(mask.sum()), residual)
        if best is None or rank < best[0]:
            best = rank, (template, matrix, inliers, residual)
    return None if best is None else best[1]


def project(matrix: Points, points: Points) -> Points:
    """Map points float64 [n, 2] with a homography of `fit`; points behind the camera come out as NaN."""
    homogeneous = np.column_stack([points, np.ones(len(points))]) @ matrix.T
    depth = homogeneous[:, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        result = homogeneous[:, :2] / depth[:, None]
    result[depth <= 0] = np.nan
    return result


def line_segments(template: Points) -> list[tuple[int, Points]]:
    """The painted lines as (kind, polyline float64 [n, 2] in cm): the auxiliary targets of training.

    Kinds: 0 far and near touchline, 1 goal lines, 2 halfway line, 3 penalty boxes, 4 goal areas, 5 circle and arcs.
    """
    pairs = [
        (0, 0, 24), (0, 5, 29), (1, 0, 5), (1, 24, 29), (2, 13, 16),
        (3, 1, 9), (3, 9, 12), (3, 12, 4), (3, 25, 17), (3, 17, 20), (3, 20, 28),
        (4, 2, 6), (4, 6, 7), (4, 7, 3), (4, 26, 22), (4, 22, 23), (4, 23, 27),
    ]  # fmt: skip
    steps = np.linspace(0, 1, 21)[:, None]
    lines = [(kind, template[a] * (1 - steps) + template[b] * steps) for kind, a, b in pairs]
    angles = np.radians(np.arange(0, 361, 6))
    ring = CIRCLE_RADIUS_CM * np.column_stack([np.cos(angles), np.sin(angles)])
    lines.append((5, (template[13] + template[16]) / 2 + ring))
    for spot, box in ((8, 9), (21, 17)):
        outside = np.sign(template[box, 0] - template[spot, 0])
        arc = template[spot] + ring
        arc = np.roll(arc[:-1], 30 if outside > 0 else 0, axis=0)
        arc = arc[(arc[:, 0] - template[box, 0]) * outside > 0]
        if len(arc) > 1:
            lines.append((5, arc))
    return lines

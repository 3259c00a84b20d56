"""The homography from picture to pitch that a frame's keypoints define, and whether it can be trusted."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from touchline.pitch import KEYPOINTS_CM

TOLERANCE_CM: Final = 200.0
"""How far a keypoint may land from its place in the table and still count as agreeing.

Wide, because the subnet's table is no real pitch (its boxes and circle have other proportions): keypoints that people
placed by hand on broadcast frames still miss it by about a metre at the best homography.
"""
MIN_KEYPOINTS: Final = 4
MIN_INLIER_SHARE: Final = 0.5
MIN_CONDITION: Final = 0.02
"""Smallest `_condition`: views that fix the homography have 0.05 and more, lines with one point beside them 0.01."""
MAX_UPSIDE_DOWN: Final = 0.1


def pitch_homography(
    keypoints: npt.NDArray[np.floating],
    tolerance_cm: float = TOLERANCE_CM,
    landmarks: npt.NDArray[np.float64] = KEYPOINTS_CM,
) -> npt.NDArray[np.float64] | None:
    """Fit image pixels -> pitch centimetres to one frame's keypoints by RANSAC (cv2.findHomography).

    `landmarks`, float64 [32, 2] in cm, is the ground: the subnet's table, or a real one.

    keypoints: float [32, 2] x, y in pixels with (0, 0) for unseen, or float [32, 3] with a third column > 0 for seen.
    Returns float64 [3, 3], scaled so that the third homogeneous coordinate is 1 at the agreeing keypoints' centre and
    positive wherever the picture shows ground; None when the keypoints do not define a trustworthy homography:

    - fewer than four seen, or fewer than half of them (and four) agree within tolerance_cm;
    - degenerate: all but one of the agreeing ones on one line, or nearly so;
    - not what a camera above the pitch sees: mirrored, keypoints on both sides of the horizon, or the horizon below.
    """
    seen = seen_keypoints(keypoints)
    if seen.sum() < MIN_KEYPOINTS:
        return None
    image = np.asarray(keypoints[seen, :2], np.float64)
    pitch = landmarks[seen]
    fitted, mask = cv2.findHomography(image, pitch, cv2.RANSAC, tolerance_cm)
    if fitted is None or mask is None or not np.isfinite(fitted).all():
        return None
    inliers = mask.ravel().astype(bool)
    if inliers.sum() < max(MIN_KEYPOINTS, MIN_INLIER_SHARE * inliers.size):
        return None
    image, pitch = image[inliers], pitch[inliers]
    if _condition(image, pitch) < MIN_CONDITION:
        return None
    homography = _scaled(np.asarray(fitted, np.float64), image)
    return homography if homography is not None and _seen_from_above(homography, image) else None


def seen_keypoints(keypoints: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
    """bool [..., n]: which of float [..., n, 2 or 3] keypoints are seen (finite, not at (0, 0), third column > 0)."""
    seen: npt.NDArray[np.bool_] = np.isfinite(keypoints).all(axis=-1) & (keypoints[..., :2] != 0).any(axis=-1)
    return seen & (keypoints[..., 2] > 0) if keypoints.shape[-1] == 3 else seen


def project(homography: npt.NDArray[np.float64], points: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Map points float [..., n, 2] through homographies [..., 3, 3]: float64, NaN on or beyond the horizon."""
    mapped = np.concatenate([points, np.ones((*points.shape[:-1], 1))], axis=-1) @ np.swapaxes(homography, -1, -2)
    ahead = mapped[..., 2] > np.finfo(np.float64).eps
    projected = np.full((*mapped.shape[:-1], 2), np.nan)
    projected[ahead] = mapped[ahead, :2] / mapped[ahead, 2:]
    return projected


def keypoint_errors_cm(
    homography: npt.NDArray[np.float64],
    keypoints: npt.NDArray[np.floating],
    landmarks: npt.NDArray[np.float64] = KEYPOINTS_CM,
) -> npt.NDArray[np.float64]:
    """Distance of each seen keypoint, projected, from its place on the ground: float64 [..., 32] in cm, else NaN."""
    distances = np.linalg.norm(project(homography, keypoints[..., :2]) - landmarks, axis=-1)
    return np.where(seen_keypoints(keypoints), distances, np.nan)


def _condition(image: npt.NDArray[np.float64], pitch: npt.NDArray[np.float64]) -> float:
    """How well point pairs [n, 2], [n, 2] fix a homography: s8 / s1 of the normalised DLT equations, 0 to 1.

    The equations have a one-dimensional null space, the homography, exactly when s8 > 0 (Hartley and Zisserman,
    Multiple View Geometry, 4.1 and 4.4); three of four points on a line make it larger.
    """
    points = np.column_stack([_normalised(image), np.ones(len(image))])
    rows = np.zeros((2, len(points), 9))
    rows[0, :, 0:3] = rows[1, :, 3:6] = points
    rows[:, :, 6:9] = -_normalised(pitch).T[..., None] * points
    equations = rows.reshape(-1, 9)
    # The squares of the singular values, the null space first: half the time of the values themselves.
    squares = np.linalg.eigvalsh(equations.T @ equations)
    return float(np.sqrt(max(squares[1], 0.0) / squares[8])) if squares[8] > 0 else 0.0


def _normalised(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    centred = points - points.mean(axis=0)
    scale = np.linalg.norm(centred, axis=1).mean() / np.sqrt(2)
    return np.asarray(centred / scale if scale > 0 else centred, np.float64)


def _scaled(homography: npt.NDArray[np.float64], image: npt.NDArray[np.float64]) -> npt.NDArray[np.float64] | None:
    """Fix the free scale: third coordinate 1 at the centre of the image points; None when the horizon runs there."""
    depth = homography[2, :2] @ image.mean(axis=0) + homography[2, 2]
    scaled = homography / depth if abs(depth) > np.finfo(np.float64).tiny else None
    return scaled if scaled is not None and np.isfinite(scaled).all() else None


def _seen_from_above(homography: npt.NDArray[np.float64], image: npt.NDArray[np.float64]) -> bool:
    """Whether a scaled homography is a view of the ground from above, by a camera that is not upside down.

    Both x axes run right and both y axes down or towards the camera, so the determinant is positive unless the view is
    mirrored. The third coordinate falls to 0 at the horizon: it must not grow towards the top of the picture.
    """
    depths = image @ homography[2, :2] + homography[2, 2]
    growth = homography[2, 1] * np.ptp(image[:, 1])
    return bool(np.linalg.det(homography) > 0 and (depths > 0).all() and growth > -MAX_UPSIDE_DOWN)

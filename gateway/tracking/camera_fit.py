"""One camera that turns and zooms, fitted to the keypoints of all frames: steadier than a homography of each alone.

A homography has eight numbers; where keypoints crowd in one corner, it is off by metres at the other end of the
picture. The camera of a match stands: its place is the same in all frames, and three angles and the focal length of
each remain (Hartley and Zisserman, Multiple View Geometry, 8.4 and A6.3 for the normal equations).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from touchline.homography import project

STEPS: Final = 8
CAMERA_SAMPLES: Final = 60
"""So many frames across the clip say where the camera stands."""
REACH: Final = 0.004
"""Share of the picture's width by which a keypoint is usually off: what is further off counts less and less."""
AGREES: Final = 0.012
"""Share of the picture's width within which a keypoint agrees with the camera."""
MIN_AGREEING: Final = 4
ROLL_SD: Final = 0.02
"""Radians by which the camera may lean."""

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


def turning_camera(
    points: Floats, seen: Flags, ground: Floats, homographies: list[Floats | None], size: tuple[int, int]
) -> list[Floats | None]:
    """Better homographies, picture to pitch, of the frames in which the camera that fits most of them agrees.

    `points` float64 [n, 32, 2] in pixels, `seen` bool [n, 32], `ground` float64 [32, 2] in cm; `homographies` of each
    frame alone. Those stay where the camera is another one, and where there are too few keypoints to tell.
    """
    first = [_decomposed(homography, size) for homography in homographies]
    started = np.array([index for index, each in enumerate(first) if each is not None], int)
    if len(started) < 2:
        return homographies
    turns = np.array([each[0] for each in first if each is not None])
    zooms = np.array([each[1] for each in first if each is not None])
    place = np.median([each[2] for each in first if each is not None], axis=0)
    # Every frame with keypoints takes part, also one whose own homography is not trusted: from the nearest one that is.
    usable = np.flatnonzero(seen.sum(axis=1) >= MIN_AGREEING)
    nearest = np.abs(started[None] - usable[:, None]).argmin(axis=1)
    turns, zooms = turns[nearest], zooms[nearest]
    world = np.column_stack([ground / 100, np.zeros(len(ground))])
    centred = points[usable] - np.array(size) / 2
    weight = seen[usable].astype(np.float64)
    reach = REACH * size[0]
    some = np.unique(np.linspace(0, len(usable) - 1, CAMERA_SAMPLES).astype(int))
    turns[some], zooms[some], _ = _fitted(centred[some], weight[some], world, turns[some], zooms[some], place, reach, move=False)
    turns[some], zooms[some], place = _fitted(centred[some], weight[some], world, turns[some], zooms[some], place, reach, move=True)
    turns, zooms, _ = _fitted(centred, weight, world, turns, zooms, place, reach, move=False)
    to_picture = _homographies(turns, zooms, place, size)
    off = np.linalg.norm(project(to_picture, ground) - points[usable], axis=2)
    agreeing = (np.where(seen[usable], off, np.inf) <= AGREES * size[0]).sum(axis=1)
    good = (agreeing >= MIN_AGREEING) & (agreeing >= 0.6 * seen[usable].sum(axis=1))
    if good.sum() < 0.5 * len(started):
        return homographies
    better = list(homographies)
    for index, matrix in zip(usable[good].tolist(), np.linalg.inv(to_picture[good]), strict=True):
        better[index] = matrix
    return better


def _decomposed(homography: Floats | None, size: tuple[int, int]) -> tuple[Floats, float, Floats] | None:
    """Rotation [3, 3], logarithm of the focal length in px, and place in metres of a camera with square pixels."""
    if homography is None:
        return None
    shift = np.array([[1, 0, -size[0] / 2], [0, 1, -size[1] / 2], [0, 0, 1]])
    matrix = shift @ np.linalg.inv(homography) @ np.diag([100.0, 100.0, 1.0])
    (a, b), (c, d), (e, f) = matrix[:, :2]
    left, right = np.array([a * b + c * d, a * a + c * c - b * b - d * d]), np.array([e * f, e * e - f * f])
    flat = -(left @ right) / (left @ left)
    if not flat > 0:
        return None
    focal = 1 / np.sqrt(flat)
    columns = matrix / np.array([focal, focal, 1.0])[:, None]
    scale = (np.linalg.norm(columns[:, 0]) + np.linalg.norm(columns[:, 1])) / 2
    columns /= scale
    u, _, v = np.linalg.svd(np.column_stack([columns[:, :2], np.cross(columns[:, 0], columns[:, 1])]))
    turn = u @ np.diag([1, 1, np.linalg.det(u @ v)]) @ v
    return turn, float(np.log(focal)), -turn.T @ columns[:, 2]


def _homographies(turns: Floats, zooms: Floats, place: Floats, size: tuple[int, int]) -> Floats:
    """Pitch centimetres to pixels, float64 [n, 3, 3]."""
    columns = np.concatenate([turns[:, :, :2] / 100, -(turns @ place)[:, :, None]], axis=2)
    focal = np.exp(zooms)[:, None]
    matrices = np.empty_like(columns)
    matrices[:, 2] = columns[:, 2]
    for axis in (0, 1):
        matrices[:, axis] = focal * columns[:, axis] + size[axis] / 2 * columns[:, 2]
    return matrices


def _fitted(
    points: Floats, weight: Floats, world: Floats, turns: Floats, zooms: Floats, place: Floats, reach: float, *, move: bool
) -> tuple[Floats, Floats, Floats]:
    """Levenberg's steps on the squared pixels; with `move`, on the camera's place, too (its Schur complement)."""
    for _ in range(STEPS):
        away, turned, moved = _derivatives(points, world, turns, zooms, place)
        length = np.hypot(away[..., 0], away[..., 1])
        trust = (weight / (1 + (length / reach) ** 2))[..., None, None]
        normal = np.einsum("nkia,nkib->nab", turned * trust, turned)
        target = np.einsum("nkia,nki->na", turned * trust, away)
        diagonal = np.einsum("nii->ni", normal)
        diagonal += 1e-3 * diagonal + 1e-6
        # The horizon is level: a camera that leans by ROLL_SD costs as much as one keypoint that is off by `reach`.
        lean = turns[:, 0, 2] / np.maximum(turns[:, 1, 2], 0.5)
        normal[:, 2, 2] += (reach / ROLL_SD) ** 2
        target[:, 2] += (reach / ROLL_SD) ** 2 * lean
        if move:
            mixed = np.einsum("nkia,nkib->nab", turned * trust, moved)
            solved = np.linalg.solve(normal, mixed)
            schur = np.einsum("nkia,nkib->ab", moved * trust, moved) - np.einsum("nac,nab->cb", mixed, solved)
            rest = np.einsum("nkia,nki->a", moved * trust, away) - np.einsum("nac,na->c", solved, target)
            step = np.linalg.solve(schur + 1e-3 * np.diag(np.diag(schur)) + 1e-9 * np.eye(3), rest)
            step *= min(1.0, 10.0 / max(float(np.linalg.norm(step)), 1e-9))
            place = place + step
            target = target - mixed @ step
        change = np.linalg.solve(normal, target[..., None])[..., 0]
        change = np.clip(change, -0.2, 0.2)
        turns = _rotations(change[:, :3]) @ turns
        zooms = zooms + change[:, 3]
    return turns, zooms, place


def _derivatives(points: Floats, world: Floats, turns: Floats, zooms: Floats, place: Floats) -> tuple[Floats, Floats, Floats]:
    """What the points are off, [n, k, 2], and how the picture changes with angles and zoom, [.., 4], and place, [.., 3]."""
    seen = (world - place) @ np.swapaxes(turns, 1, 2)
    depth = np.maximum(seen[..., 2], 0.1)
    x, y = seen[..., 0] / depth, seen[..., 1] / depth
    focal = np.exp(zooms)[:, None]
    away = points - np.stack([x, y], axis=-1) * focal[..., None]
    zero = np.zeros_like(x)
    turned = np.stack(
        [
            np.stack([-x * y, 1 + x * x, -y, x], axis=-1),
            np.stack([-1 - y * y, x * y, x, y], axis=-1),
        ],
        axis=-2,
    ) * focal[..., None, None]
    across = np.stack([np.stack([1 / depth, zero, -x / depth], axis=-1), np.stack([zero, 1 / depth, -y / depth], axis=-1)], axis=-2)
    moved = -(across @ turns[:, None]) * focal[..., None, None]
    return away, turned, moved


def _rotations(vectors: Floats) -> Floats:
    """Rodrigues: float64 [n, 3] to [n, 3, 3]."""
    angle = np.linalg.norm(vectors, axis=1)[:, None, None]
    x, y, z = vectors.T
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=1).reshape(-1, 3, 3)
    small = np.where(angle < 1e-9, 1.0, angle)
    return np.asarray(
        np.eye(3) + np.where(angle < 1e-9, 1.0, np.sin(angle) / small) * cross
        + np.where(angle < 1e-9, 0.5, (1 - np.cos(angle)) / small**2) * (cross @ cross)
    )

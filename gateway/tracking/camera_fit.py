"""One camera that turns and zooms, fitted to the keypoints of all frames: steadier than a homography of each alone.

A homography has eight numbers; where keypoints crowd in one corner of the picture, it is off by metres in the other.
The camera of a match stands: its place is the same in all frames, and three angles and a focal length are left for
each (Hartley and Zisserman, Multiple View Geometry, 8.4; A6.3 for the normal equations of what is shared).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from touchline.homography import project

CAMERA_SAMPLES: Final = 60
"""So many frames across the clip say where the camera stands."""
REACH: Final = 0.004
"""Share of the picture's width by which a keypoint is usually off: what is further off counts less and less."""
AGREES: Final = 0.012
"""Share of the picture's width within which a keypoint agrees with the camera."""
MIN_AGREEING: Final = 4
MIN_AGREEING_SHARE: Final = 0.6
ROLL_SD: Final = 0.02
"""Radians by which the camera may lean."""
_ALONE_STEPS, _TOGETHER_STEPS, _LAST_STEPS = 6, 8, 6
_LONGEST_TURN, _LONGEST_MOVE = 0.2, 10.0

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Sightings:
    """Keypoints of n frames, m of each."""

    points: Floats
    """float64 [n, m, 2] in pixels from the middle of the picture."""
    world: Floats
    """float64 [n, m, 3] in metres."""
    weights: Floats
    """float64 [n, m]: 0 for one that is none."""
    reach: float

    def only(self, chosen: npt.NDArray[np.intp]) -> _Sightings:
        return _Sightings(self.points[chosen], self.world[chosen], self.weights[chosen], self.reach)


@dataclass(frozen=True, slots=True)
class _Camera:
    """How it stands in n frames."""

    turns: Floats
    """float64 [n, 3, 3]: rotations, world to camera."""
    zooms: Floats
    """float64 [n]: logarithm of the focal length in pixels."""
    place: Floats
    """float64 [3] in metres; z points down."""

    def only(self, chosen: npt.NDArray[np.intp]) -> _Camera:
        return _Camera(self.turns[chosen], self.zooms[chosen], self.place)


def turning_camera(
    points: Floats, seen: Flags, ground: Floats, homographies: list[Floats | None], size: tuple[int, int]
) -> tuple[list[Floats | None], Flags]:
    """Better homographies, picture to pitch, of the frames in which the camera that fits most of them agrees: bool [n].

    `points` float64 [n, 32, 2] in pixels, `seen` bool [n, 32], `ground` float64 [32, 2] in cm; `homographies` of each
    frame alone, of a picture of this `size` (width, height). Those stay where another camera looks on, and all of them
    where no standing camera explains half the clip. One frame between two of the camera's is the camera's as well:
    where its keypoints say something else, they are wrong, and it has no homography.
    """
    alone = np.array([homography is not None for homography in homographies], bool)
    nobody = np.zeros(len(alone), bool)
    if alone.sum() < 2:
        return homographies, nobody
    camera, decomposed = _decomposed(np.array([each for each in homographies if each is not None]), size)
    started = np.flatnonzero(alone)[decomposed]
    # Every frame with keypoints takes part, also one whose own homography is not trusted: from the nearest that is.
    usable = np.flatnonzero(seen.sum(axis=1) >= MIN_AGREEING)
    if len(started) < 2 or len(usable) < 2:
        return homographies, nobody
    camera = camera.only(np.abs(started[None] - usable[:, None]).argmin(axis=1))
    sightings = _sightings(points[usable], seen[usable], ground, size)
    some = np.unique(np.linspace(0, len(usable) - 1, CAMERA_SAMPLES).astype(int))
    few, sample = sightings.only(some), camera.only(some)
    sample = _fitted(few, sample, _ALONE_STEPS, move=False)
    sample = _fitted(few, sample, _TOGETHER_STEPS, move=True)
    to_picture = _homographies(_fitted(sightings, replace(camera, place=sample.place), _LAST_STEPS, move=False), size)
    off = np.linalg.norm(project(to_picture, ground) - points[usable], axis=2)
    agreeing = (seen[usable] & (off <= AGREES * size[0])).sum(axis=1)
    good = (agreeing >= MIN_AGREEING) & (agreeing >= MIN_AGREEING_SHARE * seen[usable].sum(axis=1))
    if good.sum() < 0.5 * alone.sum():
        return homographies, nobody
    better, steady = list(homographies), nobody
    steady[usable[good]] = True
    for index, matrix in zip(usable[good].tolist(), np.linalg.inv(to_picture[good]), strict=True):
        better[index] = matrix
    between = np.flatnonzero(~steady[1:-1] & steady[:-2] & steady[2:]) + 1
    for index in between.tolist():
        better[index] = None
    return better, steady


def _sightings(points: Floats, seen: Flags, ground: Floats, size: tuple[int, int]) -> _Sightings:
    """The seen keypoints first, and no more columns than a frame has of them."""
    order = np.argsort(~seen, axis=1, kind="stable")[:, : int(seen.sum(axis=1).max())]
    world = np.column_stack([ground / 100, np.zeros(len(ground))])
    centred = np.take_along_axis(points, order[..., None], axis=1) - np.array(size) / 2
    weights = np.take_along_axis(seen, order, axis=1).astype(np.float64)
    return _Sightings(centred, world[order], weights, REACH * size[0])


def _decomposed(homographies: Floats, size: tuple[int, int]) -> tuple[_Camera, npt.NDArray[np.intp]]:
    """The cameras with square pixels that have these homographies, [n, 3, 3], picture to pitch; which have one.

    The columns of a homography are the first two of the rotation and the translation, once the focal length is known,
    which makes those two equally long and perpendicular. The place is the median.
    """
    centred = np.array([[1, 0, -size[0] / 2], [0, 1, -size[1] / 2], [0, 0, 1]])
    matrices = centred @ np.linalg.inv(homographies) @ np.diag([100.0, 100.0, 1.0])
    (a, b), (c, d), (e, f) = (matrices[:, row, :2].T for row in range(3))
    left, right = np.stack([a * b + c * d, a * a + c * c - b * b - d * d]), np.stack([e * f, e * e - f * f])
    flat = -(left * right).sum(axis=0) / np.maximum((left * left).sum(axis=0), np.finfo(np.float64).tiny)
    which = np.flatnonzero(flat > 0)
    focal = 1 / np.sqrt(flat[which])
    columns = matrices[which]
    columns[:, :2] /= focal[:, None, None]
    columns /= np.linalg.norm(columns[:, :, :2], axis=1).mean(axis=1)[:, None, None]
    third = np.cross(columns[:, :, 0], columns[:, :, 1])
    u, _, v = np.linalg.svd(np.concatenate([columns[:, :, :2], third[:, :, None]], axis=2))
    u[:, :, 2] *= np.linalg.det(u @ v)[:, None]
    turns = u @ v
    places = -np.einsum("nji,nj->ni", turns, columns[:, :, 2])
    return _Camera(turns, np.log(focal), np.median(places, axis=0) if len(which) else np.zeros(3)), which


def _homographies(camera: _Camera, size: tuple[int, int]) -> Floats:
    """Pitch centimetres to pixels, float64 [n, 3, 3]."""
    turns = camera.turns
    matrices = np.concatenate([turns[:, :, :2] / 100, -(turns @ camera.place)[:, :, None]], axis=2)
    matrices[:, :2] *= np.exp(camera.zooms)[:, None, None]
    matrices[:, 0] += size[0] / 2 * matrices[:, 2]
    matrices[:, 1] += size[1] / 2 * matrices[:, 2]
    return matrices


def _fitted(sightings: _Sightings, camera: _Camera, steps: int, *, move: bool) -> _Camera:
    """Levenberg's steps down the pixels that keypoints are off (counted as Cauchy did).

    With `move`, the camera's place moves too: its equations are left when each frame's own are solved for.
    """
    level = (sightings.reach / ROLL_SD) ** 2
    for _ in range(steps):
        away, turned, moved = _derivatives(sightings, camera, move=move)
        squares = (away * away).sum(axis=2)
        trust = (sightings.weights / (1 + squares / sightings.reach**2))[..., None, None]
        count, points = squares.shape
        flat = (count, 2 * points, -1)
        weighted = np.swapaxes((turned * trust).reshape(flat), 1, 2)
        normal, target = weighted @ turned.reshape(flat), (weighted @ away.reshape(flat))[..., 0]
        normal *= 1 + 1e-3 * np.eye(4)
        normal += 1e-6 * np.eye(4)
        # A camera that leans by ROLL_SD costs as much as a keypoint that is off by the usual.
        normal[:, 2, 2] += level
        target[:, 2] += level * camera.turns[:, 0, 2] / np.maximum(camera.turns[:, 1, 2], 0.5)
        place = camera.place
        if move:
            mixed = weighted @ moved.reshape(flat)
            solved = np.swapaxes(np.linalg.solve(normal, mixed), 1, 2)
            weighted = np.swapaxes((moved * trust).reshape(flat), 1, 2)
            left = (weighted @ moved.reshape(flat) - solved @ mixed).sum(axis=0)
            rest = ((weighted @ away.reshape(flat)) - solved @ target[..., None]).sum(axis=0)[:, 0]
            step = np.linalg.solve(left * (1 + 1e-3 * np.eye(3)) + 1e-6 * np.eye(3), rest)
            step *= min(1.0, _LONGEST_MOVE / max(float(np.linalg.norm(step)), 1e-9))
            place = place + step
            target = target - mixed @ step
        change = np.clip(np.linalg.solve(normal, target[..., None])[..., 0], -_LONGEST_TURN, _LONGEST_TURN)
        camera = _Camera(_rotations(change[:, :3]) @ camera.turns, camera.zooms + change[:, 3], place)
    return camera


def _derivatives(sightings: _Sightings, camera: _Camera, *, move: bool) -> tuple[Floats, Floats, Floats]:
    """What the points are off [n, m, 2], and how they move with angles and zoom [n, m, 2, 4] and place [n, m, 2, 3]."""
    seen = (sightings.world - camera.place) @ np.swapaxes(camera.turns, 1, 2)
    depth = np.maximum(seen[..., 2], 0.1)
    x, y = seen[..., 0] / depth, seen[..., 1] / depth
    focal = np.exp(camera.zooms)[:, None]
    away = sightings.points - np.stack([focal * x, focal * y], axis=-1)
    turned = np.empty((*x.shape, 2, 4))
    turned[..., 0, 0], turned[..., 0, 1], turned[..., 0, 2], turned[..., 0, 3] = -x * y, 1 + x * x, -y, x
    turned[..., 1, 0], turned[..., 1, 1], turned[..., 1, 2], turned[..., 1, 3] = -1 - y * y, x * y, x, y
    turned *= focal[..., None, None]
    if not move:
        return away, turned, turned[..., :0]
    across = np.zeros((*x.shape, 2, 3))
    across[..., 0, 0] = across[..., 1, 1] = -focal / depth
    across[..., 0, 2], across[..., 1, 2] = focal * x / depth, focal * y / depth
    return away, turned, across @ camera.turns[:, None]


def _rotations(vectors: Floats) -> Floats:
    """Rodrigues' formula: float64 [n, 3], axis times angle, to [n, 3, 3]."""
    angle = np.linalg.norm(vectors, axis=1)[:, None, None]
    x, y, z = vectors.T
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=1).reshape(-1, 3, 3)
    # np.sinc(a / pi) is sin(a) / a, with its limit at 0; 1 - cos a is twice the square of sin(a / 2).
    half = np.sinc(angle / (2 * np.pi))
    return np.asarray(np.eye(3) + np.sinc(angle / np.pi) * cross + half**2 / 2 * (cross @ cross))

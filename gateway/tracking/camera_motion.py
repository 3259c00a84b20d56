"""How the camera moves: by the boxes of two frames, or by the homographies of the pitch model's frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.linalg import solve_banded

from touchline.homography import project
from touchline.overlap import Boxes

MAX_GAP_FRAMES = 12.0
"""Homographies that lie further apart are joined only where they are of pitch frames in a row, or but one."""
LEAST_CURVATURE: Final = 1 / 3
"""For slopes_along: of all curves through some values the one that is bent the least."""
_SHIFT_RADIUS_PX = 6.0
_NEAREST = 4
_CLEAR_SHARE = 0.7

Shift = npt.NDArray[np.float64]
Points = npt.NDArray[np.float64]
NO_SHIFT: Final[Shift] = np.zeros(2)


@dataclass(frozen=True, slots=True)
class CameraMotion:
    """Where the pitch lies in the picture, at any time: homographies of some frames, and between them along cubics."""

    times: Points
    """float64 [n]: frame numbers, ascending, of the frames with a homography."""
    to_picture: Points
    """float64 [n, 3, 3]: pitch centimetres to pixels. Their free scale is such that a place half way between what two
    of them look at has the same depth in both, as for a camera that turns: then they may be blended."""
    slopes: Points
    """float64 [n, 3, 3]: change a frame."""
    joined: npt.NDArray[np.bool_]
    """bool [n]: whether the time up to the next one is known, too."""
    size: tuple[int, int]
    """Width and height of the picture."""
    sure: bool
    """Whether one camera was fitted to most of the homographies: one alone may be off by metres."""

    def at(self, frames: npt.NDArray[np.integer]) -> Points:
        """Pitch centimetres to pixels in the frames int [m]: float64 [m, 3, 3], NaN where it is not known."""
        if not len(self.times):
            return np.full((len(frames), 3, 3), np.nan)
        times = self.times
        after = np.clip(np.searchsorted(times, frames), 0, len(times) - 1)
        here = times[after] == frames
        before = np.where(here, after, np.maximum(after - 1, 0))
        span = np.maximum(times[after] - times[before], 1.0)
        weight = ((frames - times[before]) / span)[:, None, None]
        span = span[:, None, None]
        answer = hermite(
            weight,
            self.to_picture[before],
            self.to_picture[after],
            span * self.slopes[before],
            span * self.slopes[after],
        )
        known = here | ((before < after) & self.joined[before])
        return np.where(known[:, None, None], answer, np.nan)

    @staticmethod
    def in_picture(feet: Points, to_picture: Points) -> Points:
        """Places float64 [n, 2] in cm to pixels, by float64 [n, 3, 3]: NaN where not known or behind the camera."""
        seen = np.einsum("nij,nj->ni", to_picture[:, :, :2], feet) + to_picture[:, :, 2]
        return np.asarray(seen[:, :2] / np.where(seen[:, 2:] > 0, seen[:, 2:], np.nan))


NO_MOTION: Final = CameraMotion(np.empty(0), np.empty((0, 3, 3)), np.empty((0, 3, 3)), np.empty(0, bool), (1, 1), False)


def hermite(weight: Points, start: Points, end: Points, leave: Points, arrive: Points) -> Points:
    """Cubic from `start` to `end`, `weight` 0 to 1; `leave` and `arrive` are its speeds there, times the span."""
    left = 1 - weight
    return np.asarray(
        (1 + 2 * weight) * left**2 * start
        + weight * left**2 * leave
        + weight**2 * (3 - 2 * weight) * end
        - weight**2 * left * arrive
    )


def camera_motion(
    times: Points, homographies: list[Points | None], steady: npt.NDArray[np.bool_], size: tuple[int, int]
) -> CameraMotion:
    """From homographies, picture to pitch (touchline.homography), of frames `times`; `size` is (width, height).

    `steady` bool [n]: which are of one camera that was fitted to all of them. It moves on the curve of least curvature,
    where homographies of single frames, which are less sure, are joined by parabolas.
    """
    found = np.array([index for index, homography in enumerate(homographies) if homography is not None], int)
    if not len(found):
        return NO_MOTION
    to_pitch = np.array([homographies[index] for index in found])
    to_picture = np.asarray(np.linalg.inv(to_pitch), np.float64)
    looked_at = project(to_pitch, np.array([[size[0] / 2, size[1] * 2 / 3]]))[:, 0]
    between = np.column_stack([(looked_at[1:] + looked_at[:-1]) / 2, np.ones(len(found) - 1)])
    depths = [np.einsum("nk,nk->n", rows, between) for rows in (to_picture[:-1, 2], to_picture[1:, 2])]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = depths[0] / depths[1]
    ratios = np.where(np.isfinite(ratios) & (ratios > 0), ratios, np.nan)
    joined = np.isfinite(ratios) & ((np.diff(found) <= 2) | (np.diff(times[found]) <= MAX_GAP_FRAMES))
    first = np.einsum("k,k", to_picture[0, 2], np.append(looked_at[0], 1.0))
    scales = np.cumprod(np.append(1 / first, np.where(joined, ratios, 1.0)))
    to_picture = to_picture * scales[:, None, None]
    joined = np.append(joined, False)
    slopes = slopes_along(times[found], to_picture, joined, bend=np.where(steady[found], LEAST_CURVATURE, 0.0))
    return CameraMotion(times[found], to_picture, slopes, joined, size, bool(steady[found].mean() >= 0.5))


def slopes_along(
    times: Points, values: Points, joined: npt.NDArray[np.bool_], *, bend: npt.NDArray[np.float64] | float
) -> Points:
    """Change of float64 [n, ...] a frame along curves through all values; 0 beside NaN.

    `joined` bool [n]: whether the next value belongs to the same curve. `bend`, one or float64 [n]: 0 gives the slope
    of the parabola through both neighbours, or towards the only one; LEAST_CURVATURE the natural cubic spline, which
    follows what moves evenly (de Boor, A Practical Guide to Splines, IV) but passes on noise; less lies between.
    """
    flat = values.reshape(len(values), -1)
    known = np.asarray(np.isfinite(flat).all(axis=1))
    joins = joined[:-1] & known[:-1] & known[1:]
    # Nearer neighbours tell more.
    near = np.where(joins, 1 / np.where(joins, np.diff(times), 1.0), 0.0)
    speeds = np.where(joins[:, None], np.diff(flat, axis=0), 0.0) * near[:, None]
    into, out = np.append(0.0, near), np.append(near, 0.0)
    nothing = np.zeros_like(flat[:1])
    pulls = near[:, None] * speeds
    total = np.concatenate([nothing, pulls]) + np.concatenate([pulls, nothing])
    own = np.where(into + out > 0, (1 - np.asarray(bend)) * (into + out), 1.0)
    # Slope i pulls on slope i - 1 from above the diagonal, on slope i + 1 from below.
    bends = np.broadcast_to(bend, len(values))
    above, below = np.append(0.0, (bends * out)[:-1]), np.append((bends * into)[1:], 0.0)
    return np.asarray(solve_banded((1, 1), np.stack([above, own, below]), total)).reshape(values.shape)


def camera_shift(before: Boxes, after: Boxes, reach: float, last: Shift) -> Shift:
    """How far most boxes moved together, x and y in pixels: what a pan does to all of them at once.

    `before` and `after` are the centres of boxes, float64 [2, n] and [2, m], `last` is the shift found the last time;
    shifts longer than `reach` are not considered. Of the moves that take a box to one of its nearest successors the one
    is chosen that explains the most boxes, the shortest of several.
    """
    if min(before.shape[1], after.shape[1]) < 3:
        return NO_SHIFT
    moves = after[:, None] - before[:, :, None]
    # A camera that rests, or pans on as it did, explains most boxes at once and spares the search.
    for guess in (NO_SHIFT, last):
        near = _near(moves, guess[:, None])[0]
        if near.any(axis=1).mean() > _CLEAR_SHARE:
            return _median(moves[:, near])
    lengths = np.hypot(*moves)
    nearest = np.argpartition(lengths, min(_NEAREST, lengths.shape[1] - 1), axis=1)[:, :_NEAREST]
    candidates = np.take_along_axis(moves, nearest[None], axis=2).reshape(2, -1)
    candidates = np.concatenate([np.zeros((2, 1)), candidates[:, np.hypot(*candidates) <= reach]], axis=1)
    near = _near(moves, candidates)
    explained = near.any(axis=2).sum(axis=1)
    best = int(np.argmax(explained - 0.01 * np.hypot(*candidates)))
    return _median(moves[:, near[best]]) if explained[best] >= 3 else NO_SHIFT


def _near(moves: npt.NDArray[np.float64], shifts: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Which of the moves, float64 [2, n, m], are about each of the shifts, float64 [2, k]: bool [k, n, m]."""
    x, y = (np.abs(moves[axis] - shifts[axis][:, None, None]) < _SHIFT_RADIUS_PX for axis in (0, 1))
    return np.asarray(x & y)


def _median(moves: npt.NDArray[np.float64]) -> Shift:
    """Of float64 [2, n], along n: np.median asks for many times the time of so few numbers."""
    ordered = np.sort(moves, axis=1)
    count = ordered.shape[1]
    return np.asarray((ordered[:, (count - 1) // 2] + ordered[:, count // 2]) / 2)

"""The one ball: of all that looks like it, what moves as a ball does and does not lie on a painted spot."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from gateway.detections import Floats

SPOT_REACH = 0.0125
"""Share of the frame's width around a spot where nothing is taken for the ball: keypoints are off by so much. A ball
that lies ready for a penalty is lost with it, until it is kicked."""
MAX_SPEED = 0.8
"""Widths of the frame a second that the ball may cross, the camera's own movement included."""
FAST_S = 0.15
"""No ball is that fast for longer: it is braked, or kicked elsewhere."""
_PENALTY_SPOTS = (8, 21)
_HALFWAY, _CIRCLE = (14, 15), (30, 31)
"""Keypoints, from 0: the penalty spots; two points of each line that crosses at the centre spot."""
_NO_BALL: Final = -1

Integers = npt.NDArray[np.int64]
Points = npt.NDArray[np.float64]


def spots(keypoints: Points) -> Points:
    """The penalty spots and the centre spot, float64 [n, 3, 2] in pixels, NaN where they cannot be told.

    `keypoints` float64 [n, 32, 2], (0, 0) where not seen.
    """
    seen = np.where(np.any(keypoints != 0, axis=2, keepdims=True), keypoints, np.nan)
    homogeneous = np.concatenate([seen, np.ones((*seen.shape[:2], 1))], axis=2)
    halfway, across = (np.cross(homogeneous[:, a], homogeneous[:, b]) for a, b in (_HALFWAY, _CIRCLE))
    centre = np.cross(halfway, across)
    with np.errstate(divide="ignore", invalid="ignore"):
        centre = centre[:, :2] / centre[:, 2:]
    return np.concatenate([seen[:, _PENALTY_SPOTS], centre[:, None]], axis=1)


def not_on_a_spot(xyxy: Floats, keypoints: Points, width: int) -> npt.NDArray[np.bool_]:
    """Bool [n]: which of the boxes float32 [n, 4] lie on no painted spot; a spot looks like a ball at rest.

    `keypoints` float64 [n, 32, 2] of the frame of each box, `width` of a frame in pixels.
    """
    middle = (xyxy[:, None, :2] + xyxy[:, None, 2:]) / 2
    apart = np.linalg.norm(spots(keypoints) - middle, axis=2)
    return np.asarray(~np.any(apart <= SPOT_REACH * width, axis=1))


def ball_flights(
    frame_numbers: Integers, xyxy: Floats, scores: Floats, *, reach: float, fast: float, gap: int, start_cost: float
) -> list[Integers]:
    """Indices of the boxes that are the ball, flight by flight: at most one box a frame, no flight beside another.

    `frame_numbers` int64 [n] ascend, several boxes may be of one frame; `xyxy` float32 [n, 4], `scores` float32 [n].
    From one box of a flight to the next are at most `gap` frames and `reach` pixels a frame, half of that from the
    `fast`-th frame on. Of all such flights those are chosen whose scores add up to the most, less `start_cost` for each
    flight: a box alone must score higher than that, several that follow each other support each other. (Viterbi 1967,
    with the links between any frames.)
    """
    middles = (xyxy[:, :2] + xyxy[:, 2:]) / 2
    total = np.zeros(len(scores))
    before = np.full(len(scores), _NO_BALL)
    linked = np.zeros(len(scores), np.bool_)
    best, best_total = _NO_BALL, 0.0
    frames, firsts, counts = np.unique(frame_numbers, return_index=True, return_counts=True)
    for frame, first, stop in zip(frames, firsts, firsts + counts, strict=True):
        from_here = np.searchsorted(frame_numbers, frame - gap)
        for index in range(first, stop):
            before[index], previous = best, best_total - start_cost
            lengths = np.linalg.norm(middles[index] - middles[from_here:first], axis=1)
            apart = frame - frame_numbers[from_here:first]
            near = lengths <= reach * np.minimum(apart, (apart + fast) / 2)
            if near.any():
                nearest = int(from_here + np.argmax(np.where(near, total[from_here:first], -np.inf)))
                if total[nearest] > previous:
                    before[index], previous, linked[index] = nearest, total[nearest], True
            total[index] = previous + scores[index]
        ahead = int(first + np.argmax(total[first:stop]))
        if total[ahead] > best_total:
            best, best_total = ahead, total[ahead]
    flights: list[list[int]] = []
    goes_on = False
    while best != _NO_BALL:
        if not goes_on:
            flights.append([])
        flights[-1].append(best)
        best, goes_on = int(before[best]), bool(linked[best])
    return [np.array(flight[::-1]) for flight in flights[::-1]]

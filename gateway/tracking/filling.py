"""Between the inferred frames: what of a track is answered there, and all that says where it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gateway.detections import Floats
from gateway.tracking.camera_motion import CameraMotion, slopes_along
from gateway.tracking.tracks import Tracks

FILL_GAP_S = 0.5
"""A track that comes back within this time is filled in between."""
FILL_MISSED_S = 1.0
"""And within this time, where only one inferred frame misses it."""
SHAPE_S = 1.2
"""Standard deviation of the weights with which neighbours in time say how wide a person usually is."""
FEET_BEND = 0.2
"""Of people's curves on the pitch (slopes_along): between the spline, best for the even runs of the synthetic clips,
and parabolas, best on real footage, whose feet are seen less exactly."""
EDGE = 0.3
"""Who is out of sight has at most this share of the box between feet and edge in the picture."""
LEAST_STEP_S = 0.1
"""Between inferred frames that are closer nobody is looked for beyond the edge."""
MAX_SPEED_CM_PER_S = 1000.0

Integers = npt.NDArray[np.int64]
Points = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sightings:
    """People in the inferred frames."""

    samples: npt.NDArray[np.intp]
    """intp [n]: which inferred frame, counted from 0."""
    ids: Integers
    feet: Points
    """float64 [n, 2] in cm on the pitch, NaN where it is not known."""
    xyxy: Floats
    scores: Floats

    def only(self, chosen: npt.NDArray[np.bool_ | np.intp]) -> Sightings:
        return Sightings(
            self.samples[chosen], self.ids[chosen], self.feet[chosen], self.xyxy[chosen], self.scores[chosen]
        )

    def along_tracks(self) -> Sightings:
        """Ordered by track and, in a track, by frame."""
        return self.only(np.lexsort((self.samples, self.ids)))

    def and_also(self, others: Sightings) -> Sightings:
        return Sightings(
            np.concatenate([self.samples, others.samples]),
            np.concatenate([self.ids, others.ids]),
            np.concatenate([self.feet, others.feet]),
            np.concatenate([self.xyxy, others.xyxy]),
            np.concatenate([self.scores, others.scores]),
        )


def filled_tracks(
    seen: Sightings, frames: Integers, classes: npt.NDArray[np.intp], motion: CameraMotion, fps: float
) -> Tracks:
    """Tracks of people through the inferred frames with the numbers `frames`; `classes` by id."""
    seen = seen.along_tracks()
    for step in (1, -1):
        seen = seen.and_also(beyond_the_edge(seen, frames, motion, fps, step)).along_tracks()
    numbers, missed = frames[seen.samples], np.diff(seen.samples) - 1
    gaps = np.diff(numbers)
    short = (gaps <= FILL_GAP_S * fps) | ((missed <= 1) & (gaps <= FILL_MISSED_S * fps)) | (missed <= 0)
    filled = (np.diff(seen.ids) == 0) & short
    lengths = np.ones(len(numbers), np.int32)
    lengths[:-1][filled] = gaps[filled]
    slopes = slopes_along(numbers.astype(np.float64), seen.feet, lengths > 1, bend=FEET_BEND)
    speeds = _at_most(slopes, MAX_SPEED_CM_PER_S / fps)
    return Tracks(
        numbers.astype(np.int32),
        seen.ids.astype(np.int32),
        classes[seen.ids].astype(np.int8),
        seen.scores,
        seen.xyxy,
        lengths,
        seen.feet.astype(np.float32),
        speeds.astype(np.float32),
        usual_shapes(numbers, seen.ids, seen.xyxy, SHAPE_S * fps),
        motion,
        fps,
    )


def beyond_the_edge(seen: Sightings, frames: Integers, motion: CameraMotion, fps: float, step: int) -> Sightings:
    """Where tracks lie in the inferred frame after their last (`step` 1) or before their first (-1), if out of sight.

    A straight run and the camera's movement tell; between the two frames the picture's edge then says when somebody
    came or went. `seen` is ordered along tracks.
    """
    ends = np.ones(len(seen.ids), bool)
    same = np.diff(seen.ids) == 0
    if step > 0:
        ends[:-1] = ~same
    else:
        ends[1:] = ~same
    rows = np.flatnonzero(ends & (seen.samples + step >= 0) & (seen.samples + step < len(frames)))
    ahead = np.abs(frames[seen.samples[rows] + step] - frames[seen.samples[rows]])
    rows, ahead = rows[ahead > LEAST_STEP_S * fps], ahead[ahead > LEAST_STEP_S * fps]
    inner = np.clip(rows - step, 0, len(seen.ids) - 1)
    inner = np.where(seen.ids[inner] == seen.ids[rows], inner, rows)
    span = np.maximum(np.abs(frames[seen.samples[rows]] - frames[seen.samples[inner]]), 1)[:, None]
    run = _at_most((seen.feet[rows] - seen.feet[inner]) / span, MAX_SPEED_CM_PER_S / fps)
    feet = seen.feet[rows] + run * ahead[:, None]
    place = motion.in_picture(feet, motion.at(frames[seen.samples[rows] + step]))
    size = seen.xyxy[rows, 2:] - seen.xyxy[rows, :2]
    inside = (place > EDGE * size) & (place < np.array(motion.size) + np.array([-EDGE, 1 - EDGE]) * size)
    gone = np.isfinite(place).all(axis=1) & ~inside.all(axis=1)
    corner = place - size * (0.5, 1.0)
    xyxy = np.concatenate([corner, corner + size], axis=1)[gone].astype(np.float32)
    return Sightings(seen.samples[rows][gone] + step, seen.ids[rows][gone], feet[gone], xyxy, seen.scores[rows][gone])


def usual_shapes(numbers: Integers, ids: Integers, xyxy: Floats, sigma: float) -> Floats:
    """Logarithm of width over height of boxes, float32 [n], as a mean along each track: Gaussian, `sigma` in frames."""
    sides = np.maximum(xyxy[:, 2:] - xyxy[:, :2], 1e-3).astype(np.float64)
    shapes = np.log(sides[:, 0] / sides[:, 1])
    total, weight = shapes.copy(), np.ones(len(shapes))
    # About four neighbours within sigma are enough, where every frame was inferred too.
    apart = np.diff(numbers)[np.diff(ids) == 0]
    step = max(1, int(sigma / 4 / np.median(apart))) if len(apart) else 1
    for back in range(step, 12 * step, step):
        same = np.flatnonzero((ids[back:] == ids[:-back]) & (numbers[back:] - numbers[:-back] <= 2.5 * sigma))
        if not len(same):
            break
        near = np.exp(-0.5 * ((numbers[same + back] - numbers[same]) / sigma) ** 2)
        total[same] += near * shapes[same + back]
        total[same + back] += near * shapes[same]
        weight[same] += near
        weight[same + back] += near
    return np.asarray(total / weight, np.float32)


def _at_most(speeds: Points, limit: float) -> Points:
    lengths = np.hypot(speeds[:, 0], speeds[:, 1])
    return np.asarray(speeds * np.minimum(1.0, limit / np.maximum(lengths, 1e-9))[:, None])

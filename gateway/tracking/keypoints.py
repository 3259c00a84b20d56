"""Keypoints of every frame from those of the pitch model's frames: outliers out, gaps completed, smooth along time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from gateway.detections import Floats
from gateway.tracking.answered import OnLines, worth_answering
from gateway.tracking.camera_fit import turning_camera
from gateway.tracking.camera_motion import LEAST_CURVATURE, NO_MOTION, CameraMotion, camera_motion, slopes_along
from touchline.contract import KEYPOINT_COUNT
from touchline.homography import keypoint_errors_cm, pitch_homography, project
from touchline.pitch import KEYPOINTS_CM, REAL_KEYPOINTS_CM

TOLERANCE_CM = 100.0
"""How far keypoints may lie from their place on the ground and still agree with each other."""
OUTLIER_CM = 200.0
"""A keypoint that misses its place on the ground by more is dropped."""
GROUNDS: Final = (REAL_KEYPOINTS_CM, KEYPOINTS_CM)
"""Real footage shows a real ground, synthetic footage may show the subnet's table."""
_GROUND_SAMPLES = 16
ENOUGH_TO_TELL: Final = 6
"""Keypoints of a frame from which on its own homography leaves something to be explained."""
LEAST_GAIN: Final = 0.9
"""Of the variance, below which a standing camera is believed."""
SMOOTHING_FRAMES = 3.0
"""Standard deviation, in source frames, of the weights with which neighbours in time take part in a point."""
FILL_GAP_FRAMES = 12.0
"""A point that is lost for at most so many source frames is answered in between, by the homography."""

Points = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Keypoints:
    """Keypoints of the pitch model's frames, smooth along time; those of any frame are computed when asked for."""

    times: Points
    """float64 [n]: frame numbers, ascending."""
    points: Points
    """float64 [n, 32, 2] in source pixels."""
    slopes: Points
    """float64 [n, 32, 2]: pixels a frame."""
    known: Flags
    """bool [n, 32]: where `points` says something."""
    shown: Flags
    """bool [n, 32]: and where it is answered: seen, or lost for a short time between two sightings."""
    size: tuple[int, int]
    """Width and height of the picture."""
    motion: CameraMotion
    """Where the pitch lies in the picture."""
    standing: CameraMotion
    """The same of the frames that one standing camera explains."""
    ground: Points
    """float64 [32, 2]: where the keypoints lie on the ground, in cm."""
    lines: OnLines | None = None
    """How far from painted lines they lie; None where nobody looked."""

    def answered(self, every: npt.NDArray[np.integer]) -> Points:
        """What a validator is told of the frames `every`, int [m]: float64 [m, 32, 2], (0, 0) where nothing.

        Of what is in sight, seen by the model or placed by the standing camera, that which lies on lines.
        """
        seen = self.at(every)
        if self.lines is None:
            return seen
        points = self._in_sight(every, seen)
        distances = np.where((points != 0).any(axis=2), self.lines.at(every), np.nan)
        return np.where(worth_answering(distances, (seen != 0).any(axis=2))[..., None], points, 0.0)

    def looked_at(self, lines: Mapping[int, Floats], fps: float) -> Keypoints:
        """The same, knowing the lines of some frames, by number: float32 [n, 4] in shares of the picture."""
        if not lines or not len(self.times):
            return self
        ordered = dict(sorted(lines.items()))
        numbers = np.array(list(ordered))
        points = self._in_sight(numbers, self.at(numbers))
        return replace(self, lines=OnLines.of(ordered, points, self.size, fps))

    def _in_sight(self, every: npt.NDArray[np.integer], seen: Points) -> Points:
        """Where the standing camera puts keypoints into the picture, float64 [m, 32, 2], else what is `seen`."""
        placed = project(self.standing.at(every), self.ground)
        known = np.isfinite(placed)
        inside = ((placed > 0) & (placed < np.array(self.size))).all(axis=2, keepdims=True)
        return np.where(known, np.where(inside, placed, 0.0), seen)

    def at(self, every: npt.NDArray[np.integer]) -> Points:
        """Of the frames with the numbers `every`, int [m]: float64 [m, 32, 2], (0, 0) where not seen or not in sight.

        Where the standing camera sees them, where there is one: it is fitted to all frames, so it errs by half as much
        as what the model says of a point in one of them. Elsewhere on cubics between the pitch model's frames.
        """
        if not len(self.times):
            return np.zeros((len(every), KEYPOINT_COUNT, 2))
        times, points = self.times, self.points
        after = np.clip(np.searchsorted(times, every), 0, len(times) - 1)
        before = np.where(times[after] == every, after, np.maximum(after - 1, 0))
        span = np.maximum(times[after] - times[before], 1.0)[:, None, None]
        weight = np.clip((every - times[before])[:, None, None] / span, 0, 1)
        answer = (
            (1 + 2 * weight) * (1 - weight) ** 2 * points[before]
            + weight * (1 - weight) ** 2 * span * self.slopes[before]
            + weight**2 * (3 - 2 * weight) * points[after]
            + weight**2 * (weight - 1) * span * self.slopes[after]
        )
        placed = project(self.standing.at(every), self.ground)
        answer = np.where(np.isfinite(placed), placed, answer)
        answered = (self.shown[before] | self.shown[after]) & self.known[before] & self.known[after]
        answered &= ((answer > 0) & (answer < np.array(self.size))).all(axis=2)
        return np.where(answered[..., None], answer, 0.0)


class KeypointTracker:
    """Takes the keypoints of the pitch model's frames in order; their homographies are found meanwhile."""

    def __init__(self) -> None:
        self._times: list[int] = []
        self._points: list[Points] = []
        self._likely = 0
        """Which of GROUNDS the keypoints so far agree with."""
        self._found: dict[tuple[int, int], Points | None] = {}
        """Homographies by ground and index of the frame."""

    def add(self, frame_number: int, keypoints: Floats) -> None:
        """Take float32 [32, 2] of the next frame in source pixels, (0, 0) where not seen."""
        self._times.append(frame_number)
        self._points.append(keypoints.astype(np.float64))
        if len(self._points) == _GROUND_SAMPLES:
            self._likely = self._ground()
        self._homography(self._likely, len(self._points) - 1)

    def finish(self, size: tuple[int, int]) -> Keypoints:
        """The keypoints of a video of this `size` (width, height).

        A point is answered up to the inferred frames beside each one that shows it, and while it is lost for a short
        time; where a frame does not show it, the frame's homography says where it is, in or out of the picture.
        """
        times, points = np.array(self._times, np.float64), np.array(self._points).reshape(-1, KEYPOINT_COUNT, 2)
        seen = np.any(points != 0, axis=2)
        if not len(times):
            return Keypoints(times, points, points, seen, seen, size, NO_MOTION, NO_MOTION, GROUNDS[0])
        ground = self._ground()
        found = [self._homography(ground, index) for index in range(len(times))]
        better, steady = turning_camera(points, seen, GROUNDS[ground], found, size)
        standing = [matrix if explained else None for matrix, explained in zip(better, steady.tolist(), strict=True)]
        standing = _trusted(points, seen, GROUNDS[ground], found, standing)
        projected = _without_outliers(points, seen, GROUNDS[ground], found)
        points, known, shown = _completed(times, points, seen, projected)
        points = smooth_along_time(times, points, known)
        return Keypoints(
            times,
            points,
            _slopes(times, points, known),
            known,
            shown,
            size,
            camera_motion(times, better, steady, size),
            _smooth(camera_motion(times, standing, steady, size)),
            GROUNDS[ground],
        )

    def _ground(self) -> int:
        """The one of GROUNDS on which the keypoints of some frames across the video agree best."""
        chosen = np.unique(np.linspace(0, len(self._points) - 1, _GROUND_SAMPLES).astype(int)).tolist()

        def agreeing(ground: int) -> int:
            return sum(
                int(np.nansum(keypoint_errors_cm(found, self._points[index], GROUNDS[ground]) < TOLERANCE_CM / 2))
                for index in chosen
                if (found := self._homography(ground, index)) is not None
            )

        return max(range(len(GROUNDS)), key=agreeing)

    def _homography(self, ground: int, index: int) -> Points | None:
        if (ground, index) not in self._found:
            self._found[ground, index] = pitch_homography(self._points[index], TOLERANCE_CM, GROUNDS[ground])
        return self._found[ground, index]


def smooth_along_time(times: Points, points: Points, known: Flags, sigma: float = SMOOTHING_FRAMES) -> Points:
    """Local linear regression of each point along time with Gaussian weights (Cleveland 1979, without robustness).

    `times` float64 [n] in frames, `points` float64 [n, k, d], `known` bool [n, k]. A window that looks both ways and a
    line instead of a mean: a point that moves at constant speed, as in a pan, stays exactly where it is.
    """
    reach = 0
    while reach + 1 < len(times) and np.min(times[reach + 1 :] - times[: -reach - 1]) <= 3 * sigma:
        reach += 1
    moments = np.zeros((3, *known.shape))
    values, slopes = np.zeros_like(points), np.zeros_like(points)
    for shift in range(-reach, reach + 1):
        here = slice(max(0, -shift), len(times) - max(0, shift))
        there = slice(max(0, shift), len(times) - max(0, -shift))
        apart = (times[there] - times[here])[:, None]
        weight = np.exp(-0.5 * (apart / sigma) ** 2) * known[there]
        for power in range(3):
            moments[power, here] += weight * apart**power
        values[here] += weight[..., None] * points[there]
        slopes[here] += (weight * apart)[..., None] * points[there]
    determinant = moments[0] * moments[2] - moments[1] ** 2
    solvable = known & (determinant > 1e-9)
    fitted = moments[2][..., None] * values - moments[1][..., None] * slopes
    return np.where(solvable[..., None], fitted / np.where(solvable, determinant, 1.0)[..., None], points)


def _without_outliers(points: Points, seen: Flags, ground: Points, homographies: list[Points | None]) -> Points:
    """Where each frame's homography puts all keypoints, float64 [n, 32, 2], else NaN; clears `seen` of outliers."""
    projected = np.full_like(points, np.nan)
    fitted = np.array([homography is not None for homography in homographies], bool)
    if fitted.any():
        found = np.stack([homography for homography in homographies if homography is not None])
        seen[fitted] &= ~(keypoint_errors_cm(found, points[fitted], ground) > OUTLIER_CM)
        projected[fitted] = project(np.asarray(np.linalg.inv(found), np.float64), ground)
    return projected


def _smooth(motion: CameraMotion) -> CameraMotion:
    """The same as smooth along time as the keypoints, one run of joined frames after the other."""
    if not len(motion.times):
        return motion
    runs = np.split(motion.to_picture.reshape(-1, 1, 9), np.flatnonzero(~motion.joined[:-1]) + 1)
    times = np.split(motion.times, np.flatnonzero(~motion.joined[:-1]) + 1)
    smoothed = [smooth_along_time(*pair, np.ones((len(pair[0]), 1), bool)) for pair in zip(times, runs, strict=True)]
    to_picture = np.concatenate(smoothed).reshape(-1, 3, 3)
    return replace(
        motion,
        to_picture=to_picture,
        slopes=slopes_along(motion.times, to_picture, motion.joined, bend=LEAST_CURVATURE),
    )


def _trusted(
    points: Points, seen: Flags, ground: Points, alone: list[Points | None], standing: list[Points | None]
) -> list[Points | None]:
    """The standing camera's homographies, of the frames that it explains; none where it explains them worse.

    `alone`: each frame's own homography, `standing`: the camera's. With eight numbers of its own a frame comes closer
    to its keypoints than with a camera's four, whether a camera stands or not. What counts is the variance a degree of
    freedom: 0.6 to 0.8 of it where one stands, more where none does, or its lens bends.
    """
    both = [index for index, matrix in enumerate(standing) if matrix is not None and alone[index] is not None]
    if not both:
        return [None] * len(standing)
    own = np.stack([matrix for index in both if (matrix := alone[index]) is not None])
    shared = np.stack([matrix for index in both if (matrix := standing[index]) is not None])
    agreeing = seen[both] & (keypoint_errors_cm(own, points[both], ground) <= OUTLIER_CM)
    agreeing &= (agreeing.sum(axis=1) >= ENOUGH_TO_TELL)[:, None]
    variances = []
    for matrices, freedoms in ((own, 8), (shared, 4)):
        away = np.linalg.norm(project(np.asarray(np.linalg.inv(matrices), np.float64), ground) - points[both], axis=2)
        left = 2 * agreeing.sum() - freedoms * agreeing.any(axis=1).sum()
        variances.append(float(np.nansum(np.where(agreeing, away, 0.0) ** 2)) / max(1, int(left)))
    return standing if variances[1] <= LEAST_GAIN * variances[0] else [None] * len(standing)


def _completed(times: Points, points: Points, seen: Flags, projected: Points) -> tuple[Points, Flags, Flags]:
    """Give every seen point a place in the inferred frames near it too, by those frames' homographies.

    The homography's own error at that point, which the nearest frame that shows it knows, is carried over. Returns the
    points, where they are known, and where they are shown: seen, or lost for a short time between two sightings.
    """
    rows = np.arange(len(times))[:, None]
    earlier = np.maximum.accumulate(np.where(seen, rows, -1), axis=0)
    later = np.minimum.accumulate(np.where(seen, rows, len(times))[::-1], axis=0)[::-1]
    since = np.where(earlier >= 0, times[:, None] - times[earlier], np.inf)
    until = np.where(later < len(times), times[np.minimum(later, len(times) - 1)] - times[:, None], np.inf)
    nearest = np.where(since <= until, earlier, np.minimum(later, len(times) - 1))
    placed = projected + np.take_along_axis(points - projected, nearest[..., None], axis=0)
    beside = np.minimum(rows - earlier, later - rows) <= 1
    near = np.minimum(since, until) <= FILL_GAP_FRAMES
    usable = ~seen & (beside | near) & np.isfinite(placed).all(axis=2)
    known = seen | usable
    shown = seen | (usable & (since + until <= FILL_GAP_FRAMES))
    return np.where(usable[..., None], placed, np.where(seen[..., None], points, 0.0)), known, shown


def _slopes(times: Points, points: Points, known: Flags) -> Points:
    """Pixels a frame at each inferred frame: the mean of the speeds before and after it, as far as they are known."""
    speeds = np.diff(points, axis=0) / np.diff(times)[:, None, None]
    valid = known[1:] & known[:-1]
    total, count = np.zeros_like(points), np.zeros(known.shape)
    for side in (slice(None, -1), slice(1, None)):
        total[side] += np.where(valid[..., None], speeds, 0.0)
        count[side] += valid
    return total / np.maximum(count, 1)[..., None]

"""The boxes of every frame from those of the inferred ones: feet on the pitch, which the camera shows as it moves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gateway.detections import Floats
from gateway.tracking.camera_motion import CameraMotion, hermite
from touchline.contract import BALL

BALL_ID = 0
"""The ball is one object; persons are numbered from 1."""
MIN_SIGHT = 0.4
"""Share of a box that has to be in the picture."""
LINE_S = 0.1
"""Between inferred frames that are no further apart a box moves on a line, and no estimate tells more."""
SWING_S = 0.12
"""Seconds in which a box forgets how wide it was."""


@dataclass(frozen=True, slots=True)
class TrackRows:
    """Boxes of some frames, ordered by frame and, in a frame, ball first: one row each."""

    frame_numbers: npt.NDArray[np.int64]
    ids: npt.NDArray[np.int64]
    classes: npt.NDArray[np.int64]
    xyxy: npt.NDArray[np.float64]
    scores: Floats
    """float32: between the inferred frames, of the one before."""


@dataclass(frozen=True, slots=True)
class Tracks:
    """Boxes of the inferred frames, ordered by track and, in a track, by frame: 53 bytes a row.

    The boxes of the frames between are computed when they are asked for.
    """

    frame_numbers: npt.NDArray[np.int32]
    ids: npt.NDArray[np.int32]
    classes: npt.NDArray[np.int8]
    scores: Floats
    xyxy: Floats
    lengths: npt.NDArray[np.int32]
    """Frames that a row answers: its own, and those up to the next row where the track is filled in between."""
    feet: Floats
    """float32 [n, 2]: where the feet stand on the pitch, in cm; NaN where it is not known."""
    speeds: Floats
    """float32 [n, 2]: cm a frame."""
    shapes: Floats
    """float32 [n]: logarithm of width over height, as it usually is about that time."""
    motion: CameraMotion
    fps: float

    def rows(self, first: int, stop: int) -> TrackRows:
        """Boxes of the frames `first` to `stop` - 1: tracked ones as they are.

        Those between move on the pitch, on a cubic through the places and speeds of their feet, and keep their size in
        the picture; where the pitch is not known, or for a very short time, they are on a line in the picture.
        """
        own = self.frame_numbers
        touched = np.flatnonzero((own < stop) & (own + self.lengths > first))
        begin = np.maximum(own[touched], first)
        counts = np.minimum(own[touched] + self.lengths[touched], stop) - begin
        row = np.repeat(touched, counts)
        frames = np.arange(len(row)) + np.repeat(begin - (np.cumsum(counts) - counts), counts)
        following = row + (self.lengths[row] > 1)
        start = self.xyxy[row].astype(np.float64)
        speed = (self.xyxy[following] - start) / np.maximum(own[following] - own[row], 1)[:, None]
        xyxy = start + speed * (frames - own[row])[:, None]
        long = self.lengths[row] > LINE_S * self.fps
        between = np.flatnonzero(long & (frames > own[row]) & (self.ids[row] != BALL_ID))
        if len(between):
            xyxy[between] = self._between(xyxy[between], row[between], following[between], frames[between])
        order = np.lexsort((self.ids[row], frames))
        if len(self.motion.times):
            order = order[self._in_sight(xyxy)[order]]
        row = row[order]
        return TrackRows(
            frames[order],
            self.ids[row].astype(np.int64),
            self.classes[row].astype(np.int64),
            xyxy[order],
            self.scores[row],
        )

    def _between(
        self,
        xyxy: npt.NDArray[np.float64],
        row: npt.NDArray[np.intp],
        following: npt.NDArray[np.intp],
        frames: npt.NDArray[np.int64],
    ) -> npt.NDArray[np.float64]:
        """Boxes float64 [n, 4] on a line in the picture, moved to where the pitch says, and as wide as usual."""
        since, until = frames - self.frame_numbers[row], self.frame_numbers[following] - frames
        span = (since + until).astype(np.float64)[:, None]
        weight = since[:, None] / span
        height = xyxy[:, 3] - xyxy[:, 1]
        usual = (1 - weight[:, 0]) * self.shapes[row] + weight[:, 0] * self.shapes[following]
        leave, arrive = bridge(since / (SWING_S * self.fps), until / (SWING_S * self.fps))
        width = height * np.exp(usual + leave * self._unusual(row) + arrive * self._unusual(following))
        feet = np.stack([(xyxy[:, 0] + xyxy[:, 2]) / 2, xyxy[:, 3]], axis=1)
        if len(self.motion.times):
            run = [span * self.speeds[rows] for rows in (row, following)]
            place = hermite(weight, self.feet[row].astype(np.float64), self.feet[following].astype(np.float64), *run)
            numbers, which = np.unique(frames, return_inverse=True)
            moved = self.motion.in_picture(place, self.motion.at(numbers)[which])
            feet = np.where(np.isfinite(moved), moved, feet)
        x, y = feet.T
        return np.stack([x - width / 2, y - height, x + width / 2, y], axis=1)

    def _unusual(self, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
        """How much wider than usual the boxes of some rows are, as a logarithm."""
        sides = np.maximum(self.xyxy[rows, 2:] - self.xyxy[rows, :2], 1e-3)
        return np.asarray(np.log(sides[:, 0] / sides[:, 1]) - self.shapes[rows], np.float64)

    def _in_sight(self, xyxy: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """Bool [n]: which boxes are in the picture; cuts them off at its edges."""
        whole = (xyxy[:, 2] - xyxy[:, 0]) * (xyxy[:, 3] - xyxy[:, 1])
        np.clip(xyxy, 0, np.tile(self.motion.size, 2), out=xyxy)
        left = (xyxy[:, 2] - xyxy[:, 0]) * (xyxy[:, 3] - xyxy[:, 1])
        return np.asarray(left > MIN_SIGHT * whole)


def bridge(
    since: npt.NDArray[np.float64], until: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """What of two values is expected between them, when each is forgotten with time: weights of both.

    `since` and `until` in the time in which a value falls to 1 / e (the bridge of Ornstein and Uhlenbeck).
    """
    whole = 1 - np.exp(-2 * (since + until))
    return (
        np.asarray(np.exp(-since) * (1 - np.exp(-2 * until)) / whole),
        np.asarray(np.exp(-until) * (1 - np.exp(-2 * since)) / whole),
    )


def no_tracks(motion: CameraMotion, fps: float) -> Tracks:
    none, nowhere = np.empty(0, np.int32), np.empty((0, 2), np.float32)
    boxes, numbers = np.empty((0, 4), np.float32), np.empty(0, np.float32)
    return Tracks(none, none, np.empty(0, np.int8), numbers, boxes, none, nowhere, nowhere, numbers, motion, fps)


def with_ball(
    people: Tracks,
    frame_numbers: npt.NDArray[np.int64],
    xyxy: Floats,
    scores: Floats,
    lengths: npt.NDArray[np.int64],
) -> Tracks:
    """The people's tracks and the ball's, which is not on the pitch but above it: a line in the picture."""
    count = len(frame_numbers)
    nowhere = np.full((count, 2), np.nan, np.float32)
    return Tracks(
        np.concatenate([frame_numbers.astype(np.int32), people.frame_numbers]),
        np.concatenate([np.full(count, BALL_ID, np.int32), people.ids]),
        np.concatenate([np.full(count, BALL, np.int8), people.classes]),
        np.concatenate([scores, people.scores]),
        np.concatenate([xyxy, people.xyxy]),
        np.concatenate([lengths.astype(np.int32), people.lengths]),
        np.concatenate([nowhere, people.feet]),
        np.concatenate([nowhere, people.speeds]),
        np.concatenate([np.zeros(count, np.float32), people.shapes]),
        people.motion,
        people.fps,
    )

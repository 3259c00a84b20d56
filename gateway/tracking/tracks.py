"""The boxes of every frame from those of the inferred ones: feet on the pitch, which the camera shows as it moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from gateway.detections import Floats
from gateway.tracking.camera_motion import NO_MOTION, CameraMotion, hermite

MIN_SIGHT = 0.2
"""Share of a box that has to be in the picture."""
SWING_S = 0.12
"""Seconds in which a box forgets how wide it was."""


@dataclass(frozen=True, slots=True)
class TrackRows:
    """Boxes of some frames, ordered by frame and, in a frame, ball first: one row each."""

    frame_numbers: npt.NDArray[np.int64]
    ids: npt.NDArray[np.int64]
    classes: npt.NDArray[np.int64]
    xyxy: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Tracks:
    """Boxes of the inferred frames, ordered by track and, in a track, by frame: 45 bytes a row.

    The boxes of the frames between are computed when they are asked for.
    """

    frame_numbers: npt.NDArray[np.int32]
    ids: npt.NDArray[np.int32]
    classes: npt.NDArray[np.int8]
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
        the picture; where the pitch is not known they are on a line in the picture.
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
        order = np.lexsort((self.ids[row], frames))
        xyxy = start + speed * (frames - own[row])[:, None]
        between = np.flatnonzero((frames > own[row]) & (self.ids[row] > 0))
        if len(between):
            self._swing(xyxy, between, row[between], following[between], frames[between])
        if len(between) and len(self.motion.times):
            self._move_on_pitch(xyxy, between, row[between], following[between], frames[between], first, stop)
        if len(self.motion.times):
            order = order[self._in_sight(xyxy)[order]]
        return TrackRows(
            frames[order], self.ids[row][order].astype(np.int64), self.classes[row][order].astype(np.int64), xyxy[order]
        )

    def _in_sight(self, xyxy: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """Bool [n]: which boxes are in the picture; cuts them off at its edges."""
        whole = (xyxy[:, 2] - xyxy[:, 0]) * (xyxy[:, 3] - xyxy[:, 1])
        np.clip(xyxy, 0, np.tile(self.motion.size, 2), out=xyxy)
        left = (xyxy[:, 2] - xyxy[:, 0]) * (xyxy[:, 3] - xyxy[:, 1])
        return np.asarray(left > MIN_SIGHT * whole)

    def _swing(
        self,
        xyxy: npt.NDArray[np.float64],
        between: npt.NDArray[np.intp],
        row: npt.NDArray[np.intp],
        following: npt.NDArray[np.intp],
        frames: npt.NDArray[np.int64],
    ) -> None:
        """Width: legs swing several times a second, so what a box is wider than usual is forgotten in between."""
        since = (frames - self.frame_numbers[row]) / (self.fps * SWING_S)
        until = (self.frame_numbers[following] - frames) / (self.fps * SWING_S)
        whole = np.sinh(np.minimum(since + until, 50.0))
        shape = lambda rows: np.log((self.xyxy[rows, 2] - self.xyxy[rows, 0]) / (self.xyxy[rows, 3] - self.xyxy[rows, 1]))
        share = since / (since + until)
        usual = (1 - share) * self.shapes[row] + share * self.shapes[following]
        unusual = (shape(row) - self.shapes[row]) * np.sinh(np.minimum(until, 50.0)) + (
            shape(following) - self.shapes[following]
        ) * np.sinh(np.minimum(since, 50.0))
        boxes = xyxy[between]
        half = np.exp(usual + unusual / whole) * (boxes[:, 3] - boxes[:, 1]) / 2
        middle = (boxes[:, 0] + boxes[:, 2]) / 2
        xyxy[between, 0], xyxy[between, 2] = middle - half, middle + half

    def _move_on_pitch(
        self,
        xyxy: npt.NDArray[np.float64],
        between: npt.NDArray[np.intp],
        row: npt.NDArray[np.intp],
        following: npt.NDArray[np.intp],
        frames: npt.NDArray[np.int64],
        first: int,
        stop: int,
    ) -> None:
        span = (self.frame_numbers[following] - self.frame_numbers[row]).astype(np.float64)[:, None]
        weight = (frames - self.frame_numbers[row])[:, None] / span
        speeds = self.speeds.astype(np.float64) if len(self.speeds) < len(row) else self.speeds
        feet = hermite(weight, self.feet[row], self.feet[following], span * speeds[row], span * speeds[following])
        views = self.motion.at(np.arange(first, stop))[frames - first]
        seen = np.einsum("nij,nj->ni", views[:, :, :2], feet) + views[:, :, 2]
        with np.errstate(divide="ignore", invalid="ignore"):
            x, y = (seen[:, :2] / seen[:, 2:]).T
        known = np.isfinite(x) & np.isfinite(y) & (seen[:, 2] > 0)
        x, y, boxes = x[known], y[known], xyxy[between[known]]
        half, height = (boxes[:, 2] - boxes[:, 0]) / 2, boxes[:, 3] - boxes[:, 1]
        xyxy[between[known]] = np.stack([x - half, y - height, x + half, y], axis=1)


_NONE: Final = np.empty(0, np.int32)
_NOWHERE: Final = np.empty((0, 2), np.float32)
NO_TRACKS: Final = Tracks(
    _NONE, _NONE, np.empty(0, np.int8), np.empty((0, 4), np.float32), _NONE, _NOWHERE, _NOWHERE, np.empty(0, np.float32), NO_MOTION, 1.0
)

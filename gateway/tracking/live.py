"""One camera along time, looking back only: who is who now, of which class, and where on the pitch; bounded memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from gateway.detections import Detections, Floats
from gateway.tracking.byte_track import Ids
from gateway.tracking.keypoints import GROUNDS, TOLERANCE_CM
from gateway.tracking.people import People
from touchline.contract import BALL, CLASS_NAMES
from touchline.homography import keypoint_errors_cm, pitch_homography, project

VOTES_S: Final = 4.0
"""About so far back the classes of a track count."""
REMEMBERED_S: Final = 10.0
"""Votes of a track that was not seen for so long are forgotten."""
PITCH_S: Final = 2.0
"""So long the last homography stands while the pitch is not seen, or not looked for: it is every second, or sooner."""
_GROUND_HALF_S: Final = 30.0
"""Half of what was said for a ground so long ago counts."""
_FPS: Final = 1000
"""Frame numbers are milliseconds: cameras have no even steps."""
_NOMINAL_STEP: Final = 40
_BALLS: Final = 1

Homography = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Tracked:
    """The boxes of one frame and who they are."""

    detections: Detections
    """In pixels of the picture, best first."""
    ids: Ids
    """int64 [n]: from 1 on; 0 for a box without a track: the ball, and who is seen for the first time."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A frame's boxes, who they are, and where they stand."""

    tracks: Tracked
    homography: Homography | None
    """float64 [3, 3]: picture to pitch, cm; None where the pitch is not known."""
    positions: Floats
    """float32 [n, 2]: where the feet of each box stand, cm, of the ball its middle's foot too; NaN if not known."""


class LiveTracker:
    """Takes the frames of one camera in order and answers each at once. What it keeps does not grow."""

    def __init__(self, *, track_buffer: int, confidence: float, first_id: int = 1) -> None:
        """`track_buffer` in frames at 30 a second; ids begin with `first_id`."""
        self._people = People(fps=_FPS, frame_stride=_NOMINAL_STEP, track_buffer=track_buffer, confidence=confidence)
        self._confidence = confidence
        self._before = first_id - 1
        self.next_id = first_id
        self._votes = _Votes()
        self._pitch = _Pitch()
        self._at_ms = -1

    def update(self, at_s: float, detections: Detections, keypoints: Floats | None) -> Placed:
        """The boxes of the frame at `at_s` seconds, later than the one before.

        `keypoints`: float32 [32, 2] in pixels, (0, 0) where not seen; None where the pitch model did not look.
        """
        self._at_ms = max(self._at_ms + 1, round(at_s * _FPS))
        is_ball = detections.classes == BALL
        balls = np.flatnonzero(is_ball & (detections.scores >= self._confidence))[:_BALLS]
        named = self._people.update(self._at_ms, detections.only(~is_ball))
        known = (named.ids > 0) | (named.persons.scores >= self._confidence)
        persons, ids = named.persons.only(known), named.ids[known]
        ids = np.where(ids > 0, ids + self._before, 0)
        self.next_id = max(self.next_id, int(ids.max(initial=0)) + 1)
        classes = self._votes.counted(self._at_ms / _FPS, ids, persons)
        ball = detections.only(balls)
        boxes = Detections(
            np.concatenate([ball.xyxy, persons.xyxy]),
            np.concatenate([ball.scores, persons.scores]),
            np.concatenate([ball.classes, classes]),
        )
        ids = np.concatenate([np.zeros(len(ball), np.int64), ids])
        homography = self._pitch.seen(self._at_ms / _FPS, keypoints)
        return Placed(Tracked(boxes, ids), homography, _positions(boxes, homography))


class _Votes:
    """Of which class each track is, by the scores of the last seconds."""

    def __init__(self) -> None:
        self._of: dict[int, tuple[float, list[float]]] = {}

    def counted(self, at_s: float, ids: Ids, persons: Detections) -> npt.NDArray[np.int64]:
        """The classes int64 [n] of the persons of the frame at `at_s`, whose own classes count from now on."""
        classes = persons.classes.tolist()
        for index, (name, score) in enumerate(zip(ids.tolist(), persons.scores.tolist(), strict=True)):
            if not name:
                continue
            when, votes = self._of.pop(name, (at_s, [0.0] * len(CLASS_NAMES)))
            weight = math.exp((when - at_s) / VOTES_S)
            votes = [weight * vote for vote in votes]
            votes[classes[index]] += score
            classes[index] = votes.index(max(votes))
            self._of[name] = at_s, votes  # at the end: the first ones were not seen for the longest
        while self._of and at_s - next(iter(self._of.values()))[0] > REMEMBERED_S:
            del self._of[next(iter(self._of))]
        return np.array(classes, np.int64)


class _Pitch:
    """Where the pitch is now, by the newest frame that shows it, on the ground that fits the camera best."""

    def __init__(self) -> None:
        self._agreed = np.zeros(len(GROUNDS))
        self._tries = 0
        self._last: Homography | None = None
        self._last_s = self._counted_s = 0.0

    def seen(self, at_s: float, keypoints: Floats | None) -> Homography | None:
        if keypoints is not None:
            found = self._found(at_s, keypoints.astype(np.float64))
            if found is not None:
                self._last, self._last_s = found, at_s
        return self._last if self._last is not None and at_s - self._last_s <= PITCH_S else None

    def _found(self, at_s: float, points: npt.NDArray[np.float64]) -> Homography | None:
        likely = int(self._agreed.argmax())
        # Every ground at first, and now and then again: what a camera shows may change.
        self._tries += 1
        every = self._tries <= 16 or self._tries % 16 == 0
        homographies: dict[int, Homography | None] = {
            ground: pitch_homography(points, TOLERANCE_CM, GROUNDS[ground])
            for ground in (range(len(GROUNDS)) if every else (likely,))
        }
        if every:
            self._agreed *= 0.5 ** ((at_s - self._counted_s) / _GROUND_HALF_S)
            self._counted_s = at_s
            for ground, homography in homographies.items():
                if homography is not None:
                    errors = keypoint_errors_cm(homography, points, GROUNDS[ground])
                    self._agreed[ground] += np.count_nonzero(errors < TOLERANCE_CM / 2)
            likely = int(self._agreed.argmax())
        return homographies.get(likely)


def _positions(boxes: Detections, homography: Homography | None) -> Floats:
    """float32 [n, 2]: where the middle of each box's lower edge lies on the pitch, cm."""
    if homography is None:
        return np.full((len(boxes), 2), np.nan, np.float32)
    feet = np.stack([(boxes.xyxy[:, 0] + boxes.xyxy[:, 2]) / 2, boxes.xyxy[:, 3]], axis=1)
    return project(homography, feet.astype(np.float64)).astype(np.float32)

"""Tracks of one challenge, and the frames that were not inferred filled in along them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gateway.detections import Detections, Floats
from gateway.tracking.ball import MAX_SPEED, ball_flights, not_on_a_spot
from gateway.tracking.byte_track import ByteTrack, Ids
from gateway.tracking.keypoints import Keypoints
from gateway.tracking.overlap import Boxes, centres, diou, iou
from touchline.contract import BALL, CLASS_NAMES

BALL_ID = 0
"""The ball is one object; persons are numbered from 1."""
DUPLICATE_IOU = 0.7
"""Boxes of persons that overlap more are one person seen as two classes."""
MIN_DIOU = -0.3
"""Least DIoU of one person's boxes. Distance counts beside overlap: a runner in a narrow box soon leaves it."""
BALL_CANDIDATES = 5
"""Boxes a frame, the best ones, that may be the ball."""
FILL_GAP_S = 0.5
"""A track that comes back within this time is filled in between."""
_TRACK_BUFFER_FPS = 30.0
_FRAMES_AT_ONCE = 250
_SHIFT_RADIUS_PX = 6.0
_MAX_SHIFT_PX_PER_S = 1000.0
_NEAREST = 4
_CLEAR_SHARE = 0.7

Shift = npt.NDArray[np.float64]
_NO_SHIFT: Shift = np.zeros(2)


@dataclass(frozen=True, slots=True)
class TrackRows:
    """Boxes of some frames, ordered by frame and, in a frame, ball first: one row each."""

    frame_numbers: npt.NDArray[np.int64]
    ids: npt.NDArray[np.int64]
    classes: npt.NDArray[np.int64]
    xyxy: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Tracks:
    """Boxes of the inferred frames, ordered by track and, in a track, by frame: 29 bytes a row.

    The boxes of the frames between are computed when they are asked for.
    """

    frame_numbers: npt.NDArray[np.int32]
    ids: npt.NDArray[np.int32]
    classes: npt.NDArray[np.int8]
    xyxy: Floats
    lengths: npt.NDArray[np.int32]
    """Frames that a row answers: its own, and those up to the next row where the track is filled in between."""

    def rows(self, first: int, stop: int) -> TrackRows:
        """Boxes of the frames `first` to `stop` - 1: tracked ones as they are, those between on a line."""
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
        return TrackRows(
            frames[order], self.ids[row][order].astype(np.int64), self.classes[row][order].astype(np.int64), xyxy[order]
        )


_NONE = np.empty(0, np.int32)
_NO_TRACKS = Tracks(_NONE, _NONE, np.empty(0, np.int8), np.empty((0, 4), np.float32), _NONE)


@dataclass(frozen=True, slots=True)
class _Sample:
    """Boxes of one inferred frame that have a track."""

    number: int
    """Which inferred frame it is, counted from 0."""
    frame_number: int
    ids: Ids
    xyxy: Floats
    scores: Floats
    classes: npt.NDArray[np.int64]


class Tracker:
    """Takes the detections of inferred frames in frame order and gives the boxes of every frame."""

    def __init__(self, *, fps: float, width: int, frame_stride: int, track_buffer: int, confidence: float) -> None:
        """`width` of a frame in pixels, `track_buffer` in frames at 30 a second."""
        self._byte_track = ByteTrack(
            frame_rate=fps / frame_stride,
            lost_s=track_buffer / _TRACK_BUFFER_FPS,
            confidence=confidence,
            min_diou=MIN_DIOU,
        )
        self._confidence = confidence
        self._fill_gap = round(FILL_GAP_S * fps)
        self._samples: list[_Sample] = []
        self._ball_candidates: list[tuple[int, Detections]] = []
        self._named = BALL_ID
        """The largest id given so far."""
        self._unclaimed: tuple[Boxes, Detections] | None = None
        self._count = -1
        self._previous_frame = 0
        self._previous_centres = np.empty((2, 0))
        self._shift = self._camera = _NO_SHIFT
        self._fps, self._width = fps, width

    def update(self, frame_number: int, detections: Detections) -> None:
        """Take the detections of the next inferred frame; the distance to the last one may be any."""
        self._count += 1
        is_ball = detections.classes == BALL
        balls = detections.only(np.flatnonzero(is_ball)[:BALL_CANDIDATES])
        self._ball_candidates.append((frame_number, balls))
        persons = detections.only(~is_ball)
        boxes = _columns(persons.xyxy)
        keep = _best_of_duplicates(boxes)
        persons, boxes = persons.only(keep), boxes[:, keep]
        ids = self._associate(frame_number, boxes, persons.scores)
        tracked = ids > 0
        if len(ids) and ids.max() > self._named:
            self._give_back(boxes, ids)
            self._named = int(ids.max())
        self._take(self._count, frame_number, persons.only(tracked), ids[tracked])
        waiting = ~tracked & (persons.scores >= self._confidence)
        self._unclaimed = (boxes[:, waiting], persons.only(waiting)) if waiting.any() else None
        self._previous_frame = frame_number

    def finish(self, keypoints: Keypoints) -> Tracks:
        """The tracks so far. The keypoints say where no ball is to be believed."""
        ball, persons = self._ball(keypoints), self._persons()
        return Tracks(
            np.concatenate([ball.frame_numbers, persons.frame_numbers]),
            np.concatenate([ball.ids, persons.ids]),
            np.concatenate([ball.classes, persons.classes]),
            np.concatenate([ball.xyxy, persons.xyxy]),
            np.concatenate([ball.lengths, persons.lengths]),
        )

    def _ball(self, keypoints: Keypoints) -> Tracks:
        inferred = np.array([number for number, _ in self._ball_candidates], np.int64)
        numbers = np.repeat(inferred, [len(found) for _, found in self._ball_candidates])
        if not len(numbers):
            return _NO_TRACKS
        xyxy = np.concatenate([found.xyxy for _, found in self._ball_candidates])
        scores = np.concatenate([found.scores for _, found in self._ball_candidates])
        blocks = (slice(first, first + _FRAMES_AT_ONCE) for first in range(0, len(numbers), _FRAMES_AT_ONCE))
        free = [not_on_a_spot(xyxy[block], keypoints.at(numbers[block]), self._width) for block in blocks]
        open_play = np.concatenate(free)
        numbers, xyxy, scores = numbers[open_play], xyxy[open_play], scores[open_play]
        flights = ball_flights(
            numbers,
            xyxy,
            scores,
            reach=MAX_SPEED * self._width / self._fps,
            gap=max(self._fill_gap, int(np.diff(inferred).max(initial=0))),
            start_cost=self._confidence,
        )
        if not flights:
            return _NO_TRACKS
        chosen = np.concatenate(flights)
        lengths = np.concatenate([np.append(np.diff(numbers[flight]), 1) for flight in flights])
        count = len(chosen)
        ids, classes = np.full(count, BALL_ID, np.int32), np.full(count, BALL, np.int8)
        return Tracks(numbers[chosen].astype(np.int32), ids, classes, xyxy[chosen], lengths.astype(np.int32))

    def _persons(self) -> Tracks:
        if not self._samples:
            return _NO_TRACKS
        counts = [len(sample.ids) for sample in self._samples]
        numbers = np.repeat([sample.number for sample in self._samples], counts)
        frame_numbers = np.repeat([sample.frame_number for sample in self._samples], counts).astype(np.int32)
        ids = np.concatenate([sample.ids for sample in self._samples]).astype(np.int32)
        votes = np.zeros((self._named + 1, len(CLASS_NAMES)), np.float32)
        classes = np.concatenate([sample.classes for sample in self._samples])
        np.add.at(votes, (ids, classes), np.concatenate([sample.scores for sample in self._samples]))
        order = np.lexsort((numbers, ids))
        numbers, frame_numbers, ids = numbers[order], frame_numbers[order], ids[order]
        gaps = np.diff(frame_numbers)
        filled = (np.diff(ids) == 0) & ((gaps <= self._fill_gap) | (np.diff(numbers) <= 1))
        lengths = np.append(np.where(filled, gaps, 1), 1).astype(np.int32)
        xyxy = np.concatenate([sample.xyxy for sample in self._samples])[order]
        return Tracks(frame_numbers, ids, votes.argmax(axis=1)[ids].astype(np.int8), xyxy, lengths)

    def _associate(self, frame_number: int, boxes: Boxes, scores: Floats) -> Ids:
        """ByteTrack on boxes from which the camera's own movement is taken, so that a fast pan does not lose them."""
        reach = _MAX_SHIFT_PX_PER_S * (frame_number - self._previous_frame) / self._fps
        middles = centres(boxes)
        self._shift = camera_shift(self._previous_centres, middles, reach, self._shift)
        self._camera = self._camera + self._shift
        self._previous_centres = middles
        return self._byte_track.update(frame_number / self._fps, boxes - np.tile(self._camera, 2)[:, None], scores)

    def _give_back(self, boxes: Boxes, ids: Ids) -> None:
        """ByteTrack names a track when it is seen the second time: give a new one the box that began it."""
        if self._unclaimed is None:
            return
        before, first = self._unclaimed
        new = np.flatnonzero(ids > self._named)
        closeness = diou(boxes[:, new] - np.tile(self._shift, 2)[:, None], before)
        best = closeness.argmax(axis=1)
        close = closeness[np.arange(len(new)), best] >= MIN_DIOU
        self._take(self._count - 1, self._previous_frame, first.only(best[close]), ids[new[close]])

    def _take(self, number: int, frame_number: int, found: Detections, ids: Ids) -> None:
        if len(ids):
            self._samples.append(_Sample(number, frame_number, ids, found.xyxy, found.scores, found.classes))


def camera_shift(before: Boxes, after: Boxes, reach: float, last: Shift) -> Shift:
    """How far most boxes moved together, x and y in pixels: what a pan does to all of them at once.

    `before` and `after` are the centres of boxes, float64 [2, n] and [2, m], `last` is the shift found the last time;
    shifts longer than `reach` are not considered. Of the moves that take a box to one of its nearest successors the one
    is chosen that explains the most boxes, the shortest of several.
    """
    if min(before.shape[1], after.shape[1]) < 3:
        return _NO_SHIFT
    moves = after[:, None] - before[:, :, None]
    # A camera that rests, or pans on as it did, explains most boxes at once and spares the search.
    for guess in (_NO_SHIFT, last):
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
    return _median(moves[:, near[best]]) if explained[best] >= 3 else _NO_SHIFT


def _near(moves: npt.NDArray[np.float64], shifts: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Which of the moves, float64 [2, n, m], are about each of the shifts, float64 [2, k]: bool [k, n, m]."""
    x, y = (np.abs(moves[axis] - shifts[axis][:, None, None]) < _SHIFT_RADIUS_PX for axis in (0, 1))
    return np.asarray(x & y)


def _median(moves: npt.NDArray[np.float64]) -> Shift:
    """Of float64 [2, n], along n: np.median asks for many times the time of so few numbers."""
    ordered = np.sort(moves, axis=1)
    count = ordered.shape[1]
    return np.asarray((ordered[:, (count - 1) // 2] + ordered[:, count // 2]) / 2)


def _columns(xyxy: Floats) -> Boxes:
    return np.ascontiguousarray(xyxy.T, np.float64)


def _best_of_duplicates(boxes: Boxes) -> npt.NDArray[np.bool_]:
    """Bool [n]: which boxes no better one covers; they come best first."""
    better, worse = np.nonzero(iou(boxes, boxes) > DUPLICATE_IOU)
    keep = np.ones(boxes.shape[1], bool)
    keep[worse[better < worse]] = False
    return keep

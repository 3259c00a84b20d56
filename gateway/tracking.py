"""ByteTrack for one challenge, and the frames that were not inferred filled in along the tracks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import supervision as sv
from trackers import ByteTrackTracker, DIoU

from gateway.ball import MAX_SPEED, ball_flights, not_on_a_spot
from gateway.inference.outputs import Detections, Floats
from gateway.kalman import SharedCovarianceEstimator
from touchline.contract import BALL

BALL_ID = 0
"""The ball is one object; persons are numbered from 1."""
DUPLICATE_IOU = 0.7
"""Boxes of persons that overlap more are one person seen as two classes."""
MIN_DIOU = -0.3
"""Least DIoU (Zheng 2020: IoU less the squared centre distance over the squared enclosing diagonal) of one person."""
BALL_CANDIDATES = 5
"""Boxes a frame, the best ones, that may be the ball."""
FILL_GAP_S = 0.5
"""A track that comes back within this time is filled in between."""
_SHIFT_RADIUS_PX = 6.0
_MAX_SHIFT_PX_PER_S = 1000.0
_NEAREST = 4
_CLEAR_SHARE = 0.7


@dataclass(slots=True)
class _Track:
    frame_numbers: list[int] = field(default_factory=list)
    samples: list[int] = field(default_factory=list)
    """Which inferred frames they are, counted from 0."""
    boxes: list[Floats] = field(default_factory=list)
    votes: Floats = field(default_factory=lambda: np.zeros(4, np.float32))

    def add(self, frame: tuple[int, int], box: Floats, class_id: int, score: float) -> None:
        self.samples.append(frame[0])
        self.frame_numbers.append(frame[1])
        self.boxes.append(box)
        self.votes[class_id] += score


@dataclass(frozen=True, slots=True)
class Tracks:
    """Boxes of all frames, ordered by frame and, in a frame, ball first: one row each."""

    frame_numbers: npt.NDArray[np.int64]
    ids: npt.NDArray[np.int64]
    classes: npt.NDArray[np.int64]
    xyxy: npt.NDArray[np.float64]


_Piece = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]


class Tracker:
    """Takes the detections of inferred frames in frame order and gives the boxes of every frame."""

    def __init__(self, *, fps: float, width: int, frame_stride: int, track_buffer: int, confidence: float) -> None:
        """`width` of a frame in pixels, `track_buffer` in frames at 30 a second."""
        self._byte_track = ByteTrackTracker(
            lost_track_buffer=track_buffer,
            frame_rate=fps / frame_stride,
            track_activation_threshold=confidence,
            high_conf_det_threshold=confidence,
            minimum_consecutive_frames=1,
            # Distance counts beside overlap: a runner in a narrow box leaves it within a few frames.
            state_estimator_class=SharedCovarianceEstimator,
            iou=DIoU(),
            minimum_iou_threshold=MIN_DIOU,
        )
        self._confidence = confidence
        self._fill_gap = round(FILL_GAP_S * fps)
        self._tracks: dict[int, _Track] = {}
        self._ball_candidates: list[tuple[int, Detections]] = []
        self._unclaimed = sv.Detections.empty()
        self._sample = -1
        self._previous_frame = 0
        self._previous_boxes = np.empty((0, 4), np.float32)
        self._shift = self._camera = np.zeros(2)
        self._fps, self._width = fps, width

    def update(self, frame_number: int, detections: Detections) -> None:
        """Take the detections of the next inferred frame; the distance to the last one may be any."""
        self._sample += 1
        this = (self._sample, frame_number)
        balls = np.flatnonzero(detections.classes == BALL)[:BALL_CANDIDATES]
        self._ball_candidates.append(
            (frame_number, Detections(detections.xyxy[balls], detections.scores[balls], detections.classes[balls]))
        )
        persons = _without_duplicates(detections, detections.classes != BALL)
        tracked = self._associate(frame_number, persons)
        for box, score, class_id, track_id in zip(
            tracked.xyxy, tracked.confidence, tracked.class_id, tracked.tracker_id, strict=True
        ):
            if track_id < 0:
                continue
            if int(track_id) not in self._tracks:
                self._tracks[int(track_id)] = self._begin(box)
            self._tracks[int(track_id)].add(this, box, class_id, score)
        self._unclaimed = tracked[(tracked.tracker_id < 0) & (tracked.confidence >= self._confidence)]
        self._previous_frame = frame_number

    def finish(self, frame_count: int, keypoints: npt.NDArray[np.float64]) -> Tracks:
        """Boxes of the frames 0 to `frame_count` - 1: tracked ones as they are, those between interpolated.

        `keypoints` float64 [frame_count, 32, 2] in pixels, (0, 0) where not seen, say where no ball is to be believed.
        """
        pieces = self._ball_pieces(keypoints)
        pieces += [
            _filled(number, int(np.argmax(track.votes)), track, self._fill_gap)
            for number, track in enumerate(self._tracks.values(), start=BALL_ID + 1)
        ]
        if not pieces:
            empty = np.empty(0, np.int64)
            return Tracks(empty, empty, empty, np.empty((0, 4)))
        frame_numbers, ids, classes, xyxy = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
        order = np.lexsort((ids, frame_numbers))
        order = order[frame_numbers[order] < frame_count]
        return Tracks(frame_numbers[order], ids[order], classes[order], xyxy[order])

    def _ball_pieces(self, keypoints: npt.NDArray[np.float64]) -> list[_Piece]:
        inferred = np.array([number for number, _ in self._ball_candidates], np.int64)
        numbers = np.repeat(inferred, [len(found) for _, found in self._ball_candidates])
        if not len(numbers):
            return []
        xyxy = np.concatenate([found.xyxy for _, found in self._ball_candidates])
        scores = np.concatenate([found.scores for _, found in self._ball_candidates])
        free = not_on_a_spot(numbers, xyxy, keypoints, self._width)
        numbers, xyxy, scores = numbers[free], xyxy[free], scores[free]
        flights = ball_flights(
            numbers,
            xyxy,
            scores,
            reach=MAX_SPEED * self._width / self._fps,
            gap=max(self._fill_gap, int(np.diff(inferred).max(initial=0))),
            start_cost=self._confidence,
        )
        return [_every_frame(BALL_ID, BALL, numbers[flight], xyxy[flight].astype(np.float64)) for flight in flights]

    def _associate(self, frame_number: int, persons: sv.Detections) -> sv.Detections:
        """ByteTrack on boxes from which the camera's own movement is taken, so that a fast pan does not lose them."""
        reach = _MAX_SHIFT_PX_PER_S * (frame_number - self._previous_frame) / self._fps
        self._shift = camera_shift(self._previous_boxes, persons.xyxy, reach, self._shift)
        self._camera = self._camera + self._shift
        self._previous_boxes = persons.xyxy
        offset = np.tile(self._camera, 2).astype(np.float32)
        still = replace(persons, xyxy=persons.xyxy - offset)
        tracked = self._byte_track.update(still, timestamp=frame_number / self._fps)
        return replace(tracked, xyxy=tracked.xyxy + offset)

    def _begin(self, box: Floats) -> _Track:
        """A new track. ByteTrack names a track when it is seen the second time; the first time is given back here."""
        track = _Track()
        if len(self._unclaimed):
            first = self._unclaimed
            closeness = self._byte_track.iou.compute((box - np.tile(self._shift, 2))[None], first.xyxy)[0]
            best = int(np.argmax(closeness))
            if closeness[best] >= MIN_DIOU:
                before = (self._sample - 1, self._previous_frame)
                track.add(before, first.xyxy[best], int(first.class_id[best]), float(first.confidence[best]))
        return track


def camera_shift(before: Floats, after: Floats, reach: float, last: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """How far most boxes moved together, x and y in pixels: what a pan does to all of them at once.

    `before` and `after` are float32 [n, 4] and [m, 4], `last` is the shift found the last time; shifts longer than
    `reach` are not considered. Of the moves that
    take a box to one of its nearest successors the one is chosen that explains the most boxes, the shortest of several.
    """
    if len(before) < 3 or len(after) < 3:
        return np.zeros(2)
    moves = ((after[:, :2] + after[:, 2:]) / 2)[None] - ((before[:, :2] + before[:, 2:]) / 2)[:, None]
    # A camera that rests, or pans on as it did, explains most boxes at once and spares the search.
    for guess in (np.zeros(2), last):
        near = np.abs(moves - guess).max(axis=2) < _SHIFT_RADIUS_PX
        if near.any(axis=1).mean() > _CLEAR_SHARE:
            return np.asarray(np.median(moves[near], axis=0))
    lengths = np.hypot(moves[..., 0], moves[..., 1])
    nearest = np.argpartition(lengths, min(_NEAREST, lengths.shape[1] - 1), axis=1)[:, :_NEAREST]
    candidates = np.take_along_axis(moves, nearest[..., None], axis=1).reshape(-1, 2)
    candidates = np.concatenate([np.zeros((1, 2)), candidates[np.hypot(*candidates.T) <= reach]])
    apart = np.abs(moves[None] - candidates[:, None, None]).max(axis=3)
    explained = (apart.min(axis=2) < _SHIFT_RADIUS_PX).sum(axis=1)
    best = int(np.argmax(explained - 0.01 * np.hypot(*candidates.T)))
    return np.asarray(np.median(moves[apart[best] < _SHIFT_RADIUS_PX], axis=0)) if explained[best] >= 3 else np.zeros(2)


def _without_duplicates(detections: Detections, chosen: npt.NDArray[np.bool_]) -> sv.Detections:
    """The chosen detections less those that a better one covers; detections come best first."""
    xyxy = detections.xyxy[chosen]
    overlaps = np.triu(sv.box_iou_batch(xyxy, xyxy), k=1) if len(xyxy) else np.empty((0, 0))
    keep = ~(overlaps > DUPLICATE_IOU).any(axis=0) if len(xyxy) else np.empty(0, bool)
    return sv.Detections(
        xyxy=xyxy[keep], confidence=detections.scores[chosen][keep], class_id=detections.classes[chosen][keep]
    )


def _filled(track_id: int, class_id: int, track: _Track, fill_gap: int) -> _Piece:
    """One row for every frame from the first to the last of the track.

    Frames between two inferred ones that follow each other are always filled, losses of up to `fill_gap` frames too.
    """
    numbers = np.array(track.frame_numbers)
    every, ids, classes, xyxy = _every_frame(track_id, class_id, numbers, np.stack(track.boxes).astype(np.float64))
    after = np.searchsorted(numbers, every)
    gaps = np.diff(numbers, prepend=numbers[0])[after]
    skipped = np.diff(np.array(track.samples), prepend=track.samples[0])[after]
    kept = (gaps <= fill_gap) | (skipped <= 1) | (numbers[after] == every)
    return every[kept], ids[kept], classes[kept], xyxy[kept]


def _every_frame(
    track_id: int, class_id: int, numbers: npt.NDArray[np.int64], boxes: npt.NDArray[np.float64]
) -> _Piece:
    """One row for every frame from the first to the last of `numbers`, linear between them."""
    every = np.arange(numbers[0], numbers[-1] + 1)
    xyxy = np.stack([np.interp(every, numbers, boxes[:, column]) for column in range(4)], axis=1)
    return every, np.full(len(every), track_id), np.full(len(every), class_id), xyxy

"""Model outputs to detections and keypoints in source pixels."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from gateway.detections import Detections, Floats
from touchline.contract import BALL, KEYPOINT_COUNT, Letterbox

_EVERY = slice(None)


@dataclass(frozen=True, slots=True)
class Sight:
    """What the models said of a slot's frames: rows of the model contract, in input pixels.

    Frames of one slot may come from several sources: each source asks for its own rows, with its own letterbox.
    """

    player: Floats
    """float32 [N, K, 6]."""
    pitch: Floats
    """float32 [P, 32, 3]: of the first P frames."""
    ball: Floats | None
    """float32 [N, K, 6]; None where no ball model is served."""

    def detections(self, letterbox: Letterbox, *, min_score: float, rows: slice = _EVERY) -> list[Detections]:
        """Of the frames `rows`, the ball from a model of its own where there is one."""
        detections = detections_from_rows(self.player[rows], letterbox, min_score=min_score)
        if self.ball is None:
            return detections
        balls = detections_from_rows(self.ball[rows], letterbox, min_score=min_score)
        return [with_ball_model(*pair) for pair in zip(detections, balls, strict=True)]

    def keypoints(self, letterbox: Letterbox, *, min_confidence: float, rows: slice = _EVERY) -> Floats:
        """float32 [n, 32, 2] of those of the frames `rows` that the pitch model saw; (0, 0) is not seen."""
        return keypoints_from_rows(self.pitch[rows], letterbox, min_confidence=min_confidence)


def spread(rows: Floats, places: range, count: int) -> Floats:
    """Rows float32 [n, K, 6] of the frames at `places` to those of all `count` frames: nothing is seen elsewhere."""
    if len(rows) == count:
        return rows
    among = np.zeros((count, *rows.shape[1:]), np.float32)
    among[places.start : places.stop] = rows
    return among


def nobody(count: int) -> Floats:
    """Rows float32 [count, 0, 6] of frames that a model did not look at."""
    return np.empty((count, 0, 6), np.float32)


def detections_from_rows(rows: Floats, letterbox: Letterbox, *, min_score: float) -> list[Detections]:
    """Rows float32 [N, K, 6] of the model contract (input pixels, zero-padded) to the detections of N frames."""
    frames, places = np.nonzero((rows[..., 4] >= min_score) & (rows[..., 4] > 0))
    found = rows[frames, places]
    xyxy = letterbox.to_source(found[:, :4].reshape(-1, 2, 2)).reshape(-1, 4)
    visible = (xyxy[:, 2] > xyxy[:, 0]) & (xyxy[:, 3] > xyxy[:, 1])
    frames, found, xyxy = frames[visible], found[visible], xyxy[visible]
    scores, classes = found[:, 4], found[:, 5].astype(np.int64)
    ends = np.searchsorted(frames, np.arange(len(rows) + 1)).tolist()
    return [Detections(xyxy[a:b], scores[a:b], classes[a:b]) for a, b in itertools.pairwise(ends)]


def with_ball_model(detections: Detections, ball: Detections) -> Detections:
    """Take the ball from a model of its own and everything else from the player model."""
    others = detections.classes != BALL
    return Detections(
        np.concatenate([ball.xyxy, detections.xyxy[others]]),
        np.concatenate([ball.scores, detections.scores[others]]),
        np.concatenate([np.full(len(ball), BALL, np.int64), detections.classes[others]]),
    )


def keypoints_from_rows(rows: Floats, letterbox: Letterbox, *, min_confidence: float) -> Floats:
    """Rows float32 [N, 32, 3] of the model contract to float32 [N, 32, 2] in source pixels; (0, 0) is not seen.

    A point that the model puts on the padding or outside the frame is not seen either.
    """
    rows = rows.reshape(-1, KEYPOINT_COUNT, 3)  # for no frames there is no shape
    source = letterbox.to_source(rows[..., :2])
    inside = np.all(np.abs(letterbox.to_input(source) - rows[..., :2]) < 1.0, axis=-1)
    source[~(inside & (rows[..., 2] >= min_confidence))] = 0.0
    return source

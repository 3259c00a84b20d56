"""Model outputs to detections and keypoints in source pixels."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from touchline.contract import BALL, KEYPOINT_COUNT, Letterbox

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Detections:
    """Boxes of one frame, best first: xyxy float32 [n, 4] in source pixels, scores float32 [n], classes int64 [n]."""

    xyxy: Floats
    scores: Floats
    classes: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.scores)

    def only(self, chosen: npt.NDArray[np.bool_ | np.intp]) -> Detections:
        """Those that a mask, or indices, choose."""
        return Detections(self.xyxy[chosen], self.scores[chosen], self.classes[chosen])


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

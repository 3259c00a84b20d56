"""What a validator's code sees in a picture: painted lines on the grass, and whether it is a view of a pitch at all.

Source: the subnet's public validator, validator/evaluation/keypoint_scoring.py (the lines) and
validator/utils/frame_filter.py (the pitch). The numbers are its own; they make no good detector, but the one that pays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

PITCH: Final = 0.7
"""From this `pitch` on, a picture is asked about: the validator's second judge, CLIP, may still refuse it."""

_GRASS: Final = ((35, 40, 40), (85, 255, 255))
_CROWD_PX: Final = 80
_CROWD: Final = 80
_SAMPLES: Final = 30
_BORDER_PX: Final = 3
_LINES_OF_A_PITCH_PX: Final = 4500.0

Picture = npt.NDArray[np.uint8]
"""uint8 [height, width, 3], BGR."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What is seen in one picture."""

    segments: npt.NDArray[np.float64]
    """float64 [n, 4]: x1, y1, x2, y2 in pixels."""
    pitch: float
    """0 to 1: how much grass and how many lines."""


def look(picture: Picture) -> Sight:
    """See a picture, uint8 [height, width, 3] BGR, as the validator does."""
    return Sight(pitch_segments(picture), pitch_score(picture))


def pitch_segments(picture: Picture) -> npt.NDArray[np.float64]:
    """Straight pieces of what is brighter than its surroundings on grass: float64 [n, 4], in pixels."""
    height, width = picture.shape[:2]
    grass = grass_mask(picture)
    segments = _on_grass(
        cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), grass, scale=1.0, blur=5, votes=30, step=np.pi / 360
    )
    middles = (segments[:, :2] + segments[:, 2:]) // 2
    inner = (middles >= _BORDER_PX) & (middles < (width - _BORDER_PX, height - _BORDER_PX))
    return _without_crowds(segments[inner.all(axis=1)]).astype(np.float64)


def segments_of_scaled(frame: Picture, scale: float) -> npt.NDArray[np.float32]:
    """About the same in an RGB frame, uint8 [height, width, 3], that is `scale` times as large as the picture.

    float32 [n, 4] in shares of width and height. Lines are thinner here, so they are blurred less; and what is barely
    seen here may not be seen there, so they have to be longer. Directions are told apart by a whole degree, which takes
    half of the time.
    """
    height, width = frame.shape[:2]
    hsv = cv2.cvtColor(frame, cv2.COLOR_RGB2HSV)
    grass = np.asarray(cv2.inRange(hsv, *map(np.array, _GRASS)), np.uint8)
    segments = _on_grass(
        cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), grass, scale=scale, blur=3, votes=35, step=np.pi / 180
    )
    return np.asarray(segments / np.array([width, height, width, height]), np.float32)


def _on_grass(
    grey: npt.NDArray[np.uint8], grass: npt.NDArray[np.uint8], *, scale: float, blur: int, votes: int, step: float
) -> npt.NDArray[np.int64]:
    """int64 [n, 4] in pixels, of a picture that is `scale` times as large as the validator's."""
    opening, hat = max(2, round(5 * scale)), round(31 * scale) | 1
    grass = np.asarray(cv2.morphologyEx(grass, cv2.MORPH_OPEN, np.ones((opening, opening), np.uint8)), np.uint8)
    bright = cv2.morphologyEx(grey, cv2.MORPH_TOPHAT, cv2.getStructuringElement(cv2.MORPH_RECT, (hat, hat)))
    white = cv2.bitwise_and(cv2.threshold(bright, 30, 255, cv2.THRESH_BINARY)[1], grass)
    edges = cv2.Canny(cv2.GaussianBlur(white, (blur, blur), 0), 30, 100)
    segments = _segments(
        cv2.HoughLinesP(edges, 1, step, max(5, round(votes * scale)), minLineLength=10 * scale, maxLineGap=15 * scale)
    )
    # All of a piece lies on grass, at 30 points that are cut to whole pixels.
    along = np.linspace(0, 1, _SAMPLES)[:, None, None]
    points = (segments[:, :2] + along * (segments[:, 2:] - segments[:, :2])).astype(int)
    return np.asarray(segments[(grass[points[..., 1], points[..., 0]] > 0).all(axis=0)], np.int64)


def pitch_score(picture: Picture) -> float:
    """0 to 1: 0.3 x the share of grass + 0.7 x the length of its lines over 4500 px, less 0.29 for a close-up.

    The validator reads the picture from a JPEG of OpenCV's usual quality, so it is made one here.
    """
    decoded = np.asarray(cv2.imdecode(cv2.imencode(".jpg", picture)[1], cv2.IMREAD_COLOR), np.uint8)
    grass = grass_mask(decoded)
    field = cv2.morphologyEx(grass, cv2.MORPH_OPEN, np.ones((10, 10), np.uint8))
    for outline in cv2.findContours(field, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]:
        if cv2.contourArea(outline) > 5000:
            filled = cv2.drawContours(np.zeros_like(grass), [outline], -1, 255, cv2.FILLED) > 0
            if (grass[filled] > 0).mean() < 0.5:
                cv2.drawContours(field, [outline], -1, 0, cv2.FILLED)
    grey = cv2.cvtColor(decoded, cv2.COLOR_BGR2GRAY)
    edges = cv2.Canny(cv2.bitwise_and(grey, grey, mask=field), 50, 150)
    segments = _segments(cv2.HoughLinesP(edges, 1, np.pi / 360, 50, minLineLength=50, maxLineGap=8))
    lengths = np.hypot(*(segments[:, 2:] - segments[:, :2]).T)
    length = 0.0 if _is_net(segments, lengths) else float(lengths.sum())
    score = min(1.0, 0.3 * float((field > 0).mean()) + 0.7 * length / _LINES_OF_A_PITCH_PX)
    return max(0.0, score - 0.29 * _is_close_up(grass))


def grass_mask(picture: Picture) -> npt.NDArray[np.uint8]:
    """Where the validator's code sees grass: uint8 [height, width], 255 there and 0 elsewhere."""
    mask = cv2.inRange(cv2.cvtColor(picture, cv2.COLOR_BGR2HSV), np.array(_GRASS[0]), np.array(_GRASS[1]))
    return np.asarray(mask, np.uint8)


def _segments(found: npt.NDArray[np.int32] | None) -> npt.NDArray[np.int64]:
    """int64 [n, 4] of what HoughLinesP gives."""
    segments = np.empty((0, 4)) if found is None else found.reshape(-1, 4)
    return np.asarray(segments, np.int64)


def _without_crowds(segments: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Drop those with more than 80 middles within 80 px each way, their own included."""
    middles = (segments[:, :2] + segments[:, 2:]) / 2
    near = (np.abs(middles[:, None] - middles[None]) < _CROWD_PX).all(axis=2)
    return np.asarray(segments[near.sum(axis=1) <= _CROWD], np.int64)


def _is_net(segments: npt.NDArray[np.int64], lengths: npt.NDArray[np.float64]) -> bool:
    """Whether many short or equal pieces run both across and upright, as in the net of a goal."""
    if len(segments) < 15:
        return False
    across, down = np.abs(segments[:, 2:] - segments[:, :2]).T
    angles = np.degrees(np.arctan2(down, across))
    is_grid = (angles > 80).sum() > 15 and (angles < 10).sum() > 15
    return bool(is_grid and (lengths.mean() < 50 or lengths.std() < 10))


def _is_close_up(grass: npt.NDArray[np.uint8]) -> bool:
    """Whether more than four fifths of a fortieth along every border is grass."""
    high, wide = (int(side * 0.025) for side in grass.shape)
    borders = grass[:high], grass[-high:], grass[:, :wide], grass[:, -wide:]
    return all(bool(border.size) and (border > 0).mean() > 0.8 for border in borders)

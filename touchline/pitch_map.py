"""The pitch seen from above, with the objects of one frame on it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
import supervision as sv

from touchline.contract import BALL
from touchline.drawing import (
    AGREEING,
    CLASS_COLOURS,
    INK,
    FrameView,
    Picture,
    draw_dot,
    draw_lines,
    write,
)
from touchline.homography import project
from touchline.pitch import KEYPOINTS_CM, LENGTH_CM, LINES_CM, PENALTY_SPOTS_CM, WIDTH_CM, centre_circle

_MARGIN_CM: Final = 500
_GRASS: Final = sv.Color.from_hex("#14532D")
_CHALK: Final = sv.Color.from_hex("#86A893")
_FIELD_OF_VIEW_OPACITY: Final = 0.12
_FASTEST_CM_A_FRAME: Final = 150.0
"""A longer step is a jump of the homography or of an id, no run: 37 m/s at 25 frames a second."""
_NEAREST_HORIZON: Final = 0.05


@dataclass(frozen=True, slots=True)
class Trail:
    """Where one track stood in the frames up to this one, oldest first."""

    class_id: int
    points: npt.NDArray[np.float64]
    """float64 [n, 2] in cm, NaN where unknown."""


class Paths:
    """The way of every track over the pitch, from the frames by number."""

    def __init__(self, views: Mapping[int, FrameView]) -> None:
        steps: defaultdict[int, list[tuple[int, int, npt.NDArray[np.float64]]]] = defaultdict(list)
        for number, view in sorted(views.items()):
            for track, class_id, point in zip(
                view.answer.ids.tolist(), view.answer.classes.tolist(), view.ground, strict=True
            ):
                steps[track].append((number, class_id, point))
        self._paths = {
            track: (path[-1][1], np.array([step[0] for step in path]), np.array([step[2] for step in path]))
            for track, path in steps.items()
        }

    def trails(self, view: FrameView, frames: int) -> list[Trail]:
        """Where the tracks of a frame stood during so many frames before it."""
        last = view.answer.frame_number
        trails = []
        for track in view.answer.ids.tolist():
            class_id, numbers, points = self._paths[track]
            start, stop = np.searchsorted(numbers, [last - frames, last + 1])
            trails.append(Trail(class_id, points[start:stop]))
        return trails


def map_size(width: int) -> tuple[int, int]:
    """Width and height in pixels of a map of that width."""
    return width, round(width * (WIDTH_CM + 2 * _MARGIN_CM) / (LENGTH_CM + 2 * _MARGIN_CM))


def draw_map(width: int, view: FrameView | None, trails: list[Trail], source_size: tuple[int, int]) -> Picture:
    """The pitch from above, uint8 [height, width, 3]: field of view, keypoints in use, trails and objects.

    source_size: width and height of the frame, in the pixels that the view's homography maps from.
    """
    picture = _empty_pitch(width).copy()
    if view is None or view.homography is None:
        _draw_notice(picture, "not answered" if view is None else "pitch not found")
        return picture
    _draw_field_of_view(picture, view.homography, source_size)
    for point in KEYPOINTS_CM[view.agreeing]:
        draw_dot(picture, _pixels(point, width), max(1.5, width / 220), AGREEING)
    for trail in trails:
        _draw_trail(picture, trail)
    # The ball last: it is the smallest and the one that is looked for.
    for index in np.argsort(view.answer.classes == BALL, kind="stable"):
        if np.isfinite(view.ground[index]).all():
            is_ball = view.answer.classes[index] == BALL
            radius = max(2.5, width / (120 if is_ball else 90))
            draw_dot(picture, _pixels(view.ground[index], width), radius, CLASS_COLOURS[view.answer.classes[index]])
    return picture


@lru_cache(maxsize=4)
def _empty_pitch(width: int) -> Picture:
    picture: Picture = np.full((*map_size(width)[::-1], 3), _GRASS.as_bgr(), np.uint8)
    lines = [np.array(line, np.float64) for line in LINES_CM] + [centre_circle()]
    draw_lines(picture, [_pixels(line, width) for line in lines], _CHALK, thickness=1 if width < 480 else 2)
    for spot in PENALTY_SPOTS_CM:
        x, y = _pixels(np.array(spot), width).round().astype(int).tolist()
        cv2.circle(picture, (x, y), 2, _CHALK.as_bgr(), cv2.FILLED, cv2.LINE_AA)
    return picture


def _pixels(points_cm: npt.NDArray[np.float64], width: int) -> npt.NDArray[np.float64]:
    """Map points float64 [..., 2] from cm to pixels of a map of that width, held near the map."""
    pixels = (points_cm + _MARGIN_CM) * width / (LENGTH_CM + 2 * _MARGIN_CM)
    return np.asarray(np.clip(pixels, -4 * width, 5 * width), np.float64)


def _draw_notice(picture: Picture, text: str) -> None:
    picture //= 2
    size = max(14, picture.shape[1] // 22)
    width = write(picture.copy(), text, (0, 0), size, weight=500)
    write(picture, text, ((picture.shape[1] - width) // 2, (picture.shape[0] + size // 2) // 2), size, weight=500)


def _draw_field_of_view(picture: Picture, homography: npt.NDArray[np.float64], source_size: tuple[int, int]) -> None:
    width, height = source_size
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float64)
    ground = project(homography, _below_horizon(corners, homography[2]))
    if len(ground) < 3:
        return
    overlay = picture.copy()
    cv2.fillPoly(overlay, [_pixels(ground, picture.shape[1]).round().astype(np.int32)], INK.as_bgr(), cv2.LINE_AA)
    cv2.addWeighted(overlay, _FIELD_OF_VIEW_OPACITY, picture, 1 - _FIELD_OF_VIEW_OPACITY, 0, dst=picture)


def _below_horizon(polygon: npt.NDArray[np.float64], horizon: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The part of a polygon [n, 2] where horizon . (x, y, 1) >= a little: one step of Sutherland and Hodgman."""
    depths = polygon @ horizon[:2] + horizon[2] - _NEAREST_HORIZON
    kept = []
    for here, there, near, far in zip(polygon, np.roll(polygon, -1, axis=0), depths, np.roll(depths, -1), strict=True):
        if near >= 0:
            kept.append(here)
        if (near >= 0) != (far >= 0):
            kept.append(here + (there - here) * near / (near - far))
    return np.array(kept).reshape(-1, 2)


def _draw_trail(picture: Picture, trail: Trail) -> None:
    steps = np.linalg.norm(np.diff(trail.points, axis=0), axis=1)
    pixels = _pixels(trail.points, picture.shape[1])
    colour = _mixed(CLASS_COLOURS[trail.class_id], _GRASS)
    walked = np.flatnonzero(np.nan_to_num(steps, nan=np.inf) < _FASTEST_CM_A_FRAME)
    draw_lines(picture, [pixels[step : step + 2] for step in walked], colour)


def _mixed(one: sv.Color, other: sv.Color) -> sv.Color:
    return sv.Color((one.r + other.r) // 2, (one.g + other.g) // 2, (one.b + other.b) // 2)

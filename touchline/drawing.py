"""One frame's answer drawn over its picture: boxes, labels, keypoints and the pitch lines they imply."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

import cv2
import numpy as np
import numpy.typing as npt
import supervision as sv

from touchline.answer import FrameAnswer
from touchline.contract import BALL, CLASS_NAMES, PLAYER
from touchline.homography import TOLERANCE_CM, keypoint_errors_cm, pitch_homography, project
from touchline.pitch import LINES_CM, centre_circle

Picture = npt.NDArray[np.uint8]
"""uint8 [height, width, 3], BGR."""

CLASS_COLOURS: Final = tuple(map(sv.Color.from_hex, ("#FDE047", "#FB923C", "#38BDF8", "#C084FC")))
"""One colour a class, told apart on grass and by colour-blind eyes: yellow, orange, sky blue, violet."""
AGREEING: Final = sv.Color.from_hex("#4ADE80")
DISAGREEING: Final = sv.Color.from_hex("#F43F5E")
"""Keypoints that fit the frame's homography, and those that do not (or where there is none)."""
INK: Final = sv.Color.from_hex("#F1F5F9")
FAINT_INK: Final = sv.Color.from_hex("#94A3B8")
PAPER: Final = sv.Color.from_hex("#0F172A")

# OpenCV 5 carries this variable-weight font in its library, so the pictures look the same on a machine without fonts.
_FONT: Final = cv2.FontFace("sans")
_FRACTION_BITS: Final = 4
_LINE_OPACITY: Final = 0.4
# Points farther from the picture than this, in pixels, only overflow OpenCV's fixed-point coordinates.
_FAR: Final = 1e5


@dataclass(frozen=True, slots=True)
class FrameView:
    """A frame's answer with the geometry that follows from its keypoints."""

    answer: FrameAnswer
    homography: npt.NDArray[np.float64] | None
    """float64 [3, 3], source pixels to pitch cm: see pitch_homography."""
    ground: npt.NDArray[np.float64]
    """float64 [n, 2]: where each object stands, in pitch cm; NaN without a homography or above the horizon."""
    agreeing: npt.NDArray[np.bool_]
    """bool [32]: seen keypoints that fit the homography."""

    @classmethod
    def of(cls, answer: FrameAnswer) -> FrameView:
        homography = pitch_homography(answer.keypoints)
        feet = np.stack([answer.boxes[:, [0, 2]].mean(axis=1), answer.boxes[:, 3]], axis=1)
        if homography is None:
            return cls(answer, None, np.full((len(feet), 2), np.nan), np.zeros(len(answer.keypoints), np.bool_))
        agreeing = np.nan_to_num(keypoint_errors_cm(homography, answer.keypoints), nan=np.inf) <= TOLERANCE_CM
        return cls(answer, homography, project(homography, feet), agreeing)


def draw_answer(picture: Picture, view: FrameView, scale: float) -> None:
    """Draw a frame's answer onto its picture, which is the source frame enlarged by scale."""
    if view.homography is not None:
        _draw_pitch_lines(picture, view.homography @ np.diag([1 / scale, 1 / scale, 1]))
    _draw_keypoints(picture, view, scale)
    draw_objects(picture, view.answer, scale)


def draw_objects(picture: Picture, answer: FrameAnswer, scale: float) -> None:
    """Draw a frame's boxes and who they are; a track of 0 is nobody known yet."""
    if not len(answer.boxes):
        return
    boxes = answer.boxes * np.float32(scale)
    classes, ids = answer.classes.tolist(), answer.ids.tolist()
    for (left, top, right, bottom), class_id in zip(boxes.astype(int).tolist(), classes, strict=True):
        cv2.rectangle(picture, (left, top), (right, bottom), CLASS_COLOURS[class_id].as_bgr(), thickness=2)
    middles = ((boxes[:, 0] + boxes[:, 2]) / 2).astype(int).tolist()
    for middle, top, class_id, track in zip(middles, boxes[:, 1].astype(int).tolist(), classes, ids, strict=True):
        _paste(picture, _label_picture(_label(class_id, track), class_id), (middle, top))


@dataclass(frozen=True, slots=True)
class _Pasted:
    """A small picture that lies over a larger one where `mask`, uint8 [h, w], is not 0."""

    picture: Picture
    mask: npt.NDArray[np.uint8]
    offset: tuple[int, int]
    """Of its left upper corner to the place that it belongs to, in pixels."""


@lru_cache(maxsize=1024)
def _label_picture(text: str, class_id: int) -> _Pasted:
    """A label over the middle of a box's upper edge. Made once: most are the same from frame to frame."""
    annotator = sv.LabelAnnotator(
        color=CLASS_COLOURS[class_id],
        text_color=PAPER,
        text_scale=0.4,
        text_padding=3,
        text_position=sv.Position.TOP_CENTER,
        border_radius=3,
    )
    # Twice, as what differs then is not the label's.
    black, white = (np.full((64, 320, 3), shade, np.uint8) for shade in (0, 255))
    x, y = 160, 32
    here = sv.Detections(xyxy=np.array([[x, y, x, y + 1]], np.float32), class_id=np.array([class_id]))
    for canvas in (black, white):
        annotator.annotate(canvas, here, labels=[text])
    inside = (black == white).all(axis=2)
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    cut = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return _Pasted(black[cut].copy(), inside[cut].astype(np.uint8), (int(columns[0]) - x, int(rows[0]) - y))


def _paste(picture: Picture, pasted: _Pasted, at: tuple[int, int]) -> None:
    """As much of it as lies inside the picture."""
    left, top = (place + offset for place, offset in zip(at, pasted.offset, strict=True))
    height, width = pasted.mask.shape
    rows = slice(max(0, -top), min(height, picture.shape[0] - top))
    columns = slice(max(0, -left), min(width, picture.shape[1] - left))
    if rows.start < rows.stop and columns.start < columns.stop:
        below = picture[top + rows.start : top + rows.stop, left + columns.start : left + columns.stop]
        cv2.copyTo(pasted.picture[rows, columns], pasted.mask[rows, columns], below)


def write(
    picture: Picture,
    text: str,
    at: tuple[int, int],
    size: int,
    colour: sv.Color = INK,
    *,
    weight: int = 400,
    align: Literal["left", "right"] = "left",
) -> int:
    """Write one line, its baseline starting (or ending) at a pixel; returns its width in pixels.

    size: the font's height in pixels. weight: 100 to 900, where 400 is regular.
    """
    width = int(cv2.getTextSize((0, 0), text, (0, 0), _FONT, size, weight)[2])
    left = at[0] - width if align == "right" else at[0]
    cv2.putText(picture, text, (left, at[1]), colour.as_bgr(), _FONT, size, weight)
    return width


def draw_lines(
    picture: Picture, lines: list[npt.NDArray[np.float64]], colour: sv.Color, thickness: int = 1, closed: bool = False
) -> None:
    """Draw polylines float64 [n, 2] in pixels, smooth and placed to a sixteenth of a pixel."""
    fixed = [np.round(line * 2**_FRACTION_BITS).astype(np.int32) for line in lines]
    cv2.polylines(picture, fixed, closed, colour.as_bgr(), thickness, cv2.LINE_AA, _FRACTION_BITS)


def draw_dot(picture: Picture, at: npt.NDArray[np.float64], radius: float, colour: sv.Color) -> None:
    """Draw a filled circle round a point float64 [2] in pixels, with a dark rim that lifts it off its background."""
    centre = tuple(np.round(at * 2**_FRACTION_BITS).astype(int).tolist())
    for size, fill in ((radius + 1.2, PAPER), (radius, colour)):
        fixed = round(size * 2**_FRACTION_BITS)
        cv2.circle(picture, centre, fixed, fill.as_bgr(), cv2.FILLED, cv2.LINE_AA, _FRACTION_BITS)


def _draw_pitch_lines(picture: Picture, homography: npt.NDArray[np.float64]) -> None:
    overlay = picture.copy()
    # Inverting keeps the sign: ground in front of the camera has a positive third coordinate here as well.
    to_picture = np.asarray(np.linalg.inv(homography), np.float64)
    runs = [run for line in _pitch_lines() for run in _visible_runs(project(to_picture, line))]
    draw_lines(overlay, runs, INK, thickness=2)
    cv2.addWeighted(overlay, _LINE_OPACITY, picture, 1 - _LINE_OPACITY, 0, dst=picture)


def _pitch_lines() -> list[npt.NDArray[np.float64]]:
    """Every painted line as a polyline in cm, fine enough to be cut at the camera's horizon."""
    return [*(np.linspace(start, end, 61) for start, end in LINES_CM), centre_circle()]


def _visible_runs(line: npt.NDArray[np.float64]) -> list[npt.NDArray[np.float64]]:
    """Cut a polyline [n, 2] where it leaves the drawable plane."""
    drawable = np.nan_to_num(np.abs(line).max(axis=1), nan=np.inf) < _FAR
    cuts = np.flatnonzero(np.diff(drawable.astype(np.int8))) + 1
    return [run for run, keep in zip(np.split(line, cuts), np.split(drawable, cuts), strict=True) if keep[0]]


def _draw_keypoints(picture: Picture, view: FrameView, scale: float) -> None:
    for group, colour in ((view.agreeing, AGREEING), (view.answer.seen & ~view.agreeing, DISAGREEING)):
        points = (view.answer.keypoints * scale)[None].astype(np.float32)
        shown = sv.KeyPoints(xy=points, visible=group[None])
        beside = sv.KeyPoints(xy=points + np.array([11, -10], np.float32), visible=group[None])
        sv.VertexAnnotator(color=colour, radius=4).annotate(picture, shown)
        sv.VertexLabelAnnotator(
            color=PAPER, text_color=colour, text_scale=0.38, text_padding=2, border_radius=3
        ).annotate(picture, beside, labels=[str(number) for number in range(1, points.shape[1] + 1)])


def _label(class_id: int, track: int) -> str:
    """Players are many and stand close: their colour says what they are, their label only who."""
    if class_id == PLAYER:
        return str(track or "?")
    return CLASS_NAMES[class_id] if class_id == BALL or not track else f"{track} {CLASS_NAMES[class_id]}"

"""One picture for each line that costs points: the frame that loses the most by it, on a contact sheet.

Of footage only what is answered is drawn: its pictures belong to others.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from touchline.answer import FrameAnswer
from touchline.atomic_file import replacing
from touchline.contract import KEYPOINT_COUNT, PLAYER
from touchline.drawing import Picture
from touchline.pitch import KEYPOINTS_CM, LENGTH_CM, WIDTH_CM
from touchline.pitch_lines import Sight
from touchline.render import pictures, probe
from touchline.score import (
    MAX_STEP_PX,
    Score,
    distance_change,
    fit_pitch,
    is_walk,
    line_distances,
    players,
    steadiness_of,
)

OF_A_FRAME: Final = {"on lines": "on_lines", "homography": "fit", "inside": "inside", "scene stability": "steady"}
"""Lines that a frame has by itself, and what FrameScore calls them."""
LINES: Final = ("on lines", "homography", "inside", "stability", "scene stability", "motion")
LEAST_LOST: Final = 0.1
"""Points of 100: a line that loses less has no picture."""
FAR: Final = 0.01
"""Of a keypoint from a line, in shares of the picture: it costs."""
TILE_WIDTH: Final = 640
CAPTION_HEIGHT: Final = 24
SHEET_BYTES: Final = 280_000
RED, YELLOW, WHITE, GRASS = (0, 0, 255), (0, 255, 255), (255, 255, 255), (60, 96, 56)

Points = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scored:
    """A clip's answer and what it earns."""

    name: str
    video: Path
    size: tuple[int, int]
    said: Mapping[int, FrameAnswer]
    sights: Mapping[int, Sight]
    score: Score
    shown: bool
    """Whether the picture itself may stand in a document: footage belongs to others."""


@dataclass(frozen=True, slots=True)
class Worst:
    """The frame that loses the most by a line."""

    share: float
    clip: Scored
    number: int

    @property
    def answer(self) -> FrameAnswer:
        return self.clip.said[self.number]


def remember(worst: dict[str, Worst], clip: Scored) -> None:
    """Keep the frame that loses the most by each line that costs this clip anything."""
    lost = {part.name: part.lost for part in clip.score.parts}
    for line in LINES:
        shares = {number: share for number, share in _shares(line, clip).items() if number in clip.sights}
        if lost[line] < LEAST_LOST or not shares:
            continue
        number = min(shares, key=lambda one: shares[one])
        if line not in worst or shares[number] < worst[line].share:
            worst[line] = Worst(shares[number], clip, number)


def contact_sheet(worst: Mapping[str, Worst], file: Path) -> None:
    """Write a JPEG of at most SHEET_BYTES with a picture for each line of `worst`, two in a row."""
    tiles = [_captioned(_tile(worst[line], line), worst[line], line) for line in LINES if line in worst]
    if not tiles:
        return
    height = max(len(tile) for tile in tiles)
    tiles = [cv2.copyMakeBorder(tile, 0, height - len(tile), 0, 0, cv2.BORDER_CONSTANT) for tile in tiles]
    tiles += [np.zeros_like(tiles[0])] * (len(tiles) % 2)
    sheet = np.concatenate([np.concatenate(pair, axis=1) for pair in zip(tiles[::2], tiles[1::2], strict=True)])
    for quality in range(85, 20, -5):
        data = cv2.imencode(".jpg", sheet, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        if len(data) <= SHEET_BYTES:
            break
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as part:
        part.write_bytes(data)


def _before(line: str, said: Mapping[int, FrameAnswer]) -> dict[int, FrameAnswer]:
    """Of each frame the one before; for stability in the order of their numbers as text."""
    order = sorted(said, key=str) if line == "stability" else sorted(said)
    return {here: said[before] for before, here in itertools.pairwise(order)}


def _shares(line: str, clip: Scored) -> dict[int, float]:
    """What each frame has of a line, 0 to 1, by number."""
    if line in OF_A_FRAME:
        values = {frame.number: getattr(frame, OF_A_FRAME[line]) for frame in clip.score.frames}
        return {number: value for number, value in values.items() if not math.isnan(value)}
    of_two = _kept_apart if line == "stability" else _still_or_running
    before = _before(line, clip.said)
    return {number: of_two(before[number], answer) for number, answer in clip.said.items() if number in before}


def _kept_apart(before: FrameAnswer, here: FrameAnswer) -> float:
    """What two frames have of the line `stability`."""
    change = distance_change(before.keypoints, here.keypoints)
    return 1.0 if change is None else steadiness_of(change)


def _still_or_running(before: FrameAnswer, here: FrameAnswer) -> float:
    """What the players' steps earn: score.py's line `motion` without the share of jumps."""
    steps = _steps_px(before, here)
    known = steps[np.isfinite(steps)].tolist()
    return 1 - sum(map(is_walk, known)) / 2 / len(known) if known else 1.0


def _steps_px(before: FrameAnswer, here: FrameAnswer) -> Points:
    """How far the box of each player of `here` moved, float64 [n]; NaN for others and who was not there."""
    earlier, now = players(before), players(here)
    steps = {who: float(np.linalg.norm(now[who] - earlier[who])) for who in now.keys() & earlier.keys()}
    rows = zip(here.ids.tolist(), (here.classes == PLAYER).tolist(), strict=True)
    return np.array([steps.get(who, math.nan) if mine else math.nan for who, mine in rows])


def _captioned(picture: Picture, worst: Worst, line: str) -> Picture:
    told = f"{line}: {worst.share:.2f} of 1 in frame {worst.number} of {worst.clip.name}"
    strip = np.zeros((CAPTION_HEIGHT, picture.shape[1], 3), np.uint8)
    cv2.putText(strip, told, (6, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.5, WHITE, 1, cv2.LINE_AA)
    return np.concatenate([strip, picture])


def _tile(worst: Worst, line: str) -> Picture:
    ((_, picture),) = pictures(probe(worst.clip.video), TILE_WIDTH, frozenset({worst.number}))
    if not worst.clip.shown:
        picture[:] = GRASS
        _draw_boxes(picture, worst.answer.boxes * TILE_WIDTH / worst.clip.size[0], [WHITE] * len(worst.answer.boxes))
    before = _before(line, worst.clip.said).get(worst.number)
    zoom = TILE_WIDTH / worst.clip.size[0]
    if line == "motion":
        _draw_steps(picture, worst.answer, before, zoom)
    elif line == "inside":
        _draw_keypoints(picture, worst.answer, np.zeros(KEYPOINT_COUNT, bool), zoom)
        _draw_outside(picture, worst.answer, worst.clip.size, zoom)
    elif line == "on lines":
        segments = worst.clip.sights[worst.number].segments
        for segment in segments * zoom:
            cv2.line(picture, _pixel(segment[:2]), _pixel(segment[2:]), RED, 1, cv2.LINE_AA)
        off = line_distances(worst.answer.keypoints, segments, worst.clip.size) > FAR
        _draw_keypoints(picture, worst.answer, off, zoom)
    else:
        _draw_keypoints(picture, worst.answer, np.zeros(KEYPOINT_COUNT, bool), zoom)
        other = None if before is None else before.keypoints
        if line == "homography":
            other = _by_the_table(worst.answer, worst.clip.size)
        for index in np.flatnonzero(worst.answer.seen).tolist():
            if other is not None and other[index].any():
                ends = _pixel(worst.answer.keypoints[index] * zoom), _pixel(other[index] * zoom)
                cv2.line(picture, *ends, YELLOW, 2, cv2.LINE_AA)
    return picture


def _draw_keypoints(picture: Picture, answer: FrameAnswer, off: npt.NDArray[np.bool_], zoom: float) -> None:
    """With their numbers in white, those that are `off`, bool [32], in yellow."""
    for index in np.flatnonzero(answer.seen).tolist():
        here = _pixel(answer.keypoints[index] * zoom)
        colour = YELLOW if off[index] else WHITE
        cv2.circle(picture, here, 4, colour, 1, cv2.LINE_AA)
        cv2.putText(picture, str(index + 1), (here[0] + 5, here[1] - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, 1)


def _by_the_table(answer: FrameAnswer, size: tuple[int, int]) -> Points | None:
    """Where the subnet's table has the keypoints in the picture, float64 [32, 2], by the validator's own fit."""
    if (fit := fit_pitch(answer.keypoints, size)) is None:
        return None
    table = KEYPOINTS_CM * (size[0] / WIDTH_CM, size[1] / LENGTH_CM)
    return np.asarray(cv2.perspectiveTransform(table[None], np.linalg.inv(fit.homography))[0], np.float64)


def _draw_outside(picture: Picture, answer: FrameAnswer, size: tuple[int, int], zoom: float) -> None:
    """Boxes that lie off the pitch in yellow."""
    if (fit := fit_pitch(answer.keypoints, size)) is None:
        return
    middles = (answer.boxes[:, :2] + answer.boxes[:, 2:]).astype(np.float64) / 2
    ground = cv2.perspectiveTransform(middles[None], fit.homography)[0]
    outside = ((ground < 0) | (ground > (LENGTH_CM, WIDTH_CM))).any(axis=1)
    _draw_boxes(picture, answer.boxes[outside] * zoom, [YELLOW] * int(outside.sum()))


def _draw_steps(picture: Picture, answer: FrameAnswer, before: FrameAnswer | None, zoom: float) -> None:
    """Players who walk, which earns half, in yellow, who jumps in red, the others in white."""
    if before is None:
        return
    steps = _steps_px(before, answer)
    told = np.isfinite(steps)
    colours = [RED if step > MAX_STEP_PX else YELLOW if is_walk(step) else WHITE for step in steps[told].tolist()]
    _draw_boxes(picture, answer.boxes[told] * zoom, colours)


def _draw_boxes(picture: Picture, boxes: npt.NDArray[np.floating], colours: Sequence[tuple[int, int, int]]) -> None:
    for box, colour in zip(boxes, colours, strict=True):
        cv2.rectangle(picture, _pixel(box[:2]), _pixel(box[2:]), colour, 1, cv2.LINE_AA)


def _pixel(point: npt.NDArray[np.floating]) -> tuple[int, int]:
    x, y = np.round(point).astype(int).tolist()
    return x, y

"""The pictures of an answer: the video with everything found drawn in, and one sheet of frames to look at."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, Final

import av
import cv2
import numpy as np
import numpy.typing as npt
import supervision as sv
from av.video.reformatter import Interpolation

from touchline.answer import AnswerError, FrameAnswer, parse_answer, processing_time
from touchline.atomic_file import replacing
from touchline.contract import BALL, CLASS_NAMES, KEYPOINT_COUNT
from touchline.drawing import (
    AGREEING,
    CLASS_COLOURS,
    DISAGREEING,
    FAINT_INK,
    INK,
    PAPER,
    FrameView,
    Picture,
    draw_answer,
    draw_dot,
    write,
)
from touchline.pitch_map import Paths, Trail, draw_map, map_size
from touchline.video_rate import LOOKAHEAD, frame_rate
from touchline.video_read import TURNS, UnreadableVideo, frames, open_video, packets, turn, turn_of, video_stream
from touchline.video_write import video_writer

Progress = Callable[[int, int], None]
"""Called with the frames done and the frames in all."""

PICTURE_WIDTH: Final = 1280
PANEL_WIDTH: Final = 560
_PAD: Final = 20
_SHEET_PICTURE_WIDTH: Final = 760
_SHEET_MAP_WIDTH: Final = 380
_SHEET_COLUMNS: Final = 2
_SHEET_GAP: Final = 24
_SHEET_TITLE_HEIGHT: Final = 92
_STRIP: Final = sv.Color.from_hex("#1E293B")
_BAR: Final = sv.Color.from_hex("#475569")


class RenderError(Exception):
    """A picture cannot be made from these inputs; the message names the input and what to do about it."""


@dataclass(frozen=True, slots=True)
class Clip:
    """What a video file says of itself."""

    path: Path
    width: int
    height: int
    frame_count: int
    rate: Fraction
    turn: int = 0
    """Degrees clockwise by which decoded pictures are turned to be upright; width and height are those of upright."""

    def height_at(self, width: int) -> int:
        """The even height of a picture of that width."""
        return 2 * round(width * self.height / self.width / 2)


def read_response(path: Path) -> dict[str, Any]:
    """Load a saved response. Raises RenderError when the file is missing or holds no JSON object."""
    try:
        response = json.loads(path.read_bytes())
    except OSError as error:
        raise RenderError(f"cannot read the response {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise RenderError(
            f"{path} is not JSON ({error}). Give the file that `touchline challenge` saved, the response body alone."
        ) from error
    if not isinstance(response, dict):
        raise RenderError(f"{path} holds a JSON {type(response).__name__}: give what `touchline challenge` saved.")
    return response


def render_video(
    video: Path, response: Mapping[str, Any], out: Path, progress: Progress = lambda done, total: None
) -> None:
    """Write the annotated video: pictures 1280 pixels wide, beside each the pitch from above and what was found.

    Boxes carry their class colour and track id, keypoints their number; faint white lines are the pitch as the frame's
    keypoints place it. H.264 (yuv420p, faststart) in an mp4 at the source's average frame rate.

    Raises RenderError when an input is unusable or the two do not belong together, OSError when out cannot be written.
    """
    clip = probe(video)
    match = _Match.of(clip, response)
    height = max(clip.height_at(PICTURE_WIDTH), _Panel.height())
    panel = _Panel(match, height)
    size = PICTURE_WIDTH + PANEL_WIDTH, height
    done = 0
    with video_writer(out, *size, clip.rate) as add:
        canvas: Picture = np.full((height, size[0], 3), PAPER.as_bgr(), np.uint8)
        for number, picture in pictures(clip, PICTURE_WIDTH):
            view = match.views.get(number)
            if view is not None:
                draw_answer(picture, view, PICTURE_WIDTH / clip.width)
            canvas[: len(picture), :PICTURE_WIDTH] = picture
            canvas[:, PICTURE_WIDTH:] = panel.draw(number)
            add(canvas)
            done = number + 1
            progress(done, clip.frame_count)
        _check_answered_frames(clip, match.views, done)


def render_contact_sheet(
    video: Path, response: Mapping[str, Any], out: Path, count: int = 6, notes: Mapping[int, str] | None = None
) -> None:
    """Write a PNG of evenly spaced annotated frames, each beside its pitch from above, under a line of clip facts.

    count: frames on the sheet; a shorter video gives all of its own.
    notes: the frames to show instead, by number, each with a line of text.
    Raises ValueError for a count below 1, RenderError and OSError as render_video does.
    """
    if count < 1:
        raise ValueError(f"a contact sheet of {count} frames")
    clip = probe(video)
    match = _Match.of(clip, response)
    if notes is None:
        # The middle of each of count equal parts: the first and last frame of a clip are its least typical.
        notes = dict.fromkeys(((np.arange(count) + 0.5) * clip.frame_count / count).astype(int).tolist(), "")
    tiles = [
        _tile(match, number, picture, notes[number])
        for number, picture in pictures(clip, _SHEET_PICTURE_WIDTH, frozenset(notes))
    ]
    if not tiles:
        raise RenderError(f"no frame of {video} can be decoded. Check that it plays.")
    encoded, data = cv2.imencode(".png", _sheet(match, tiles))
    if not encoded:
        raise RenderError(f"the contact sheet of {video} cannot be encoded as PNG")
    with replacing(out) as part:
        part.write_bytes(data.tobytes())


def probe(video: Path) -> Clip:
    """Read a video's size, rate and number of frames, which is known when all were decoded. Raises RenderError."""
    with _opened(video) as container:
        stream = video_stream(container)
        count, first = 0, None
        for frame in frames(container):
            first = first or frame
            count += 1
        if first is None:
            raise RenderError(f"{video} holds no video frames. Check that it plays.")
        told = turn(stream)
        degrees = turn_of(first) if told is None else told
        size = (stream.height, stream.width) if degrees in (90, 270) else (stream.width, stream.height)
    with _opened(video) as container:
        stream = video_stream(container)
        rate = frame_rate(stream, list(islice(packets(container, stream), LOOKAHEAD)))
    return Clip(video, *size, count, rate, degrees)


def answers_about(clip: Clip, response: Mapping[str, Any]) -> dict[int, FrameAnswer]:
    """A response's frames by number. Raises RenderError when it is malformed or not about this clip."""
    try:
        answers = parse_answer(response)
    except AnswerError as error:
        raise RenderError(f"{error}. Give the response body that `touchline challenge` saved.") from error
    _check_coordinates(clip, answers)
    _check_answered_frames(clip, answers, clip.frame_count)
    return answers


@contextmanager
def _opened(video: Path) -> Iterator[av.container.InputContainer]:
    try:
        with video.open("rb") as file, open_video(file) as container:
            video_stream(container).thread_type = "AUTO"
            yield container
    except UnreadableVideo as error:
        raise RenderError(f"cannot read the video {video}: {error}. Check that it plays.") from error
    except OSError as error:
        raise RenderError(f"cannot read the video {video}: {error.strerror}. Check the path.") from error


def pictures(clip: Clip, width: int, only: frozenset[int] | None = None) -> Iterator[tuple[int, Picture]]:
    """Decode a clip's frames with their numbers, all or only some, scaled to one width."""
    height = clip.height_at(width)
    with _opened(clip.path) as container:
        size = (height, width) if clip.turn in (90, 270) else (width, height)
        for number, frame in enumerate(frames(container)):
            if only is None or number in only:
                scaled = frame.reformat(*size, "bgr24", interpolation=Interpolation.BICUBIC).to_ndarray()
                yield number, cv2.rotate(scaled, TURNS[clip.turn]) if clip.turn else scaled


@dataclass(frozen=True, slots=True)
class _Match:
    """A clip and its answer, known to belong together, with the geometry of every frame."""

    clip: Clip
    views: dict[int, FrameView]
    paths: Paths
    seconds: float | None

    @classmethod
    def of(cls, clip: Clip, response: Mapping[str, Any]) -> _Match:
        views = {number: FrameView.of(answer) for number, answer in answers_about(clip, response).items()}
        return cls(clip, views, Paths(views), processing_time(response))

    def trails(self, number: int) -> list[Trail]:
        """Where the tracks of a frame stood during the second before it."""
        view = self.views.get(number)
        if view is None:
            return []
        return self.paths.trails(view, round(self.clip.rate))


def _check_answered_frames(clip: Clip, answered: Iterable[int], frame_count: int) -> None:
    """Raise RenderError when the answer numbers frames that the video does not have."""
    last = max(answered)
    if last >= frame_count:
        raise RenderError(
            f"the response answers frame {last}, but {clip.path} ends at frame {frame_count - 1}. "
            "Give the video that the challenge was about."
        )


def _check_coordinates(clip: Clip, answers: Mapping[int, FrameAnswer]) -> None:
    """Raise RenderError when most boxes lie outside the picture: the answer is about a video of another size."""
    boxes = np.concatenate([answer.boxes for answer in answers.values()])
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    outside = ((centres < 0) | (centres > (clip.width, clip.height))).any(axis=1)
    if outside.size and outside.mean() > 0.5:
        raise RenderError(
            f"{outside.mean():.0%} of the boxes lie outside the {clip.width}x{clip.height} picture of {clip.path}. "
            "Give the video that the challenge was about, in its original size."
        )


class _Panel:
    """The strip right of the picture: frame number, pitch map, what was found, and the clip's course."""

    _MAP_TOP: Final = 84
    _COUNTS_HEIGHT: Final = 146
    _TIMELINE_HEIGHT: Final = 54
    _TIMELINE_GAP: Final = 36

    def __init__(self, match: _Match, height: int) -> None:
        self._match = match
        self._width = PANEL_WIDTH - 2 * _PAD
        answers = [
            match.views[number].answer if number in match.views else None for number in range(match.clip.frame_count)
        ]
        self._background: Picture = np.full((height, PANEL_WIDTH, 3), PAPER.as_bgr(), np.uint8)
        self._people = np.array([0 if answer is None else int((answer.classes != BALL).sum()) for answer in answers])
        self._seen = np.array([0 if answer is None else int(answer.seen.sum()) for answer in answers])
        self._timelines = self._MAP_TOP + map_size(self._width)[1] + self._COUNTS_HEIGHT
        self._draw_timeline(self._timelines, "people", self._people)
        self._draw_timeline(self._timelines + self._TIMELINE_HEIGHT + self._TIMELINE_GAP, "keypoints", self._seen)

    @classmethod
    def height(cls) -> int:
        """The pixels that the panel needs, even."""
        map_height = map_size(PANEL_WIDTH - 2 * _PAD)[1]
        timelines = 2 * cls._TIMELINE_HEIGHT + cls._TIMELINE_GAP
        return 2 * round((cls._MAP_TOP + map_height + cls._COUNTS_HEIGHT + timelines + _PAD) / 2)

    def draw(self, number: int) -> Picture:
        """The panel of one frame, uint8 [height, PANEL_WIDTH, 3]."""
        clip, view = self._match.clip, self._match.views.get(number)
        panel = self._background.copy()
        right = PANEL_WIDTH - _PAD
        used = write(panel, f"Frame {number}", (_PAD, 50), 34, weight=600)
        write(panel, f"of {clip.frame_count}", (_PAD + used + 10, 50), 18, FAINT_INK)
        write(panel, f"{float(number / clip.rate):.2f} s", (right, 50), 22, FAINT_INK, align="right")
        pitch = draw_map(self._width, view, self._match.trails(number), (clip.width, clip.height))
        panel[self._MAP_TOP : self._MAP_TOP + len(pitch), _PAD:right] = pitch
        if view is not None:
            self._draw_counts(panel, view, self._MAP_TOP + len(pitch) + 36)
        playhead = _PAD + round(number * (self._width - 1) / max(1, clip.frame_count - 1))
        for top in (self._timelines, self._timelines + self._TIMELINE_HEIGHT + self._TIMELINE_GAP):
            cv2.line(panel, (playhead, top), (playhead, top + self._TIMELINE_HEIGHT), INK.as_bgr(), 1)
        return panel

    def _draw_counts(self, panel: Picture, view: FrameView, top: int) -> None:
        left = _PAD
        for class_id in reversed(range(len(CLASS_NAMES))):
            left = _legend(panel, (left, top), *_count(view, class_id)) + 26
        seen, agreeing = int(view.answer.seen.sum()), int(view.agreeing.sum())
        left = _legend(panel, (_PAD, top + 38), AGREEING, str(agreeing), "keypoints that fit the pitch") + 26
        _legend(panel, (left, top + 38), DISAGREEING, str(seen - agreeing), f"that do not, of {KEYPOINT_COUNT}")

    def _draw_timeline(self, top: int, name: str, values: npt.NDArray[np.integer]) -> None:
        panel, bottom = self._background, top + self._TIMELINE_HEIGHT
        peak = max(1, int(values.max()))
        write(panel, f"{name} a frame", (_PAD, top - 8), 14, FAINT_INK)
        summary = f"mean {values.mean():.1f}, most {int(values.max())}"
        write(panel, summary, (PANEL_WIDTH - _PAD, top - 8), 14, FAINT_INK, align="right")
        frames = np.linspace(0, len(values) - 1, self._width).round().astype(int)
        heights = np.round(values[frames] / peak * self._TIMELINE_HEIGHT).astype(int)
        rows = np.arange(self._TIMELINE_HEIGHT)[::-1, None]
        strip = panel[top:bottom, _PAD : _PAD + self._width]
        strip[:] = np.array(_STRIP.as_bgr(), np.uint8)
        strip[rows < heights] = np.array(_BAR.as_bgr(), np.uint8)


def _tile(match: _Match, number: int, picture: Picture, note: str = "") -> Picture:
    """One frame of the sheet: the annotated picture, right of it the pitch from above and what was found."""
    clip, view = match.clip, match.views.get(number)
    if view is not None:
        draw_answer(picture, view, picture.shape[1] / clip.width)
    pitch = draw_map(_SHEET_MAP_WIDTH, view, match.trails(number), (clip.width, clip.height))
    height = max(len(picture), len(pitch) + 170)
    tile: Picture = np.full((height, _SHEET_PICTURE_WIDTH + _SHEET_MAP_WIDTH, 3), _STRIP.as_bgr(), np.uint8)
    tile[: len(picture), :_SHEET_PICTURE_WIDTH] = picture
    tile[: len(pitch), _SHEET_PICTURE_WIDTH:] = pitch
    left, top = _SHEET_PICTURE_WIDTH + 16, len(pitch) + 34
    used = write(tile, f"Frame {number}", (left, top), 22, weight=600)
    write(tile, f"{float(number / clip.rate):.2f} s", (left + used + 12, top), 16, FAINT_INK)
    if note:
        write(tile, note, (left, top + 126), 15)
    if view is None:
        return tile
    for class_id in reversed(range(len(CLASS_NAMES))):
        row, column = divmod(len(CLASS_NAMES) - 1 - class_id, 2)
        _legend(tile, (left + column * 170, top + 38 + row * 30), *_count(view, class_id))
    fitting = f"{int(view.agreeing.sum())} of {int(view.answer.seen.sum())}"
    _legend(tile, (left, top + 98), AGREEING, fitting, "keypoints fit the pitch")
    return tile


def _count(view: FrameView, class_id: int) -> tuple[sv.Color, str, str]:
    return CLASS_COLOURS[class_id], str((view.answer.classes == class_id).sum()), CLASS_NAMES[class_id]


def _legend(picture: Picture, at: tuple[int, int], colour: sv.Color, amount: str, text: str) -> int:
    """A coloured dot, an amount and what it counts, on a baseline; returns where it ends, in pixels."""
    left, baseline = at
    draw_dot(picture, np.array([left + 6.0, baseline - 6.0]), 6, colour)
    left += 20
    left += write(picture, amount, (left, baseline), 18, weight=600) + 6
    return left + write(picture, text, (left, baseline), 15, FAINT_INK)


def _sheet(match: _Match, tiles: list[Picture]) -> Picture:
    height, width = tiles[0].shape[:2]
    columns = min(_SHEET_COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    size = (
        _SHEET_TITLE_HEIGHT + rows * (height + _SHEET_GAP),
        _SHEET_GAP + columns * (width + _SHEET_GAP),
    )
    sheet: Picture = np.full((*size, 3), PAPER.as_bgr(), np.uint8)
    write(sheet, match.clip.path.name, (_SHEET_GAP, 42), 30, weight=600)
    write(sheet, _facts(match), (_SHEET_GAP, 72), 18, FAINT_INK)
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        top = _SHEET_TITLE_HEIGHT + row * (height + _SHEET_GAP)
        left = _SHEET_GAP + column * (width + _SHEET_GAP)
        sheet[top : top + height, left : left + width] = tile
    return sheet


def _facts(match: _Match) -> str:
    """The clip and its answer in one line."""
    clip, answers = match.clip, [view.answer for view in match.views.values()]
    people = np.mean([(answer.classes != BALL).sum() for answer in answers])
    balls = np.mean([(answer.classes == BALL).any() for answer in answers])
    keypoints = np.mean([answer.seen.sum() for answer in answers])
    found = np.mean([view.homography is not None for view in match.views.values()])
    facts = [
        f"{len(answers)} of {clip.frame_count} frames answered",
        f"{clip.width}\u00d7{clip.height}, {float(clip.rate):.4g} frames/s",
        f"{people:.1f} people a frame",
        f"ball in {balls:.0%}",
        f"{keypoints:.1f} keypoints a frame",
        f"pitch found in {found:.0%}",
    ]
    if match.seconds is not None:
        facts.append(f"answered in {match.seconds:.2f} s")
    return "  \u00b7  ".join(facts)

"""Painted lines of frames in a slot."""

from __future__ import annotations

import cv2
import numpy as np

from gateway.video.painted import LOOK_S, PaintedLines
from touchline.contract import LETTERBOX_GREY, Letterbox


def test_one_frame_in_so_many_seconds_is_looked_at_whatever_the_order_in_a_slot() -> None:
    painted = PaintedLines(fps=25.0)
    step = LOOK_S * 25
    assert painted.due([0, round(step / 2), 2, 4]) == [0]
    later = [round(step), round(2 * step), round(step) + 2, round(2 * step) - 2]
    assert painted.due(later) == [0, 1]
    assert painted.due([round(2 * step) + 2, round(2 * step) + 4]) == []
    assert painted.due([round(3 * step), 1000]) == [0, 1]


def test_a_line_is_found_in_shares_of_the_picture_that_lies_in_the_slot() -> None:
    letterbox = Letterbox(1280, 720, 640, 640)
    frames = np.full((2, 640, 640, 3), LETTERBOX_GREY, np.uint8)
    content = frames[1, 140:500]
    content[:] = (60, 120, 50)
    cv2.line(content, (64, 90), (576, 270), (240, 240, 240), 3)
    painted = PaintedLines(fps=25.0)
    painted.look(frames, [7, 9], [1], letterbox)
    (pieces,) = painted.seen.values()
    assert list(painted.seen) == [9]
    assert len(pieces)
    ends = pieces.reshape(-1, 2)
    assert np.abs(ends[:, 1] - (0.25 + (ends[:, 0] - 0.1) * 0.625)).max() < 0.02
    assert np.ptp(ends[:, 0]) > 0.7


def test_nothing_is_found_on_bare_grass_or_off_it() -> None:
    frames = np.full((1, 384, 640, 3), 128, np.uint8)
    cv2.line(frames[0], (64, 90), (576, 270), (240, 240, 240), 3)
    painted = PaintedLines(fps=25.0)
    painted.look(frames, [0], [0], Letterbox(1280, 768, 640, 384))
    frames[:] = (60, 120, 50)
    painted.look(frames, [30], [0], Letterbox(1280, 768, 640, 384))
    assert [len(pieces) for pieces in painted.seen.values()] == [0, 0]

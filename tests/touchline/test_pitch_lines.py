"""What the validator's code sees in a picture, in pictures whose lines are known."""

from __future__ import annotations

import cv2
import numpy as np

from touchline.pitch_lines import PITCH, look, pitch_score, pitch_segments

GRASS = (60, 140, 60)
CHALK = (150, 230, 150)
"""Paint with grass in it: pure white would not pass for grass, and only what does is looked at."""


def field(height: int = 360, width: int = 640, colour: tuple[int, int, int] = GRASS) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


def distance(segments: np.ndarray, point: np.ndarray) -> float:
    """From a point to the nearest segment, in px."""
    start, along = segments[:, :2], segments[:, 2:] - segments[:, :2]
    place = np.clip(((point - start) * along).sum(axis=1) / (along**2).sum(axis=1), 0, 1)
    return float(np.hypot(*(point - start - place[:, None] * along).T).min())


def test_a_line_on_grass_is_seen_where_it_is() -> None:
    picture = field()
    cv2.line(picture, (100, 50), (500, 300), CHALK, 4)
    segments = pitch_segments(picture)
    assert len(segments)
    for point in ((110, 56), (300, 175), (490, 293)):
        assert distance(segments, np.array(point, float)) < 4
    assert distance(segments, np.array((100.0, 300.0))) > 100


def test_bare_grass_and_lines_off_it_are_nothing() -> None:
    assert pitch_segments(field()).shape == (0, 4)
    stand = field(colour=(90, 90, 90))
    cv2.line(stand, (100, 50), (500, 300), CHALK, 4)
    assert pitch_segments(stand).shape == (0, 4)
    assert pitch_score(stand) == 0


def test_what_runs_at_the_very_border_does_not_count() -> None:
    picture = field()
    cv2.line(picture, (0, 1), (639, 1), CHALK, 1)
    segments = pitch_segments(picture)
    assert not len(segments) or segments[:, [1, 3]].mean(axis=1).min() >= 3


def test_grass_with_many_lines_is_a_pitch_and_a_close_up_is_not() -> None:
    picture = field(720, 1280)
    picture[:150] = (80, 80, 80)
    few = picture.copy()
    for left in range(0, 1200, 150):
        cv2.line(picture, (left, 700), (left + 300, 170), CHALK, 5)
    assert look(picture).pitch >= PITCH
    assert look(few).pitch < PITCH
    # Grass at every border: the camera is close.
    assert pitch_score(field(720, 1280)) < 0.05

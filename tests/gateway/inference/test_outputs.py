"""Model outputs to source pixels."""

from __future__ import annotations

import numpy as np
import pytest

from gateway.detections import Detections
from gateway.inference.outputs import detections_from_rows, keypoints_from_rows, with_ball_model
from touchline.contract import Letterbox


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (848, 478), (720, 1280), (640, 384), (333, 97)])
def test_letterbox_there_and_back(width: int, height: int) -> None:
    letterbox = Letterbox(width, height, 640, 384)
    points = np.random.default_rng(1).uniform(0, (width, height), (50, 2)).astype(np.float32)
    inside = letterbox.to_input(points)
    assert np.abs(letterbox.to_source(inside) - points).max() < 1e-3
    left, top = letterbox.offset
    content_width, content_height = letterbox.content_size
    assert inside[:, 0].min() >= left
    assert inside[:, 0].max() <= left + content_width <= 640
    assert inside[:, 1].min() >= top
    assert inside[:, 1].max() <= top + content_height <= 384


def test_padding_rows_and_low_scores_are_left_out() -> None:
    rows = np.zeros((150, 6), np.float32)
    rows[0] = [100, 100, 120, 150, 0.9, 3]
    rows[1] = [200, 100, 220, 150, 0.2, 2]
    rows[2] = [300, 100, 320, 150, 0.05, 2]
    two = np.stack([0 * rows, rows])
    nothing, detections = detections_from_rows(two, Letterbox(1280, 720, 640, 384), min_score=0.1)
    assert len(nothing) == 0
    assert detections.scores.tolist() == pytest.approx([0.9, 0.2])
    assert detections.classes.tolist() == [3, 2]
    assert detections.xyxy[0].tolist() == [200, 176, 240, 276]


def test_a_box_on_the_padding_is_left_out() -> None:
    rows = np.zeros((3, 6), np.float32)
    rows[0] = [100, 2, 120, 10, 0.9, 2]
    (detections,) = detections_from_rows(rows[None], Letterbox(1280, 720, 640, 384), min_score=0.1)
    assert len(detections) == 0


def test_the_ball_model_wins_over_the_players_ball() -> None:
    players = Detections(np.ones((2, 4), np.float32), np.array([0.9, 0.8], np.float32), np.array([0, 2]))
    ball = Detections(np.full((1, 4), 5, np.float32), np.array([0.6], np.float32), np.array([0]))
    merged = with_ball_model(players, ball)
    assert merged.classes.tolist() == [0, 2]
    assert merged.scores.tolist() == pytest.approx([0.6, 0.8])


def test_keypoints_below_the_confidence_or_on_the_padding_are_not_seen() -> None:
    rows = np.zeros((32, 3), np.float32)
    rows[0] = [320, 192, 0.9]
    rows[1] = [320, 192, 0.4]
    rows[2] = [320, 4, 0.9]
    (points,) = keypoints_from_rows(rows[None], Letterbox(1280, 720, 640, 384), min_confidence=0.5)
    assert points[0].tolist() == [640, 360]
    assert not points[1:].any()
    assert keypoints_from_rows(np.empty((0,), np.float32), Letterbox(1280, 720, 640, 384), min_confidence=0.5).size == 0

"""What viewers are sent, read by the tables of docs/live.md and by nothing of the gateway."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from gateway.detections import Detections
from gateway.live.message import frame_json, frame_message
from gateway.tracking.live import Tracked
from tests.gateway.live.made_views import HEIGHT, WIDTH, made_view
from tests.gateway.live.read_message import read_message

PITCH = np.array([[30.0, 2, -500], [0, 60, -900], [0, 0.001, 1]])


def test_a_message_says_what_the_page_says() -> None:
    view = made_view(number=3, sequence=70_000, generation=2, captured_wall=1_790_000_000.25, captured_at=50.5)
    read = read_message(frame_message(view, b"\xff\xd8jpeg", drawn=False, first=True, still=False, now=50.75))
    assert (read["kind"], read["flags"], read["header bytes"], read["bytes a box"]) == (1, 1 | 8, 48, 24)
    assert (read["number"], read["sequence"], read["generation"]) == (3, 70_000, 2)
    assert (read["captured"], read["clock"], read["age"]) == (1_790_000_000_250_000, 50_500_000, 250_000)
    assert (read["width that the boxes refer to"], read["height"]) == (WIDTH, HEIGHT)
    assert read["jpeg"] == b"\xff\xd8jpeg"
    person, ball = read["rows"]
    assert (person["id"], person["class"], person["score"]) == (7, 2, 65535)
    assert person["x1, y1, x2, y2"] == (10, 20, 30, 80)
    assert (ball["id"], ball["class"], ball["score"]) == (0, 0, 16384)
    assert ball["x1, y1, x2, y2"] == (200, 50, 220.5, 110)


def test_with_the_pitch_every_box_has_a_place_on_it() -> None:
    positions = np.array([[1234.5, -20], [np.nan, np.nan]], np.float32)
    view = made_view(homography=PITCH, positions=positions)
    read = read_message(frame_message(view, b"", drawn=True, first=False, still=True, now=time.monotonic()))
    assert (read["flags"], read["header bytes"], read["bytes a box"]) == (4 | 16 | 64, 84, 32)
    assert np.allclose(read["with the pitch"], PITCH.ravel(), rtol=1e-6)
    assert read["rows"][0]["with the pitch"] == (1234.5, -20)
    assert np.isnan(read["rows"][1]["with the pitch"]).all()
    assert read["jpeg"] == b""


def test_boxes_alone_as_json_say_the_same() -> None:
    view = made_view(homography=PITCH, positions=np.array([[1234.5, -20], [np.nan, np.nan]], np.float32))
    now = view.captured_at + 0.125
    read = read_message(frame_message(view, b"", drawn=False, first=True, still=False, now=now))
    told = json.loads(json.dumps(frame_json(view, first=True, still=False, now=now), allow_nan=False))
    assert (told["type"], told["camera"], told["id"]) == ("frame", read["number"], "north")
    same = {"sequence": "sequence", "generation": "generation", "captured_us": "captured", "clock_us": "clock"}
    same |= {"age_us": "age", "width": "width that the boxes refer to", "height": "height"}
    assert {name: told[name] for name in same} == {name: read[field] for name, field in same.items()}
    assert told["homography"] == PITCH.tolist()
    assert told["boxes"] == [
        {"id": 7, "class": "player", "score": 1.0, "box": [10, 20, 30, 80], "position_cm": [1234, -20]},
        {"id": 0, "class": "ball", "score": 0.25, "box": [200, 50, 220.5, 110], "position_cm": None},
    ]


@pytest.mark.parametrize("age_s", [-5.0, 1e6])
def test_an_age_that_does_not_fit_is_the_nearest_that_does(age_s: float) -> None:
    view = made_view(captured_at=1e7)
    read = read_message(frame_message(view, b"", drawn=False, first=False, still=False, now=1e7 + age_s))
    assert read["age"] == (0 if age_s < 0 else 2**32 - 1)


def test_a_frame_without_boxes() -> None:
    nobody = Tracked(
        Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64)), np.zeros(0, np.int64)
    )
    view = made_view(tracks=nobody, positions=np.zeros((0, 2), np.float32))
    read = read_message(frame_message(view, b"x", drawn=False, first=False, still=False, now=view.captured_at))
    assert (read["rows"], read["jpeg"], read["age"]) == ([], b"x", 0)
    assert frame_json(view, first=False, still=False, now=view.captured_at)["boxes"] == []

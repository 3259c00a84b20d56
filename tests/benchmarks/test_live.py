"""The parts of benchmarks/live that a wrong number could hide in."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.live import BITS, FRAMES, Watched, film, number_of, paint, plot, table_of
from tests.support.videos import make_video


@pytest.mark.parametrize("size", [(1280, 720), (640, 360), (320, 180)])
def test_the_number_in_a_picture_is_read_from_the_jpeg_a_viewer_gets(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (size[1], size[0], 3)).astype(np.uint8)
    for number in (0, 1, 2, 37, 64, FRAMES - 1, 2**BITS - 1):
        picture = noise.copy()
        paint(picture, number)
        small = cv2.resize(picture, (320, 180), interpolation=cv2.INTER_AREA)
        assert number_of(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 75])[1].tobytes()) == number
    assert FRAMES <= 2**BITS


def test_every_frame_of_the_film_is_numbered(tmp_path: Path) -> None:
    make_video(tmp_path / "clip.mp4", 6)
    assert len(film(tmp_path / "clip.mp4", (320, 180)).units) == 6


def test_both_ways_are_tabled_and_drawn(tmp_path: Path) -> None:
    touchline = {"size": "640x360", "way": "touchline", "engine_alone": 31.0}
    rows = [touchline | asdict(Watched(4, 30.0, 29.0, 120.0, 180.0, 0.4, 130.0, 4.0, 11.0))]
    rows += [{"size": "640x360", "way": "in turn", **asdict(Watched(4, 25.0, 25.0, 800.0, 1200.0, 0.3))}]
    assert table_of(rows).row_count == 2
    plot(rows, tmp_path / "plots" / "live.png")
    assert (tmp_path / "plots" / "live.png").stat().st_size > 1000

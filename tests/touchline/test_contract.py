"""Pictures in the model input."""

from __future__ import annotations

import numpy as np
import pytest

from touchline.contract import LETTERBOX_GREY, Letterbox


@pytest.mark.parametrize("source", [(1280, 720), (720, 1280), (640, 384), (33, 17), (5000, 3)])
def test_a_picture_lies_where_its_points_are_mapped_and_grey_is_around(source: tuple[int, int]) -> None:
    letterbox = Letterbox(*source, 640, 384)
    width, height = letterbox.content_size
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    frame = letterbox.placed(picture)
    (left, top), (right, bottom) = letterbox.to_input(np.array([(0, 0), source], np.float32)).round().astype(int)
    assert frame.shape == (384, 640, 3)
    assert (frame[top:bottom, left:right] == picture).all()
    outside = np.ones(frame.shape[:2], bool)
    outside[top:bottom, left:right] = False
    assert (frame[outside] == LETTERBOX_GREY).all()

"""People from one inferred frame to the next."""

from __future__ import annotations

import numpy as np
import pytest

from gateway.detections import Detections
from gateway.tracking.people import People
from touchline.contract import PLAYER


@pytest.mark.parametrize(("step", "same"), [(2, False), (5, True)])
def test_nobody_jumps_within_a_tenth_of_a_second(step: int, same: bool) -> None:
    """A box one and a half widths aside: a runner after 0.2 s, another person after 0.08 s."""
    people = People(fps=25, frame_stride=step, track_buffer=30, confidence=0.35)

    def seen(left: float) -> Detections:
        box = np.array([[left, 100, left + 20, 140]], np.float32)
        return Detections(box, np.array([0.9], np.float32), np.array([PLAYER]))

    for index in range(4):
        named = people.update(index * step, seen(100))
    (before,) = named.ids.tolist()
    assert before
    assert (people.update(4 * step, seen(130)).ids.tolist() == [before]) is same

"""One ball out of all that looks like one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from gateway.tracking.ball import ball_flights, not_on_a_spot, spots
from touchline.homography import project
from touchline.pitch import KEYPOINTS_CM


def flights(
    *candidates: tuple[int, float, float], reach: float = 20, fast: float = 12, gap: int = 12
) -> list[list[int]]:
    """Candidates by frame number, left border and score, all at one height."""
    numbers = np.array([number for number, _, _ in candidates], np.int64)
    xyxy = np.array([(x, 300, x + 8, 308) for _, x, _ in candidates], np.float32).reshape(-1, 4)
    scores = np.array([score for _, _, score in candidates], np.float32)
    chosen = ball_flights(numbers, xyxy, scores, reach=reach, fast=fast, gap=gap, start_cost=0.35)
    return [flight.tolist() for flight in chosen]


def test_weak_boxes_that_follow_each_other_are_a_ball_and_one_alone_is_not() -> None:
    assert flights((0, 100, 0.2), (2, 110, 0.2), (4, 120, 0.2)) == [[0, 1, 2]]
    assert flights((0, 100, 0.2)) == []
    assert flights((0, 100, 0.5)) == [[0]]
    assert flights() == []


def test_a_jump_that_no_ball_makes_is_not_followed() -> None:
    strong = [(number, 100 + 5 * number, 0.6) for number in range(0, 20, 2)]
    elsewhere = (9, 900, 0.6)
    assert flights(*sorted([*strong, elsewhere])) == [[0, 1, 2, 3, 4, 6, 7, 8, 9, 10]]


def test_no_ball_is_fast_for_long() -> None:
    assert flights((0, 0, 0.5), (4, 80, 0.5), fast=4) == [[0, 1]]
    assert flights((0, 0, 0.5), (8, 130, 0.5), fast=4) == [[0], [1]]
    assert flights((0, 0, 0.5), (8, 110, 0.5), fast=4) == [[0, 1]]


def test_two_flights_never_share_a_frame() -> None:
    left = [(number, 100.0, 0.5) for number in range(0, 10)]
    right = [(number, 900.0, 0.6) for number in range(6, 20)]
    candidates = sorted(left + right)
    chosen = flights(*candidates)
    numbers = [candidates[index][0] for flight in chosen for index in flight]
    assert len(chosen) == 2 and numbers == sorted(set(numbers)) == list(range(20))


@pytest.mark.parametrize("seed", range(20))
def test_no_other_choice_scores_more(seed: int) -> None:
    """Against all choices of at most one candidate a frame, on small random cases."""
    rng = np.random.default_rng(seed)
    candidates = [
        (number, float(rng.uniform(0, 60)), float(rng.uniform(0.05, 0.7))) for number in range(0, 10, 2) for _ in "ab"
    ]

    def worth(chosen: list[int]) -> float:
        total, last = 0.0, None
        for index in chosen:
            number, x, score = candidates[index]
            linked = last is not None and number - last[0] <= 4 and abs(x - last[1]) <= 10 * (number - last[0])
            total += score - (0.0 if linked else 0.35)
            last = number, x
        return total

    choices: list[list[int]] = [[]]
    for first in range(0, len(candidates), 2):
        choices += [[*choice, index] for choice in choices for index in (first, first + 1)]
    best = max(map(worth, choices))
    found = flights(*candidates, reach=10, gap=4)
    assert worth([index for flight in found for index in flight]) == pytest.approx(best, abs=1e-6)


def seen_pitch() -> npt.NDArray[np.float64]:
    """Keypoints float64 [1, 32, 2] of a frame that shows the whole pitch."""
    homography = np.array([[0.09, 0.03, 40.0], [0.0, 0.05, 150.0], [0.0, 2e-5, 1.0]])
    return project(homography, KEYPOINTS_CM)[None]


def test_the_centre_spot_is_where_the_lines_cross() -> None:
    keypoints = seen_pitch()
    homography = np.array([[0.09, 0.03, 40.0], [0.0, 0.05, 150.0], [0.0, 2e-5, 1.0]])
    assert spots(keypoints)[0, 2] == pytest.approx(project(homography, np.array([[6000.0, 3500.0]]))[0])
    keypoints[0, 14] = 0
    assert np.isnan(spots(keypoints)[0, 2]).all()


def test_what_lies_on_a_spot_is_no_ball() -> None:
    keypoints = seen_pitch()
    places = np.concatenate([spots(keypoints)[0], spots(keypoints)[0] + (30, 0)])
    boxes = np.concatenate([places - 4, places + 4], axis=1).astype(np.float32)
    assert not_on_a_spot(boxes, np.repeat(keypoints, 6, axis=0), 1280).tolist() == [False] * 3 + [True] * 3
    assert not_on_a_spot(boxes, np.zeros((6, 32, 2)), 1280).all(), "spots that are not known forbid nothing"

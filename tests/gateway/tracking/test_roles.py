"""What everybody is, by the model's word in each of their boxes and where they stand."""

from __future__ import annotations

import numpy as np
import pytest

from gateway.tracking.camera_motion import NO_MOTION
from gateway.tracking.roles import last_men, roles
from touchline.contract import GOALKEEPER, PLAYER, REFEREE
from touchline.pitch import KEYPOINTS_CM

SIZE = (1280, 720)
WHOLE_PITCH = np.array([[0.1, 0, 10.0], [0, 0.1, 10.0], [0, 0, 1]])
"""A picture from above, 10 cm a pixel."""
WITHOUT_LEFT_GOAL = np.array([[0.1, 0, -100.0], [0, 0.1, 0], [0, 0, 1]])


def called(other: int, times: int, *, last: int = 0, score: float = 0.8) -> int:
    """The role of somebody who is called `other` in so many of 100 boxes and a player in the rest."""
    classes = np.array([other] * times + [PLAYER] * (100 - times))
    return int(roles(np.ones(100, np.int64), classes, np.full(100, score, np.float32), np.arange(100) < last)[1])


def last(*places: tuple[float, float, int], camera: np.ndarray = WHOLE_PITCH) -> list[bool]:
    """Who of those at x, y in metres, called so, is the last man in one frame."""
    feet, classes = np.array(places)[:, :2] * 100, np.array(places)[:, 2].astype(int)
    found = last_men(np.zeros(len(feet), int), feet, classes, camera[None], size=SIZE, ground=KEYPOINTS_CM)
    return list(found)


@pytest.mark.parametrize(("times", "role"), [(0, PLAYER), (2, PLAYER), (15, REFEREE), (40, REFEREE)])
def test_who_is_called_a_referee_now_and_then_is_one(times: int, role: int) -> None:
    assert called(REFEREE, times) == role


@pytest.mark.parametrize(
    ("times", "last", "role"),
    [(25, 100, PLAYER), (40, 100, GOALKEEPER), (40, 30, PLAYER), (0, 100, PLAYER), (60, 0, GOALKEEPER)],
)
def test_the_last_man_is_a_goalkeeper_where_the_model_says_so_too(times: int, last: int, role: int) -> None:
    assert called(GOALKEEPER, times, last=last) == role


def test_a_sure_word_counts_more_than_a_weak_one() -> None:
    ids, classes = np.ones(10, np.int64), np.array([REFEREE] * 2 + [PLAYER] * 8)
    for score, role in ((0.1, PLAYER), (0.8, REFEREE)):
        scores = np.array([score] * 2 + [0.8] * 8, np.float32)
        assert roles(ids, classes, scores, np.zeros(10, bool))[1] == role


def test_everybody_is_judged_by_their_own_boxes() -> None:
    ids, classes = np.array([1, 2, 3, 1, 2, 3]), np.array([PLAYER, REFEREE, GOALKEEPER, PLAYER, REFEREE, GOALKEEPER])
    found = roles(ids, classes, np.full(6, 0.5, np.float32), np.zeros(6, bool))
    assert found.tolist()[1:] == [PLAYER, REFEREE, GOALKEEPER]


def test_nobody_has_no_role() -> None:
    none = np.empty(0, np.int64)
    assert len(roles(none, none, np.empty(0, np.float32), np.empty(0, bool))) == 1


def test_the_last_man_is_the_one_before_each_goal() -> None:
    assert last((3, 35, PLAYER), (9, 33, PLAYER), (60, 30, PLAYER), (117, 36, GOALKEEPER)) == [True, False, False, True]


def test_referees_and_people_behind_the_line_are_no_last_men() -> None:
    assert last((2, 34, REFEREE), (-4, 35, PLAYER), (5, 36, PLAYER)) == [False, False, True]


def test_far_from_the_goal_or_without_it_in_sight_nobody_is_the_last_man() -> None:
    assert last((15, 35, PLAYER), (3, 60, PLAYER)) == [False, False]
    assert last((8, 35, PLAYER), camera=WITHOUT_LEFT_GOAL) == [False]


def test_where_the_pitch_is_not_known_nobody_is_the_last_man() -> None:
    unknown = np.full((3, 2), np.nan)
    to_picture = NO_MOTION.at(np.arange(3))
    people = np.arange(3), unknown, np.full(3, PLAYER)
    assert not last_men(*people, to_picture, size=SIZE, ground=KEYPOINTS_CM).any()

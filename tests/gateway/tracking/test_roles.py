"""What everybody is, by the model's word in each of their boxes."""

from __future__ import annotations

import numpy as np
import pytest

from gateway.tracking.roles import roles
from touchline.contract import GOALKEEPER, PLAYER, REFEREE


def called(other: int, times: int, of: int, score: float = 0.8) -> int:
    """The role of somebody who is called `other` in some boxes and a player in the rest."""
    classes = np.array([other] * times + [PLAYER] * (of - times))
    return int(roles(np.ones(of, np.int64), classes, np.full(of, score, np.float32))[1])


@pytest.mark.parametrize(("times", "role"), [(0, PLAYER), (1, PLAYER), (2, PLAYER), (15, REFEREE), (40, REFEREE)])
def test_who_is_called_a_referee_now_and_then_is_one(times: int, role: int) -> None:
    assert called(REFEREE, times, of=100) == role


@pytest.mark.parametrize(("times", "role"), [(25, PLAYER), (50, GOALKEEPER), (100, GOALKEEPER)])
def test_who_is_called_a_goalkeeper_as_often_as_not_is_one(times: int, role: int) -> None:
    """Players in the goalmouth are called goalkeepers in a quarter of their boxes."""
    assert called(GOALKEEPER, times, of=100) == role


def test_a_sure_word_counts_more_than_a_weak_one() -> None:
    ids, classes = np.ones(10, np.int64), np.array([REFEREE] * 2 + [PLAYER] * 8)
    weak, sure = (np.array([score] * 2 + [0.8] * 8, np.float32) for score in (0.1, 0.8))
    assert (roles(ids, classes, weak)[1], roles(ids, classes, sure)[1]) == (PLAYER, REFEREE)


def test_everybody_is_judged_by_their_own_boxes() -> None:
    ids, classes = np.array([1, 2, 3, 1, 2, 3]), np.array([PLAYER, REFEREE, GOALKEEPER, PLAYER, REFEREE, GOALKEEPER])
    assert roles(ids, classes, np.full(6, 0.5, np.float32)).tolist()[1:] == [PLAYER, REFEREE, GOALKEEPER]


def test_nobody_has_no_role() -> None:
    assert len(roles(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))) == 1

"""The passages of play: what happens in them, under the subnet's names, and that it is what the ball shows."""

from __future__ import annotations

import numpy as np
import pytest

from demo.geometry import GOAL_WIDTH
from demo.lively import LivelyGame
from demo.play import GOALS, LENGTH, WIDTH, Play, simulate
from touchline.actions import GOAL, OUT_OF_PLAY, PASS, PASS_RECEIVED, SAVE, SHOT

SEEDS = range(8, 16)


@pytest.fixture(scope="module")
def plays() -> list[Play]:
    return [simulate(seed, 750, 25, LivelyGame) for seed in SEEDS]


def frames(play: Play, *labels: str) -> list[int]:
    return [action.frame for action in play.actions if action.label in labels]


def outside(ball: np.ndarray) -> np.ndarray:
    return (ball[:, 0] < 0) | (ball[:, 0] > LENGTH) | (ball[:, 1] < 0) | (ball[:, 1] > WIDTH)


def test_knowing_what_happens_changes_no_frame_of_the_demo() -> None:
    play = simulate(44, 750, 25)
    assert (
        np.abs(play.ball[[100, 400, 749]] - [[80.12, 40.74, 0.11], [68.52, 32.89, 3.62], [1.99, 34.58, 1.0]]).max()
        < 0.02
    )
    assert {action.label for action in play.actions} == {PASS, PASS_RECEIVED, SHOT, SAVE}


def test_eight_labels_happen(plays: list[Play]) -> None:
    assert len({action.label for play in plays for action in play.actions}) == 8


def test_the_ball_is_over_the_line_where_the_truth_says_so(plays: list[Play]) -> None:
    for play in plays:
        for frame in frames(play, OUT_OF_PLAY, GOAL):
            assert outside(play.ball)[frame : frame + 20].all()
            assert not outside(play.ball)[frame - 10 : frame - 2].any()
        for frame in frames(play, GOAL):
            assert abs(play.ball[frame, 1] - GOALS[0][1]) < GOAL_WIDTH / 2


def test_the_ball_leaves_the_foot_with_a_pass_or_shot_and_only_then(plays: list[Play]) -> None:
    for play in plays:
        speed = np.linalg.norm(np.diff(play.ball, axis=0), axis=1) * 25
        for frame in frames(play, PASS, SHOT):
            assert speed[frame : frame + 3].max(initial=9) > 8


def test_nothing_happens_while_the_ball_is_out(plays: list[Play]) -> None:
    for play in plays:
        over = outside(play.ball)
        for action in play.actions:
            assert not over[action.frame] or action.label in (OUT_OF_PLAY, GOAL, PASS)


def test_the_same_seed_is_the_same_match(plays: list[Play]) -> None:
    again = simulate(SEEDS[3], 750, 25, LivelyGame)
    np.testing.assert_array_equal(again.ball, plays[3].ball)
    assert again.actions == plays[3].actions

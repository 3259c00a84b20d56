"""The validator's rules by hand-made answers."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from commands.score import costliest
from tests.touchline.made_scene import HEIGHT, WIDTH, Truth, answer_to, camera, pixels, truths
from touchline.answer import FrameAnswer, parse_answer
from touchline.contract import BALL, PLAYER
from touchline.pitch import LINES_CM, centre_circle
from touchline.pitch_lines import Sight
from touchline.score import (
    MIN_FRAMES,
    Score,
    boxes_at_best,
    countable,
    final_score,
    fit_pitch,
    line_distances,
    score_answer,
    speed_score,
)

SIZE = WIDTH, HEIGHT
COUNT = 80


@pytest.fixture(scope="module")
def truth() -> list[Truth]:
    return truths(COUNT)


@pytest.fixture
def answer(truth: list[Truth]) -> dict[str, Any]:
    """With persons as large as a validator looks at, who stand below its score board."""
    made = answer_to(truth)
    for frame in made["frames"]:
        for entry in frame["objects"]:
            x, y = entry["bbox"][0], max(entry["bbox"][1], 151.0)
            entry["bbox"] = [x, y, x + 4, y + 4] if entry["class_id"] == BALL else [x, y, x + 20, y + 45]
    return made


def seen(number: int, pitch: float = 1.0) -> Sight:
    view = camera(aim_cm=(6000.0 + 5 * number, 3500.0))
    circle = centre_circle()
    lines = np.concatenate([np.array(LINES_CM, float).reshape(-1, 4), np.column_stack([circle[:-1], circle[1:]])])
    ends = pixels(view, lines.reshape(-1, 2)).reshape(-1, 4)
    return Sight(ends[(ends != -1).all(axis=1)], pitch)


def judged(
    answer: dict[str, Any],
    sights: Mapping[int, Sight] | None = None,
    *,
    count: int = COUNT,
    seconds: float = 2.0,
    fastest: float = 2.0,
) -> Score:
    sights = {number: seen(number) for number in range(count)} if sights is None else sights
    return score_answer(parse_answer(answer), sights, SIZE, count, seconds=seconds, fastest_s=fastest)


def shares(score: Score) -> dict[str, float]:
    return {part.name: part.share for part in score.parts}


def test_the_truth_scores_nearly_everything(answer: dict[str, Any]) -> None:
    score = judged(answer)
    assert score.pitch_frames == len(score.frames) == COUNT
    parts = shares(score)
    assert parts["homography"] > 0.99
    assert parts["inside"] == parts["scale"] == parts["frames with homography"] == 1
    assert parts["stability"] > 0.97
    # The validator's sigmoid gives 0.9955 for no distance at all.
    assert parts["scene stability"] == pytest.approx(0.995, abs=0.002)
    assert score.keypoints > 0.9
    assert score.boxes_at_best == pytest.approx(1, abs=0.06)
    assert score.speed == 1
    assert score.total == pytest.approx(0.65 * (score.keypoints + score.boxes_at_best) / 2 + 0.35)


def test_what_is_lost_adds_up(answer: dict[str, Any]) -> None:
    for frame in answer["frames"][40:60]:
        frame["keypoints"] = [[x + 9 * (y > 200), y] if x else [x, y] for x, y in frame["keypoints"]]
    score = judged(answer)
    whole = sum(part.share * part.weight for part in score.parts[:5])
    steady, scale, fitted = (part.share for part in score.parts[5:])
    assert score.keypoints == pytest.approx(whole * steady * (scale + fitted) / 2)
    # The lines of the sum lose what is missing to the factors alone.
    assert sum(part.lost for part in score.parts[:5]) == pytest.approx(
        100 * (1 - whole) * steady * (scale + fitted) / 2
    )
    own = [part.lost for part in score.parts if part.name in ("homography", "on lines", "inside", "scene stability")]
    assert sum(frame.cost for frame in score.frames) == pytest.approx(sum(own))
    assert all(39 <= frame.number <= 60 for frame in costliest(score, 2))


def test_keypoints_off_the_lines_are_named(answer: dict[str, Any]) -> None:
    for frame in answer["frames"]:
        frame["keypoints"][30] = [20.0, 340.0]
    score = judged(answer)
    (worst, points), *_ = score.keypoint_costs
    assert worst == 31
    assert points > 3
    assert shares(score)["on lines"] < shares(judged({**answer, "frames": without(answer, 30)}))["on lines"]


def without(answer: dict[str, Any], index: int) -> list[dict[str, Any]]:
    frames: list[dict[str, Any]] = copy.deepcopy(answer["frames"])
    for frame in frames:
        frame["keypoints"][index] = [0.0, 0.0]
    return frames


def test_keypoints_that_jump_lose_the_scenes_stability(answer: dict[str, Any]) -> None:
    for number, frame in enumerate(answer["frames"]):
        if number % 2:
            frame["keypoints"] = [[x + 30.0, y] if x else [x, y] for x, y in frame["keypoints"]]
    parts = shares(judged(answer))
    assert parts["scene stability"] < 0.2


def test_a_frame_left_out_is_unsteady_and_one_without_keypoints_between_such_is_not(answer: dict[str, Any]) -> None:
    whole = shares(judged(answer))["scene stability"]
    missing = {**answer, "frames": [frame for frame in answer["frames"] if frame["frame_number"] != 50]}
    assert shares(judged(missing))["scene stability"] == pytest.approx(whole - 2 * 0.995 / COUNT, abs=1e-3)
    for frame in answer["frames"][40:]:
        frame["keypoints"] = [[0.0, 0.0]] * 32
    parts = shares(judged(answer))
    assert parts["scene stability"] == pytest.approx(whole, abs=0.02)
    # Half of the frames have a homography, 40 % are enough.
    assert parts["frames with homography"] == 1
    for frame in answer["frames"][16:]:
        frame["keypoints"] = [[0.0, 0.0]] * 32
    assert shares(judged(answer))["frames with homography"] == pytest.approx(0.5)


def test_an_answer_without_keypoints_or_objects_scores_nothing(answer: dict[str, Any]) -> None:
    for frame in answer["frames"]:
        frame["keypoints"], frame["objects"] = [[0.0, 0.0]] * 32, []
    score = judged(answer, seconds=2.0)
    assert score.keypoints == score.boxes_at_best == score.speed == score.total == 0


def test_without_lines_in_the_picture_keypoints_score_nothing(answer: dict[str, Any]) -> None:
    score = judged(answer, {0: Sight(np.empty((0, 4)), 1.0)})
    assert shares(score)["on lines"] == pytest.approx(0)
    assert score.keypoints == 0


def test_only_pictures_of_a_pitch_are_scored_and_too_few_are_said(answer: dict[str, Any]) -> None:
    score = judged(answer, {number: seen(number, pitch=0.7 if number < 76 else 0.69) for number in range(COUNT)})
    assert [frame.number for frame in score.frames] == list(range(76))
    few = judged(answer, {number: seen(number, pitch=float(number < MIN_FRAMES - 1)) for number in range(COUNT)})
    assert few.pitch_frames == MIN_FRAMES - 1
    assert len(few.frames) == COUNT
    # Every tenth picture stands for those around it.
    some = judged(answer, {number: seen(number) for number in range(0, COUNT, 10)})
    assert len(some.frames) == COUNT
    assert some.keypoints == pytest.approx(judged(answer).keypoints, abs=0.02)
    with pytest.raises(ValueError, match="no picture"):
        judged(answer, {})


def test_keypoints_too_near_to_an_earlier_one_or_outside_do_not_count() -> None:
    points = np.zeros((32, 2))
    points[[3, 5, 7, 9]] = [(100, 100), (120, 114.9), (120, 115.1), (700, 100)]
    assert countable(points, SIZE).tolist() == [3, 7]
    assert countable(points).tolist() == [3, 7, 9]
    assert fit_pitch(points, SIZE) is None


def test_distance_to_lines_is_in_shares_of_the_picture() -> None:
    points = np.zeros((32, 2))
    points[0], points[4] = (64, 36), (640 - 64, 72)
    found = line_distances(points, np.array([[0.0, 36, 640, 36], [0, 0, 0, 360]]), SIZE)
    assert found[[0, 4]].tolist() == pytest.approx([0, 0.1])
    assert np.isnan(np.delete(found, [0, 4])).all()
    assert np.isinf(line_distances(points, np.empty((0, 4)), SIZE)[[0, 4]]).all()


def frame_of(boxes: list[tuple[float, ...]]) -> FrameAnswer:
    objects = [{"id": n, "class_id": kind, "bbox": box} for n, (kind, *box) in enumerate(boxes)]
    frame = {"frame_number": 0, "keypoints": [[0, 0]] * 32, "objects": objects}
    return parse_answer({"frames": [frame]})[0]


def test_boxes_earn_half_as_much_each_and_a_second_ball_costs() -> None:
    person, ball = (PLAYER, 10, 200, 30, 250), (BALL, 100, 200, 104, 204)
    assert boxes_at_best(frame_of([person]), SIZE) == pytest.approx(1 / 2)
    assert boxes_at_best(frame_of([person] * 2), SIZE) == pytest.approx(1.5 / 2)
    assert boxes_at_best(frame_of([person, ball]), SIZE) == pytest.approx(2 / 3)
    assert boxes_at_best(frame_of([person, ball, ball]), SIZE) == pytest.approx(1 / 4)
    # Too small, or reaching above 150 px: not looked at.
    assert boxes_at_best(frame_of([person, (PLAYER, 10, 200, 24, 250), (PLAYER, 10, 149, 30, 250)]), SIZE) == 0.5
    assert boxes_at_best(frame_of([(PLAYER, 10, 100, 30, 150)]), SIZE) == 0
    assert math.isnan(boxes_at_best(frame_of([]), SIZE))
    large = boxes_at_best(frame_of([(PLAYER, 0, 180, 320, 360)]), SIZE)
    assert large == pytest.approx(math.exp(-80 * (0.25 - 0.015)) / 2)


def test_speed_counts_only_for_an_answer_in_time_with_boxes(answer: dict[str, Any]) -> None:
    assert judged(answer, seconds=8.5).speed == pytest.approx(math.exp(-2.5))
    assert judged(answer, seconds=15.0, fastest=20.0).speed == 0
    assert judged(answer, seconds=1.0).speed == 1
    for frame in answer["frames"]:
        frame["objects"] = frame["objects"][:1]
        frame["objects"][0]["bbox"] = [0.0, 160.0, 400.0, 360.0]
    score = judged(answer)
    assert score.boxes_at_best <= 0.2
    assert score.speed == 0


def test_the_formula_of_speed_and_the_whole() -> None:
    assert speed_score(2.0, 2.0) == 1
    assert speed_score(15.0, 2.0) == 0
    assert speed_score(8.5, 2.0) == pytest.approx(math.exp(-2.5))
    assert speed_score(20.0, 20.0) == 1
    assert speed_score(20.1, 20.0) == 0
    assert final_score(1, 1) == pytest.approx(1)
    assert final_score(0.8, 0) == pytest.approx(0.52)

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest

from tests.touchline.made_scene import HEIGHT, WIDTH, Truth, answer_to, truths
from touchline.answer import AnswerError
from touchline.answer_quality import measure, plausibility
from touchline.contract import BALL


@pytest.fixture
def truth() -> list[Truth]:
    return truths(12)


@pytest.fixture
def answer(truth: list[Truth]) -> dict[str, Any]:
    return answer_to(truth)


def objects(answer: dict[str, Any], class_ids: tuple[int, ...] = (1, 2, 3), first: int = 0) -> list[dict[str, Any]]:
    return [entry for frame in answer["frames"][first:] for entry in frame["objects"] if entry["class_id"] in class_ids]


def seen(answer: dict[str, Any]) -> list[list[float]]:
    return [point for frame in answer["frames"] for point in frame["keypoints"] if any(point)]


def test_the_truth_is_a_perfect_answer(truth: list[Truth], answer: dict[str, Any]) -> None:
    quality = measure(answer, truth, WIDTH)
    assert quality.frames == 12
    shares = (
        quality.frames_answered,
        quality.people_found,
        quality.people_precision,
        quality.class_accuracy,
        quality.balls_found,
        quality.ball_precision,
        quality.keypoints_found,
    )
    assert shares == (1.0,) * 7
    assert quality.ball_iou == pytest.approx(1.0)
    assert quality.identity_switches == 0
    assert quality.keypoints_false == 0
    assert quality.keypoint_error_p95_px == quality.keypoint_error_median_px == 0
    assert quality.keypoint_jitter_px == 0


def test_the_order_of_frames_and_objects_is_free(truth: list[Truth], answer: dict[str, Any]) -> None:
    answer["frames"].reverse()
    for frame in answer["frames"]:
        frame["objects"].reverse()
    assert measure(answer, truth[::-1], WIDTH) == measure(answer_to(truth), truth, WIDTH)


def test_two_tracks_that_swap_ids_are_two_switches(truth: list[Truth], answer: dict[str, Any]) -> None:
    swap = {2: 3, 3: 2}
    for entry in objects(answer, first=5):
        entry["id"] = swap.get(entry["id"], entry["id"])
    quality = measure(answer, truth, WIDTH)
    assert quality.identity_switches == 2
    assert quality.people_found == 1


def test_a_track_lost_and_found_under_a_new_id_is_one_switch(truth: list[Truth], answer: dict[str, Any]) -> None:
    for frame in answer["frames"][4:7]:
        frame["objects"] = [entry for entry in frame["objects"] if entry["id"] != 4]
    for entry in objects(answer, first=7):
        entry["id"] = {4: 44}.get(entry["id"], entry["id"])
    quality = measure(answer, truth, WIDTH)
    assert quality.identity_switches == 1
    assert quality.people_found == pytest.approx(1 - 3 / 60)
    assert quality.people_precision == 1


def test_a_pair_that_still_overlaps_is_kept(truth: list[Truth], answer: dict[str, Any]) -> None:
    """A second box that fits better than the tracked one is a false box, not a switch."""
    for frame in answer["frames"][6:]:
        tracked = next(entry for entry in frame["objects"] if entry["id"] == 2)
        frame["objects"].append({**copy.deepcopy(tracked), "id": 77})
        tracked["bbox"][0] += 2
    quality = measure(answer, truth, WIDTH)
    assert quality.identity_switches == 0
    assert quality.people_precision == pytest.approx(60 / 66)


def test_missing_false_and_misnamed_people(truth: list[Truth], answer: dict[str, Any]) -> None:
    for frame in answer["frames"]:
        by_id = {entry["id"]: entry for entry in frame["objects"]}
        by_id[1]["class_id"] = 2
        by_id[2]["bbox"] = [value + 9 for value in by_id[2]["bbox"]]
        frame["objects"].remove(by_id[3])
    quality = measure(answer, truth, WIDTH)
    assert quality.people_found == pytest.approx(3 / 5)
    assert quality.people_precision == pytest.approx(3 / 4)
    assert quality.class_accuracy == pytest.approx(2 / 3)


def test_only_the_first_ball_of_a_frame_counts(truth: list[Truth], answer: dict[str, Any]) -> None:
    for frame in answer["frames"][:6]:
        ball = next(entry for entry in frame["objects"] if entry["class_id"] == BALL)
        frame["objects"].insert(0, {**ball, "bbox": [10, 10, 13, 13]})
    quality = measure(answer, truth, WIDTH)
    assert quality.balls_found == quality.ball_precision == 0.5
    assert quality.ball_iou == pytest.approx(1.0)


def test_a_ball_nearby_is_found_with_less_overlap(truth: list[Truth], answer: dict[str, Any]) -> None:
    for ball in objects(answer, (BALL,)):
        ball["bbox"] = [value + 9 * (index % 2 == 0) for index, value in enumerate(ball["bbox"])]
    assert measure(answer, truth, WIDTH).balls_found == 1
    assert measure(answer, truth, WIDTH).ball_iou == 0
    for ball in objects(answer, (BALL,)):
        ball["bbox"] = [value + 2 * (index % 2 == 0) for index, value in enumerate(ball["bbox"])]
    assert measure(answer, truth, WIDTH).balls_found == 0


def test_shifted_keypoints_have_an_error_but_no_jitter(truth: list[Truth], answer: dict[str, Any]) -> None:
    for point in seen(answer):
        point[0], point[1] = point[0] + 3, point[1] + 4
    quality = measure(answer, truth, WIDTH)
    assert quality.keypoints_found == 1
    assert quality.keypoint_error_median_px == pytest.approx(5, abs=1e-3)
    assert quality.keypoint_error_p95_px == pytest.approx(5, abs=1e-3)
    assert quality.keypoint_jitter_px == pytest.approx(0, abs=1e-3)
    for point in seen(answer):
        point[0] += 20
    quality = measure(answer, truth, WIDTH)
    assert (quality.keypoints_found, quality.keypoints_false) == (0, 1)


def test_shaking_keypoints_jitter(truth: list[Truth], answer: dict[str, Any]) -> None:
    for number, frame in enumerate(answer["frames"]):
        for point in frame["keypoints"]:
            if any(point):
                point[0] += 1 if number % 2 else -1
    quality = measure(answer, truth, WIDTH)
    assert quality.keypoint_error_median_px == pytest.approx(1, abs=1e-3)
    assert quality.keypoint_jitter_px == pytest.approx(4, abs=1e-3)


def test_jitter_needs_three_frames_in_a_row(truth: list[Truth]) -> None:
    sparse = truth[::2]
    answer = answer_to(sparse)
    for point in seen({"frames": answer["frames"][::2]}):
        point[0] += 5
    assert math.isnan(measure(answer, sparse, WIDTH).keypoint_jitter_px)


def test_keypoints_that_are_invented_or_left_out(truth: list[Truth], answer: dict[str, Any]) -> None:
    visible = int(sum((frame.keypoints[:, 2] > 0).sum() for frame in truth))
    for frame in answer["frames"]:
        points = frame["keypoints"]
        unseen = next(index for index, point in enumerate(points) if not any(point))
        first = next(index for index, point in enumerate(points) if any(point))
        points[unseen], points[first] = [50.0, 50.0], [0.0, 0.0]
    quality = measure(answer, truth, WIDTH)
    assert quality.keypoints_found == pytest.approx(1 - 12 / visible)
    assert quality.keypoints_false == pytest.approx(12 / visible)
    assert quality.keypoint_error_median_px == 0


def test_frames_left_out_count_as_empty(truth: list[Truth], answer: dict[str, Any]) -> None:
    answer["frames"] = answer["frames"][::2]
    quality = measure(answer, truth, WIDTH)
    assert quality.frames_answered == quality.people_found == quality.balls_found == 0.5
    assert quality.keypoints_found == pytest.approx(0.5, abs=0.05)
    assert quality.people_precision == 1
    assert math.isnan(quality.keypoint_jitter_px)


def test_an_empty_answer_has_nothing_to_be_precise_about(truth: list[Truth], answer: dict[str, Any]) -> None:
    for frame in answer["frames"]:
        frame["objects"], frame["keypoints"] = [], [[0.0, 0.0]] * 32
    quality = measure(answer, truth, WIDTH)
    assert (quality.people_found, quality.balls_found, quality.keypoints_found) == (0, 0, 0)
    assert math.isnan(quality.people_precision)
    assert all(isinstance(name, str) and value for name, value in quality.table())
    assert ("people precision", "\N{EN DASH}") in quality.table()


def test_frames_that_the_truth_lacks_are_refused(truth: list[Truth], answer: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not among the truth's 6"):
        measure(answer, truth[:6], WIDTH)
    with pytest.raises(ValueError, match="truth's 0"):
        measure(answer, [], WIDTH)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda answer: answer.pop("frames"), 'no "frames"'),
        (lambda answer: answer["frames"].clear(), "empty"),
        (lambda answer: answer["frames"][3].pop("frame_number"), "entry 3"),
        (lambda answer: answer["frames"][3].update(frame_number=2), "frame 2 is answered twice"),
        (lambda answer: answer["frames"][3]["keypoints"].pop(), "frame 3 does not list 32 keypoints"),
        (lambda answer: answer["frames"][3]["keypoints"].__setitem__(0, [1.0]), "frame 3"),
        (lambda answer: answer["frames"][3]["objects"][0].update(class_id=4), "frame 3 has a class_id outside"),
        (lambda answer: answer["frames"][3]["objects"][0].update(bbox=[5, 5, 1, 9]), "frame 3 has a bbox"),
        (lambda answer: answer["frames"][3]["objects"][0].update(bbox=[5, 5, 9]), "frame 3 is malformed"),
        (lambda answer: answer["frames"][3]["objects"][0].pop("id"), "frame 3 is malformed"),
        (lambda answer: answer["frames"][3].pop("objects"), 'frame 3 has no "objects"'),
    ],
)
def test_malformed_answers_are_named(
    truth: list[Truth], answer: dict[str, Any], spoil: Callable[[dict[str, Any]], object], message: str
) -> None:
    spoil(answer)
    with pytest.raises(AnswerError, match=message):
        measure(answer, truth, WIDTH)


def test_the_truth_is_plausible(answer: dict[str, Any]) -> None:
    judged = plausibility(answer, WIDTH, HEIGHT)
    assert judged.frames == 12
    assert judged.pitch_found == judged.inlier_ratio == 1
    assert judged.reprojection_error_px < 0.01
    assert judged.players_in_pitch == 1
    assert judged.keypoint_stability > 0.95
    assert judged.plausible_motion == 1


def test_keypoints_too_close_together_do_not_count(answer: dict[str, Any]) -> None:
    assert plausibility(answer, WIDTH, HEIGHT).frames_with_keypoints == 1
    for frame in answer["frames"][:3]:
        first, second = [index for index, point in enumerate(frame["keypoints"]) if any(point)][:2]
        frame["keypoints"][second] = [value + 10 for value in frame["keypoints"][first]]
    assert plausibility(answer, WIDTH, HEIGHT).frames_with_keypoints == 0.75


def test_one_wrong_keypoint_costs_inliers_and_error(answer: dict[str, Any]) -> None:
    perfect = plausibility(answer, WIDTH, HEIGHT)
    for frame in answer["frames"]:
        point = next(point for point in frame["keypoints"] if any(point))
        point[1] += 50
    judged = plausibility(answer, WIDTH, HEIGHT)
    assert judged.inlier_ratio < perfect.inlier_ratio
    assert judged.reprojection_error_px > 1


def test_keypoints_that_change_their_distances_are_not_stable(truth: list[Truth]) -> None:
    still = answer_to([truth[0]] * 3)
    for number, frame in enumerate(still["frames"]):
        frame["frame_number"] = number
    assert plausibility(still, WIDTH, HEIGHT).keypoint_stability == 1
    for point in still["frames"][1]["keypoints"]:
        point[:] = [value * 0.9 for value in point]
    expected = math.exp(-10 * (0.1 + 1 / 9) / 2)
    assert plausibility(still, WIDTH, HEIGHT).keypoint_stability == pytest.approx(expected)
    still["frames"][1]["frame_number"] = 7
    assert math.isnan(plausibility(still, WIDTH, HEIGHT).keypoint_stability)


def test_a_jumping_id_and_a_player_in_the_stands(answer: dict[str, Any]) -> None:
    for entry in objects(answer, (2,), first=6):
        if entry["id"] == 2:
            entry["bbox"] = [entry["bbox"][0] + 40, 20, entry["bbox"][2] + 40, 40]
    judged = plausibility(answer, WIDTH, HEIGHT)
    assert judged.plausible_motion == pytest.approx(1 - 1 / 55)
    assert judged.players_in_pitch == pytest.approx(1 - 6 / 48)


def test_an_answer_without_keypoints_has_no_pitch(answer: dict[str, Any]) -> None:
    for frame in answer["frames"]:
        frame["keypoints"] = [[0.0, 0.0]] * 32
    judged = plausibility(answer, WIDTH, HEIGHT)
    assert judged.frames_with_keypoints == judged.pitch_found == 0
    assert math.isnan(judged.inlier_ratio)
    assert math.isnan(judged.players_in_pitch)
    assert math.isnan(judged.keypoint_stability)
    assert ("keypoint inliers", "\N{EN DASH}") in judged.table()

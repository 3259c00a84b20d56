"""Which keypoints are answered, on made distances and a made camera whose lines are known."""

from __future__ import annotations

import numpy as np
import pytest

from gateway.tracking.answered import FURTHEST, LEAST, MEAN_DISTANCE, OnLines, worth_answering
from gateway.tracking.keypoints import Keypoints, KeypointTracker
from tests.touchline.made_scene import HEIGHT, WIDTH, camera
from touchline.homography import project
from touchline.pitch import KEYPOINTS_CM, LINES_CM

FRAMES, STRIDE = 60, 10
SPOT = 8
EVERY = np.arange(FRAMES)


def views(focal: float = 600.0, aim_cm: float = 3500.0) -> list[np.ndarray]:
    return [camera(aim_cm=(aim_cm + 20 * frame, 3500.0), focal=focal) for frame in range(FRAMES)]


def in_sight(seen_by: list[np.ndarray] | None = None) -> np.ndarray:
    points = np.stack([project(view, KEYPOINTS_CM) for view in seen_by or views()])
    inside: np.ndarray = np.all((points > 0) & (points < (WIDTH, HEIGHT)), axis=2)
    return np.where(inside[..., None], points, 0.0)


def lines(number: int, seen_by: list[np.ndarray] | None = None) -> np.ndarray:
    """The straight lines of the pitch that the camera sees, float32 [n, 4] in shares of the picture."""
    ends = project((seen_by or views())[number], np.array(LINES_CM).reshape(-1, 2)) / (WIDTH, HEIGHT)
    four: np.ndarray = np.asarray(ends).reshape(-1, 4)
    seen: np.ndarray = four[np.isfinite(four).all(axis=1)].astype(np.float32)
    return seen


def tracked(observed: np.ndarray) -> Keypoints:
    tracker = KeypointTracker()
    noise = np.random.default_rng(5).normal(0, 0.8, observed.shape)
    for number in [*range(0, FRAMES, STRIDE), FRAMES - 1]:
        seen = (observed[number] != 0).any(axis=1, keepdims=True)
        tracker.add(number, np.where(seen, observed[number] + noise[number], 0.0).astype(np.float32))
    return tracker.finish((WIDTH, HEIGHT))


@pytest.fixture(scope="module")
def points() -> Keypoints:
    return tracked(in_sight())


def seen(answer: np.ndarray) -> np.ndarray:
    return np.asarray((answer != 0).any(axis=2))


def test_where_nobody_looked_for_lines_all_that_is_seen_is_answered(points: Keypoints) -> None:
    assert np.array_equal(points.answered(EVERY), points.at(EVERY))
    assert points.looked_at({}, 25.0) is points


@pytest.mark.parametrize(("focal", "aim_cm", "answered"), [(600.0, 3500.0, True), (2100.0, 1500.0, False)])
def test_a_spot_is_answered_only_where_the_others_make_up_for_it(focal: float, aim_cm: float, answered: bool) -> None:
    close = views(focal, aim_cm)
    points = tracked(in_sight(close))
    looked = points.looked_at({number: lines(number, close) for number in (40, 0, 20)}, 25.0)
    before, after = seen(points.at(EVERY)), seen(looked.answered(EVERY))
    assert before[:, SPOT].all()
    assert after[:, SPOT].all() == after[:, SPOT].any() == answered
    straight = [index for index in range(32) if index not in (SPOT, 30, 31)]
    assert (after >= before)[:, straight].all(), "all on lines are answered"
    assert np.array_equal(looked.at(EVERY), points.at(EVERY)), "the ball still asks where the spots are"


def test_lines_that_are_not_seen_cost_their_keypoints(points: Keypoints) -> None:
    """As in the sun, which hides the lines of the left goal's box."""
    shaded = {number: lines(number)[lines(number)[:, [0, 2]].mean(axis=1) > 0.4] for number in (0, 20, 40)}
    answer = points.looked_at(shaded, 25.0).answered(EVERY)
    far = seen(points.at(EVERY)) & (points.at(EVERY)[..., 0] < 0.25 * WIDTH)
    assert far.any()
    assert seen(answer)[far].mean() < 0.5
    assert seen(answer).sum(axis=1).min() >= LEAST


def test_what_the_model_does_not_see_takes_its_place_on_a_line() -> None:
    observed = in_sight()
    corner = int(np.flatnonzero(seen(observed).all(axis=0) & (np.arange(32) != SPOT))[0])
    hidden = observed.copy()
    hidden[:, corner] = 0
    points = tracked(hidden)
    assert not seen(points.at(EVERY))[:, corner].any()
    answer = points.looked_at({number: lines(number) for number in (0, 20, 40)}, 25.0).answered(EVERY)
    assert seen(answer)[:, corner].all()
    assert np.linalg.norm(answer[:, corner] - observed[:, corner], axis=1).max() < 3


def test_any_frames_are_answered_as_they_are_among_all(points: Keypoints) -> None:
    looked = points.looked_at({number: lines(number) for number in (0, 20, 40)}, 25.0)
    everything = looked.answered(EVERY)
    for numbers in (np.arange(30, 47), np.array([3, 50, 50, 59])):
        assert np.array_equal(looked.answered(numbers), everything[numbers])


def test_the_nearest_are_answered_as_long_as_their_mean_is_good() -> None:
    distances = np.array([*np.full(7, MEAN_DISTANCE / 2), 5 * MEAN_DISTANCE, FURTHEST, np.nan])
    seen_too = np.isfinite(distances)
    assert worth_answering(distances[None], seen_too[None])[0].tolist() == [True] * 7 + [False] * 3
    seen_too[0] = False  # what the model did not see comes after the others
    assert worth_answering(distances[None], seen_too[None])[0].tolist() == [True] * 7 + [False] * 3
    distances[1:7] = MEAN_DISTANCE
    assert worth_answering(distances[None], seen_too[None])[0].tolist() == [False] + [True] * 6 + [False] * 3


def test_where_no_lines_are_seen_all_that_the_model_sees_is_answered(points: Keypoints) -> None:
    """Snow, or a pitch in the dark: a validator sees nothing either."""
    nothing = dict.fromkeys((0, 20, 40), np.empty((0, 4), np.float32))
    assert np.array_equal(points.looked_at(nothing, 25.0).answered(EVERY), points.at(EVERY))


def test_looks_count_by_their_time_and_what_none_found_in_sight_is_believed() -> None:
    distances = np.full((2, 32), np.nan)
    distances[:, 0] = 0.0, 0.1
    found = OnLines(np.array([0.0, 100.0]), distances, 10.0).at(np.array([0, 50, 100]))
    assert found[:, 0] == pytest.approx([0.0, 0.05, 0.1], abs=1e-6)
    assert not found[:, 1:].any()


def test_a_picture_without_lines_is_far_from_all() -> None:
    nothing = OnLines.of({3: np.empty((0, 4), np.float32)}, in_sight()[3:4], (WIDTH, HEIGHT), 25.0)
    assert np.nanmin(nothing.distances) == np.nanmax(nothing.distances) == FURTHEST

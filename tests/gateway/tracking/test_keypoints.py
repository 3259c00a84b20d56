"""Keypoints along time, on a made pan whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from gateway.tracking.keypoints import GROUNDS, Keypoints, KeypointTracker, smooth_along_time
from tests.touchline.made_scene import camera as standing
from touchline.homography import project
from touchline.pitch import KEYPOINTS_CM

FRAMES, WIDTH, HEIGHT = 100, 1280, 720


def camera(frame: int) -> np.ndarray:
    """Pitch cm to px, float64 [3, 3]: a view of the left half that pans at 3 px a frame and speeds up."""
    view = np.array([[0.15, -0.05, 80.0], [0.0, 0.035, 160.0], [0.0, -0.00006, 1.0]])
    return np.asarray(np.array([[1, 0, -3.0 * frame - 0.01 * frame**2], [0, 1, 0], [0, 0, 1]]) @ view)


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    """float64 [100, 32, 2]; (0, 0) outside the picture."""
    points = np.stack([project(camera(frame), KEYPOINTS_CM) for frame in range(FRAMES)])
    inside = np.all((points > 0) & (points < (WIDTH, HEIGHT)), axis=2)
    assert inside.sum(axis=1).min() >= 5
    return np.where(inside[..., None], points, 0.0)


def answer(observed: np.ndarray, stride: int) -> np.ndarray:
    return tracked(observed, stride).at(np.arange(FRAMES))


def tracked(observed: np.ndarray, stride: int) -> Keypoints:
    tracker = KeypointTracker()
    for number in sorted({*range(0, FRAMES, stride), FRAMES - 1}):
        tracker.add(number, observed[number].astype(np.float32))
    return tracker.finish((WIDTH, HEIGHT))


def errors(answered: np.ndarray, truth: np.ndarray) -> np.ndarray:
    both = answered.any(axis=2) & truth.any(axis=2)
    return np.where(both, np.linalg.norm(answered - truth, axis=2), np.nan)


@pytest.mark.parametrize("stride", [1, 2, 5, 10])
def test_exact_keypoints_stay_where_they_are_during_a_pan(stride: int, truth: np.ndarray) -> None:
    answered = answer(truth, stride)
    assert np.nanmax(errors(answered, truth)) < 1.0
    assert (answered.any(axis=2) == truth.any(axis=2)).mean() > 0.99


def test_noise_is_smoothed_without_lag(truth: np.ndarray) -> None:
    noise = np.random.default_rng(0).normal(0, 3, truth.shape)
    observed = np.where(truth.any(axis=2, keepdims=True), truth + noise, 0.0)
    answered = answer(observed, 1)
    before, after = errors(observed, truth), errors(answered, truth)
    assert np.nanmedian(after) < 0.6 * np.nanmedian(before)
    offsets = np.where(np.isfinite(after)[..., None], answered - truth, np.nan)
    assert abs(np.nanmean(offsets[..., 0])) < 0.5  # a filter that lags one frame is 3 to 5 px off
    assert _shaking(answered) < 0.1 * _shaking(observed)


def test_a_wild_keypoint_is_dropped_or_corrected(truth: np.ndarray) -> None:
    observed = truth.copy()
    point = int(np.flatnonzero(truth[40].any(axis=1))[0])
    observed[40, point] += 150
    assert np.nanmax(errors(answer(observed, 2), truth)) < 3


def test_a_keypoint_that_was_lost_shortly_is_answered(truth: np.ndarray) -> None:
    point = int(np.flatnonzero(truth.any(axis=2).all(axis=0))[0])
    observed = truth.copy()
    observed[40:47, point] = 0
    answered = answer(observed, 1)
    assert answered[40:47, point].all()
    assert np.nanmax(errors(answered, truth)) < 1.5
    observed[30:70, point] = 0
    assert not answer(observed, 1)[40:60, point].any()


def test_without_a_homography_keypoints_are_interpolated_as_they_are() -> None:
    observed = np.zeros((FRAMES, 32, 2))
    observed[:, 13] = np.stack([np.arange(FRAMES) + 100, np.full(FRAMES, 50)], axis=1)
    answered = answer(observed, 10)
    assert np.allclose(answered[:, 13], observed[:, 13])
    assert not answered[:, [i for i in range(32) if i != 13]].any()


def test_a_point_on_a_line_in_time_is_not_moved() -> None:
    times = np.array([0.0, 2, 4, 8, 10, 11])
    points = np.stack([3 * times + 5, -2 * times], axis=1)[:, None, :]
    assert np.allclose(smooth_along_time(times, points, np.ones((6, 1), bool)), points)


def test_any_frames_are_answered_as_they_are_among_all(truth: np.ndarray) -> None:
    along = tracked(truth, 10)
    everything = along.at(np.arange(FRAMES))
    for numbers in (np.arange(30, 47), np.array([3, 50, 50, 99])):
        assert np.array_equal(along.at(numbers), everything[numbers])


@pytest.mark.parametrize("ground", GROUNDS, ids=["real", "the subnet's table"])
def test_the_ground_is_found_whichever_it_is(ground: np.ndarray) -> None:
    """The homographies found meanwhile are those of the ground that is settled on in the end."""
    points = np.stack([project(camera(frame), ground) for frame in range(FRAMES)])
    inside = np.all((points > 0) & (points < (WIDTH, HEIGHT)), axis=2)
    shown = np.where(inside[..., None], points, 0.0)
    shown[:40] = 0  # nothing tells the ground until later
    answered = tracked(shown, 2)
    assert np.nanmax(errors(answered.at(np.arange(FRAMES)), shown)) < 1.0


def test_nothing_inferred_or_seen() -> None:
    assert not KeypointTracker().finish((WIDTH, HEIGHT)).at(np.arange(3)).any()
    assert not answer(np.zeros((FRAMES, 32, 2)), 10).any()


def _shaking(points: np.ndarray) -> float:
    seen = np.any(points, axis=2)
    always = seen[2:] & seen[1:-1] & seen[:-2]
    return float(np.linalg.norm(points[2:] - 2 * points[1:-1] + points[:-2], axis=2)[always].mean())


def test_where_one_camera_stands_keypoints_are_answered_where_it_sees_them() -> None:
    """Half of the noise is left, and what the model puts elsewhere goes to its place."""
    views = [standing(aim_cm=(4000.0 + 30 * frame, 3500.0), focal=700.0 + frame) for frame in range(FRAMES)]
    truth = np.stack([project(view, KEYPOINTS_CM) for view in views])
    inside = np.asarray(((truth > 0) & (truth < (640, 360))).all(axis=2))
    truth = np.where(inside[..., None], truth, 0.0)
    observed = np.where(inside[..., None], truth + np.random.default_rng(3).normal(0, 1.5, truth.shape), 0.0)
    point = int(np.flatnonzero(inside.all(axis=0))[0])
    observed[40, point] += 60
    tracker = KeypointTracker()
    for number in range(0, FRAMES, 10):
        tracker.add(number, observed[number].astype(np.float32))
    left = errors(tracker.finish((640, 360)).at(np.arange(91)), truth[:91])
    assert np.nanmedian(left) < 0.6 * np.nanmedian(errors(observed, truth))
    assert np.nanmax(left[:, point]) < 4

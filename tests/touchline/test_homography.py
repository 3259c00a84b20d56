from __future__ import annotations

import numpy as np
import pytest

from tests.touchline.made_scene import HEIGHT, WIDTH, camera, keypoints, pixels
from touchline.homography import keypoint_errors_cm, pitch_homography, project
from touchline.pitch import KEYPOINTS_CM, MIRRORED


def only(points: np.ndarray, numbers: list[int]) -> np.ndarray:
    """Keep the keypoints of these 1-based numbers."""
    kept = np.zeros_like(points)
    index = np.array(numbers) - 1
    kept[index] = points[index]
    return kept


def corner_error_px(homography: np.ndarray, view: np.ndarray) -> float:
    """Largest distance in px between the true and the fitted place of five spots across the picture."""
    spots = np.array([(100, 150), (540, 150), (320, 180), (100, 340), (540, 340)], float)
    return float(np.linalg.norm(pixels(view, project(homography, spots)) - spots, axis=1).max())


@pytest.mark.parametrize("aim", [(1500.0, 3500.0), (6000.0, 3500.0), (10500.0, 2500.0)])
def test_recovers_the_camera(aim: tuple[float, float]) -> None:
    view = camera(aim_cm=aim)
    homography = pitch_homography(keypoints(view))
    assert homography is not None
    assert corner_error_px(homography, view) < 0.1


def test_midfield_with_the_circle_is_enough() -> None:
    view = camera(focal=400.0)
    points = pixels(view, KEYPOINTS_CM)
    homography = pitch_homography(only(points, [14, 15, 16, 17, 31, 32]))
    assert homography is not None
    assert corner_error_px(homography, view) < 0.1


def test_third_column_says_what_is_seen() -> None:
    view = camera()
    points = keypoints(view)
    visible = (points != 0).any(axis=1)
    guesses = np.column_stack([np.where(visible[:, None], points, [(5.0, 7.0)]), visible])
    homography = pitch_homography(guesses)
    assert homography is not None
    assert corner_error_px(homography, view) < 0.1


def test_outliers_are_left_out() -> None:
    view = camera()
    points = keypoints(view)
    wrong = np.flatnonzero((points != 0).any(axis=1))[:2]
    points[wrong] += (60, -40)
    homography = pitch_homography(points)
    assert homography is not None
    assert corner_error_px(homography, view) < 0.1
    errors = keypoint_errors_cm(homography, points)
    assert (errors[wrong] > 200).all()
    assert np.nanmedian(errors) < 1
    assert np.isnan(errors[(points == 0).all(axis=1)]).all()


@pytest.mark.parametrize(
    "numbers",
    [
        [14, 15, 16],  # too few
        [14, 15, 16, 17],  # one line
        [14, 15, 16, 31],  # three on a line and one beside it
        [14, 15, 16, 17, 32],  # four on a line and one beside it
        [10, 11, 12, 13, 9],
    ],
)
def test_degenerate_sets_give_none(numbers: list[int]) -> None:
    points = only(pixels(camera(), KEYPOINTS_CM), numbers)
    noisy = points + np.random.default_rng(3).normal(0, 0.8, points.shape) * (points != 0)
    assert pitch_homography(points) is None
    assert pitch_homography(noisy) is None


def test_nothing_seen_gives_none() -> None:
    assert pitch_homography(np.zeros((32, 2))) is None
    assert pitch_homography(np.full((32, 2), np.nan)) is None


def test_all_on_one_spot_gives_none() -> None:
    assert pitch_homography(np.full((32, 2), 100.0)) is None


def test_random_keypoints_give_none() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        assert pitch_homography(rng.uniform(1, (WIDTH, HEIGHT), (32, 2))) is None


def test_views_that_no_camera_above_the_pitch_has_give_none() -> None:
    points = keypoints(camera())
    seen = (points != 0).any(axis=1)
    left_right = np.where(seen[:, None], (WIDTH, 0) - points * (1, -1), 0)
    upside_down = np.where(seen[:, None], (WIDTH, HEIGHT) - points, 0)
    assert pitch_homography(left_right) is None
    assert pitch_homography(upside_down) is None
    # A mirrored picture with its keypoints renamed is a picture of a pitch again.
    assert pitch_homography(left_right[MIRRORED]) is not None


def test_swapped_corners_give_none() -> None:
    """Four points always fit exactly, but no camera sees a rectangle as a bow tie."""
    points = only(pixels(camera(focal=300.0), KEYPOINTS_CM), [10, 13, 18, 21])
    assert pitch_homography(points) is not None
    for one, other in ((10, 13), (10, 18), (10, 21), (18, 21)):
        swapped = points.copy()
        swapped[[one - 1, other - 1]] = points[[other - 1, one - 1]]
        assert pitch_homography(swapped) is None


def test_points_beyond_the_horizon_have_no_place() -> None:
    homography = pitch_homography(keypoints(camera()))
    assert homography is not None
    assert np.isnan(project(homography, np.array([(320.0, -5000.0)]))).all()
    assert np.isfinite(project(homography, np.array([(320.0, 300.0)]))).all()

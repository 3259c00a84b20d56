"""The counts of the tables, against cases worked out by hand."""

import numpy as np
import pytest

from training.geometry import REAL_CM, project
from training.metrics import average_precision, score_boxes, score_pitch

CAMERA = np.array([[0.06, 0.03, 20.0], [0.0, 0.05, 60.0], [0.0, 0.00008, 1.0]])
SIZE = (640, 360)


def picture() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    points = project(CAMERA, REAL_CM)
    visible = (points >= 0).all(1) & (points[:, 0] < SIZE[0]) & (points[:, 1] < SIZE[1])
    predicted = np.column_stack([points, visible]).astype(np.float32)
    return points, visible, predicted


def test_perfect_keypoints() -> None:
    points, visible, predicted = picture()
    score = score_pitch([(points, visible, predicted, SIZE)])
    assert score.found_share == 1
    assert score.false_share == 0
    assert score.homography_median == pytest.approx(0, abs=1e-4)


def test_far_missing_and_unlabelled_keypoints_are_told_apart() -> None:
    points, visible, predicted = picture()
    first, second, third, fourth = np.flatnonzero(visible)[:4]
    predicted[first, 0] += 0.03 * SIZE[0]
    predicted[second, 2] = 0.1
    labelled = visible.copy()
    labelled[[third, fourth]] = False
    predicted[fourth, 1] += 0.05 * SIZE[0]
    score = score_pitch([(points, labelled, predicted, SIZE)])
    assert score.labelled == visible.sum() - 2
    assert score.found == score.labelled - 2
    assert (score.far, score.unlabelled_right, score.unlabelled_wrong) == (1, 1, 1)
    assert score.false_share == pytest.approx(2 / (visible.sum() - 1))
    assert score.homography_median < 0.001


def test_no_keypoints_is_no_homography() -> None:
    points, visible, predicted = picture()
    score = score_pitch([(points, visible, predicted * 0, SIZE)])
    assert score.found_share == 0
    assert score.homography_median == float("inf")


def test_average_precision_by_hand() -> None:
    scores = np.array([0.9, 0.8, 0.7], np.float32)
    hits = np.array([True, False, True])
    assert average_precision(scores, hits, 2) == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert average_precision(scores, hits, 4) == pytest.approx(0.25 + 0.25 * 2 / 3)
    assert np.isnan(average_precision(scores[:0], hits[:0], 0))


def test_an_object_counts_once_and_for_its_class_only() -> None:
    labels = np.array([[2, 0, 0, 10, 20], [0, 50, 50, 55, 55]], np.float32)
    detections = np.array(
        [[0, 0, 10, 20, 0.9, 2], [0, 0, 10, 19, 0.95, 2], [0, 0, 10, 20, 0.99, 3], [50, 50, 55, 55, 0.3, 0]], np.float32
    )
    table = score_boxes([(labels, detections)])
    assert table["ball"] == 1
    assert table["player"] == 1
    assert np.isnan(table["referee"])
    doubled = score_boxes([(labels, detections[[0, 1]]), (labels[:1], detections[:0])])
    assert doubled["player"] == pytest.approx(0.5)

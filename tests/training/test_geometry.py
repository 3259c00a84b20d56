"""The real ground and the homographies fitted to it."""

import numpy as np
import pytest

from touchline.pitch import KEYPOINTS_CM, MIRRORED
from training.geometry import LINE_CLASSES, REAL_CM, fit, fit_any, line_segments, project

CAMERA = np.array([[0.06, 0.03, 20.0], [0.0, 0.05, 60.0], [0.0, 0.00008, 1.0]])


def test_real_ground_is_symmetric() -> None:
    assert np.allclose(REAL_CM[MIRRORED, 0], REAL_CM[:, 0].max() - REAL_CM[:, 0])
    assert np.allclose(REAL_CM[MIRRORED, 1], REAL_CM[:, 1])


def test_penalty_arc_meets_the_box_where_keypoints_are() -> None:
    for spot, point in ((8, 10), (8, 11), (21, 18), (21, 19)):
        assert np.linalg.norm(REAL_CM[spot] - REAL_CM[point]) == pytest.approx(915)


def test_fit_finds_the_camera_and_the_outlier() -> None:
    pixels = project(CAMERA, REAL_CM)
    pixels[3] += 60
    fitted = fit(REAL_CM, pixels, 3.0)
    assert fitted is not None
    matrix, inliers = fitted
    assert not inliers[3]
    assert inliers.sum() == 31
    assert np.allclose(project(matrix, REAL_CM[[3]]), project(CAMERA, REAL_CM[[3]]), atol=0.5)


@pytest.mark.parametrize("template", [REAL_CM, KEYPOINTS_CM])
def test_fit_any_recognises_the_ground(template: np.ndarray) -> None:
    fitted = fit_any(project(CAMERA, template), np.ones(32, bool), 3.0)
    assert fitted is not None
    assert fitted[0] is template
    assert fitted[3] < 0.1


def test_fit_refuses_too_little() -> None:
    assert fit(REAL_CM[:3], REAL_CM[:3], 3.0) is None
    line = np.column_stack([np.arange(6.0), np.zeros(6)])
    assert fit(line, line, 3.0) is None


def test_points_behind_the_camera_have_no_place() -> None:
    matrix = np.array([[1.0, 0, 0], [0, 1, 0], [0, 1, 0]])
    assert np.isnan(project(matrix, np.array([[5.0, -1.0]]))).all()


def test_lines_join_the_keypoints() -> None:
    for template in (REAL_CM, KEYPOINTS_CM):
        lines = line_segments(template)
        assert {kind for kind, _ in lines} == set(range(LINE_CLASSES))
        low, high = template.min(0), template.max(0)
        for _, line in lines:
            assert (line >= low - 1e-6).all()
            assert (line <= high + 1e-6).all()
    arcs = [line for kind, line in line_segments(REAL_CM) if kind == 5][1:]
    assert len(arcs) == 2
    for arc, box in zip(arcs, (REAL_CM[9, 0], REAL_CM[17, 0]), strict=True):
        assert (np.sign(arc[:, 0] - box) == np.sign(arc[0, 0] - box)).all()
        assert np.linalg.norm(np.diff(arc, axis=0), axis=1).max() < 100

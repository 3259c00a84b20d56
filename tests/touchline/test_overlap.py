"""Overlaps against those of the `trackers` library."""

from __future__ import annotations

import numpy as np
import trackers

from touchline.overlap import diou, iou


def boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    corners = rng.uniform(0, 200, (2, count))
    return np.concatenate([corners, corners + rng.uniform(1, 80, (2, count))])


def test_they_are_the_librarys() -> None:
    rng = np.random.default_rng(0)
    first, second = boxes(rng, 30), boxes(rng, 40)
    assert np.allclose(iou(first, second), trackers.IoU().compute(first.T, second.T), atol=1e-6)
    assert np.allclose(diou(first, second), trackers.DIoU().compute(first.T, second.T), atol=1e-6)


def test_no_boxes_and_boxes_without_area_overlap_nothing() -> None:
    some = boxes(np.random.default_rng(1), 3)
    assert iou(some[:, :0], some).shape == (0, 3)
    assert diou(some, some[:, :0]).shape == (3, 0)
    point = np.array([[5.0], [5.0], [5.0], [5.0]])
    assert iou(point, point) == 0
    assert np.isfinite(diou(point, point)).all()

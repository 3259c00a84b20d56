"""How much boxes overlap, every pair of two sets at once. Boxes are float64 [4, n]: rows x1, y1, x2, y2 in pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Boxes = npt.NDArray[np.float64]
Pairs = npt.NDArray[np.float64]

_TINY = float(np.finfo(np.float64).tiny)


def iou(first: Boxes, second: Boxes) -> Pairs:
    """Intersection over union, float64 [n, m]; 0 where a box is empty."""
    shared = np.minimum(first[2:, :, None], second[2:, None]) - np.maximum(first[:2, :, None], second[:2, None])
    np.maximum(shared, 0.0, out=shared)
    intersection = shared[0] * shared[1]
    union = _areas(first)[:, None] + _areas(second) - intersection
    return np.asarray(intersection / np.maximum(union, _TINY))


def diou(first: Boxes, second: Boxes) -> Pairs:
    """IoU less the squared centre distance over the squared diagonal of the enclosing box (Zheng 2020), [n, m]."""
    around = np.maximum(first[2:, :, None], second[2:, None]) - np.minimum(first[:2, :, None], second[:2, None])
    apart = centres(first)[:, :, None] - centres(second)[:, None]
    around *= around
    apart *= apart
    return np.asarray(iou(first, second) - (apart[0] + apart[1]) / np.maximum(around[0] + around[1], _TINY))


def centres(boxes: Boxes) -> npt.NDArray[np.float64]:
    """Float64 [2, n]: x, y."""
    return np.asarray((boxes[:2] + boxes[2:]) / 2)


def _areas(boxes: Boxes) -> npt.NDArray[np.float64]:
    sides = np.maximum(boxes[2:] - boxes[:2], 0.0)
    return np.asarray(sides[0] * sides[1])

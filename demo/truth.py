"""What is true in one rendered frame: boxes, classes, ids, pitch keypoints and the homography."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Truth:
    """The truth of one frame. Pixel i of a row covers [i, i + 1), so a frame spans [0, width] x [0, height]."""

    frame_number: int
    boxes: npt.NDArray[np.float32]
    """float32 [n, 4]: x1 y1 x2 y2 in pixels, clipped to the frame; objects that are nearly hidden are left out."""
    classes: npt.NDArray[np.intp]
    """intp [n]: index into `touchline.contract.CLASS_NAMES`."""
    ids: npt.NDArray[np.intp]
    """intp [n]: one number an object, the same in every frame of a match."""
    keypoints: npt.NDArray[np.float32]
    """float32 [32, 3]: x, y in pixels, and 1 inside the image or 0. Rows with 0 carry no position: x = y = 0."""
    homography: npt.NDArray[np.float64]
    """float64 [3, 3]: pitch centimetres (x along the length, y across, origin at keypoint 1) to pixels."""

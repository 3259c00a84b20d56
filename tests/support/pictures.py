"""Pictures that something wrote."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np


def read_picture(path: Path) -> np.ndarray:
    """uint8 BGR [H, W, 3]."""
    picture = cv2.imread(str(path))
    assert picture is not None, f"{path} is no picture"
    return np.asarray(picture)

"""How many frames of a clip are inferred, so that its answer comes in time: arithmetic, no clock and no engine."""

from __future__ import annotations

import math

MAX_STRIDE = 25
"""However late a challenge is, a frame of each second of usual video is inferred."""


def paced_stride(frames_left: int, affordable: float, least: int) -> int:
    """The stride, from `least` to MAX_STRIDE, at which `frames_left` source frames cost `affordable` inferences."""
    if frames_left <= 0:
        return least
    return min(MAX_STRIDE, max(least, math.ceil(frames_left / max(affordable, 1.0))))

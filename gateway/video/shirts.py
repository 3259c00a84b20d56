"""The colour of every shirt, read while the frames lie in a slot: what tells the teams apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from gateway.detections import Detections, Floats
from gateway.video.decode import Frames
from touchline.contract import PLAYER, Letterbox

_TORSO: Final = ((0.3, 0.7), (0.18, 0.45))
"""The part of a box, across and down, that is shirt whatever the legs and arms do."""
MIN_SCORE: Final = 0.3
"""Boxes below are often no player."""


class Shirts:
    """Colours by frame number: the boxes float32 [n, 4] in source pixels, and the shirts float32 [n, 3] in CIE Lab."""

    def __init__(self) -> None:
        self.seen: dict[int, tuple[Floats, Floats]] = {}

    def look(
        self, frames: Frames, numbers: Sequence[int], detections: Sequence[Detections], letterbox: Letterbox
    ) -> None:
        """Read the players' shirts in uint8 [n, H, W, 3] RGB, the frames with these numbers and detections."""
        for frame, number, found in zip(frames, numbers, detections, strict=False):
            players = found.only((found.classes == PLAYER) & (found.scores >= MIN_SCORE))
            if len(players):
                self.seen[number] = players.xyxy, shirt_colours(frame, players.xyxy, letterbox)


def shirt_colours(frame: npt.NDArray[np.uint8], xyxy: Floats, letterbox: Letterbox) -> Floats:
    """float32 [n, 3] CIE Lab: the mean colour of the shirts of boxes float32 [n, 4], source pixels, in a slot's frame.

    NaN for boxes that are out of the picture.
    """
    if not len(xyxy):
        return np.empty((0, 3), np.float32)
    height, width = frame.shape[:2]
    corners = letterbox.to_input(xyxy.reshape(-1, 2, 2))
    low, size = corners[:, 0], corners[:, 1] - corners[:, 0]
    first = np.clip(low + size * [_TORSO[0][0], _TORSO[1][0]], 0, (width, height)).astype(int)
    last = np.clip(np.ceil(low + size * [_TORSO[0][1], _TORSO[1][1]]), 0, (width, height)).astype(int)
    means = np.full((len(xyxy), 1, 3), np.nan, np.float32)
    for row, ((x0, y0), (x1, y1)) in enumerate(zip(first.tolist(), last.tolist(), strict=True)):
        if x1 > x0 and y1 > y0:
            means[row, 0] = cv2.mean(frame[y0:y1, x0:x1])[:3]
    return np.asarray(cv2.cvtColor(means / 255, cv2.COLOR_RGB2LAB)[:, 0], np.float32)

"""Straight painted lines of a frame now and then, looked for while it lies in a slot: what keypoints lie on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from gateway.detections import Floats
from gateway.video.decode import Frames
from touchline.contract import Letterbox
from touchline.pitch_lines import segments_of_scaled

LOOK_S: Final = 1.6
"""Seconds of the video from one look to the next: a look takes 10 ms of a core at 1024 pixels."""


class PaintedLines:
    """By frame number: straight pieces, float32 [n, 4], x1, y1, x2, y2 in shares of the picture."""

    def __init__(self, fps: float) -> None:
        self.seen: dict[int, Floats] = {}
        self._step = LOOK_S * fps
        self._next = 0.0

    def due(self, numbers: Sequence[int]) -> list[int]:
        """Which frames of a slot are to be looked at, by their places in it. Asked once of each slot, in order."""
        places = []
        for place in np.argsort(numbers).tolist():
            if numbers[place] >= self._next:
                self._next = numbers[place] + self._step
                places.append(place)
        return places

    def look(self, frames: Frames, numbers: Sequence[int], places: Sequence[int], letterbox: Letterbox) -> None:
        """Look at those of the frames, uint8 [n, H, W, 3] RGB with these numbers, that lie at `places`."""
        (left, top), (width, height) = letterbox.offset, letterbox.content_size
        for place in places:
            content = frames[place, top : top + height, left : left + width]
            self.seen[numbers[place]] = segments_of_scaled(content, letterbox.gain)

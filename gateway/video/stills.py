"""A few frames of a challenge kept for the operator's console."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from gateway.video.decode import Frames, VideoInfo

STILLS: Final = 6
WIDTH: Final = 800
"""Largest width of a kept picture, in pixels."""
_QUALITY: Final = 82
_USUAL_FRAMES: Final = 750
"""Length of a validator's clip, taken where the header does not tell."""


class Stills:
    """Evenly spaced frames of one video, copied while they lie in a slot, JPEG after `compress`.

    The copies are as large as the model input (6 x 1.7 MiB at 576x1024), the JPEGs about 50 KiB each.
    """

    def __init__(self, info: VideoInfo) -> None:
        self.letterbox = info.letterbox
        self.fps = info.fps
        # The middle of each of equal parts: the first and last frame of a clip are its least typical.
        every = (info.frames or round(info.duration_s * info.fps) or _USUAL_FRAMES) / STILLS
        self._wanted = deque(round((index + 0.5) * every) for index in range(STILLS))
        self._copies: dict[int, Frames] = {}
        self.pictures: dict[int, bytes] = {}
        """JPEG by source frame number, the letterbox's padding cut off; empty before `compress`."""

    @property
    def numbers(self) -> tuple[int, ...]:
        """Source frame numbers of what is kept, ascending."""
        return tuple(sorted(self._copies or self.pictures))

    def look(self, frames: Frames, numbers: Sequence[int]) -> None:
        """Copy what is wanted of a slot, uint8 [n, H, W, 3] RGB with these source frame numbers: 0.2 ms a frame."""
        if not self._wanted or max(numbers) < self._wanted[0]:
            return
        for number, position in sorted((number, position) for position, number in enumerate(numbers)):
            if self._wanted and number >= self._wanted[0]:
                while self._wanted and number >= self._wanted[0]:
                    self._wanted.popleft()
                left, top = self.letterbox.offset
                width, height = self.letterbox.content_size
                self._copies[number] = frames[position, top : top + height, left : left + width].copy()

    def compress(self) -> None:
        """Turn the copies into small JPEGs and let go of them. A few tens of milliseconds, for a thread of its own."""
        if self._copies:
            self.pictures = {number: _jpeg(copy) for number, copy in self._copies.items()}
            self._copies = {}


def _jpeg(frame: Frames) -> bytes:
    height, width = frame.shape[:2]
    picture: npt.NDArray[np.generic] = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
    if width > WIDTH:
        picture = cv2.resize(picture, (WIDTH, round(height * WIDTH / width)), interpolation=cv2.INTER_AREA)
    return bytes(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1])

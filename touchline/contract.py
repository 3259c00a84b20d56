"""The model contract: the names, shapes and pixel geometry that exported models and the gateway share.

Whatever engine runs it, a served model looks the same:

    input   frames      UINT8 [N, H, W, 3]   RGB, letterboxed, H x W fixed at export
    output  detections  FP32  [N, K, 6]      x1 y1 x2 y2 (input pixels), score, class; best first, zero-padded
    output  keypoints   FP32  [N, 32, 3]     pitch model instead: x y (input pixels), confidence
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

INPUT: Final = "frames"
DETECTIONS: Final = "detections"
KEYPOINTS: Final = "keypoints"

PLAYER_MODEL: Final = "player"
PITCH_MODEL: Final = "pitch"
BALL_MODEL: Final = "ball"

CLASS_NAMES: Final = ("ball", "goalkeeper", "player", "referee")
BALL, GOALKEEPER, PLAYER, REFEREE = range(4)

KEYPOINT_COUNT: Final = 32
MAX_DETECTIONS: Final = 150
DEFAULT_SIZE: Final = (384, 640)
"""Height and width of the model input, in pixels."""

LETTERBOX_GREY: Final = 114
"""Value of the padding around a letterboxed frame, the one YOLO models are trained with."""


Frame = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Letterbox:
    """How a source frame lies in the model input: scaled by one factor, centred, padded with grey.

    The arithmetic (rounding included) is that of Ultralytics' LetterBox with auto=False, center=True.
    """

    source_width: int
    source_height: int
    width: int
    height: int

    @property
    def source_size(self) -> tuple[int, int]:
        """Width and height of the source frame, in pixels."""
        return self.source_width, self.source_height

    @property
    def gain(self) -> float:
        """Model pixels per source pixel."""
        return min(self.width / self.source_width, self.height / self.source_height)

    @property
    def content_size(self) -> tuple[int, int]:
        """Width and height of the scaled frame inside the input, in pixels."""
        return (
            max(1, round(self.source_width * self.gain)),
            max(1, round(self.source_height * self.gain)),
        )

    @property
    def offset(self) -> tuple[int, int]:
        """Left and top padding, in pixels."""
        content_width, content_height = self.content_size
        return (
            round((self.width - content_width) / 2 - 0.1),
            round((self.height - content_height) / 2 - 0.1),
        )

    def content_of(self, target: Frame) -> Frame:
        """Paint the padding of `target`, uint8 [H, W, 3], and give the view of it that the scaled frame goes into."""
        (left, top), (width, height) = self.offset, self.content_size
        target[:top] = target[top + height :] = LETTERBOX_GREY
        target[top : top + height, :left] = target[top : top + height, left + width :] = LETTERBOX_GREY
        return target[top : top + height, left : left + width]

    def placed(self, picture: Frame) -> Frame:
        """A model input uint8 [H, W, 3] with `picture`, uint8 of `content_size`, where the frame lies."""
        target = np.empty((self.height, self.width, 3), np.uint8)
        self.content_of(target)[:] = picture
        return target

    def to_source(self, points: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Map points float32 [..., 2] (x, y in input pixels) to source pixels, clipped to the frame."""
        content_width, content_height = self.content_size
        scale = np.array([self.source_width / content_width, self.source_height / content_height], np.float32)
        source = (points - np.array(self.offset, np.float32)) * scale
        limits = np.array([self.source_width, self.source_height], np.float32)
        return np.asarray(np.clip(source, 0, limits), np.float32)

    def to_input(self, points: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Map points float32 [..., 2] (x, y in source pixels) to input pixels."""
        content_width, content_height = self.content_size
        scale = np.array([content_width / self.source_width, content_height / self.source_height], np.float32)
        return np.asarray(points * scale + np.array(self.offset, np.float32), np.float32)

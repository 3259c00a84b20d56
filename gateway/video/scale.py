"""Decoded frames to RGB at the size the models see, and to BGR at those that viewers do."""

from __future__ import annotations

from typing import Final

import av
import cv2
import numpy as np
import numpy.typing as npt
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange, VideoReformatter

from touchline.video_read import TURNS

Pixels = npt.NDArray[np.uint8]

_BT709: Final = 1
"""AVCOL_SPC_BT709. What names no colour space is taken for BT.601, as FFmpeg and OpenCV do."""

# Its threads would take the cores on which other frames are decoded, for more than they give on pictures of this size.
cv2.setNumThreads(1)


class Scaler:
    """Scales frames to `width` x `height`, RGB or `bgr`, bilinearly, and turns them. Used by one thread at a time.

    `turn` is in degrees clockwise, 0, 90, 180 or 270; width and height are those after it. BGR is what OpenCV draws on
    and compresses. It scales the planes and converts what came out, straight into its place: half of swscale's time.
    """

    def __init__(self, width: int, height: int, turn: int = 0, *, bgr: bool = False) -> None:
        self._order = cv2.COLOR_YUV2BGR_I420 if bgr else cv2.COLOR_YUV2RGB_I420
        self._from_bt601 = _FROM_BT601[::-1, ::-1].copy() if bgr else _FROM_BT601
        self._turn = TURNS.get(turn)
        if turn in (90, 270):
            width, height = height, width
        even_width, even_height = width + width % 2, height + height % 2
        self._i420 = np.zeros((even_height * 3 // 2, even_width), np.uint8)
        luma, chroma = np.split(self._i420.reshape(-1), [even_height * even_width])
        half = even_height // 2, even_width // 2
        self._planes = [luma.reshape(even_height, even_width)[:height, :width], *chroma.reshape(2, *half)]
        self._size = height, width
        self._is_direct = self._turn is None and not (width % 2 or height % 2)
        self._even = np.empty((0 if self._is_direct else even_height, even_width, 3), np.uint8)
        self._is_bt709 = False
        self._unpacking = VideoReformatter()

    def scale(self, frame: av.VideoFrame, target: Pixels) -> None:
        """Write the frame into `target`, uint8 [height, width, 3]."""
        self.load(frame)
        self.store(target)

    def load(self, frame: av.VideoFrame) -> None:
        """Scale the frame's planes."""
        planar = frame
        if frame.format.name != "yuv420p" or frame.color_range == ColorRange.JPEG:
            planar = self._unpacking.reformat(frame, format="yuv420p", dst_color_range=ColorRange.MPEG, threads=1)
        for source, scaled in zip(planar.planes, self._planes, strict=True):
            # Two pixels of a line make one of the scaled: of a much larger picture the others would be left out.
            interpolation = cv2.INTER_AREA if source.width > 2 * scaled.shape[1] else cv2.INTER_LINEAR
            cv2.resize(_pixels(source), scaled.shape[::-1], scaled, interpolation=interpolation)
        self._is_bt709 = frame.colorspace == _BT709

    def store(self, target: Pixels) -> None:
        """Write the frame that was loaded into `target`, uint8 [height, width, 3]. All that touches it is this."""
        whole = target if self._is_direct else self._even
        cv2.cvtColor(self._i420, self._order, whole)
        if self._is_bt709:
            cv2.transform(whole, self._from_bt601, whole)
        if not self._is_direct:
            upright = whole[: self._size[0], : self._size[1]]
            target[...] = upright if self._turn is None else cv2.rotate(upright, self._turn)


def _pixels(plane: VideoPlane) -> Pixels:
    """The memory of a plane of one byte a pixel, uint8 [H, W]."""
    return np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]


def _rgb_of_yuv(red: float, blue: float) -> npt.NDArray[np.float64]:
    """Float64 [3, 3]: full-range Y, Pb, Pr to R, G, B for the given weights in luma (ITU-R BT.709-6, 3.2 and 3.3)."""
    green = 1 - red - blue
    to_red, to_blue = 2 * (1 - red), 2 * (1 - blue)
    return np.array([[1, 0, to_red], [1, -blue / green * to_blue, -red / green * to_red], [1, to_blue, 0]])


_FROM_BT601: Final = _rgb_of_yuv(0.2126, 0.0722) @ np.linalg.inv(_rgb_of_yuv(0.299, 0.114))
"""Float64 [3, 3]: the RGB of BT.709 from what the same picture is under BT.601."""

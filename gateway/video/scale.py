"""Decoded frames to RGB at the size the models see."""

from __future__ import annotations

import av
import cv2
import numpy as np
import numpy.typing as npt
from av.video.plane import VideoPlane
from av.video.reformatter import Interpolation, VideoReformatter

# Its threads would take the cores on which other frames are decoded, for more than they give on pictures of this size.
cv2.setNumThreads(1)


class Scaler:
    """Scales frames to `width` x `height` RGB, bilinearly. Used by one thread at a time.

    OpenCV scales the planes, swscale converts what came out: each does what it is quick at, on one thread, since the
    other cores decode. swscale alone takes 1.4 times the CPU time in two such steps and 3 times in one.
    """

    def __init__(self, width: int, height: int) -> None:
        self._yuv = av.VideoFrame(width, height, "yuv420p")
        self._unpacking, self._converting = VideoReformatter(), VideoReformatter()

    def scale(self, frame: av.VideoFrame) -> av.VideoFrame:
        """The frame as rgb24; a frame of the right size is only converted."""
        yuv = frame
        if (frame.width, frame.height) != (self._yuv.width, self._yuv.height):
            yuv = self._yuv
            # Only the layout changes here, and the range of yuvj420p.
            planar = self._unpacking.reformat(frame, format="yuv420p", threads=1)
            yuv.colorspace, yuv.color_range = planar.colorspace, planar.color_range
            for source, target in zip(planar.planes, yuv.planes, strict=True):
                cv2.resize(pixels(source), (target.width, target.height), pixels(target))
        return self._converting.reformat(yuv, format="rgb24", interpolation=Interpolation.BILINEAR, threads=1)


def pixels(plane: VideoPlane) -> npt.NDArray[np.uint8]:
    """The memory of a plane of one byte a pixel, uint8 [H, W]."""
    return np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]

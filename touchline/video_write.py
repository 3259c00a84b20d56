"""H.264 videos that play everywhere: yuv420p, index in front, written whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorRange, Colorspace

from touchline.atomic_file import replacing

Picture = npt.NDArray[np.uint8]
"""uint8 [height, width, 3], BGR as OpenCV draws it."""


@contextmanager
def video_writer(
    path: Path, width: int, height: int, rate: Fraction, *, crf: int = 20, preset: str = "veryfast"
) -> Iterator[Callable[[Picture], None]]:
    """Open an mp4 of even width x height pixels and rate frames a second; call what is yielded with each picture.

    The file appears under its name when the block ends well. Raises ValueError for odd sizes and for a picture of
    another size, OSError when the folder cannot be written to.
    """
    if width % 2 or height % 2:
        raise ValueError(f"H.264 with yuv420p needs an even width and height, not {width}x{height}")
    with (
        replacing(path) as part,
        av.open(str(part), "w", format="mp4", options={"movflags": "+faststart"}) as container,
    ):
        stream = container.add_stream("libx264", rate=rate, options={"crf": str(crf), "preset": preset})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        # What OpenCV converts BGR to. Players take an untagged video of this height for BT.709 and shift its colours.
        context = stream.codec_context
        context.colorspace, context.color_range = Colorspace.SMPTE170M, ColorRange.MPEG

        def write(picture: Picture) -> None:
            if picture.shape != (height, width, 3):
                raise ValueError(f"a picture of shape {picture.shape} in a video of {width}x{height}")
            # OpenCV converts in a seventh of the time that libavcodec's scaler takes.
            planes = cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_I420)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))

        yield write
        container.mux(stream.encode())

"""Small H.264 videos whose frames can be told apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

_ENCODING = {
    "libx264": {"crf": "20", "preset": "ultrafast", "bf": "2"},
    "libx265": {"preset": "ultrafast", "x265-params": "bframes=3:log-level=error"},
    "mpeg4": {"bf": "2"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
    "libsvtav1": {"preset": "10", "crf": "10", "svtav1-params": "lp=1"},
    "mpeg2video": {"bf": "2", "q": "4"},
}


def frame_image(number: int, width: int, height: int) -> np.ndarray:
    """uint8 RGB [H, W, 3]: the number as 10 bright or dark columns, lowest bit left."""
    image = np.zeros((height, width, 3), np.uint8)
    for bit in range(10):
        image[:, bit * width // 10 : (bit + 1) * width // 10] = 230 if number >> bit & 1 else 20
    return image


def read_number(image: np.ndarray) -> int:
    """The number that frame_image wrote into `image`, at any scale."""
    height, width = image.shape[:2]
    columns = [image[height // 2, (2 * bit + 1) * width // 20].mean() > 125 for bit in range(10)]
    return sum(1 << bit for bit, bright in enumerate(columns) if bright)


def make_video(
    path: Path,
    frames: int,
    *,
    width: int = 320,
    height: int = 180,
    fps: Fraction | int = 25,
    faststart: bool = True,
    codec: str = "libx264",
    encoding: Mapping[str, str] | None = None,
    muxing: Mapping[str, str] | None = None,
    times: Callable[[int], int] = lambda number: number,
    matrix: Sequence[int] | None = None,
    layout: str = "yuv420p",
    rewrite: Callable[[av.Packet], av.Packet | None] = lambda packet: None,
) -> Path:
    """A video whose frame n shows frame_image(n), with B-frames where the codec has them.

    `encoding` and `muxing` are FFmpeg's options, `times` the frames' times in 1/fps, `matrix` the first two columns and
    rows of a display matrix; `rewrite` may change packets before they are written, or give others.
    """
    options = dict(muxing or {}) | ({"movflags": "faststart"} if faststart and muxing is None else {})
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(
            codec, rate=fps, options={"g": "25", **_ENCODING.get(codec, {}), **(encoding or {})}
        )
        stream.width, stream.height, stream.pix_fmt = width, height, layout
        if matrix is not None:
            stream.set_display_matrix((*matrix[:2], 0, *matrix[2:], 0, 0, 0, 1 << 30))

        def write(packets: Iterable[av.Packet]) -> None:
            for packet in packets:
                container.mux(rewrite(packet) or packet)

        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(frame_image(number, width, height), format="rgb24")
            frame.pts, frame.time_base = times(number), 1 / Fraction(fps)
            write(stream.encode(frame))
        write(stream.encode())
    return path


def make_audio(path: Path, seconds: float = 1.0) -> Path:
    """An mp4 without a picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        for start in range(0, int(44100 * seconds), 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 44100, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path

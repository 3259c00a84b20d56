"""The clip again in the forms that validators could send: pixel formats, edit lists, sizes, codecs."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
from av.video.frame import PictureType

FRAMES = 80


def encode(
    source: Path,
    target: Path,
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    size: tuple[int, int] | None = None,
    **options: str,
) -> Path:
    """The first FRAMES frames of `source` again, by `codec` with `options`, scaled to `size` (width, height)."""
    defaults = {"preset": "ultrafast", "g": "30", "bf": "2"} if codec == "libx264" else {"preset": "ultrafast"}
    with av.open(str(source)) as read, av.open(str(target), "w") as write:
        stream = read.streams.video[0]
        stream.thread_type = "AUTO"
        out = write.add_stream(codec, rate=25, options=defaults | options)
        out.width, out.height = size or (stream.width // 2 * 2, stream.height // 2 * 2)
        out.pix_fmt = pix_fmt
        for index, frame in enumerate(read.decode(stream)):
            if index == FRAMES:
                break
            picture = frame.reformat(out.width, out.height, format=pix_fmt)
            picture.pts, picture.time_base, picture.pict_type = index, Fraction(1, 25), PictureType.NONE
            write.mux(out.encode(picture))
        write.mux(out.encode())
    return target


def cut(source: Path, target: Path, hidden: int = 10) -> Path:
    """The clip without its first frames, by an edit list: the pictures are there, players do not show them."""
    options = {"avoid_negative_ts": "disabled", "use_editlist": "1"}
    with av.open(str(source)) as read, av.open(str(target), "w", options=options) as write:
        stream = read.streams.video[0]
        out = write.add_stream_from_template(stream)
        shift = round(hidden / (stream.average_rate * stream.time_base))
        for packet in read.demux(stream):
            if packet.dts is not None:
                packet.pts -= shift
                packet.dts -= shift
                packet.stream = out
                write.mux(packet)
    return target


def variants(source: Path, folder: Path) -> dict[str, Callable[[], Path]]:
    """Each form of the clip by name, made when it is called for; what was seen to go wrong comes first."""
    bt709: dict[str, object] = {
        "colorspace": "bt709",
        "x264-params": "colormatrix=bt709:colorprim=bt709:transfer=bt709",
    }
    x265: dict[str, object] = {"codec": "libx265", "x265-params": "log-level=none"}
    made: dict[str, dict[str, object]] = {
        "10 bit": {"pix_fmt": "yuv420p10le"},
        "4:2:2": {"pix_fmt": "yuv422p"},
        "4:4:4": {"pix_fmt": "yuv444p"},
        "4608 wide": {"size": (4608, 256)},
        "BT.709": bt709,
        "full range": {"pix_fmt": "yuvj420p"},
        "no B-frames": {"bf": "0"},
        "three B-frames": {"bf": "3", "preset": "fast"},
        "odd letterbox": {"size": (854, 390)},
        "portrait": {"size": (360, 640)},
        "HEVC": x265,
        "HEVC 10 bit": {**x265, "pix_fmt": "yuv420p10le"},
    }
    return {
        "as it is": lambda: source,
        "edit list": lambda: cut(source, folder / "edit_list.mp4"),
        **{
            name: lambda name=name, options=options: encode(  # type: ignore[misc]
                source, folder / f"{name.replace(' ', '_').replace(':', '').replace('.', '')}.mp4", **options
            )
            for name, options in made.items()
        },
    }

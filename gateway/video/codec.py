"""Which decoder reads a stream: NVDEC, scaling on the GPU, where the driver offers it; else FFmpeg's own on the CPU."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from typing import Final, Literal

import av
import av.codec.context
import av.container
import av.video

from gateway.errors import StartupError

Choice = Literal["auto", "nvdec", "cpu"]

NVDEC: Final = {"h264": "h264_cuvid", "hevc": "hevc_cuvid", "av1": "av1_cuvid", "vp9": "vp9_cuvid"}
"""FFmpeg's NVDEC decoder for each codec. They scale on the GPU (option `resize`) and answer NV12 in host memory."""

_log = logging.getLogger(__name__)


def nvdec_works() -> bool:
    """Whether the driver lets an NVDEC decoder be opened."""
    try:
        context = av.CodecContext.create(NVDEC["h264"], "r")
        context.open()
    except (av.FFmpegError, ValueError):
        return False
    return True


def choose_decoder(wanted: Choice) -> Literal["nvdec", "cpu"]:
    """What decodes from now on, said in the log. Raises StartupError when NVDEC is insisted on and missing."""
    works = wanted != "cpu" and nvdec_works()
    if wanted == "nvdec" and not works:
        raise StartupError("VIDEO_DECODER=nvdec, but the driver offers no NVDEC; set it to auto or cpu")
    chosen: Literal["nvdec", "cpu"] = "nvdec" if works else "cpu"
    _log.info("videos are decoded and scaled by %s", "NVDEC" if works else "FFmpeg on the CPU")
    return chosen


def nvdec_context(stream: av.video.stream.VideoStream, width: int, height: int) -> av.codec.context.CodecContext | None:
    """An NVDEC decoder of `stream` that scales to width x height; None where this stream cannot have one."""
    name = NVDEC.get(stream.codec_context.name)
    if name is None:
        return None
    try:
        context = av.CodecContext.create(name, "r")
        context.extradata = stream.codec_context.extradata
        context.options = {"resize": f"{width}x{height}"}
        context.open()
    except (av.FFmpegError, ValueError) as error:
        _log.warning("NVDEC does not take this %s stream, the CPU does: %s", stream.codec_context.name, error)
        return None
    return context


def decode(
    container: av.container.InputContainer,
    stream: av.video.stream.VideoStream,
    context: av.codec.context.CodecContext | None,
    wanted: Callable[[int], bool],
) -> Iterator[av.VideoFrame | None]:
    """All frames that can be decoded, in presentation order, by `context` or the stream's own decoder.

    The stream's own decoder leaves out what `wanted`, given a frame number, does not want and no other frame is
    predicted from (half of all B-frames at a stride of 2): None stands in its place. A damaged packet costs its frames,
    as it does in a validator's own decoder.
    """
    number_of = None if context is not None else _numbering(stream)
    left_out: list[int] = []
    """A heap of timestamps: packets whose frames were not wanted, and have not come out."""
    begun = False
    for packet in container.demux(stream):
        # What comes before the first picture may be undecodable, or cut away by an edit list, and has no number.
        if number_of is not None and begun and packet.pts is not None and not packet.is_discard:
            due = wanted(number_of(packet.pts))
            stream.codec_context.skip_frame = "DEFAULT" if due else "NONREF"
            if not due:
                heappush(left_out, packet.pts)
        try:
            # The demuxer ends with an empty packet; a decoder of its own is flushed by None.
            frames = packet.decode() if context is None else context.decode(packet if packet.size else None)
        except av.InvalidDataError:
            continue
        for frame in frames:
            while left_out and frame.pts is not None and left_out[0] <= frame.pts:
                if heappop(left_out) < frame.pts:
                    yield None
            yield frame
            begun = True
    yield from [None] * len(left_out)


def _numbering(stream: av.video.stream.VideoStream) -> Callable[[int], int] | None:
    """From a timestamp to a frame number, at the rate that the header tells; None when it does not tell enough."""
    rate, base, start = stream.average_rate, stream.time_base, stream.start_time
    if not rate or not base or start is None or not stream.frames:
        return None
    rate_of_base = float(base * rate)
    return lambda pts: round((pts - start) * rate_of_base)

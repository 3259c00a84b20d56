"""Which decoder reads a stream, NVDEC where the driver offers it, else FFmpeg's own, and which frames it is spared."""

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

_SLICES: Final = (1, 2, 5)
"""Types of the NAL units that a picture's slices begin with (ITU-T H.264, table 7-1)."""

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

    An H.264 frame that `wanted`, given its number, does not want and no other frame is predicted from (half of a usual
    encoder's) is not decoded: None stands in its place. A damaged packet costs its frames, as it does in a validator's
    own decoder.
    """
    length_bytes = _length_bytes(stream)
    number_of = _numbering(stream) if length_bytes else None
    left_out: list[int] = []
    """A heap of timestamps: frames that are not decoded and whose turn has not come."""
    begun = False
    for packet in container.demux(stream):
        # What comes before the first picture may be undecodable, and what an edit list cuts away has no number.
        countable = begun and not packet.is_discard
        if (
            (countable and number_of is not None and packet.pts is not None)
            and not wanted(number_of(packet.pts))
            and is_disposable(memoryview(packet), length_bytes)
        ):
            heappush(left_out, packet.pts)
            continue
        try:
            # The demuxer ends with an empty packet; a decoder of its own is flushed by None.
            frames = packet.decode() if context is None else context.decode(packet if packet.size else None)
        except av.InvalidDataError:
            continue
        for frame in frames:
            while left_out and left_out[0] < (frame.pts or 0):
                heappop(left_out)
                yield None
            yield frame
            begun = frame.pts is not None
    yield from [None] * len(left_out)


def is_disposable(data: memoryview, length_bytes: int) -> bool:
    """Whether no frame is predicted from that of an H.264 packet's `data` as MP4 has it: NAL units after their lengths.

    nal_ref_idc of the first slice says so, and all slices of a picture agree (ITU-T H.264, 7.3.1 and 7.4.1).
    """
    start = length_bytes
    while start < len(data):
        header = data[start]
        if header & 31 in _SLICES:
            return header >> 5 & 3 == 0
        start += int.from_bytes(data[start - length_bytes : start], "big") + length_bytes
    return False


def _length_bytes(stream: av.video.stream.VideoStream) -> int:
    """Bytes of a NAL unit's length (ISO/IEC 14496-15, 5.3.3.1), 0 where the stream is not H.264 as MP4 has it."""
    configuration = stream.codec_context.extradata or b""
    is_mp4 = stream.codec_context.name == "h264" and len(configuration) > 4 and configuration[0] == 1
    return (configuration[4] & 3) + 1 if is_mp4 else 0


def _numbering(stream: av.video.stream.VideoStream) -> Callable[[int], int] | None:
    """From a timestamp to a frame number, at the rate that the header tells; None when it does not tell enough."""
    rate, base, start = stream.average_rate, stream.time_base, stream.start_time
    if not rate or not base or start is None or not stream.frames:
        return None
    rate_of_base = float(base * rate)
    return lambda pts: round((pts - start) * rate_of_base)

"""Which decoder reads a stream: NVDEC, scaling on the GPU, where the driver offers it; else FFmpeg's own on the CPU."""

from __future__ import annotations

import logging
from collections.abc import Iterator
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
) -> Iterator[av.VideoFrame]:
    """All frames that can be decoded, in presentation order, by `context` or the stream's own decoder.

    A damaged packet costs its frames, as it does in a validator's own decoder.
    """
    for packet in container.demux(stream):
        try:
            if context is None:
                yield from packet.decode()
            else:
                # The demuxer ends with an empty packet; a decoder of its own is flushed by None.
                yield from context.decode(packet if packet.size else None)
        except av.InvalidDataError:
            continue

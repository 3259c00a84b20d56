"""All frames of a stream in order, by NVDEC where the driver offers it, else FFmpeg's own decoder."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from functools import cache
from heapq import heappop, heappush
from typing import Final, Literal

import av
import av.codec.context
import av.video
import av.video.stream
from av.codec.hwaccel import HWAccel

from gateway.errors import StartupError
from gateway.video.h264 import Unordered
from gateway.video.sparing import Sparing
from touchline.video_read import decoded

Choice = Literal["auto", "nvdec", "cpu"]

NVDEC: Final = {"h264": "h264_cuvid", "hevc": "hevc_cuvid", "av1": "av1_cuvid", "vp9": "vp9_cuvid"}
"""FFmpeg's NVDEC decoder for each codec. They scale on the GPU (option `resize`) and answer NV12 in host memory."""

_LAYOUTS: Final = {
    "h264": frozenset({"yuv420p", "yuvj420p"}),
    "hevc": frozenset({"yuv420p", "yuvj420p", "yuv420p10le"}),
    "av1": frozenset({"yuv420p", "yuv420p10le"}),
    "vp9": frozenset({"yuv420p", "yuv420p10le"}),
}
"""Pixel formats that NVDEC decodes of each codec, on every card that decodes the codec at all."""
_CPU_CORES: Final = 4
"""From so many cores on the CPU decodes faster than NVDEC: whole challenges of 375 frames took 0.79 s instead of 0.93
on 4 cores of an H200's host and 0.62 s instead of 0.95 on 16, four at once 3.27 s instead of 3.48, and 2.28 of 3.20."""

_log = logging.getLogger(__name__)


class NvdecFailed(Exception):
    """NVDEC gave up on a stream that it had begun; the CPU may well decode it."""


@cache
def _held_context(gpu: int) -> av.codec.context.CodecContext:
    """A decoder of a GPU that is kept open and not used.

    It holds that GPU's primary CUDA context, in which each further decoder takes 27 MiB and 37 ms. One with a context
    of its own takes 523 MiB and 150 to 200 ms, in which PyAV lets no other thread run.
    """
    context = _create(NVDEC["h264"], gpu)
    context.width, context.height, context.pix_fmt = 1280, 720, "yuv420p"
    context.open()
    return context


def _create(name: str, gpu: int) -> av.codec.context.CodecContext:
    return av.CodecContext.create(name, "r", HWAccel("cuda", device=str(gpu), options={"primary_ctx": "1"}))


def nvdec_works() -> bool:
    """Whether the driver lets an NVDEC decoder be opened. The first one stays open as long as the process lives."""
    try:
        _held_context(0)
    except (av.FFmpegError, ValueError, NotImplementedError) as error:
        _log.info("NVDEC does not open: %r", error)
        return False
    return True


def choose_decoder(wanted: Choice) -> Literal["nvdec", "cpu"]:
    """What decodes from now on, said in the log: with "auto" NVDEC where it works and cores are few.

    Raises StartupError when NVDEC is insisted on and missing.
    """
    has_cores = len(os.sched_getaffinity(0)) >= _CPU_CORES
    works = wanted != "cpu" and not (wanted == "auto" and has_cores) and nvdec_works()
    if wanted == "nvdec" and not works:
        raise StartupError("VIDEO_DECODER=nvdec, but the driver offers no NVDEC; set it to auto or cpu")
    chosen: Literal["nvdec", "cpu"] = "nvdec" if works else "cpu"
    _log.info("videos are decoded and scaled by %s", "NVDEC" if works else "FFmpeg on the CPU")
    return chosen


def nvdec_context(
    stream: av.video.stream.VideoStream, width: int, height: int, gpu: int = 0
) -> av.codec.context.CodecContext | None:
    """An NVDEC decoder of `stream` that scales to width x height; None where this stream cannot have one.

    `gpu` is counted among those that CUDA shows this process.
    """
    source = stream.codec_context
    if source.pix_fmt not in _LAYOUTS.get(source.name, ()):
        return None
    try:
        _held_context(gpu)
        context = _create(NVDEC[source.name], gpu)
        context.extradata = source.extradata
        # What NVDEC is asked about when it is opened. Unset, that is 1280x720, and another stream fails later.
        context.width, context.height, context.pix_fmt = source.width, source.height, source.pix_fmt
        context.options = {"resize": f"{width}x{height}"}
        context.open()
    except (av.FFmpegError, ValueError, NotImplementedError) as error:
        _log.warning("NVDEC does not take this %s stream, the CPU does: %s", source.name, error)
        return None
    return context


def decode(
    incoming: Iterator[av.Packet],
    stream: av.video.stream.VideoStream,
    context: av.codec.context.CodecContext | None,
    wanted: Callable[[int], bool],
) -> Iterator[av.VideoFrame | None]:
    """All frames of `incoming` packets in presentation order, decoded by NVDEC's `context` or the stream's own decoder.

    None stands in the place of an H.264 frame that `wanted`, given its number, does not want and that is not needed
    for another (half of a usual encoder's). A damaged packet costs its frames, as it does in a validator's decoder.
    Raises NvdecFailed for any other error of `context`.
    """
    left_out: list[int] = []
    """A heap of timestamps: frames that are not decoded and whose turn has not come."""
    hidden: set[int | None] = set()
    """Timestamps of what an edit list cuts away. FFmpeg's own decoders drop such frames, NVDEC does not."""
    sparing: Sparing | None = None
    if stream.codec_context.name == "h264":
        try:
            sparing = Sparing(stream.codec_context.extradata or b"")
            incoming = sparing.sift(incoming, wanted, lambda pts: heappush(left_out, pts))
        except Unordered as reason:
            _log.debug("every frame is decoded: %s", reason)
    for packet in incoming:
        if context is not None and packet.is_discard:
            hidden.add(packet.pts)
        try:
            frames = decoded(context or stream.codec_context, packet)
        except av.FFmpegError as error:
            if context is not None and not isinstance(error, av.InvalidDataError):
                raise NvdecFailed(str(error)) from error
            if sparing is not None:
                sparing.distrust()
            continue
        for frame in frames:
            if frame.pts in hidden:
                continue
            if frame.is_corrupt and sparing is not None:
                sparing.distrust()
            while left_out and left_out[0] < (frame.pts or 0):
                heappop(left_out)
                yield None
            yield frame
    yield from [None] * len(left_out)

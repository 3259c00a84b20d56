"""PyAV decoding: numbered frames, scaled to the model input, written into a slot."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from types import TracebackType

import av
import av.container
import av.video
import av.video.stream
import numpy as np
import numpy.typing as npt

from gateway.errors import BadVideo, GatewayError
from gateway.video.codec import NvdecFailed, decode, nvdec_context
from gateway.video.growing_file import GrowingFile
from gateway.video.scale import Scaler
from touchline.contract import Letterbox
from touchline.video_rate import LOOKAHEAD, frame_rate, is_usual
from touchline.video_read import UnreadableVideo, no_frame, open_video, packets, turn, turn_of, video_stream

_log = logging.getLogger(__name__)

Frames = npt.NDArray[np.uint8]

_SIDEWAYS = (90, 270)
"""Degrees by which turned pictures change width with height."""


class DecodingStopped(Exception):
    """The decoder was told to stop."""


@dataclass(frozen=True, slots=True)
class FilledSlot:
    """What lies in a slot: frames [0, pitch_count) are for the pitch model too, all are for the player model."""

    frame_numbers: tuple[int, ...]
    """Source frame number of each frame of the slot, in slot order."""
    pitch_count: int
    decoded: int
    """Source frames decoded for this slot, those that were not sampled included."""
    last: bool
    """No frames come after this slot."""


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What the header says."""

    letterbox: Letterbox
    """Of the upright picture."""
    fps: float
    frames: int
    """A hint, 0 when the header does not tell: a cut file has fewer. What an edit list hides is not counted."""
    duration_s: float = 0.0
    """Of what is shown, a hint as well; 0 when the header does not tell."""


class Decoder:
    """Decodes one video and samples it. Used by one thread at a time; `stop` may be called from any other.

    `size` is width and height of the model input. The strides may be changed while it decodes.
    `gpu` is where NVDEC decodes, if `nvdec`.
    """

    def __init__(
        self,
        file: GrowingFile,
        *,
        size: tuple[int, int],
        frame_stride: int,
        pitch_stride: int,
        max_frames: int,
        nvdec: bool = False,
        gpu: int = 0,
    ) -> None:
        self._file = file
        self._size = size
        self.frame_stride = frame_stride
        self.pitch_stride = pitch_stride
        self._sampled = -frame_stride
        """The last frame that was sampled; the next ones lie whole strides after it, whatever the stride was before."""
        self._next_pitch = 0
        self._max_frames = max_frames
        self._nvdec = nvdec
        self._gpu = gpu
        self._stopped = False
        self._writing = threading.Lock()
        """Held while a slot is written to, so that nothing is written after `stop`."""
        self._container: av.container.InputContainer | None = None
        self._samples: Iterator[tuple[int, av.VideoFrame]] = iter(())
        self._pending: tuple[int, av.VideoFrame] | None = None
        self._counted = 0
        self.nvdec_failed = False
        """NVDEC began and the CPU had to take over."""
        self.frame_count = 0
        """Source frames decoded so far."""

    def open(self) -> VideoInfo:
        """Read the header and the first frame.

        Raises BadVideo for what is not a video, DecodingStopped after `stop`, or the error of the download.
        """
        try:
            return self._open()
        except (UnreadableVideo, av.FFmpegError, OSError, ValueError) as error:
            raise self._cause(error) from error

    def fill(self, slot: Frames) -> FilledSlot:
        """Write the next sampled frames into `slot`, uint8 [B, H, W, 3], the pitch model's frames first.

        Raises BadVideo when decoding fails, DecodingStopped after `stop`.
        """
        try:
            return self._fill(slot)
        except (UnreadableVideo, av.FFmpegError, OSError, ValueError) as error:
            raise self._cause(error) from error

    def stop(self) -> None:
        """Make the decoding thread leave with DecodingStopped as soon as FFmpeg returns or reads.

        From now on it writes into no slot, whether or not FFmpeg ever returns.
        """
        with self._writing:
            self._stopped = True
        self._file.fail(DecodingStopped())

    def close(self) -> None:
        self._samples = iter(())
        self._pending = None
        if self._container is not None:
            # FFmpeg's threads end what they are at. PyAV would wait for them too, but hold the GIL.
            for stream in self._container.streams.video:
                if stream.codec_context is not None:
                    stream.codec_context.flush_buffers()
            self._container.close()
            self._container = None

    def __enter__(self) -> Decoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def progress(self) -> tuple[int, int, int]:
        """Changes as long as anything happens: frames decoded, bytes that came, bytes that were read."""
        return self.frame_count, self._file.written, self._file.tell()

    def _open(self) -> VideoInfo:
        container, stream = self._reopen()
        incoming = packets(container, stream, self._is_stopped)
        first = [] if is_usual(stream.average_rate) else list(islice(incoming, LOOKAHEAD))
        fps = float(frame_rate(stream, first))
        width, height = stream.codec_context.width, stream.codec_context.height
        duration_s = float(stream.duration * stream.time_base) if stream.duration else 0.0
        duration_s = max(0.0, duration_s or (container.duration or 0) / av.time_base)
        frames = stream.frames
        if duration_s and is_usual(stream.average_rate):
            frames = min(frames, round(duration_s * fps))
        told = turn(stream)
        self._samples = self._sample(self._frames(chain(first, incoming), stream, told in _SIDEWAYS))
        self._pending = next(self._samples, None)
        if self._pending is None:
            raise no_frame(self._file)
        degrees = turn_of(self._pending[1]) if told is None else told
        if not (width and height):  # the header is damaged, and NVDEC was not asked
            width, height = self._pending[1].width, self._pending[1].height
        self._letterbox = Letterbox(*((height, width) if degrees in _SIDEWAYS else (width, height)), *self._size)
        self._scaler = Scaler(*self._letterbox.content_size, degrees)
        return VideoInfo(self._letterbox, fps, frames, duration_s)

    def _reopen(self) -> tuple[av.container.InputContainer, av.video.stream.VideoStream]:
        """The container and its stream, at its start and with the CPU's decoder set up."""
        if self._container is not None:
            self._container.close()
        self._file.seek(0)
        self._container = open_video(self._file)
        stream = video_stream(self._container)
        stream.thread_type = "AUTO"
        # One more than there are cores: while one waits for a frame that another decodes, its core has work.
        stream.codec_context.thread_count = len(os.sched_getaffinity(0)) + 1
        return self._container, stream

    def _frames(
        self, incoming: Iterator[av.Packet], stream: av.video.stream.VideoStream, sideways: bool
    ) -> Iterator[av.VideoFrame | None]:
        """All frames, by NVDEC where it is wanted and takes the stream; by the CPU from where NVDEC fails on."""
        context, done = None, 0
        source = stream.codec_context
        if self._nvdec and source.width and source.height:
            # NVDEC scales what lies on its side as it lies.
            if sideways:
                height, width = Letterbox(source.height, source.width, *self._size).content_size
            else:
                width, height = Letterbox(source.width, source.height, *self._size).content_size
            context = nvdec_context(stream, width, height, self._gpu)
        try:
            for frame in decode(incoming, stream, context, self._is_due):
                done += 1
                yield frame
        except NvdecFailed as error:
            _log.warning("NVDEC failed after %d frames, the CPU decodes the video from the start: %s", done, error)
            self.nvdec_failed = True
            container, stream = self._reopen()
            again = decode(
                packets(container, stream, self._is_stopped),
                stream,
                None,
                lambda number: number >= done and self._is_due(number),
            )
            yield from islice(again, done, None)

    def _is_stopped(self) -> bool:
        return self._stopped

    def _is_due(self, number: int) -> bool:
        """Every FRAME_STRIDE-th frame since the last one that was sampled."""
        return (number - self._sampled) % self.frame_stride == 0

    def _sample(self, frames: Iterator[av.VideoFrame | None]) -> Iterator[tuple[int, av.VideoFrame]]:
        """The frames that are due, or where one is missing, because the stride has grown, the next one."""
        latest: tuple[int, av.VideoFrame] | None = None
        for number, frame in enumerate(frames):
            if self._stopped:
                raise DecodingStopped
            if number >= self._max_frames:
                raise BadVideo(f"the video has more than MAX_VIDEO_FRAMES ({self._max_frames}) frames")
            self.frame_count = number + 1
            if frame is not None:
                latest = number, frame
                if number - self._sampled >= self.frame_stride:
                    self._sampled = number
                    yield latest
        if self._file.error is not None:
            raise OSError("the video ended because its download failed") from self._file.error
        if latest is not None and latest[0] != self._sampled:
            yield latest

    def _fill(self, slot: Frames) -> FilledSlot:
        pitch_numbers: list[int] = []
        other_numbers: list[int] = []
        decoded_before = self._counted
        back = len(slot)
        while self._pending is not None and len(pitch_numbers) < back:
            number, frame = self._pending
            upcoming = next(self._samples, None)
            if number >= self._next_pitch or upcoming is None:
                self._write(frame, slot[len(pitch_numbers)])
                pitch_numbers.append(number)
                self._next_pitch = number + self.pitch_stride
            else:
                back -= 1
                self._write(frame, slot[back])
                other_numbers.insert(0, number)
            self._pending = upcoming
        if other_numbers and len(pitch_numbers) < back:
            with self._slot():
                slot[len(pitch_numbers) : len(pitch_numbers) + len(other_numbers)] = slot[back:].copy()
        self._counted = self.frame_count
        if self._pending is None:
            self.close()  # here and not on the event loop, which would wait for FFmpeg's threads to end
        return FilledSlot(
            (*pitch_numbers, *other_numbers),
            len(pitch_numbers),
            decoded=self._counted - decoded_before,
            last=self._pending is None,
        )

    def _write(self, frame: av.VideoFrame, target: Frames) -> None:
        """Scale `frame` into `target`, uint8 [H, W, 3], grey around it."""
        self._scaler.load(frame)
        with self._slot():
            self._scaler.store(self._letterbox.content_of(target))

    @contextmanager
    def _slot(self) -> Iterator[None]:
        """In which a slot is written to. Raises DecodingStopped after `stop`."""
        with self._writing:
            if self._stopped:
                raise DecodingStopped
            yield

    def _cause(self, error: Exception) -> Exception:
        """The error to report: that of the download, if FFmpeg failed because of it."""
        cause = self._file.error
        if isinstance(cause, GatewayError | DecodingStopped):
            return cause
        if isinstance(error, UnreadableVideo):
            return BadVideo(f"{error}; the challenge needs a video")
        return BadVideo(f"the file cannot be decoded as a video: {error}")

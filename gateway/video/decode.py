"""PyAV decoding: numbered frames, scaled to the model input, written into a slot."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType

import av
import av.container
import av.video
import numpy as np
import numpy.typing as npt

from gateway.errors import BadVideo, GatewayError
from gateway.video.codec import decode, nvdec_context
from gateway.video.growing_file import GrowingFile
from gateway.video.scale import Scaler
from touchline.contract import LETTERBOX_GREY, Letterbox

Frames = npt.NDArray[np.uint8]

_READ_BYTES = 256 * 1024


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
    fps: float
    frames: int
    """Number of frames, 0 when the header does not tell. An estimate: only decoding knows."""
    duration_s: float
    """0 when the header does not tell; an estimate, too."""


class Decoder:
    """Decodes one video and samples it. Used by one thread at a time; `stop` may be called from any other.

    `size` is width and height of the model input. The strides may be changed while it decodes.
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
        self._stopped = threading.Event()
        self._container: av.container.InputContainer | None = None
        self._samples: Iterator[tuple[int, av.VideoFrame]] = iter(())
        self._pending: tuple[int, av.VideoFrame] | None = None
        self._counted = 0
        self.frame_count = 0
        """Source frames decoded so far."""

    def open(self) -> VideoInfo:
        """Read the header. Raises BadVideo for what is not a video, or the error of the download."""
        try:
            self._container = av.open(self._file, mode="r", metadata_errors="ignore", buffer_size=_READ_BYTES)
            if not self._container.streams.video:
                raise BadVideo("the file has no video stream; the challenge needs a video")
            stream = self._container.streams.video[0]
            stream.thread_type = "AUTO"
            # One more than there are cores: while one waits for a frame that another decodes, its core has work.
            stream.codec_context.thread_count = len(os.sched_getaffinity(0)) + 1
            source = stream.codec_context
            if not (source.width and source.height):
                raise BadVideo("the video's header names no picture size")
            self._letterbox = Letterbox(source.width, source.height, *self._size)
            self._scaler = Scaler(*self._letterbox.content_size)
            context = nvdec_context(stream, *self._letterbox.content_size) if self._nvdec else None
            self._last = stream.frames - 1
            duration_s = float(stream.duration * stream.time_base) if stream.duration else 0.0
            duration_s = duration_s or (self._container.duration or 0) / 1e6
            self._samples = self._sample(decode(self._container, stream, context, self._is_due))
            self._pending = next(self._samples, None)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise self._cause(error) from error
        if self._pending is None:
            raise BadVideo("the video has no frame that can be decoded")
        return VideoInfo(self._letterbox, float(stream.average_rate or 25), stream.frames, max(0.0, duration_s))

    def fill(self, slot: Frames) -> FilledSlot:
        """Write the next sampled frames into `slot`, uint8 [B, H, W, 3], the pitch model's frames first.

        Raises BadVideo when decoding fails, DecodingStopped after `stop`.
        """
        try:
            return self._fill(slot)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise self._cause(error) from error

    def stop(self) -> None:
        """Make the decoding thread leave soon with DecodingStopped."""
        self._stopped.set()
        self._file.fail(DecodingStopped())

    def close(self) -> None:
        self._samples = iter(())
        self._pending = None
        if self._container is not None:
            self._container.close()
            self._container = None

    def __enter__(self) -> Decoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _is_due(self, number: int) -> bool:
        """Every FRAME_STRIDE-th frame and the last one, which spares the end of the video an extrapolation."""
        return (number - self._sampled) % self.frame_stride == 0 or number == self._last

    def _sample(self, frames: Iterator[av.VideoFrame | None]) -> Iterator[tuple[int, av.VideoFrame]]:
        """The frames that are due, or where one is missing, because the stride has grown, the next one."""
        latest: tuple[int, av.VideoFrame] | None = None
        for number, frame in enumerate(frames):
            if self._stopped.is_set():
                raise DecodingStopped
            if number >= self._max_frames:
                raise BadVideo(f"the video has more than MAX_VIDEO_FRAMES ({self._max_frames}) frames")
            self.frame_count = number + 1
            if frame is not None:
                latest = number, frame
                if number - self._sampled >= self.frame_stride:
                    self._sampled = number
                    yield latest
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
        width, height = self._letterbox.content_size
        left, top = self._letterbox.offset
        target[:top] = target[top + height :] = LETTERBOX_GREY
        target[top : top + height, :left] = target[top : top + height, left + width :] = LETTERBOX_GREY
        self._scaler.scale(frame, target[top : top + height, left : left + width])

    def _cause(self, error: Exception) -> Exception:
        """The error to report: that of the download, if FFmpeg failed because of it."""
        cause = self._file.error
        if isinstance(cause, GatewayError | DecodingStopped):
            return cause
        if self._file.written == 0:
            return BadVideo("the file is empty; the challenge needs a video")
        return BadVideo(f"the file cannot be decoded as a video: {error}")

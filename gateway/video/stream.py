"""A camera's pictures as they come: one thread, one place for the newest, nothing queued."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import av.container
import numpy as np

from gateway.memory import give_back
from gateway.video.certificate import untrusted, why_not_trusted
from gateway.video.cutting import Connection
from gateway.video.playlist import Reader, is_playlist
from touchline.video_live import StreamFailed, Trust, check_size, open_stream, set_up, why
from touchline.video_read import UnreadableVideo, decoded, next_packet, open_video, packets

THREAD: Final = "camera"
STEP_S: Final = 2.0
"""Time stamps that differ from the clock by more than so much from one frame to the next are not believed."""
SKIP_AFTER_S: Final = 1.0
"""What was sent so long ago and is still to be read is left out up to the next key frame."""
GIVE_UP_AFTER_S: Final = 3.0
_WAITED_S: Final = 0.01
"""A read that took longer had to wait for the camera: nothing lies before it that was sent earlier."""
_SENT_AHEAD_S: Final = 0.6
"""What FFmpeg reads before it gives the first frame comes at once, of a camera too."""
_MOST_AHEAD_S: Final = 30.0
_JPEGS: Final = ("mpjpeg", "mjpeg")
"""They have no time stamps: FFmpeg invents 25 a second."""
_RATE_FRAMES: Final = 64
_TRUSTED_FRAMES: Final = 16
_LOOK_EVERY_S: Final = 0.5
_THUMB: Final = (32, 18)
_STILL: Final = 0.001 * 255
"""Mean difference of two thumbnails up to which the picture is the same (FFmpeg's freezedetect)."""
_REORDERED: Final = 32
_LEAST_FPS, _MOST_FPS = 1.0, 240.0
"""A file that says less or more of itself says nothing."""
_USUAL_FPS: Final = 25.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the pictures come from. `address` may hold a password; the rest may be shown."""

    address: str
    transport: str = "tcp"
    peer: tuple[str, int] = ("", 0)
    """Address and port that are connected to."""
    host: str = ""
    """Name that a web server is asked for."""
    trust: Trust | None = None
    """Of TLS; None: any certificate will do, or it is not spoken."""
    address_of: Callable[[str, int], str] | None = None
    """Judges the hosts that a playlist names, and gives their addresses; raises for those that may not be asked."""
    file: Path | None = None
    loop: bool = False
    sends_ahead: bool = False
    """As a web server may do: then the time stamps say when a frame is due."""

    def __repr__(self) -> str:
        return "Place(***)"


@dataclass(frozen=True, slots=True)
class Captured:
    """One decoded frame."""

    picture: av.VideoFrame
    number: int
    """Frames of this connection before it."""
    at: float
    """time.monotonic() of when it arrived."""
    wall: float
    """time.time() of the same moment."""
    media_s: float
    """Like `at`, but evenly, by the camera's time stamps where they can be believed; rises from frame to frame."""
    decode_s: float


class MediaClock:
    """Times of frames from their time stamps, which may be missing, stand still or jump."""

    def __init__(self) -> None:
        self._offset: float | None = None
        self._last = 0.0
        self._last_at = 0.0

    def at(self, pts_s: float | None, now: float) -> float:
        """Seconds of the frame that arrived at `now`, where it begins: later than of the one before, near the clock."""
        arrival = self._last + now - self._last_at if self._last_at else now
        media = arrival
        if pts_s is not None:
            if (
                self._offset is None
                or abs(pts_s + self._offset - arrival) > STEP_S
                or pts_s + self._offset <= self._last
            ):
                self._offset = arrival - pts_s
            media = pts_s + self._offset
        if self._last_at:
            media = max(media, self._last + 1e-3)
        self._last, self._last_at = media, now
        return media


class Backlog:
    """How much of what was sent has not been read yet, from time stamps and from whether reads had to wait."""

    def __init__(self, *, timed: bool) -> None:
        """`timed`: there are time stamps. Without, who has not waited for so long may be so late."""
        self._timed = timed
        self._least: float | None = None

    def after(self, read_s: float, pts_s: float | None, now: float) -> float:
        """Seconds, once a read that took `read_s` ended at `now` with a packet of this time stamp."""
        if self._timed and pts_s is None:
            return 0.0
        lag = now - pts_s if self._timed and pts_s is not None else now
        if self._least is None or read_s > _WAITED_S or not 0 <= lag - self._least < _MOST_AHEAD_S:
            self._least = lag
        return lag - self._least


class Pace:
    """When frames are due that come earlier than they are to be seen: of files, and of servers that send ahead."""

    def __init__(self, slack_s: float) -> None:
        """`slack_s`: so much early they are let through."""
        self._slack_s = slack_s
        self._begun: float | None = None

    def early_s(self, pts_s: float, now: float) -> float:
        """Seconds to wait at `now`. Where this host was busy it goes on from there, as a camera would."""
        ahead_s = 0.0 if self._begun is None else self._begun + pts_s - now
        if self._begun is None or not -SKIP_AFTER_S < ahead_s < _MOST_AHEAD_S:
            self._begun, ahead_s = now - pts_s, 0.0
        return max(0.0, ahead_s - self._slack_s)


class Schedule:
    """When the frames of a file are due, over and over: by their time stamps, where these can be believed."""

    def __init__(self) -> None:
        self._period_s = self._last_s = 0.0
        self._offset: float | None = None
        self._held = 0

    def begin(self, period_s: float) -> None:
        """The first frame comes `period_s` after the last one before, as do those whose time stamps say nothing."""
        self._period_s, self._offset = period_s, None

    def due_s(self, pts_s: float | None) -> float:
        """Seconds at which the next frame is due. Not later than one before: at once, as of frames out of order."""
        next_s = self._last_s + self._period_s
        due_s = next_s if pts_s is None or self._offset is None else pts_s + self._offset
        self._held = 0 if due_s > self._last_s + 1e-6 else self._held + 1
        if self._held > _REORDERED or abs(due_s - next_s) > STEP_S:
            due_s = next_s
        if pts_s is not None:
            self._offset = due_s - pts_s
        self._last_s = max(self._last_s, due_s)
        return due_s


class Stream:
    """One connection to a camera. What is public may be read at any time from the event loop's thread.

    The thread ends by itself when the connection does; after `stop` at the next packet, or when FFmpeg gives up waiting
    for one, which nobody has to wait for.
    """

    def __init__(self, place: Place, *, timeout_s: float, keep: int, tell: Callable[[], None]) -> None:
        """`keep`: so many newest frames are there to be taken. `tell` is called from the thread for all that is new."""
        self._place, self._timeout_s, self._tell = place, timeout_s, tell
        self._newest: deque[Captured] = deque(maxlen=keep)
        self.skip = 1
        """Every n-th frame is kept."""
        self.max_fps: float | None = None
        """No more frames a second are kept."""
        self.ended: StreamFailed | None = None
        """Why there is no more."""
        self.finished = False
        """A file was read to its end."""
        self.codec, self.size = "", (0, 0)
        self.received = self.kept = self.corrupt = self.stale = 0
        """Frames decoded, those of them that were to be inferred, packets that could not be, and packets left out."""
        self.packet_at = self.frame_at = self.changed_at = 0.0
        """time.monotonic() of the last packet, frame, and frame that differed from the one before."""
        self._arrivals: deque[float] = deque(maxlen=_RATE_FRAMES)
        self._thumb: np.ndarray | None = None
        self._looked_at = 0.0
        self._kept_media = float("-inf")
        self._media = MediaClock()
        self._connection: Connection | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=THREAD, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def cut(self) -> bool:
        """End the connection under a thread that does not come back after `stop`; whether there was one."""
        return self._connection is not None and self._connection.cut()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def fps(self) -> float:
        """Frames a second as they came: their number by the time they span, 0 while there are too few."""
        arrivals = list(self._arrivals)
        if len(arrivals) < _TRUSTED_FRAMES or arrivals[-1] <= arrivals[0]:
            return 0.0
        return (len(arrivals) - 1) / (arrivals[-1] - arrivals[0])

    @property
    def waiting(self) -> int:
        """Frames that can be taken."""
        return len(self._newest)

    def take(self) -> list[Captured]:
        """The newest frames that nobody took yet, in order."""
        frames = []
        with suppress(IndexError):
            while True:
                frames.append(self._newest.popleft())
        return frames

    def _run(self) -> None:
        failed = StreamFailed("closed")
        try:
            if self._place.file is not None:
                self._play(self._place.file)
                self.finished = True
            else:
                self._watch()
        except StreamFailed as error:
            # Without where it was raised: that holds this stream and its decoder, and what holds itself is freed late.
            failed = error.with_traceback(None)
            failed.__context__ = None
        except (av.FFmpegError, OSError) as error:
            failed = why(error, time.monotonic() - self.packet_at >= self._timeout_s, self._place.transport)
        except Exception as error:
            # Without its text, which may hold the address.
            _log.error("reading a camera failed: %s", type(error).__name__)
            failed = StreamFailed("broken", f"reading failed: {type(error).__name__}")
        self.ended = failed
        self._tell()
        give_back()

    def _watch(self) -> None:
        place, reader = self._place, None
        connection = self._connection = Connection(*place.peer)
        if place.address_of is not None and is_playlist(place.address):
            reader = Reader(place.address, place.address_of, self._timeout_s, place.trust)
        try:
            container = open_stream(
                place.address,
                transport=place.transport,
                timeout_s=self._timeout_s,
                host=place.host,
                trust=place.trust,
                playlist=reader.open if reader else None,
            )
            connection.opened()
            with container:
                self._read(container)
        except Exception as error:
            if reader is not None and reader.refused is not None:
                raise StreamFailed("not_allowed", "the playlist names an address where cameras may not be") from None
            if reader is not None and reader.untrusted is not None:
                raise untrusted(reader.untrusted) from None
            if place.trust is not None and isinstance(error, StreamFailed) and error.code == "bad_url":
                raise why_not_trusted(place.peer, place.trust, self._timeout_s) or error from None
            raise error from None
        finally:
            connection.closed()

    def _read(self, container: av.container.InputContainer) -> None:
        stream = container.streams.video[0]
        self.codec = stream.codec_context.name
        base = None if container.format.name in _JPEGS else stream.time_base
        pace = Pace(_SENT_AHEAD_S) if self._place.sends_ahead and base else None
        backlog, skipping = Backlog(timed=base is not None), False
        arrived: dict[int, tuple[float, float]] = {}
        while not self._stop.is_set():
            begun = time.monotonic()
            try:
                packet = next_packet(container, stream)
            except StopIteration:
                break
            now, wall = time.monotonic(), time.time()
            end = not packet.size and packet.dts is None and packet.pts is None
            if not (packet.size or end):
                continue
            self.packet_at = now
            pts = packet.pts if packet.pts is not None else packet.dts
            late_s = backlog.after(now - begun, _seconds(pts, base), now)
            if late_s > GIVE_UP_AFTER_S:
                raise StreamFailed("behind")
            skipping = (skipping or late_s > SKIP_AFTER_S) and not packet.is_keyframe
            if skipping:
                self.stale += 1
                continue
            if pts is not None:
                arrived[pts] = now, wall
                while len(arrived) > _REORDERED:
                    del arrived[next(iter(arrived))]
            for frame, decode_s in self._decoded(stream.codec_context, packet):
                at, wall = arrived.pop(frame.pts, (now, wall)) if frame.pts is not None else (now, wall)
                pts_s = _seconds(frame.pts, base)
                if pace is not None and pts_s is not None and (early_s := pace.early_s(pts_s, time.monotonic())):
                    if self._stop.wait(early_s):
                        return
                    at, wall = time.monotonic(), time.time()
                self._keep(frame, pts_s, at, wall, decode_s)
            if end:
                break
        if not self._stop.is_set():
            raise StreamFailed("closed")

    def _decoded(self, context: av.VideoCodecContext, packet: av.Packet) -> Iterator[tuple[av.VideoFrame, float]]:
        """The frames that come out for `packet`, and the seconds each took; what is damaged is counted."""
        begun = time.perf_counter()
        try:
            frames = decoded(context, packet)
        except (av.FFmpegError, IndexError):
            self.corrupt += 1
            return
        decode_s = (time.perf_counter() - begun) / max(1, len(frames))
        for frame in frames:
            yield frame, decode_s

    def _play(self, file: Path) -> None:
        """A file in the time of its time stamps, over and over where it loops."""
        pace, schedule = Pace(0.0), Schedule()
        for _ in itertools.count() if self._place.loop else range(1):
            before = self.received
            try:
                with file.open("rb") as opened, open_video(opened) as container:
                    self._play_once(container, pace, schedule)
            except FileNotFoundError:
                raise StreamFailed("not_found", "there is no such file in LIVE_FILES_DIR") from None
            except UnreadableVideo as error:
                raise StreamFailed("not_video", str(error)) from None
            if self._stop.is_set():
                return
            if self.received == before:
                raise StreamFailed("undecodable", "no picture of the file can be decoded")

    def _play_once(self, container: av.container.InputContainer, pace: Pace, schedule: Schedule) -> None:
        stream = set_up(container)
        self.codec = stream.codec_context.name
        base, rate = stream.time_base, float(stream.average_rate or 0)
        schedule.begin(1 / (rate if _LEAST_FPS <= rate <= _MOST_FPS else _USUAL_FPS))
        for packet in packets(container, stream):
            for picture, decode_s in self._decoded(stream.codec_context, packet):
                due_s = schedule.due_s(_seconds(picture.pts, base))
                if self._stop.wait(pace.early_s(due_s, time.monotonic())):
                    return
                self.packet_at = time.monotonic()
                self._keep(picture, due_s, self.packet_at, time.time(), decode_s)

    def _keep(self, frame: av.VideoFrame, pts_s: float | None, at: float, wall: float, decode_s: float) -> None:
        if (frame.width, frame.height) != self.size:
            check_size(frame.width, frame.height)
            self.size = frame.width, frame.height
            self._thumb = None
        media_s = self._media.at(pts_s, at)
        number = self.received
        self.received += 1
        self.frame_at = at
        self._arrivals.append(at)
        self._look(frame, at)
        early = self.max_fps is not None and media_s - self._kept_media < 0.9 / self.max_fps
        if number % self.skip == 0 and not early:
            self._kept_media = media_s
            self.kept += 1
            self._newest.append(Captured(frame, number, at, wall, media_s, decode_s))
        self._tell()

    def _look(self, frame: av.VideoFrame, at: float) -> None:
        """Whether the picture is another than it was."""
        if self._thumb is not None and at - self._looked_at < _LOOK_EVERY_S:
            return
        self._looked_at = at
        thumb = frame.reformat(*_THUMB, format="gray8").to_ndarray().astype(np.float32)
        if self._thumb is None or float(np.abs(thumb - self._thumb).mean()) > _STILL:
            self.changed_at = at
            self._thumb = thumb


def _seconds(pts: int | None, base: Fraction | None) -> float | None:
    return None if pts is None or base is None else float(pts * base)

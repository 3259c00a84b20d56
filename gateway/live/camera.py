"""One camera: connected as long as it is wanted, its state, its counts, its tracker."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpcore
import numpy as np

from gateway.detections import Detections, Floats
from gateway.errors import HostRefused, SourceNotAllowed
from gateway.live.config import CameraConfig
from gateway.live.info import CameraInfo, Source, State, Trouble
from gateway.live.views import View, Views
from gateway.metrics import Metrics
from gateway.settings import Settings
from gateway.tracking.live import LiveTracker, Placed
from gateway.video.addresses import CONNECT_S, CameraPlaces
from gateway.video.scale import Pixels, Scaler
from gateway.video.stream import Captured, Place, Stream
from touchline.contract import BALL, BALL_MODEL, PITCH_MODEL, PLAYER_MODEL, Letterbox
from touchline.video_live import FOR_A_PERSON, StreamFailed, Trust

LADDER_S: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Between attempts, before chance has its say."""
FOR_A_PERSON_S: Final = 60.0
"""The same where only a person can help: cameras lock an account after a few wrong passwords."""
GOOD_AFTER_S: Final = 10.0
"""A connection that was live for so long begins the ladder anew when it ends."""
FIRST_PICTURE_S: Final = 15.0
"""For so long a key frame is waited for while packets come."""
_GOLDEN: Final = 0.618
"""Multiples of it less their whole part lie far from each other."""
LOOK_S: Final = 1.0
"""A camera may have turned: for the pitch is looked again so soon."""
_OF_FRAMES: Final = 3
_TICK_S: Final = 0.25
_LET_GO_S: Final = 0.5
_BEHIND_S: Final = 5.0
_BEHIND_SHARE: Final = 0.1
_KEPT_VIEWS: Final = 128

_log = logging.getLogger(__name__)


def retry_delay_s(failures: int, code: str, chance: float) -> float:
    """Seconds until the next attempt after so many `failures` in a row, the last for `code`.

    `chance`, 0 to 1, spreads the attempts of cameras that were lost together.
    """
    if code in FOR_A_PERSON:
        return FOR_A_PERSON_S * (1 + chance / 2)
    return LADDER_S[min(failures, len(LADDER_S)) - 1] * (0.5 + chance)


def pitch_due(came: int, inferred: int, seconds: float, stride: int) -> bool:
    """Whether the pitch model looks at a frame, after so many frames that came, and were inferred, since its last one.

    It is every `stride`-th inferred frame, or after LOOK_S if that is sooner; but on a slow engine not more than a
    third of the frames, and never more than every `stride`-th that comes.
    """
    return inferred >= stride or (came >= stride and inferred >= _OF_FRAMES and seconds >= LOOK_S)


def state_of(frame_age_s: float, stalled_s: float) -> State:
    """Of a camera that is connected and has sent a frame."""
    return "live" if frame_age_s < stalled_s else "stalled"


@dataclass(slots=True)
class _Counts:
    """Frames of the connections so far."""

    received: int = 0
    kept: int = 0
    corrupt: int = 0
    stale: int = 0

    def plus(self, stream: Stream | None) -> _Counts:
        if stream is None:
            return _Counts(self.received, self.kept, self.corrupt, self.stale)
        return _Counts(
            self.received + stream.received,
            self.kept + stream.kept,
            self.corrupt + stream.corrupt,
            self.stale + stream.stale,
        )


class Camera:
    """Belongs to the event loop; `scale` and `track` alone are for threads, one at a time."""

    def __init__(
        self,
        number: int,
        config: CameraConfig,
        settings: Settings,
        metrics: Metrics,
        views: Views,
        *,
        places: CameraPlaces,
        cas: Path,
        on_frame: Callable[[], None],
    ) -> None:
        """`cas`: file of the CAs that certificates are to be of.

        `on_frame` is called on the event loop when a frame can be taken.
        """
        self.number = number
        self.config = config
        self.shown = 0
        """Pictures of it that viewers were sent."""
        self.removed = False
        """Nothing is told of it any more."""
        self.taken_at = 0.0
        """When a round last took a frame."""
        self._settings, self._metrics, self._places, self._views = settings, metrics, places, views
        self._cas = cas
        self._on_frame = on_frame
        self._state: State = "connecting"
        self._since = time.time()
        self._trouble: Trouble | None = None
        self._failures = 0
        self._retry_at: float | None = None
        self._generation = 0
        self._stream: Stream | None = None
        self._before = _Counts()
        self._told = _Counts()
        self._taken = self._inferred = self._sequence = self._told_stale = 0
        self._wake = asyncio.Event()
        self._news = asyncio.Event()
        self._leaving = set[asyncio.Task[None]]()
        self._behind = False
        self._judged = (time.monotonic(), 0, 0)
        self._delays = deque[float](maxlen=_KEPT_VIEWS)
        self._stages = deque[Mapping[str, float]](maxlen=_KEPT_VIEWS)
        self._tracker: LiveTracker | None = None
        self._tracked_size = (0, 0)
        self._scaler: tuple[Letterbox, Scaler] | None = None
        self._looked: tuple[int, float] | None = None
        """Number and `media_s` of the frame that the pitch model was last to look at."""
        self._unlooked = 0
        metrics.live_last_frame.labels(config.id).set(time.time())
        for kind in ("received", "inferred", "stale", "corrupt"):
            metrics.live_frames.labels(config.id, kind)

    # The event loop's: what is asked of it.

    def describe(self) -> CameraInfo:
        now, stream, config = time.monotonic(), self._stream, self.config
        counts, last = self._before.plus(stream), self._last_frame_at()
        retry_in_s = max(0.0, self._retry_at - now) if self._retry_at is not None else None
        stages = {
            name: 1000 * float(np.median([one[name] for one in self._stages]))
            for name in (self._stages[-1] if self._stages else ())
        }
        return CameraInfo(
            number=self.number,
            id=config.id,
            name=config.name or config.id,
            url=config.shown_url,
            has_credentials=config.has_credentials,
            transport=self._transport,
            verify=config.verify,
            enabled=config.enabled,
            loop=config.loop,
            skip=self._skip,
            max_fps=config.max_fps,
            quality=config.quality,
            width=config.width,
            models=config.models,
            state=self._state,
            since=self._since,
            error=self._trouble,
            attempts=self._failures,
            retry_in_s=None if retry_in_s is None else round(retry_in_s, 1),
            generation=self._generation,
            source=Source(stream.codec, *stream.size, round(stream.fps, 2)) if stream and stream.size[0] else None,
            received=counts.received,
            inferred=self._inferred,
            shown=self.shown,
            dropped={"stale": self._stale(counts), "corrupt": counts.corrupt},
            last_frame_age_s=round(now - last, 3) if last else None,
            still_s=round(self._still_s(), 1),
            behind=self._behind,
            delay_ms={
                f"p{share}": round(1000 * float(np.percentile(self._delays, share)), 1)
                for share in ((50, 95) if self._delays else ())
            },
            stages_ms={name: round(value, 2) for name, value in stages.items()},
        )

    @property
    def state(self) -> State:
        return self._state

    def change(self, config: CameraConfig, *, reconnect: bool) -> None:
        """Go on with another configuration, over a new connection if one is needed."""
        woken = reconnect or config.enabled != self.config.enabled
        self.config = config
        self._heed()
        if woken:
            self.restart()
        self._views.touch()

    def restart(self) -> None:
        """Connect anew, at once."""
        self._wake.set()

    # A round's: frames out, what was found in them in.

    @property
    def waiting(self) -> int:
        """Frames that can be taken."""
        return self._stream.waiting if self._stream is not None else 0

    @property
    def fps(self) -> float:
        return self._stream.fps if self._stream is not None else 0.0

    def take(self) -> list[tuple[Captured, bool]]:
        """The newest frames that are not too old, in order, and of which of them the pitch is wanted."""
        if self._stream is None:
            return []
        now = time.monotonic()
        frames = [one for one in self._stream.take() if now - one.at <= self._settings.live_max_age_s]
        self._taken += len(frames)
        self.taken_at = now
        return [(frame, self._pitch_is_due(frame)) for frame in frames]

    def _pitch_is_due(self, frame: Captured) -> bool:
        if PITCH_MODEL not in self.config.models:
            return False
        stride, phase = self._settings.effective_pitch_stride, 0.0
        self._unlooked += 1
        if self._looked is None:
            # Cameras that begin together look again at different times, lest all of them do in one round, for ever.
            phase = self.number * _GOLDEN % 1
        else:
            number, media_s = self._looked
            if not pitch_due(frame.number - number, self._unlooked, frame.media_s - media_s, stride):
                return False
        self._unlooked = int(phase * stride)
        self._looked = frame.number - self._unlooked, frame.media_s - phase * LOOK_S
        return True

    def lost(self, frames: int) -> None:
        """So many frames that were taken were not inferred."""
        self._taken -= frames
        self._looked = None

    def scale(self, frame: Captured, size: tuple[int, int], target: Pixels) -> Letterbox:
        """Write the frame into `target`, uint8 [H, W, 3] of `size` (width, height). For a thread."""
        letterbox = Letterbox(frame.picture.width, frame.picture.height, *size)
        if self._scaler is None or self._scaler[0] != letterbox:
            self._scaler = letterbox, Scaler(*letterbox.content_size)
        self._scaler[1].scale(frame.picture, letterbox.content_of(target))
        return letterbox

    def track(self, frame: Captured, detections: Detections, keypoints: Floats | None) -> Placed:
        """The frame's boxes with ids and places. For a thread, frames in order."""
        size = frame.picture.width, frame.picture.height
        if self._tracker is None or size != self._tracked_size:
            self._tracker = LiveTracker(
                track_buffer=self._settings.track_buffer_size,
                confidence=self._settings.confidence,
                first_id=self._tracker.next_id if self._tracker else 1,
            )
            self._tracked_size = size
        models = self.config.models
        wanted = np.where(detections.classes == BALL, BALL_MODEL in models, PLAYER_MODEL in models)
        return self._tracker.update(frame.media_s, detections.only(wanted), keypoints)

    def publish(self, frame: Captured, placed: Placed, stages: Mapping[str, float]) -> None:
        """Let viewers have what was found in the frame."""
        if self.removed:
            return
        self._sequence += 1
        self._inferred += 1
        delay_s = time.monotonic() - frame.at
        self._delays.append(delay_s)
        self._stages.append(stages)
        self._metrics.live_frames.labels(self.config.id, "inferred").inc()
        self._metrics.live_delay.labels(self.config.id).observe(delay_s)
        self._views.publish(
            View(
                camera=self.config.id,
                number=self.number,
                generation=self._generation,
                sequence=self._sequence,
                frame=self._before.received + frame.number + 1,
                captured_at=frame.at,
                captured_wall=frame.wall,
                picture=frame.picture,
                tracks=placed.tracks,
                homography=placed.homography,
                positions=placed.positions,
                stages=stages,
            )
        )

    # Its own life.

    async def run(self) -> None:
        """Be connected until cancelled."""
        try:
            while True:
                self._wake.clear()
                if not self.config.enabled:
                    self._enter("disabled")
                    await self._wake.wait()
                    self._failures = 0
                    continue
                self._enter("connecting", self._trouble)
                failed, live_s = await self._connection()
                if failed is None:
                    self._failures, self._trouble = 0, None
                    continue
                await self._pause(failed, live_s)
        finally:
            self._let_go()

    async def gone(self) -> None:
        """Until no thread of it is left, or a second after all was done to end them."""
        if self._leaving:
            await asyncio.wait(self._leaving)

    async def _pause(self, failed: StreamFailed, live_s: float) -> None:
        if failed.code == "finished":
            self._failures = 0
            self._enter("ended")
            await self._wake.wait()
            return
        self._failures = 1 if live_s >= GOOD_AFTER_S else self._failures + 1
        delay_s = retry_delay_s(self._failures, failed.code, random.random())  # noqa: S311  no secret
        self._retry_at = time.monotonic() + delay_s
        self._metrics.live_connections.labels(self.config.id, failed.code).inc()
        if self._trouble is None or self._trouble.code != failed.code or live_s:
            _log.warning("camera %s: %s (%s), again in %.0f s", self.config.id, failed.detail, failed.code, delay_s)
        state: State = "failed" if failed.code in FOR_A_PERSON else "waiting"
        self._enter(state, Trouble(failed.code, failed.detail))
        with suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._wake.wait()
            self._failures = 0
        self._retry_at = None

    async def _connection(self) -> tuple[StreamFailed | None, float]:
        """One connection from its start to its end: why it ended, None if it was asked to; seconds it was live."""
        try:
            place = await self._place()
        except StreamFailed as error:
            return error, 0.0
        stream = self._stream = Stream(
            place,
            timeout_s=self._settings.live_timeout_s,
            keep=self._settings.batch_accumulation_size,
            tell=self._teller(),
        )
        self._heed()
        self._looked = None
        begun, live_at = time.monotonic(), 0.0
        stream.start()
        while not self._wake.is_set():
            self._news.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(_TICK_S):
                    await self._news.wait()
            now = time.monotonic()
            if stream.frame_at and not live_at:
                live_at = now
                self._came_to_live(stream)
            failed = stream.ended or self._silent(stream, begun, now)
            if stream.finished:
                failed = StreamFailed("finished", "the file is at its end")
            if live_at and not failed and place.file is None:
                self._enter(state_of(now - stream.frame_at, self._settings.live_stalled_s), self._trouble)
            self._account(now)
            if failed is not None:
                self._let_go()
                return failed, now - live_at if live_at else 0.0
        self._let_go()
        return None, 0.0

    def _silent(self, stream: Stream, begun: float, now: float) -> StreamFailed | None:
        """What is wrong with a connection that stands and gives no frames, or always the same."""
        timeout_s, still_s = self._settings.live_timeout_s, self._settings.live_reconnect_still_s
        packets = now - stream.packet_at < timeout_s
        if stream.frame_at:
            if now - stream.frame_at > timeout_s:
                return StreamFailed("undecodable" if packets else "timeout")
            if still_s and now - stream.changed_at > still_s:
                return StreamFailed("still")
        elif stream.packet_at and now - begun > max(FIRST_PICTURE_S, timeout_s):
            return StreamFailed("undecodable")
        elif now - begun > 3 * timeout_s + CONNECT_S:
            return StreamFailed("timeout")
        return None

    def _came_to_live(self, stream: Stream) -> None:
        self._generation += 1
        self._trouble = None
        self._metrics.live_connections.labels(self.config.id, "live").inc()
        self._enter("live")
        _log.info("camera %s is live: %s %dx%d", self.config.id, stream.codec, *stream.size)

    async def _place(self) -> Place:
        """Where to connect to. Raises StreamFailed where that may not be."""
        config = self.config
        if config.scheme == "file":
            try:
                return Place("", file=config.file_in(self._settings.live_files_dir), loop=config.loop)
            except SourceNotAllowed as error:
                raise StreamFailed("not_allowed", str(error)) from None
        host, port = config.host
        try:
            async with asyncio.timeout(CONNECT_S):
                address = await self._places.address_of(host, port)
        except HostRefused as error:
            raise StreamFailed("not_allowed", str(error)) from None
        except (httpcore.ConnectError, TimeoutError):
            raise StreamFailed("unknown_host") from None
        return Place(
            config.address_at(host if config.is_playlist else address),
            self._transport,
            peer=(address, port),
            sends_ahead=config.scheme in ("http", "https"),
            host=host,
            trust=Trust(self._cas, host) if config.speaks_tls and config.verify else None,
            address_of=self._places.address_now,
        )

    def _enter(self, state: State, trouble: Trouble | None = None) -> None:
        changed = state != self._state or trouble != self._trouble
        if state != self._state:
            self._since = time.time()
            if state in ("disabled", "ended"):  # nothing is to come
                self._metrics.live_last_frame.remove_by_labels({"camera": self.config.id})
            elif self._state in ("disabled", "ended"):
                self._metrics.live_last_frame.labels(self.config.id).set(time.time())
        self._state, self._trouble = state, trouble
        if changed:
            self._views.touch()

    def _teller(self) -> Callable[[], None]:
        loop = asyncio.get_running_loop()

        def tell() -> None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._told_of_news)

        return tell

    def _told_of_news(self) -> None:
        if self._state != "live" or (self._stream is not None and self._stream.ended):
            self._news.set()
        self._on_frame()

    def _heed(self) -> None:
        """What the configuration says of the connection there is."""
        if self._stream is not None:
            self._stream.skip, self._stream.max_fps = self._skip, self.config.max_fps

    def _let_go(self) -> None:
        """Of the connection there is; its thread is not waited for."""
        stream, self._stream = self._stream, None
        if stream is None:
            return
        stream.stop()
        self._before = self._before.plus(stream)
        leaving = asyncio.create_task(_ended(stream, self._settings.live_timeout_s))
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)

    def _account(self, now: float) -> None:
        """Tell the metrics what has come since the last time, and judge whether the engine keeps up."""
        counts, name = self._before.plus(self._stream), self.config.id
        stale = self._stale(counts)
        for kind, more in (
            ("received", counts.received - self._told.received),
            ("corrupt", counts.corrupt - self._told.corrupt),
            ("stale", stale - self._told_stale),
        ):
            if more > 0:
                self._metrics.live_frames.labels(name, kind).inc(more)
        self._told, self._told_stale = counts, max(stale, self._told_stale)
        if last := self._last_frame_at():
            self._metrics.live_last_frame.labels(name).set(time.time() - (now - last))
        self._metrics.live_still.labels(name).set(self._still_s())
        since, kept, dropped = self._judged
        if now - since >= _BEHIND_S:
            behind = stale - dropped > _BEHIND_SHARE * max(1, counts.kept - kept)
            if behind != self._behind:
                self._behind = behind
                self._views.touch()
            self._metrics.live_behind.labels(name).set(self._behind)
            self._judged = now, counts.kept, stale

    def _stale(self, counts: _Counts) -> int:
        """Frames that were to be inferred and were not."""
        return max(0, counts.kept - self._taken - (self._stream.waiting if self._stream else 0)) + counts.stale

    def _last_frame_at(self) -> float:
        return self._stream.frame_at if self._stream is not None else 0.0

    def _still_s(self) -> float:
        stream = self._stream
        if stream is None or not stream.changed_at:
            return 0.0
        still_s = time.monotonic() - stream.changed_at
        return still_s if still_s >= self._settings.live_still_s else 0.0

    @property
    def _skip(self) -> int:
        return self.config.skip or self._settings.frame_skip

    @property
    def _transport(self) -> str:
        return self.config.transport or self._settings.live_transport


async def _ended(stream: Stream, timeout_s: float) -> None:
    """Until the thread of a stream that was stopped has ended: it is given a moment to say goodbye to the camera."""
    until = time.monotonic() + 2 * timeout_s + 1
    await asyncio.sleep(_LET_GO_S / 10)
    cut_at = time.monotonic() + _LET_GO_S
    while stream.alive and time.monotonic() < until:
        if time.monotonic() > cut_at:
            stream.cut()
        await asyncio.sleep(_LET_GO_S / 5)

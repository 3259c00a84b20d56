"""Who watches: a place for each up to LIVE_VIEWERS, a wink when there is news, and what all of them look at."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, Literal

from gateway.errors import TooManyViewers, UnknownCamera
from gateway.live.encodings import Encodings, Look, shared_width
from gateway.live.info import CameraInfo
from gateway.live.views import View, Views
from gateway.metrics import Metrics
from gateway.settings import Settings

Ending = Literal["gone", "slow", "removed", "stopping"]
"""Why a viewer's conversation ends."""
Kind = Literal["websocket", "mjpeg", "picture"]

FRESH_S: Final = 5.0
"""A picture that is longer known is not shown as what the camera sees."""
TOO_SLOW_S: Final = 15.0
"""A viewer that takes less than a frame in so long is let go. Of one that takes nothing the kernel ends the connection
before: see limit_unsent."""
_UNSENT_BYTES: Final = 65536
_UNSENT_MS: Final = 10_000
_LOOK_AGAIN_S: Final = 0.25
"""News of cameras' states are at most so late; also what wakes viewers while nothing is published."""


def next_due(due: float, now: float, fps: float | None) -> float:
    """When the frame after the one sent `now`, which could go at `due`, may go: `fps` of them on average."""
    if fps is None:
        return 0.0
    return (due if due > now - 1 / fps else now) + 1 / fps


def limit_unsent(listener: socket.socket) -> None:
    """Let the kernel hold little for each connection that `listener` takes, and end those that take nothing for 10 s.

    By default it takes 4 MB of a viewer's pictures, seconds of them, before sending waits: measured, a viewer that
    reads at half the speed is 3.0 s behind after 6 s, and 0.4 s with this.
    """
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNSENT_MS)


class Viewer:
    """One of them. For the event loop alone."""

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        """Something may be new."""


class Viewers:
    """All of them. They pull: nothing is kept for one, and nobody waits for another."""

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        views: Views,
        infos: Callable[[], Sequence[CameraInfo]],
        on_shown: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`infos` says how all cameras are now; `on_shown` is told the id of a camera whose frame a viewer was sent."""
        self.metrics = metrics
        self.views = views
        self.encodings = Encodings(metrics)
        self._settings = settings
        self._infos = infos
        self._cameras: Mapping[str, CameraInfo] = {}
        self._looked_at = -1.0
        self._viewers: set[Viewer] = set()
        self._on_shown = on_shown
        self._winking: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._nobody = asyncio.Event()
        self._nobody.set()

    @property
    def cameras(self) -> Mapping[str, CameraInfo]:
        """All cameras by id, as they were at most a quarter of a second ago."""
        if time.monotonic() - self._looked_at >= _LOOK_AGAIN_S:
            self._look_again()
        return self._cameras

    def camera(self, name: str) -> CameraInfo:
        """The camera with this id, also one that was added just now. Raises UnknownCamera."""
        if name not in self.cameras:
            self._look_again()
        if name not in self._cameras:
            raise UnknownCamera(f"there is no camera {name[:40]}; GET /live/cameras lists them")
        return self._cameras[name]

    @contextmanager
    def place(self, kind: Kind) -> Iterator[Viewer]:
        """Be a viewer during the block. Raises TooManyViewers."""
        if len(self._viewers) >= self._settings.live_viewers:
            raise TooManyViewers(f"{self._settings.live_viewers} watch already, as LIVE_VIEWERS says; try again later")
        viewer = Viewer()
        self._viewers.add(viewer)
        self._nobody.clear()
        self.metrics.viewers.watching.labels(kind).inc()
        if self._winking is None:
            self._winking = asyncio.create_task(self._wink())
        try:
            yield viewer
        finally:
            self._viewers.discard(viewer)
            self.metrics.viewers.watching.labels(kind).dec()
            if not self._viewers:
                self._nobody.set()
                self.encodings.forget()
                if self._winking is not None:
                    self._winking.cancel()
                    self._winking = None

    def fresh(self, camera: str) -> View | None:
        """What the camera sees: its newest view, None where that is old. How long the engine took does not count."""
        view = self.views.latest(camera)
        if view is None or time.monotonic() - view.captured_at > FRESH_S + sum(view.stages.values()):
            return None
        return view

    def look(self, camera: CameraInfo, view: View, width: int | None, *, annotated: bool) -> Look:
        """How a viewer that asked for `width` gets the camera's pictures."""
        settings = self._settings
        largest = camera.width or min(
            settings.max_stream_width, round(view.picture.width * settings.stream_resize_factor)
        )
        quality = camera.quality or settings.frame_jpeg_quality
        return Look(shared_width(view.picture.width, largest, width), quality, annotated)

    def count(self, kind: Kind, view: View, size: int, took_s: float | None = None) -> None:
        """A frame was sent, which took so long where that is known."""
        if took_s is not None:
            self.metrics.live_stage_seconds.labels("send").observe(took_s)
        self._on_shown(view.camera)
        self.metrics.viewers.sent.labels(kind).inc()
        self.metrics.viewers.sent_bytes.labels(kind).inc(size)

    async def until_ended(self, *parts: Coroutine[Any, Any, Ending]) -> Ending:
        """Run the parts of a conversation until one of them ends, or the gateway stops."""

        async def stopping() -> Ending:
            await self._stopping.wait()
            return "stopping"

        tasks = [asyncio.create_task(part) for part in (*parts, stopping())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return next(task.result() for task in tasks if task.done())
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def close(self) -> None:
        """Let all go."""
        self._stopping.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                await self._nobody.wait()
        self.encodings.close()

    def _look_again(self) -> None:
        self._cameras, self._looked_at = {info.id: info for info in self._infos()}, time.monotonic()

    async def _wink(self) -> None:
        """Wake all whenever there is a new view, and now and then without one."""
        seen = self.views.version
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_AGAIN_S):
                    seen = await self.views.changed(seen)
            for viewer in self._viewers:
                viewer.wake.set()

"""Pictures of one camera over plain HTTP: the newest as a JPEG, and all of them as multipart MJPEG."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.live.encodings import blank
from gateway.live.info import CameraInfo
from gateway.live.viewers import TOO_SLOW_S, Ending, Viewer, Viewers, next_due
from gateway.live.views import View

NO_STORE: Final = {"Cache-Control": "no-store"}
_BOUNDARY: Final = b"--frame\r\n"
_END: Final = b"--frame--\r\n"
_AGAIN_S: Final = 0.25
"""A browser paints a part when the next begins: without news the last one is sent again so soon."""
_NO_SIGNAL_AGAIN_S: Final = 1.0
_LAST_WORD_S: Final = 0.2
_QUALITY: Final = 75


def about(view: View) -> dict[str, str]:
    """Headers that say which picture it is."""
    age_ms = (time.monotonic() - view.captured_at) * 1000
    return {"X-Captured-At": _clock(view), "X-Age-Ms": f"{age_ms:.0f}", "X-Sequence": str(view.sequence)}


@dataclass(frozen=True, slots=True)
class Wish:
    """What the viewer asked for."""

    width: int | None
    max_fps: float | None
    annotated: bool


class Stream(Response):
    """An endless multipart answer, which ends with its viewer, its camera or the gateway."""

    def __init__(self, viewers: Viewers, camera: CameraInfo, wish: Wish) -> None:
        super().__init__()
        self._viewers = viewers
        self._camera = camera
        self._wish = wish
        self._sequence = -1
        self._sent_at = 0.0
        self._due = 0.0
        self._part = b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._viewers.place("mjpeg") as viewer:
            await self._serve(viewer, receive, send)

    async def _serve(self, viewer: Viewer, receive: Receive, send: Send) -> None:
        kind = b"multipart/x-mixed-replace;boundary=frame"
        headers = [(b"content-type", kind), (b"cache-control", b"no-store"), (b"connection", b"close")]

        async def listen() -> Ending:
            while (await receive())["type"] != "http.disconnect":
                pass
            return "gone"

        async def tell() -> Ending:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await self._send(send, _BOUNDARY)
            while (camera := self._viewers.cameras.get(self._camera.id)) and camera.number == self._camera.number:
                viewer.wake.clear()
                try:
                    await self._tell(camera, send)
                except TimeoutError:
                    return "slow"
                await viewer.wake.wait()
            return "removed"

        if await self._viewers.until_ended(listen(), tell()) in ("removed", "stopping"):
            with suppress(TimeoutError, OSError):  # to one that reads nothing it cannot be said
                async with asyncio.timeout(_LAST_WORD_S):
                    await send({"type": "http.response.body", "body": _END, "more_body": False})

    async def _tell(self, camera: CameraInfo, send: Send) -> None:
        """Send a part if there is anything new to show, or the last one again if there has not been for a while."""
        now = time.monotonic()
        view = self._viewers.fresh(camera.id)
        if view is None or camera.state != "live":
            if now - self._sent_at >= _NO_SIGNAL_AGAIN_S or self._sequence >= 0:
                self._sequence = -1
                await self._send_part(send, await self._no_signal(camera), {})
        elif view.sequence == self._sequence:
            if now - self._sent_at >= _AGAIN_S:
                await self._send(send, self._part)
        elif now >= self._due:
            wish = self._wish
            look = self._viewers.look(camera, view, wish.width, annotated=wish.annotated)
            jpeg = await self._viewers.encodings.jpeg(view, look)
            begun = time.monotonic()
            await self._send_part(send, jpeg, about(view))
            took_s = time.monotonic() - begun
            if self._sequence >= 0:
                reason = "rate" if self._due else "slow"
                skipped = view.sequence - self._sequence - 1
                self._viewers.metrics.viewers.skipped.labels("mjpeg", reason).inc(skipped)
            self._sequence = view.sequence
            self._due = next_due(self._due, now, wish.max_fps)
            self._viewers.count("mjpeg", view, len(jpeg), took_s)

    async def _no_signal(self, camera: CameraInfo) -> bytes:
        """The last picture, darkened, or an empty one, with since when nothing new came."""
        view = self._viewers.views.latest(camera.id)
        if view is None:
            return blank(f"no signal: {camera.state}", _QUALITY)
        text = f"no signal since {_clock(view)[11:19]} UTC"
        look = self._viewers.look(camera, view, self._wish.width, annotated=False)
        return await self._viewers.encodings.jpeg(view, replace(look, no_signal=text))

    async def _send_part(self, send: Send, jpeg: bytes, headers: Mapping[str, str]) -> None:
        lines = {"Content-Type": "image/jpeg", "Content-Length": str(len(jpeg)), **headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        # The next boundary at once: it is what ends this part.
        self._part = b"".join((head.encode(), b"\r\n", jpeg, b"\r\n", _BOUNDARY))
        await self._send(send, self._part)

    async def _send(self, send: Send, data: bytes) -> None:
        """Raises TimeoutError when the viewer takes nothing for too long."""
        async with asyncio.timeout(TOO_SLOW_S):
            await send({"type": "http.response.body", "body": data, "more_body": True})
        self._sent_at = time.monotonic()


def _clock(view: View) -> str:
    captured = datetime.fromtimestamp(view.captured_wall, UTC).isoformat(timespec="milliseconds")
    return captured.replace("+00:00", "Z")

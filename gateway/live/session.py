"""One WebSocket viewer: any number of cameras, of each the newest frame whenever the viewer can take one."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails
from starlette.websockets import WebSocket, WebSocketDisconnect

from gateway.errors import UnknownCamera
from gateway.live.info import CameraInfo
from gateway.live.message import PROTOCOL, frame_json, frame_message
from gateway.live.viewers import TOO_SLOW_S, Ending, Viewer, Viewers, next_due
from gateway.live.views import View
from touchline.contract import CLASS_NAMES

SLOW: Final = 4408, "too slow"
GOING_AWAY: Final = 1001, "the gateway stops"
_LAST_WORD_S: Final = 0.2
_KIND: Final = "websocket"
_STATE_EVERY_S: Final = 2.0
_MOST_NOTES, _LONGEST_NOTE = 8, 500


class Subscribe(BaseModel):
    """What a viewer wants; each one replaces the one before."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["subscribe"]
    cameras: list[str] | None = Field(None, max_length=1024)
    """Ids; None: all, also those that are added later."""
    pictures: bool = True
    annotated: bool = False
    format: Literal["binary", "json"] = "binary"
    """json: boxes alone."""
    width: int | None = Field(None, ge=1, le=8192)
    max_fps: float | None = Field(None, gt=0, le=1000)
    acks: bool = False
    """The viewer acknowledges each frame, and is sent none of a camera before."""


class Ack(BaseModel):
    """The viewer has shown a frame."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["ack"]
    camera: int
    """Its number."""
    sequence: int


_CONTROL: Final = TypeAdapter[Subscribe | Ack](Annotated[Subscribe | Ack, Field(discriminator="type")])


@dataclass(slots=True)
class _Sent:
    """Of one camera: the last frame that was sent."""

    sequence: int = -1
    generation: int = -1
    at: float = 0.0
    due: float = 0.0
    """No earlier one is wanted."""
    unanswered: bool = False
    by_rate: bool = False
    """A newer one was held back because the viewer asked for fewer."""


class Session:
    """The viewer's side of the conversation; ends when either side goes."""

    def __init__(self, websocket: WebSocket, viewer: Viewer, viewers: Viewers) -> None:
        self._websocket = websocket
        self._viewer = viewer
        self._viewers = viewers
        self._wanted: Subscribe | None = None
        self._sent: dict[int, _Sent] = {}
        self._notes = deque[dict[str, Any]](maxlen=_MOST_NOTES)
        self._told: dict[str, CameraInfo] = {}
        self._told_at = 0.0
        self._turn = 0

    async def run(self) -> None:
        """Until the viewer or the gateway goes, or the viewer is too slow."""
        await self._websocket.accept(PROTOCOL)
        ending = await self._viewers.until_ended(self._listen(), self._tell())
        if ending != "gone":
            # To one that reads nothing it cannot be said.
            with suppress(TimeoutError, WebSocketDisconnect, RuntimeError):
                async with asyncio.timeout(_LAST_WORD_S):
                    await self._websocket.close(*(SLOW if ending == "slow" else GOING_AWAY))

    async def _listen(self) -> Ending:
        """Take what the viewer says."""
        while (message := await self._websocket.receive())["type"] != "websocket.disconnect":
            self._hear(message.get("text") or "")
        return "gone"

    def _hear(self, text: str) -> None:
        self._viewer.wake.set()
        try:
            said = _CONTROL.validate_json(text)
        except ValidationError as error:
            self._note("bad_message", "; ".join(map(_wrong, error.errors())))
            return
        if isinstance(said, Ack):
            sent = self._sent.get(said.camera)
            if sent is not None and said.sequence >= sent.sequence:
                sent.unanswered = False
            return
        self._wanted = said
        self._sent = {number: replace(sent, unanswered=False, due=0.0) for number, sent in self._sent.items()}
        for name in said.cameras or ():
            try:
                self._viewers.camera(name)
            except UnknownCamera as error:
                self._note(error.reason, str(error))

    def _note(self, code: str, detail: str) -> None:
        self._notes.append({"type": "error", "code": code, "detail": detail[:_LONGEST_NOTE]})

    async def _tell(self) -> Ending:
        """Say what is new, as it comes."""
        try:
            self._told = dict(self._viewers.cameras)
            self._told_at = time.monotonic()
            await self._say(
                {
                    "type": "hello",
                    "protocol": PROTOCOL,
                    "cameras": [info.as_json() for info in self._told.values()],
                    "classes": CLASS_NAMES,
                }
            )
            while True:
                self._viewer.wake.clear()
                while self._notes:
                    await self._say(self._notes.popleft())
                await self._tell_states()
                if not await self._tell_frames():
                    return "slow"
                await self._viewer.wake.wait()
        except TimeoutError:
            return "slow"
        except (WebSocketDisconnect, RuntimeError):  # RuntimeError: Starlette's, after the viewer closed
            return "gone"

    async def _tell_states(self) -> None:
        """Cameras that changed, all of them now and then, and those that are gone."""
        cameras = self._viewers.cameras
        again = time.monotonic() - self._told_at >= _STATE_EVERY_S
        for name, info in cameras.items():
            if again or name not in self._told or _facts(info) != _facts(self._told[name]):
                await self._say({"type": "state", **info.as_json()})
        for name, info in self._told.items():
            if name not in cameras or cameras[name].number != info.number:
                self._sent.pop(info.number, None)
                await self._say({"type": "removed", "number": info.number, "id": name})
        if again:
            self._told_at = time.monotonic()
        self._told = dict(cameras)

    async def _tell_frames(self) -> bool:
        """Of each camera the newest frame, if the viewer has not got it and can take it. False: it is too slow."""
        wanted = self._wanted
        if wanted is None:
            return True
        names = list(self._told) if wanted.cameras is None else [name for name in wanted.cameras if name in self._told]
        self._turn += 1  # nobody is always the last
        for index in range(len(names)):
            name = names[(index + self._turn) % len(names)]
            view = self._viewers.fresh(name)
            if view is None or view.number != self._told[name].number:
                continue
            sent = self._sent.setdefault(view.number, _Sent())
            now = time.monotonic()
            if sent.sequence == view.sequence:
                continue
            if wanted.acks and sent.unanswered:
                if now - sent.at > TOO_SLOW_S:
                    return False
                continue
            if now < sent.due:
                sent.by_rate = True
                continue
            await self._tell_frame(self._told[name], view, sent, wanted)
        return True

    async def _tell_frame(self, camera: CameraInfo, view: View, sent: _Sent, wanted: Subscribe) -> None:
        viewers = self._viewers
        about = {"first": sent.generation != view.generation, "still": camera.still_s > 0}
        if wanted.format == "json":
            begun = time.monotonic()
            size = await self._say(frame_json(view, now=begun, **about))
        else:
            jpeg = b""
            if wanted.pictures:
                look = viewers.look(camera, view, wanted.width, annotated=wanted.annotated)
                jpeg = await viewers.encodings.jpeg(view, look)
            drawn = wanted.pictures and wanted.annotated
            begun = time.monotonic()
            size = await self._send(frame_message(view, jpeg, drawn=drawn, now=begun, **about))
        if sent.sequence >= 0:
            reason = "rate" if sent.by_rate else "slow"
            viewers.metrics.viewers.skipped.labels(_KIND, reason).inc(view.sequence - sent.sequence - 1)
        now = time.monotonic()
        sent.sequence, sent.generation, sent.at = view.sequence, view.generation, now
        sent.unanswered, sent.by_rate = True, False
        sent.due = next_due(sent.due, now, wanted.max_fps)
        viewers.count(_KIND, view, size, now - begun)

    async def _say(self, message: dict[str, Any]) -> int:
        return await self._send(json.dumps(message, separators=(",", ":")))

    async def _send(self, message: str | bytes) -> int:
        """Its length. Raises TimeoutError when the viewer takes nothing for too long."""
        async with asyncio.timeout(TOO_SLOW_S):
            if isinstance(message, str):
                await self._websocket.send_text(message)
            else:
                await self._websocket.send_bytes(message)
        return len(message)


def _facts(info: CameraInfo) -> tuple[object, ...]:
    """What viewers are told of as soon as it changes."""
    size = (info.source.width, info.source.height) if info.source else None
    state = (info.state, info.since, info.error, info.generation, info.still_s > 0, info.behind)
    return info.number, info.name, info.url, size, *state


def _wrong(error: ErrorDetails) -> str:
    place = ".".join(str(part) for part in error["loc"] if part not in ("subscribe", "ack"))
    return f"{place}: {error['msg']}" if place else error["msg"]

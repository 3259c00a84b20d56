"""Viewers at a real server on the loopback: what each gets, who waits for whom, and what is left when they go."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from gateway.errors import GatewayError
from gateway.live.info import CameraInfo, Trouble
from gateway.live.message import PROTOCOL
from gateway.live.routes import answer_error
from gateway.live.viewer_routes import viewer_router
from gateway.live.viewers import Viewers, limit_unsent, next_due
from gateway.live.views import Views
from gateway.metrics import Metrics, value_of
from gateway.settings import Settings
from tests.gateway.live.made_views import HEIGHT, WIDTH, decoded, made_info, made_view
from tests.gateway.live.read_message import read_message

PATIENCE_S = 10
SPOKEN = Subprotocol(PROTOCOL)


@dataclass
class Watched:
    """A server with viewers, whose cameras the test plays."""

    port: int
    viewers: Viewers
    views: Views
    metrics: Metrics
    infos: dict[str, CameraInfo] = field(default_factory=dict)
    shown: list[str] = field(default_factory=list)
    """Cameras whose frames were sent."""

    @asynccontextmanager
    async def socket(self, **subscribe: Any) -> AsyncIterator[ClientConnection]:
        """A WebSocket viewer after its hello."""
        url = f"ws://127.0.0.1:{self.port}/live/stream"
        async with connect(url, subprotocols=[SPOKEN], max_size=None, proxy=None) as opened:
            hello = json.loads(await opened.recv())
            assert hello["type"] == "hello" and hello["classes"] == ["ball", "goalkeeper", "player", "referee"]
            if subscribe is not None:
                await opened.send(json.dumps({"type": "subscribe", **subscribe}))
            yield opened

    def browser(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=PATIENCE_S)

    def publish(self, camera: str = "north", **values: Any) -> None:
        number = self.infos[camera].number
        view = self.views.latest(camera)
        values.setdefault("sequence", view.sequence + 1 if view else 0)
        self.views.publish(made_view(camera, number, **values))

    async def publishing(self, *cameras: str, every_s: float = 0.01) -> None:
        while True:
            for camera in cameras:
                self.publish(camera)
            await asyncio.sleep(every_s)

    def count(self) -> float:
        return sum(value_of_labels(self.metrics.viewers.watching))

    async def until_nobody_watches(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while self.count():
                await asyncio.sleep(0.02)


def value_of_labels(metric: Any) -> list[float]:
    return [sample.value for sample in next(iter(metric.collect())).samples if not sample.name.endswith("_created")]


@asynccontextmanager
async def watched(*cameras: str, **settings: Any) -> AsyncIterator[Watched]:
    views, metrics = Views(), Metrics()
    infos = {name: made_info(name, number) for number, name in enumerate(cameras or ("north",), 1)}
    shown: list[str] = []
    viewers = Viewers(
        Settings(_env_file=None, **settings), metrics, views, lambda: list(infos.values()), on_shown=shown.append
    )
    app = FastAPI()
    app.include_router(viewer_router(viewers))
    app.add_exception_handler(GatewayError, answer_error)
    with socket.create_server(("127.0.0.1", 0), backlog=200) as listener:
        limit_unsent(listener)
        server = uvicorn.Server(
            uvicorn.Config(
                app, lifespan="off", log_level="warning", ws_per_message_deflate=False, timeout_graceful_shutdown=2
            )
        )
        serving = asyncio.create_task(server.serve([listener]))
        try:
            yield Watched(listener.getsockname()[1], viewers, views, metrics, infos, shown)
        finally:
            await viewers.close()
            server.should_exit = True
            await serving


async def frame(viewer: ClientConnection) -> dict[str, Any]:
    """The next frame, past whatever is said of states."""
    async with asyncio.timeout(PATIENCE_S):
        while isinstance(message := await viewer.recv(), str):
            pass
        return read_message(message)


async def said(viewer: ClientConnection, kind: str) -> dict[str, Any]:
    """The next text message of a kind, past frames."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            message = await viewer.recv()
            if isinstance(message, str) and (read := json.loads(message))["type"] == kind:
                return dict(read)


async def test_a_viewer_is_sent_what_it_asked_for() -> None:
    async with watched("north", "south") as gateway, gateway.socket(cameras=["south"], width=WIDTH // 2) as viewer:
        gateway.publish("north", level=200)
        gateway.publish("south", level=60)
        got = await frame(viewer)
        assert (got["number"], got["sequence"], got["flags"] & 0b1111) == (2, 0, 1 | 8)
        assert decoded(got["jpeg"]).shape == (HEIGHT // 2, WIDTH // 2, 3)
        assert abs(decoded(got["jpeg"])[60, 20, 0] - 60.0) < 8
        gateway.publish("south")
        assert (await frame(viewer))["flags"] & 8 == 0, "the connection is not new any more"

        await viewer.send('{"type": "subscribe", "pictures": false}')
        for sequence in range(2):  # the newest at once
            got = await frame(viewer)
            assert (got["number"], got["sequence"], got["jpeg"]) == (1, sequence, b"")
            if not sequence:
                gateway.publish("north")
        assert value_of(gateway.metrics.viewers.encodes) == 2

        await viewer.send('{"type": "subscribe", "format": "json", "cameras": ["north"]}')
        await viewer.send("{")
        assert await said(viewer, "error"), "what was said before it is heard"
        gateway.publish("north")
        told = await said(viewer, "frame")
        assert (told["id"], told["sequence"], len(told["boxes"])) == ("north", 2, 2)
        assert gateway.shown == ["south", "south", "north", "north", "north"]


async def test_what_cannot_be_understood_is_said_and_the_conversation_goes_on() -> None:
    async with watched() as gateway, gateway.socket() as viewer:
        wrong: list[str | bytes] = [
            '{"type": "subscribe", "width": 0}',
            '{"type": "subscribe", "camera": "x"}',
            "{",
            '{"type": "jump"}',
        ]
        wrong += ['{"type": "ack"}', "[]", '{"type": "subscribe", "max_fps": "fast"}', "9" * 5000]
        for message in (*wrong, b"binary"):
            await viewer.send(message)
            error = await said(viewer, "error")
            assert error["code"] == "bad_message" and error["detail"] and len(error["detail"]) <= 500
        await viewer.send('{"type": "subscribe", "cameras": ["nobody", "north"]}')
        assert await said(viewer, "error") == {
            "type": "error",
            "code": "unknown_camera",
            "detail": "there is no camera nobody; GET /live/cameras lists them",
        }
        gateway.publish()
        assert (await frame(viewer))["sequence"] == 0


async def test_states_are_told_as_they_change_and_cameras_as_they_come_and_go() -> None:
    async with watched() as gateway, gateway.socket() as viewer:
        gateway.infos["north"] = made_info(state="waiting", error=Trouble("refused", "nobody there"), retry_in_s=2.5)
        gateway.views.touch()
        told = await said(viewer, "state")
        assert (told["id"], told["state"], told["error"]["code"]) == ("north", "waiting", "refused")
        gateway.infos["south"] = made_info("south", 2)
        assert (await said(viewer, "state"))["id"] == "south"
        gateway.publish("south")
        assert (await frame(viewer))["number"] == 2, "who subscribed to all gets a camera that came later"
        del gateway.infos["north"]
        gateway.views.remove("north")
        assert await said(viewer, "removed") == {"type": "removed", "number": 1, "id": "north"}


async def test_an_old_picture_is_not_sent_as_a_new_one() -> None:
    async with watched() as gateway:
        gateway.publish(captured_at=time.monotonic() - 6)
        async with gateway.socket() as viewer, gateway.browser() as browser:
            await said(viewer, "state")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.6):
                    await frame(viewer)
            answer = await browser.get("/live/cameras/north/picture.jpg")
            assert (answer.status_code, answer.json()["error"]) == (503, "no_picture")
            # An engine that takes that long for a frame shows what it can.
            gateway.publish(captured_at=time.monotonic() - 6, stages={"wait": 2.0, "infer": 4.0})
            assert (await frame(viewer))["age"] > 6_000_000


async def test_who_acknowledges_is_sent_one_at_a_time() -> None:
    async with watched() as gateway, gateway.socket(acks=True) as viewer:
        publishing = asyncio.create_task(gateway.publishing("north"))
        first = await frame(viewer)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.4):
                await frame(viewer)
        await viewer.send(json.dumps({"type": "ack", "camera": 1, "sequence": first["sequence"]}))
        newest = gateway.views.latest("north")
        second = await frame(viewer)
        assert newest is not None and second["sequence"] >= newest.sequence > first["sequence"], "it was kept for it"
        publishing.cancel()


@pytest.mark.parametrize("fps", [1.0, 5.0, 12.0, 24.0])
def test_who_wants_fewer_gets_as_many_on_average(fps: float) -> None:
    due, sent = 0.0, []
    for now in (frame / 25 for frame in range(1000, 1000 + 25 * 40)):
        if now >= due and not 50 <= now < 60:  # ten seconds without a frame, which are not caught up
            sent.append(now)
            due = next_due(due, now, fps)
    assert len(sent) == pytest.approx(30 * fps, abs=2)
    assert min(after - before for before, after in itertools.pairwise(sent)) > 0.5 / fps
    assert next_due(due, 80.0, None) == 0


async def test_what_a_viewer_did_not_ask_for_is_counted_apart() -> None:
    async with watched() as gateway, gateway.socket(max_fps=5) as viewer:
        publishing = asyncio.create_task(gateway.publishing("north"))
        for _ in range(3):
            await frame(viewer)
        publishing.cancel()
        skipped = next(iter(gateway.metrics.viewers.skipped.collect())).samples
        by = {tuple(sample.labels.values()): sample.value for sample in skipped if sample.name.endswith("_total")}
        assert by["websocket", "rate"] > 0


async def test_fifty_viewers_of_whom_half_never_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others get all that is new, each picture is made once, and the deaf are let go."""
    monkeypatch.setattr("gateway.live.viewers._UNSENT_MS", 1500)
    async with watched("north", "south") as gateway:
        deaf = [await never_reads(gateway.port, mjpeg=index % 2 == 0) for index in range(25)]
        opened = [gateway.socket() for _ in range(25)]
        readers = [await one.__aenter__() for one in opened]
        assert gateway.count() == 50
        publishing = asyncio.create_task(gateway.publishing("north", "south", every_s=0.05))
        async with asyncio.timeout(30):
            await asyncio.gather(*(reads_for(reader, frames=60) for reader in readers))
            while gateway.count() > 25:
                await asyncio.gather(*(reads_for(reader, frames=2) for reader in readers))
        published = sum(view.sequence + 1 for name in gateway.infos if (view := gateway.views.latest(name)))
        # Sockets want plain pictures, MJPEG annotated ones: two looks, each picture once.
        assert value_of(gateway.metrics.viewers.encodes) <= 2 * published
        for reader in opened:
            await reader.__aexit__(None, None, None)
        await gateway.until_nobody_watches()
        publishing.cancel()
        encoded = value_of(gateway.metrics.viewers.encodes)
        gateway.publish("north")
        await asyncio.sleep(0.3)
        assert value_of(gateway.metrics.viewers.encodes) == encoded, "it encodes for nobody"
        assert gateway.viewers._winking is None and not gateway.viewers.encodings._made
        for one in deaf:
            one.close()


async def reads_for(viewer: ClientConnection, frames: int) -> None:
    for _ in range(frames):
        await frame(viewer)


async def never_reads(port: int, *, mjpeg: bool) -> socket.socket:
    """A connection that asks for pictures and takes none: its buffer is full soon."""
    deaf = socket.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(deaf, ("127.0.0.1", port))
    if mjpeg:
        await loop.sock_sendall(deaf, b"GET /live/cameras/north/stream.mjpeg HTTP/1.1\r\nHost: localhost\r\n\r\n")
    else:
        key = b"dGhlIHNhbXBsZSBub25jZQ=="
        await loop.sock_sendall(
            deaf,
            b"GET /live/stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: touchline.live.v1\r\nSec-WebSocket-Key: %b\r\n\r\n"
            % key,
        )
    taken = b""
    while b"\r\n\r\n" not in taken:
        taken += await loop.sock_recv(deaf, 64)
    if not mjpeg:
        # A masked text frame, as RFC 6455 has it, with a mask of zeros.
        message = b'{"type":"subscribe"}'
        await loop.sock_sendall(deaf, bytes([0x81, 0x80 | len(message), 0, 0, 0, 0]) + message)
    return deaf


async def test_viewers_that_are_cut_leave_nothing() -> None:
    async with watched() as gateway:
        publishing = asyncio.create_task(gateway.publishing("north"))
        known = set(asyncio.all_tasks())
        for _ in range(3):
            cut = [await never_reads(gateway.port, mjpeg=index < 5) for index in range(10)]
            await asyncio.sleep(0.2)
            assert gateway.count() == 10
            for one in cut:
                one.close()
            await gateway.until_nobody_watches()
        async with asyncio.timeout(PATIENCE_S):
            while {task for task in asyncio.all_tasks() if "gateway/" in str(task.get_coro())} - known:
                await asyncio.sleep(0.02)
        publishing.cancel()


async def test_a_camera_that_is_deleted_while_it_is_watched() -> None:
    async with watched("north", "south") as gateway, gateway.browser() as browser, gateway.socket() as viewer:
        gateway.publish("north")
        async with browser.stream("GET", "/live/cameras/north/stream.mjpeg") as stream:
            parts = stream.aiter_bytes()
            assert b"image/jpeg" in await anext(parts) + await anext(parts)
            del gateway.infos["north"]
            gateway.views.remove("north")
            async with asyncio.timeout(PATIENCE_S):
                rest = b"".join([part async for part in parts])
            assert rest.endswith(b"--frame--\r\n")
        assert (await said(viewer, "removed"))["id"] == "north"
        gateway.publish("south")
        assert (await frame(viewer))["number"] == 2
        # Another one of the same name is another camera.
        gateway.infos["north"] = made_info("north", 3)
        gateway.publish("north", level=50)
        assert (await frame(viewer))["number"] == 3


async def test_mjpeg_is_what_browsers_and_players_read() -> None:
    async with watched() as gateway, gateway.browser() as browser:
        gateway.publish(level=80)
        async with browser.stream("GET", "/live/cameras/north/stream.mjpeg", params={"annotated": False}) as stream:
            assert stream.headers["content-type"] == "multipart/x-mixed-replace;boundary=frame"
            assert stream.headers["cache-control"] == "no-store"
            parts = read_parts(stream)
            headers, jpeg = await anext(parts)
            assert headers["content-type"] == "image/jpeg" and headers["x-sequence"] == "0"
            assert abs(decoded(jpeg)[100, 100, 0] - 80.0) < 8
            again, same = await anext(parts)
            assert (again["x-sequence"], same) == ("0", jpeg), "without news the last one is sent again"
            gateway.publish(level=160)
            async with asyncio.timeout(PATIENCE_S):
                while (part := await anext(parts))[0].get("x-sequence") == "0":
                    pass
            assert abs(decoded(part[1])[100, 100, 0] - 160.0) < 8
            gateway.infos["north"] = made_info(state="waiting")
            async with asyncio.timeout(PATIENCE_S):
                while "x-sequence" in (part := await anext(parts))[0]:
                    pass
            assert decoded(part[1])[150, 300, 0] < 80, "an old picture is shown as if it were live"
        await gateway.until_nobody_watches()


async def read_parts(stream: httpx.Response) -> AsyncIterator[tuple[dict[str, str], bytes]]:
    """Headers and body of each part, as soon as the boundary behind it is there."""
    data = b""
    async for piece in stream.aiter_raw():
        data += piece
        while found := re.search(rb"--frame\r\n((?:[\w-]+: [^\r\n]*\r\n)+)\r\n", data):
            headers = dict(line.lower().split(": ", 1) for line in found[1].decode().splitlines())
            end = found.end() + int(headers["content-length"])
            if len(data) < end + len("\r\n--frame\r\n"):
                break
            assert data[end:].startswith(b"\r\n--frame\r\n")
            yield headers, data[found.end() : end]
            data = data[end:]


async def test_one_picture() -> None:
    async with watched() as gateway, gateway.browser() as browser:
        assert (await browser.get("/live/cameras/north/picture.jpg")).json()["error"] == "no_picture"
        unknown = await browser.get("/live/cameras/nobody/picture.jpg")
        assert (unknown.status_code, unknown.json()["error"]) == (404, "unknown_camera")
        assert (await browser.get("/live/cameras/nobody/stream.mjpeg")).status_code == 404
        for query in ("width=0", "width=x", "width=9999"):
            assert (await browser.get(f"/live/cameras/north/picture.jpg?{query}")).status_code == 422
        gateway.publish(sequence=41, level=90)
        answer = await browser.get("/live/cameras/north/picture.jpg", params={"width": 100, "annotated": False})
        assert (answer.headers["content-type"], answer.headers["x-sequence"]) == ("image/jpeg", "41")
        assert answer.headers["cache-control"] == "no-store" and float(answer.headers["x-age-ms"]) >= 0
        assert decoded(answer.content).shape == (HEIGHT // 2, WIDTH // 2, 3)
        assert gateway.count() == 0


async def test_there_are_no_more_viewers_than_live_viewers() -> None:
    async with watched(live_viewers=2) as gateway, gateway.browser() as browser:
        gateway.publish()
        async with gateway.socket(), browser.stream("GET", "/live/cameras/north/stream.mjpeg"):
            answer = await browser.get("/live/cameras/north/stream.mjpeg")
            assert (answer.status_code, answer.json()["error"]) == (503, "too_many_viewers")
            assert "LIVE_VIEWERS" in answer.json()["detail"]
            async with connect(
                f"ws://127.0.0.1:{gateway.port}/live/stream", subprotocols=[SPOKEN], proxy=None
            ) as third:
                with pytest.raises(ConnectionClosed) as closed:
                    await third.recv()
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 1013
            assert "LIVE_VIEWERS" in closed.value.rcvd.reason
            assert (await browser.get("/live/cameras/north/picture.jpg")).status_code == 200
        await gateway.until_nobody_watches()
        async with gateway.socket() as viewer:
            gateway.publish()
            await frame(viewer)


async def test_a_client_that_does_not_speak_the_protocol_is_told() -> None:
    async with watched() as gateway:
        for offered in (None, [Subprotocol("touchline.live.v0")]):
            with pytest.raises(InvalidStatus) as refused:
                await connect(f"ws://127.0.0.1:{gateway.port}/live/stream", subprotocols=offered, proxy=None)
            assert refused.value.response.status_code == 400
            assert PROTOCOL.encode() in refused.value.response.body
        assert gateway.count() == 0


async def test_at_the_end_all_are_told_and_nobody_is_waited_for() -> None:
    async with watched() as gateway:
        publishing = asyncio.create_task(gateway.publishing("north"))
        deaf = [await never_reads(gateway.port, mjpeg=index < 3) for index in range(6)]
        async with (
            gateway.socket() as viewer,
            gateway.browser() as browser,
            browser.stream("GET", "/live/cameras/north/stream.mjpeg") as stream,
        ):
            await asyncio.sleep(0.5)
            publishing.cancel()
            await gateway.viewers.close()
            assert gateway.count() == 0
            with suppress(ConnectionClosed):
                async with asyncio.timeout(PATIENCE_S):
                    while True:
                        await viewer.recv()
            assert viewer.close_code == 1001
            assert (await stream.aread()).endswith(b"--frame--\r\n")
    for one in deaf:
        one.close()

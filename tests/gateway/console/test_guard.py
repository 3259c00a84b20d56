"""Who comes through the console's door by HTTP and by WebSocket: a real server, a real handshake."""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, WebSocket
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

from gateway.console.guard import Guard

TOKEN = "secret: of ünïcode"


@asynccontextmanager
async def guarded(token: str) -> AsyncIterator[str]:
    """A page that is read, one that is written to and a WebSocket behind the guard: host and port."""
    app = FastAPI()
    app.add_middleware(Guard, token=token)

    @app.api_route("/page", methods=["GET", "POST", "DELETE"])
    async def page() -> str:
        return "seen"

    @app.websocket("/socket")
    async def through(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("seen")
        await websocket.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="warning"))
        serving = asyncio.create_task(server.serve([listener]))
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        await serving


async def socket_status(place: str, headers: dict[str, str]) -> int:
    """200 where the WebSocket is opened, else what the handshake is answered with."""
    origin = Origin(headers.pop("Origin")) if "Origin" in headers else None
    host, _, port = headers.pop("Host", place).partition(":")
    real, real_port = place.split(":")
    try:
        async with connect(
            f"ws://{host}:{port}/socket", origin=origin, additional_headers=headers, host=real, port=int(real_port),
            proxy=None,
        ) as opened:  # fmt: skip
            assert await opened.recv() == "seen"
            return 200
    except InvalidStatus as refused:
        assert b"seen" not in refused.response.body
        assert "default-src 'none'" in refused.response.headers["content-security-policy"]
        return refused.response.status_code


def password(of: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"anyone:{of}".encode()).decode()}


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:1", "http://127.0.0.1.evil.example", "http://["]
)
@pytest.mark.parametrize("token", ["", TOKEN])
async def test_another_sites_page_opens_no_websocket_and_writes_nothing(origin: str, token: str) -> None:
    async with guarded(token) as place, httpx.AsyncClient(base_url=f"http://{place}") as browser:
        known = {**password(token), "Origin": origin}
        assert await socket_status(place, dict(known)) == 403
        for method in ("POST", "DELETE"):
            answer = await browser.request(method, "/page", headers=known)
            assert answer.status_code == 403 and "Origin" in answer.text
        assert (await browser.get("/page", headers=known)).status_code == 200


@pytest.mark.parametrize("token", ["", TOKEN])
async def test_its_own_page_and_who_is_no_browser_may(token: str) -> None:
    async with guarded(token) as place, httpx.AsyncClient(base_url=f"http://{place}") as browser:
        for origin in ({}, {"Origin": f"http://{place}"}, {"Origin": f"https://{place}"}):
            known = {**password(token), **origin}
            assert await socket_status(place, dict(known)) == 200
            assert (await browser.post("/page", headers=known)).status_code == 200


async def test_without_the_token_no_websocket_is_opened() -> None:
    async with guarded(TOKEN) as place:
        assert await socket_status(place, {}) == 401
        assert await socket_status(place, password(TOKEN[:-1])) == 401
        assert await socket_status(place, password(TOKEN)) == 200


async def test_without_a_token_a_websocket_has_to_ask_for_this_machine() -> None:
    async with guarded("") as place:
        port = place.partition(":")[2]
        for host, status in (("localhost", 200), ("127.0.0.1", 200), ("evil.example", 403)):
            same_site = {"Host": f"{host}:{port}", "Origin": f"http://{host}:{port}"}
            assert await socket_status(place, same_site) == status, host


async def test_a_host_that_is_none_is_refused_and_breaks_nothing() -> None:
    async with guarded("") as place, httpx.AsyncClient(base_url=f"http://{place}") as browser:
        for host in ("[", "", "[::1", "a b", ":80"):
            assert (await browser.get("/page", headers={"Host": host})).status_code in (400, 403), host

"""Strangers at the public port: what they send is not kept, who is slow is cut off, and every request has its id."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Request

from gateway.logs import REQUEST_ID
from gateway.protocol import edge, http
from gateway.protocol.edge import Edge, PatientProtocol
from local.validator import challenge_body, signed_headers
from tests.support.gateway import RunningGateway, Traces, error_of, settled

CHALLENGE = b"POST /soccer/challenge HTTP/1.1\r\nHost: miner\r\n"


async def said(url: str, *sent: bytes) -> bytes:
    """Everything that comes back until the connection is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    try:
        # On a busy machine it may be closed before all was sent, of which uvloop says RuntimeError.
        with suppress(ConnectionError, RuntimeError):
            for part in sent:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0.05)
        async with asyncio.timeout(20):
            return await reader.read()
    finally:
        writer.close()


async def test_a_strangers_body_is_thrown_away_and_its_connection_ended(gateway: RunningGateway) -> None:
    head = CHALLENGE + b"Content-Length: 10000000000\r\n\r\n"
    answer = await said(gateway.url, head, b"x" * 50_000)
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"connection: close" in answer.lower()
    await read_to_the_end(gateway.url, head, *[b"x" * 100_000] * 20)  # may be told nothing, but is not read for ever


async def test_a_signed_request_whose_body_does_not_come(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "BODY_TIMEOUT_S", 0.2)
    headers = signed_headers(gateway.keys.validator, gateway.keys.miner.ss58_address, b"{}")
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()
    answer = await said(gateway.url, CHALLENGE + lines + b"Content-Length: 100\r\n\r\n", b"{", b'"')
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"request_timed_out" in answer


async def test_a_stranger_is_not_told_to_send_a_body_that_waits(gateway: RunningGateway) -> None:
    answer = await said(gateway.url, CHALLENGE + b"Expect: 100-continue\r\nContent-Length: 1000\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 401 ")


async def test_who_hangs_up_in_the_middle_of_a_body_leaves_a_count(
    gateway: RunningGateway, caplog: pytest.LogCaptureFixture
) -> None:
    before = Traces.of(gateway)
    headers = signed_headers(gateway.keys.validator, gateway.keys.miner.ss58_address, b"{}")
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()
    _, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]))
    writer.write(CHALLENGE + lines + b"Content-Length: 100\r\n\r\n{")
    await asyncio.sleep(0.1)
    writer.close()
    async with asyncio.timeout(30):
        while 'outcome="client_gone"} 1.0' not in await gateway.metrics():
            await asyncio.sleep(0.02)
    assert await settled(gateway, before) == before
    assert not any(record.exc_info for record in caplog.records)


async def test_a_path_that_only_a_route_takes_for_a_guarded_one_is_not_there(gateway: RunningGateway) -> None:
    body = challenge_body("http://a/b.mp4")
    headers = signed_headers(gateway.keys.validator, gateway.keys.miner.ss58_address, body)
    for path in ("/soccer/challenge%0A", "/exchange-symmetric-key%0A"):
        answer = await gateway.client.post(f"{gateway.url}{path}", content=body, headers=headers)
        assert error_of(answer)[:2] == (404, "not_found")


@pytest.mark.parametrize("sent", [[], [b"GET /health HTT"], [b"GET /health HTTP/1.1\r\n", b"A: 1\r\n", b"B: 2\r\n"]])
async def test_headers_that_do_not_come(sent: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "HEADER_TIMEOUT_S", 0.3)
    async with served() as url:
        assert await read_to_the_end(url, *sent) == b""


async def test_headers_without_end() -> None:
    async with served() as url:
        assert await read_to_the_end(url, b"GET /slow HTTP/1.1\r\n", *[b"A: " + b"x" * 20_000 + b"\r\n"] * 5) == b""


async def test_who_is_worked_for_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "HEADER_TIMEOUT_S", 0.6)
    async with served() as url:
        get = b"GET /slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        assert (await said(url, get[:20], get[20:])).count(b"done") == 1


async def test_a_kept_connection_takes_one_request_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "HEADER_TIMEOUT_S", 0.2)
    async with served() as url, httpx.AsyncClient(trust_env=False) as client:
        for _ in range(2):
            assert (await client.get(f"{url}/slow")).json() == "done"
        assert (await client.post(f"{url}/slow", content=b"x" * 100_000)).status_code == 405


async def test_requests_before_their_turn_are_not_kept() -> None:
    async with served() as url:
        answer = await read_to_the_end(url, b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n" * 1000)
    assert b"done" not in answer


async def test_every_request_has_an_id_that_is_in_the_log(
    gateway: RunningGateway, caplog: pytest.LogCaptureFixture
) -> None:
    ids: list[str] = []

    def noted(_: logging.LogRecord) -> bool:
        ids.append(REQUEST_ID.get())
        return True

    caplog.handler.addFilter(noted)
    caplog.set_level(logging.INFO)
    refused = await gateway.client.post(f"{gateway.url}/soccer/challenge", content=challenge_body("http://a/b.mp4"))
    given = refused.headers["x-request-id"]
    assert re.fullmatch(r"[0-9a-f]{12}", given)
    assert given in ids
    assert (await gateway.client.get(f"{gateway.url}/nowhere")).headers["x-request-id"] not in ids


async def test_a_defect_shows_no_trace(gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway.challenges, "answer", lambda *_: 1 / 0)
    body = challenge_body("http://a/b.mp4")
    answer = await gateway.post(body)
    assert answer.status_code == 500
    assert answer.json() == {"error": "internal", "detail": "the gateway failed; its log says why"}
    assert answer.headers["x-request-id"]


async def test_a_defect_at_the_door_shows_no_trace_either(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("gateway.protocol.admission.read_credentials", lambda _: 1 / 0)
    answer = await gateway.post(challenge_body("http://a/b.mp4"))
    assert answer.status_code == 500
    assert answer.json() == {"error": "internal", "detail": "the gateway failed; its log says why"}
    assert answer.headers["x-request-id"]
    assert "ZeroDivisionError" in caplog.text


@asynccontextmanager
async def served() -> AsyncIterator[str]:
    """A route that takes a second, behind the gateway's edge."""
    app = FastAPI()
    app.add_middleware(Edge)

    @app.get("/slow")
    async def slow(request: Request) -> str:
        await asyncio.sleep(1.0)
        return "done"

    config = uvicorn.Config(app, http=PatientProtocol, ws="none", port=0, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving


async def read_to_the_end(url: str, *sent: bytes) -> bytes:
    try:
        return await said(url, *sent)
    except ConnectionError:
        return b""

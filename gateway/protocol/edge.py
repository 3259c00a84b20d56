"""What every request of the public port passes first: it gets an id, and holds no connection that it does not need."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any, Final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.logs import REQUEST_ID

REQUEST_ID_HEADER: Final = "X-Request-ID"
HEADER_TIMEOUT_S: Final = 10.0
"""So long the first line and the headers of a request may take."""
MAX_HEAD_BYTES: Final = 64 * 1024
_ENDS_WITH: Final = (400, 401, 403, 404, 405, 408)
"""Who is told this keeps no connection: it is a stranger's, or its body may still be coming."""


class Edge:
    """Names each request in its answer and in the log, and ends connections that are of no more use."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = secrets.token_hex(6)
        REQUEST_ID.set(request_id)  # the server runs each request in a task of its own
        unread = _has_body(scope)

        async def receive_body() -> Message:
            nonlocal unread
            message = await receive()
            unread = unread and message.get("more_body", False)
            return message

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID_HEADER] = request_id
                if unread or message["status"] in _ENDS_WITH:
                    headers["Connection"] = "close"
            await send(message)

        await self._app(scope, receive_body, send_named)


class PatientProtocol(HttpToolsProtocol):
    """Uvicorn's own, which waits for ever for headers and takes any number of them, with an end to both.

    Nor does it keep requests that come before the one before them is answered.
    """

    _late: asyncio.TimerHandle | None = None
    _in_head = True
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._late = self.loop.call_later(HEADER_TIMEOUT_S, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_no_more()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if not self._in_head or not self._head_bytes or self.transport.is_closing():
            return
        if self._head_bytes > MAX_HEAD_BYTES:
            self.transport.abort()
        elif self._late is None:  # of a second request on a kept connection
            self._late = self.loop.call_later(HEADER_TIMEOUT_S, self.transport.abort)

    def on_message_begin(self) -> None:
        # No client of the subnet sends a second request before the first is answered; of thousands in one packet each
        # would be kept until its turn. The parser makes a 400 of this.
        if self.cycle is not None and not self.cycle.response_complete:
            raise ValueError("pipelined")
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head, self._head_bytes = False, 0
        self._wait_no_more()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_head = True
        super().on_message_complete()

    def _wait_no_more(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


def _has_body(scope: dict[str, Any] | Scope) -> bool:
    for name, value in scope["headers"]:
        if name == b"transfer-encoding" or (name == b"content-length" and value != b"0"):
            return True
    return False

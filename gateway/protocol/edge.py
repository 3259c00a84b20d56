"""What every request of the public port passes first: it gets an id, and holds no connection that it does not need."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any, Final

import h11
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from gateway.logs import REQUEST_ID

REQUEST_ID_HEADER: Final = "X-Request-ID"
HEADER_TIMEOUT_S: Final = 10.0
"""So long the first line and the headers of a request may take."""
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


class PatientProtocol(H11Protocol):
    """Uvicorn's own, which waits for ever for the headers of a request, with an end to that."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_no_more()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # Between two requests uvicorn's own timer runs, until the first byte of the second.
        if self.conn.their_state is h11.IDLE and self.timeout_keep_alive_task is None:
            self._wait()
        else:
            self._wait_no_more()

    def _wait(self) -> None:
        if self._late is None and not self.transport.is_closing():
            self._late = self.loop.call_later(HEADER_TIMEOUT_S, self.transport.abort)

    def _wait_no_more(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


def _has_body(scope: dict[str, Any] | Scope) -> bool:
    for name, value in scope["headers"]:
        if name == b"transfer-encoding" or (name == b"content-length" and value != b"0"):
            return True
    return False

"""The public port's door: who has to prove something does so here, before any route is looked for."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.errors import GatewayError
from gateway.history import History
from gateway.metrics import Metrics
from gateway.protocol.http import count_client_gone, refusal

Guard = Callable[[Request], Awaitable[object]]
"""Gives what it has learned of who is let in. Raises a GatewayError for who is not."""


class Door:
    """Lets a request of a guarded path through when its guard does. Of strangers it costs a look at their headers."""

    def __init__(self, metrics: Metrics, history: History | None = None) -> None:
        self._metrics = metrics
        self._history = history
        self._guards: dict[tuple[str, str], Guard] = {}

    def guard(self, method: str, path: str, guard: Guard) -> None:
        self._guards[method, path] = guard

    def before(self, app: ASGIApp) -> ASGIApp:
        """`app` behind this door."""

        async def entered(scope: Scope, receive: Receive, send: Send) -> None:
            guard = self._guards.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
            if guard is None:
                await app(scope, receive, send)
                return
            request = Request(scope, receive)
            request.state.started = time.perf_counter()
            try:
                request.state.admitted = await guard(request)
            except GatewayError as error:
                await refusal(request, error, self._metrics, self._history)(scope, receive, send)
            except ClientDisconnect:
                gone = count_client_gone(self._metrics, self._history, request, "while the body was read")
                await gone(scope, receive, send)
            else:
                await app(scope, receive, send)

        return entered


def admitted(request: Request) -> Any:
    """What the guard of this request's path gave. Raises HTTPException for one that came past the door.

    A route may match more than the path that it is guarded under, as one with a line's end after it.
    """
    try:
        return request.state.admitted
    except AttributeError:
        raise HTTPException(404) from None

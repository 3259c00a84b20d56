"""The public port's door: who has to prove something does so here, before any route is looked for."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.errors import GatewayError
from gateway.history import History
from gateway.metrics import Metrics
from gateway.protocol.http import count_client_gone, defect, refusal

_log = logging.getLogger(__name__)

Guard = Callable[[Request], Awaitable[object]]
"""Gives what it has learned of who is let in. Raises a GatewayError for who is not.

What it enters into the AsyncExitStack `request.state.held` is left when the request is answered, at the latest.
"""
Refuse = Callable[[Request, GatewayError], Response]


class Door:
    """Lets a request of a guarded path through when its guard does. Of strangers it costs a look at their headers."""

    def __init__(self, metrics: Metrics, history: History | None = None) -> None:
        self._metrics = metrics
        self._history = history
        self._guards: dict[tuple[str, str], tuple[Guard, Refuse]] = {}

    def guard(self, method: str, path: str, guard: Guard, refuse: Refuse | None = None) -> None:
        """`refuse` answers those that are not let in, where a contract has a form of its own for it."""
        self._guards[method, path] = guard, refuse or self._refuse

    def before(self, app: ASGIApp) -> ASGIApp:
        """`app` behind this door."""

        async def entered(scope: Scope, receive: Receive, send: Send) -> None:
            found = self._guards.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
            if found is None:
                await app(scope, receive, send)
                return
            request = Request(scope, receive)
            request.state.started = time.perf_counter()
            async with AsyncExitStack() as held:
                request.state.held = held
                refused = await self._judged(request, *found)
                await (refused or app)(scope, receive, send)

        return entered

    async def _judged(self, request: Request, guard: Guard, refuse: Refuse) -> Response | None:
        """The answer to who is not let in."""
        try:
            request.state.admitted = await guard(request)
        except GatewayError as error:
            return refuse(request, error)
        except ClientDisconnect:
            return count_client_gone(self._metrics, self._history, request, "while the body was read")
        except Exception:
            _log.exception("%s %s was not judged", request.method, request.scope["path"])
            return defect(request, self._metrics, self._history)
        return None

    def _refuse(self, request: Request, error: GatewayError) -> Response:
        return refusal(request, error, self._metrics, self._history)


def admitted(request: Request) -> Any:
    """What the guard of this request's path gave. Raises HTTPException for one that came past the door.

    A route may match more than the path that it is guarded under, as one with a line's end after it.
    """
    try:
        return request.state.admitted
    except AttributeError:
        raise HTTPException(404) from None

"""The console as the gateway owns it: its port, its memory and its thread."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from fastapi import APIRouter

from gateway.console.overview import Overview
from gateway.console.pages import build_pages
from gateway.console.pictures import Drawing
from gateway.errors import GatewayError, StartupError
from gateway.history import History
from gateway.listening import bind
from gateway.live.routes import answer_error
from gateway.live.viewers import limit_unsent
from gateway.settings import Settings

_log = logging.getLogger(__name__)
_LAST_REQUESTS_S = 2
_LONGEST_MESSAGE = 64 * 1024


class Console:
    """Shows the history on a port of its own, in the gateway's event loop."""

    def __init__(self, settings: Settings, listener: socket.socket, busy: Callable[[], bool]) -> None:
        self._drawing = Drawing(busy)
        self.history = History(settings.console_challenges, on_answered=self._drawing.compress)
        self._token = settings.console_token
        self._socket = listener

    @asynccontextmanager
    async def serving(
        self, look: Callable[[History], Overview], routers: Sequence[APIRouter] = ()
    ) -> AsyncIterator[None]:
        """Serve the pages during the block, and what `routers` add."""
        pages = build_pages(self.history, self._drawing, lambda: look(self.history), self._token, routers)
        pages.add_exception_handler(GatewayError, answer_error)
        server = _Server(
            uvicorn.Config(
                pages,
                lifespan="off",
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=_LAST_REQUESTS_S,
                # Pictures do not shrink, and viewers say little.
                ws_per_message_deflate=False,
                ws_max_size=_LONGEST_MESSAGE,
            )
        )
        serving = asyncio.create_task(server.serve([self._socket]))
        host, port = self._socket.getsockname()[:2]
        _log.info("console at http://%s:%d/console", f"[{host}]" if ":" in host else host, port)
        try:
            yield
        finally:
            server.should_exit = True
            await serving
            self._drawing.close()


class _Server(uvicorn.Server):
    """A second server in a process: signals are the first one's, whose lifespan ends this one."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def open_console(settings: Settings, busy: Callable[[], bool]) -> Console | None:
    """The console, if there is one. `busy` says whether a challenge is in progress.

    Raises StartupError when a CONSOLE_PORT or CONSOLE_HOST that was set cannot be had. The default one is not worth a
    miner that does not start: it goes without a console, and says so in the log.
    """
    host, port = settings.console_host, settings.console_port
    if not settings.console_open:
        if port:
            _log.warning("no console: others reach CONSOLE_HOST %s, so it wants a CONSOLE_TOKEN", host)
        return None
    try:
        if port == settings.port:
            raise StartupError(f"CONSOLE_PORT and PORT are both {port}; set another for the console, or 0 for none")
        return Console(settings, _listen(host, port), busy)
    except StartupError as error:
        if settings.model_fields_set & {"console_port", "console_host"}:
            raise
        _log.warning("no console: %s", error)
        return None


def _listen(host: str, port: int) -> socket.socket:
    first, *others = bind(host, port, prefix="CONSOLE_", none_allowed=True)
    for other in others:  # localhost is two addresses
        other.close()
    limit_unsent(first)
    return first

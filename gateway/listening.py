"""Takes the ports that the gateway listens on and serves on the second ones; names the setting that is wrong."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp

from gateway.errors import StartupError

_LAST_REQUESTS_S: Final = 2


def bind(host: str, port: int, *, prefix: str = "", none_allowed: bool = False) -> list[socket.socket]:
    """Sockets bound to `port` on every address that `host` stands for; nobody is answered before they listen.

    Raises StartupError naming HOST or PORT, with `prefix` before it, whichever is the wrong one.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError, ValueError) as error:
        raise StartupError(
            f"{prefix}HOST {host} is neither an address nor a name that is known here; {_other(host)}"
        ) from (error)
    taken: list[socket.socket] = []
    try:
        for family, address in dict.fromkeys((family, address) for family, _, _, _, address in found):
            taken.append(_bound(family, address))
    except OSError as error:
        for one in taken:
            one.close()
        if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            raise StartupError(f"{prefix}HOST {host} is not an address of this host; {_other(host)}") from error
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise StartupError(
            f"{prefix}PORT {port} on {host} cannot be listened on: {reason.lower()}; set a free one"
            + (", or 0 for none" if none_allowed else "")
        ) from error
    return taken


class _Beside(uvicorn.Server):
    """A second server in a process: signals are the first one's, whose lifespan ends this one."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


@asynccontextmanager
async def beside(app: ASGIApp, listener: socket.socket, **options: Any) -> AsyncIterator[None]:
    """Serve `app` in this event loop during the block; `options` are uvicorn's."""
    server = _Beside(
        uvicorn.Config(
            app,
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=_LAST_REQUESTS_S,
            **options,
        )
    )
    serving = asyncio.create_task(server.serve([listener]))
    try:
        yield
    finally:
        server.should_exit = True
        await serving


def _bound(family: int, address: tuple[object, ...]) -> socket.socket:
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A port whose last owner has just ended may be had.
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # The same port on 0.0.0.0 is another socket.
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind(address)
    except OSError:
        one.close()
        raise
    return one


def _other(host: str) -> str:
    if re.search(r"-(conda|linux|apple|pc|w64)-|-conda_", host):
        return "conda and build tools set HOST to a machine's type: unset it, or set it to 0.0.0.0"
    return "set it to 0.0.0.0 for all of this host's, or 127.0.0.1 for this host alone"

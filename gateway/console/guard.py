"""Who may see the console, and what a browser may do with it."""

from __future__ import annotations

import base64
import binascii
import secrets
from typing import Final
from urllib.parse import urlsplit

from fastapi.responses import PlainTextResponse, Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.settings import is_loopback

HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


_READS: Final = ("GET", "HEAD", "OPTIONS")


class Guard:
    """Every request and every WebSocket passes it; only who may see the console comes to the pages."""

    def __init__(self, pages: ASGIApp, token: str) -> None:
        self._pages = pages
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._pages(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        # The server refuses a WebSocket with this answer to its handshake, so nobody learns more than by a GET.
        method = "WebSocket" if scope["type"] == "websocket" else scope["method"]
        refused = refusal(method, Headers(scope=scope), self._token)
        await (refused or self._pages)(scope, receive, send_with_headers)


def refusal(method: str, headers: Headers, token: str) -> Response | None:
    """The answer to a request that may not see the console; None when it may. `method` of a WebSocket: "WebSocket".

    With a token: HTTP basic authentication, any user name. Without: the console is on the loopback address, and only
    a request for this machine's own names counts, else any web page could read it through a name that it controls
    (DNS rebinding). Either way a browser sends what it knows of the operator for other sites' pages too, where a
    WebSocket is opened or something is written: those have to come from the console's own pages.
    """
    if token and not _password_is(headers.get("authorization", ""), token):
        return PlainTextResponse(
            "The console wants CONSOLE_TOKEN as password, with any user name.\n",
            401,
            {"WWW-Authenticate": 'Basic realm="Touchline console", charset="UTF-8"'},
        )
    host = headers.get("host", "")
    if not token and not is_loopback(_split(f"//{host}")[0]):
        return _forbidden("Without CONSOLE_TOKEN the console answers under localhost and 127.0.0.1 alone.")
    # Not the scheme: a proxy before the console may speak TLS.
    foreign = any(_split(origin)[1] != host.lower() for origin in headers.getlist("origin"))
    if foreign and method not in _READS:
        return _forbidden("The page that asks is not the console's own: its Origin is not the Host that it asks.")
    return None


def _forbidden(why: str) -> Response:
    return PlainTextResponse(f"{why}\n", 403)


def _split(url: str) -> tuple[str, str]:
    """Host, and host with port, in small letters; empty where there is none."""
    try:
        parts = urlsplit(url.lower())
        return parts.hostname or "", parts.netloc
    except ValueError:
        return "", ""


def _password_is(authorization: str, token: str) -> bool:
    """Whether an Authorization header (RFC 7617) carries `token`; the time it takes tells nothing of the token."""
    scheme, _, encoded = authorization.partition(" ")
    try:
        _, _, password = base64.b64decode(encoded, validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return False
    return scheme.lower() == "basic" and secrets.compare_digest(password, token.encode())

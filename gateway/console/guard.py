"""Who may see the console, and what a browser may do with it."""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Mapping
from typing import Final

from fastapi.responses import PlainTextResponse, Response

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


def refusal(headers: Mapping[str, str], host: str, token: str) -> Response | None:
    """The answer to a request that may not see the console; None when it may.

    With a token: HTTP basic authentication, any user name. Without: the console is on the loopback address, and only
    a request for this machine's own names counts, else any web page could read it through a name that it controls
    (DNS rebinding).
    """
    if token:
        if _password_is(headers.get("authorization", ""), token):
            return None
        return PlainTextResponse(
            "The console wants CONSOLE_TOKEN as password, with any user name.\n",
            401,
            {"WWW-Authenticate": 'Basic realm="Touchline console", charset="UTF-8"'},
        )
    if is_loopback(host):
        return None
    return PlainTextResponse("Without CONSOLE_TOKEN the console answers under localhost and 127.0.0.1 alone.\n", 403)


def _password_is(authorization: str, token: str) -> bool:
    """Whether an Authorization header (RFC 7617) carries `token`; the time it takes tells nothing of the token."""
    scheme, _, encoded = authorization.partition(" ")
    try:
        _, _, password = base64.b64decode(encoded, validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return False
    return scheme.lower() == "basic" and secrets.compare_digest(password, token.encode())

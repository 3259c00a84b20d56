"""Playlists (HLS, RFC 8216) of cameras: whatever address one names is judged, and the judged one is connected to."""

from __future__ import annotations

import base64
import http.client
import ssl
from collections.abc import Callable
from typing import Final
from urllib.parse import unquote, urlsplit, urlunsplit

from gateway.video.certificate import context_of
from touchline.video_live import Trust

_PORTS: Final = {"http": 80, "https": 443}


def is_playlist(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme.lower() in _PORTS and parts.path.lower().endswith(".m3u8")


class Reader:
    """Opens what FFmpeg asks for, as files that are read once from their start to their end. For one thread."""

    def __init__(
        self, url: str, address_of: Callable[[str, int], str], timeout_s: float, trust: Trust | None = None
    ) -> None:
        """`url` of the playlist, with user and password where its host wants them; `address_of` judges or raises.

        `trust`: of TLS, also at the other hosts that are named; None: any certificate will do.
        """
        parts = urlsplit(url)
        self._host = parts.hostname
        login = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
        self._login = base64.b64encode(login.encode()).decode() if login != ":" else ""
        self._address_of, self._timeout_s = address_of, timeout_s
        self._context = context_of(trust)
        self.refused: Exception | None = None
        """Why an address was not connected to."""
        self.untrusted: ssl.SSLCertVerificationError | None = None
        """Why a certificate was not believed."""

    def open(self, url: str, flags: int, options: object) -> http.client.HTTPResponse:
        """For PyAV's `io_open`. Raises OSError for all that is not a file of a web server that may be asked."""
        parts = urlsplit(url)
        if flags & 2 or parts.scheme not in _PORTS or not parts.hostname:
            raise OSError("a playlist names files of web servers alone")
        port = parts.port or _PORTS[parts.scheme]
        try:
            address = self._address_of(parts.hostname, port)
        except Exception as error:
            if not isinstance(error, OSError):  # no such name
                self.refused = error
            raise OSError("the playlist names an address where cameras may not be") from None
        connection = _Connection(parts.hostname, port, timeout=self._timeout_s)
        connection.address, connection.context = address, self._context if parts.scheme == "https" else None
        headers = {"Accept-Encoding": "identity", "Connection": "close"}
        if self._login and parts.hostname == self._host:
            headers["Authorization"] = f"Basic {self._login}"
        try:
            connection.request("GET", urlunsplit(("", "", parts.path or "/", parts.query, "")), headers=headers)
            response = connection.getresponse()
        except ssl.SSLCertVerificationError as error:
            connection.close()
            self.untrusted = error
            raise OSError("the web server's certificate is not trusted") from None
        except (http.client.HTTPException, ValueError):
            connection.close()
            raise OSError("the web server does not speak HTTP") from None
        if response.status != http.client.OK:
            response.close()
            raise OSError(f"the web server answered {response.status}")
        return response


class _Connection(http.client.HTTPConnection):
    """Connects to `address`, whatever its host's name may mean by now; over TLS where there is a `context`."""

    address = ""
    context: ssl.SSLContext | None = None

    def connect(self) -> None:
        name, self.host = self.host, self.address
        try:
            super().connect()
        finally:
            self.host = name
        if self.context is not None:
            self.sock = self.context.wrap_socket(self.sock, server_hostname=name)

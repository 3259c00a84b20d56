"""Opening what is sent as it happens: which protocols and formats, nothing beside the address given, and why it failed.

Beside touchline/video_read.py the other door to FFmpeg. What it raises holds no address: FFmpeg's own errors quote the
whole one, with user and password.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import av
import av.codec.context
import av.container
import av.error
import av.video.stream

from touchline.video_read import FORMATS, MOST_PIXELS

SCHEMES: Final = ("rtsp", "rtsps", "http", "https")
MOST_SIDE: Final = 8192
"""Pixels of a picture's longer side."""

_RTSP: Final = {
    "format_whitelist": "rtsp,mpegts",
    "protocol_whitelist": "rtsp,rtsps,rtp,srtp,udp,tcp,tls,crypto",
    "max_delay": "500000",
}
_HTTP: Final = {
    "format_whitelist": ",".join(("mpjpeg", "mjpeg", *FORMATS)),
    "protocol_whitelist": "http,https,tcp,tls,crypto",
    # Where it leads to was not judged.
    "max_redirects": "0",
}
_PLAYLIST: Final = {
    **_HTTP,
    "format_whitelist": ",".join(("hls", *FORMATS)),
    # Each file is opened by who judges addresses.
    "http_persistent": "0",
}
_PROBE_US: Final = 500_000
"""FFmpeg's own 5 s cost the first picture a second and more."""
_LONG_PROBE_US: Final = 5_000_000
"""Where the size of the pictures stands in the first key frame alone."""

CODES: Final = {
    "refused": "the camera's port is closed",
    "unreachable": "the camera's address cannot be reached",
    "unknown_host": "the camera's name has no address",
    "not_allowed": "cameras may not be at this address",
    "auth_failed": "the camera does not take this user and password",
    "not_found": "the camera has no stream of this path",
    "certificate": "the camera's certificate is not trusted",
    "http_error": "the camera answered with an error, or with another address",
    "timeout": "nothing came from the camera",
    "transport": "the camera does not send over this transport",
    "bad_url": "the address cannot be used",
    "closed": "the camera closed the connection",
    "not_video": "what the camera sends is not a video",
    "codec": "the camera's codec is not known",
    "too_large": "the camera's pictures are too large",
    "undecodable": "the camera sends, but no picture can be decoded from it",
    "still": "the picture did not change",
    "behind": "what the camera sends could not be read as fast as it came",
    "broken": "reading failed in a way that was not foreseen",
}
"""Why a camera is not live, by code."""
FOR_A_PERSON: Final = frozenset(
    {"auth_failed", "not_found", "codec", "not_allowed", "bad_url", "transport", "too_large", "certificate"}
)
"""Codes that time does not mend."""


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose certificates are believed of cameras that speak TLS."""

    ca_file: Path
    """PEM file of the CAs, or of cameras' own certificates."""
    name: str
    """That a certificate has to be for: a host name or an address."""


OpenFile = Callable[[str, int, object], object]
"""Opens a file for FFmpeg: URL, flags and options to what can be read."""


class StreamFailed(Exception):
    """A camera cannot be read, or not any more: `code` of CODES, and what that means in words."""

    def __init__(self, code: str, detail: str = "") -> None:
        self.code = code
        self.detail = detail or CODES[code]
        super().__init__(f"{code}: {self.detail}")


def open_stream(
    url: str,
    *,
    transport: str,
    timeout_s: float,
    host: str = "",
    trust: Trust | None = None,
    playlist: OpenFile | None = None,
) -> av.container.InputContainer:
    """Connect to a camera, its first stream of pictures set up to be decoded without delay.

    `url` of one of SCHEMES; `transport` of RTSP, tcp or udp; `host`, where the URL has its address: the name that a web
    server is asked for; `trust`: of TLS, None where any certificate will do; `playlist` opens the one at `url` and what
    it names. A read fails after `timeout_s` of silence. Raises StreamFailed.
    """
    kind = _PLAYLIST if playlist else _RTSP if urlsplit(url).scheme.lower().startswith("rtsp") else _HTTP
    options = {**kind, "fflags": "discardcorrupt", "rtsp_transport": transport}
    options["timeout" if kind is _RTSP else "rw_timeout"] = str(int(timeout_s * 1e6))
    # Whatever FFmpeg's own default is.
    options["tls_verify"] = "1" if trust else "0"
    if trust:
        options |= {"ca_file": str(trust.ca_file), "verifyhost": trust.name}
    if host and kind is _HTTP:
        port = urlsplit(url).port
        options["headers"] = f"Host: {host}{f':{port}' if port not in (None, 80, 443) else ''}\r\n"
    container = _opened(url, options, _PROBE_US, timeout_s, playlist)
    if container.streams.video and not getattr(container.streams.video[0].codec_context, "width", 1):
        container.close()
        container = _opened(url, options, _LONG_PROBE_US, timeout_s, playlist)
    try:
        set_up(container)
    except BaseException:
        container.close()
        raise
    return container


def set_up(container: av.container.InputContainer) -> av.video.stream.VideoStream:
    """The first stream of pictures, to be decoded without delay. Raises StreamFailed."""
    if not container.streams.video:
        raise StreamFailed("not_video", "the camera sends no pictures")
    stream = container.streams.video[0]
    context = stream.codec_context
    if context is None:
        raise StreamFailed("codec")
    check_size(context.width, context.height)
    context.options = {"max_pixels": str(MOST_PIXELS)}
    # Threads that each decode a frame would hold back as many frames.
    stream.thread_type, context.thread_count = "SLICE", 1
    context.flags |= av.codec.context.Flags.low_delay
    return stream


def check_size(width: int, height: int) -> None:
    """Raises StreamFailed for pictures that are larger than a camera's."""
    if max(width, height) > MOST_SIDE or width * height > MOST_PIXELS:
        raise StreamFailed("too_large", f"the camera's pictures are {width}x{height}; at most {MOST_SIDE} are taken")


def _opened(
    url: str, options: dict[str, str], probe_us: int, timeout_s: float, playlist: OpenFile | None
) -> av.container.InputContainer:
    begun = time.monotonic()
    try:
        return av.open(
            url,
            options={**options, "analyzeduration": str(probe_us)},
            # PyAV's own time limit for reads would take the GIL at every look at the clock.
            timeout=(timeout_s + probe_us / 1e6 + 0.5, None),
            metadata_errors="ignore",
            io_open=playlist,
        )
    except (av.FFmpegError, OSError, ValueError) as error:
        transport = options["rtsp_transport"] if "timeout" in options else ""
        raise why(error, time.monotonic() - begun >= timeout_s, transport) from None


def why(error: Exception, late: bool, transport: str) -> StreamFailed:
    """What an error of FFmpeg's means, of whose text nothing is used.

    `late`: it took as long as silence is allowed to; `transport` of RTSP, else empty.
    """
    code = next((code for kinds, code in _KINDS if isinstance(error, kinds)), "")
    number = getattr(error, "errno", None)
    code = code or _NUMBERS.get(number or 0, "")
    if late and code in ("", "bad_url", "not_video"):
        code = "timeout"
    if code == "transport" and transport:
        other = "udp" if transport == "tcp" else "tcp"
        return StreamFailed(code, f"the camera does not send over {transport}; try {other}")
    return StreamFailed(code) if code else StreamFailed("broken", f"reading failed: {type(error).__name__}")


_KINDS: Final = (
    ((av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError), "auth_failed"),
    (av.error.HTTPNotFoundError, "not_found"),
    (av.error.HTTPError, "http_error"),
    (ConnectionRefusedError, "refused"),
    ((TimeoutError, av.error.ExitError), "timeout"),
    ((av.error.EOFError, ConnectionError), "closed"),
    (av.error.DecoderNotFoundError, "codec"),
    (av.error.InvalidDataError, "not_video"),
    ((av.error.ArgumentError, ValueError), "bad_url"),
)
_NUMBERS: Final = {
    errno.EPROTONOSUPPORT: "transport",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.EADDRNOTAVAIL: "unreachable",
    errno.EIO: "bad_url",
}

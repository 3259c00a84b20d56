"""Download of a video into a growing file: taken up again where it broke off, within the limits."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import socket
import ssl
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import NoReturn

import httpx

from gateway.errors import BadChallenge, BadVideo, DownloadFailed, DownloadTimedOut, GatewayError
from gateway.video.addresses import LOCATION
from gateway.video.growing_file import GrowingFile
from gateway.video.links import confirmed, direct, is_drive, page_kind, shown
from gateway.video.unpacking import Unpacker

MAX_REDIRECTS = 5
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 2.0
"""Pause before the second attempt, and what it doubles up to; each is shortened by up to half at random."""

_WHOLE = (200, 203)
_REDIRECTS = (301, 302, 303, 307, 308)
_PASSING = (408, 425, 429, *range(500, 600))
"""What the same request may be answered differently next time."""
_UNPACKED = {"gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate"}
_PACKED = ("br", "zstd", "compress", "x-compress", "dcb", "dcz", "exi", "pack200-gzip")
"""Content codings that change a body and that nobody here undoes (IANA's registry). What else hosts write there, as
"", "none", "utf-8" or "aws-chunked", changes nothing."""
_SCHEMES = ("http", "https")
_NO_DATE = (TypeError, ValueError, OverflowError)
"""What is raised for dates of a host that are none."""
_PAGE_BYTES = 1 << 20
_SNIFFED = 512

_log = logging.getLogger(__name__)


class _Again(Exception):
    """The attempt failed in a way that may pass."""

    def __init__(self, told: GatewayError, wait_s: float = 0.0) -> None:
        super().__init__(str(told))
        self.told = told
        self.wait_s = wait_s
        """What the host asked for, in seconds."""


@dataclass(slots=True)
class _Part:
    """What an answer says that its body is."""

    start: int = 0
    end: int | None = None
    """One behind its last byte; None where the answer does not tell."""
    total: int | None = None
    """Bytes of the whole file; None likewise."""
    coding: str = ""
    """What the body is compressed with, which an Unpacker undoes."""


async def download(
    client: httpx.AsyncClient,
    url: str,
    file: GrowingFile,
    *,
    max_bytes: int,
    silence_s: float = 10.0,
    limited_by: str = "MAX_VIDEO_MB",
) -> None:
    """Stream `url` into `file`.

    What breaks off is taken up again where it broke, or from the start where the host cannot; the bytes that are there
    stay. It is given up when no byte has come for `silence_s`. Raises DownloadTimedOut for a host that stays silent,
    DownloadFailed for one that answers anything but the file, or one over `max_bytes`, HostRefused for one that is not
    public, BadVideo for a web page, StorageFull when there is no room for it. The same error reaches the reader.
    `limited_by` names to the user what `max_bytes` comes from.
    """
    try:
        await _Download(client, url, file, max_bytes=max_bytes, silence_s=silence_s, limited_by=limited_by).run()
    except BaseException as error:
        file.fail(error)
        raise


class _Download:
    """One download: its attempts, and what is known of the file."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        url: str,
        file: GrowingFile,
        *,
        max_bytes: int,
        silence_s: float,
        limited_by: str,
    ) -> None:
        self._client = client
        self._url = _parsed(url)
        self._shown = shown(self._url)
        self._file = file
        self._max_bytes = max_bytes
        self._silence_s = silence_s
        self._limited_by = limited_by
        self._validator = ""
        """ETag or Last-Modified of the file that is being written; empty: it cannot be asked for by parts."""
        self._whole_only = False
        """The host was asked for a part and gave something else."""
        self._attempts = 0
        self._patience = asyncio.timeout(silence_s)

    async def run(self) -> None:
        failure: _Again | None = None
        failed_in_a_row, asked = 0, time.monotonic()
        last_new = asked
        try:
            async with self._patience:
                while True:
                    before, asked = self._file.written, time.monotonic()
                    try:
                        self._attempts += 1
                        await self._attempt()
                        break
                    except _Again as error:
                        failure = error
                    if self._file.written > before:
                        failed_in_a_row, last_new = 0, time.monotonic()
                    wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**failed_in_a_row) * random.uniform(0.5, 1)  # noqa: S311
                    wait_s = max(wait_s, failure.wait_s)
                    if time.monotonic() + wait_s - last_new > self._silence_s:
                        raise self._after_all(failure) from failure
                    failed_in_a_row += 1
                    await asyncio.sleep(wait_s)
        except TimeoutError as error:
            if failure is not None and time.monotonic() - asked < self._silence_s / 2:
                # It did answer, and badly; the time was over in between.
                raise self._after_all(failure) from failure
            raise DownloadTimedOut(
                f"the host of {self._shown} was silent for {self._silence_s:g} s (DOWNLOAD_TIMEOUT_S)"
                f"{f', before that: {failure}' if failure else '; send the challenge again'}"
            ) from error
        if self._attempts > 1:
            _log.info("%s was downloaded in %d attempts; the last to fail: %s", self._shown, self._attempts, failure)
        self._file.finish()

    async def _attempt(self) -> None:
        """Ask for what is missing and write it. Raises _Again, or a GatewayError that no other attempt would change."""
        at = self._file.written
        by_part = at and self._validator and not self._whole_only
        headers = {"range": f"bytes={at}-", "if-range": self._validator} if by_part else {}
        try:
            response = await self._answer(headers)
            async with aclosing(response):
                if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and headers:
                    self._check_nothing_left(response)
                    return
                await self._take(response, self._part(response, resumed=bool(headers)))
        except httpx.TimeoutException as error:
            raise _Again(
                DownloadTimedOut(f"the host of {self._shown} could not be connected to in time ({_why(error)})")
            ) from error
        except zlib.error as error:
            raise DownloadFailed(f"{self._shown} is compressed, and damaged: {_why(error)}") from error
        except httpx.ProxyError as error:
            raise _Again(DownloadFailed(f"VIDEO_PROXY does not fetch {self._shown}: {_why(error)}")) from error
        except (httpx.TransportError, OSError) as error:
            if isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError):
                raise DownloadFailed(f"{self._shown} could not be asked for: {_why(error)}; check the URL") from error
            self._final(error)
            raise _Again(DownloadFailed(f"{self._shown} broke off or could not be reached: {_why(error)}")) from error

    async def _answer(self, headers: dict[str, str]) -> httpx.Response:
        """The answer after all redirects, its body unread. The caller closes it."""
        url = direct(self._url)
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._client.send(self._client.build_request("GET", url, headers=headers), stream=True)
            try:
                target = await self._leads_to(response, url)
            except BaseException:
                await response.aclose()
                raise
            if target is None:
                return response
            await response.aclose()
            url = target
        raise DownloadFailed(f"{self._shown} redirects more than {MAX_REDIRECTS} times")

    async def _leads_to(self, response: httpx.Response, url: httpx.URL) -> httpx.URL | None:
        """Where an answer sends us; None when it is the last."""
        if response.status_code in _REDIRECTS and LOCATION in response.extensions:
            return self._redirected(url, response.extensions[LOCATION])
        if response.status_code in _WHOLE and is_drive(url) and _is_html(response):
            target = confirmed(await _start_of(response), url)
            if target is None:
                raise BadVideo(
                    f"Google Drive answers {self._shown} with a web page instead of the video; is it shared with "
                    "anyone who has the link, and not downloaded too often?"
                )
            return target
        return None

    def _redirected(self, url: httpx.URL, location: str) -> httpx.URL:
        try:
            target = url.join(location)
            if target.scheme not in _SCHEMES:
                raise DownloadFailed(
                    f"{self._shown} redirects to {target.scheme[:20] or 'nothing'}:; only http and https are followed"
                )
            if _has_host(target):
                return direct(target)
        except (httpx.InvalidURL, ValueError) as error:
            raise DownloadFailed(f"{self._shown} redirects to what is no URL") from error
        raise DownloadFailed(f"{self._shown} redirects to what is no URL")

    def _part(self, response: httpx.Response, *, resumed: bool) -> _Part:
        """Which bytes the body holds. Raises for an answer that holds none."""
        status = response.status_code
        if status in _PASSING:
            raise _Again(DownloadFailed(self._answered(response)), _retry_after(response))
        if status not in (*_WHOLE, httpx.codes.PARTIAL_CONTENT):
            raise DownloadFailed(self._answered(response))
        named = [name.strip().lower() for name in response.headers.get_list("content-encoding", split_commas=True)]
        codings = [name for name in named if name in _PACKED or name in _UNPACKED]
        if len(codings) > 1 or any(name in _PACKED for name in codings):
            # Of two, each could make a thousand bytes of one.
            raise DownloadFailed(
                f"{self._shown} comes with content-encoding {', '.join(codings)[:50]}, not asked for; use gzip or none"
            )
        encoded = bool(codings)
        length = response.headers.get("content-length", "")
        size = int(length) if re.fullmatch(r"[0-9]{1,18}", length) and not encoded else None
        part = _Part(0, size, size)
        if status == httpx.codes.PARTIAL_CONTENT:
            part = self._ranged(response, part, resumed=resumed)
            if encoded and (part.start or part.end != part.total):
                raise self._cannot_resume(f"{self._shown} answers a part of what is compressed")
        if encoded:
            # Length and range count compressed bytes.
            part = _Part(coding=_UNPACKED[codings[0]])
        validator = "" if encoded else _validator(response)
        if part.start and validator not in ("", self._validator):
            raise self._cannot_resume(f"{self._shown} changed while it was downloaded")
        self._validator = validator or (self._validator if resumed else "")
        if part.total is not None and part.total > self._max_bytes:
            raise self._too_large()
        return part

    def _ranged(self, response: httpx.Response, part: _Part, *, resumed: bool) -> _Part:
        """The part that Content-Range names (RFC 9110, 14.4); where it is missing, the whole."""
        said = response.headers.get("content-range", "")
        if not said and not resumed and not response.headers.get("content-type", "").startswith("multipart/"):
            return part
        found = re.fullmatch(r"bytes\s+(\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", said.strip(), re.IGNORECASE)
        if found is None:
            raise self._cannot_resume(f"{self._shown} answers a part without saying which (Content-Range: {said[:80]})")
        start, end = int(found[1]), int(found[2]) + 1
        total = None if found[3] == "*" else int(found[3])
        if start > self._file.written or end <= start or (total is not None and end > total):
            raise self._cannot_resume(f"{self._shown} answers a part that was not asked for ({said[:80]})")
        return _Part(start, end, total)

    def _cannot_resume(self, why: str) -> Exception:
        """From now on only the whole file is asked for; a host that cannot give even that is given up."""
        if self._whole_only or not self._file.written:
            return DownloadFailed(f"{why}; the challenge needs a URL that answers 200")
        self._whole_only = True
        return _Again(DownloadFailed(why))

    async def _take(self, response: httpx.Response, part: _Part) -> None:
        """Write the body, as far as it is new. Raises _Again when more is missing behind it."""
        if part.total is not None:
            if self._file.size not in (None, part.total):
                self._changed()
            self._file.expect(part.total)
        before = self._file.written
        position, start = part.start, b""
        loop = asyncio.get_running_loop()
        async for piece in self._pieces(response, part):
            self._patience.reschedule(loop.time() + self._silence_s)
            if position < _SNIFFED and part.start == 0 and page_kind(start := start + piece[:_SNIFFED]):
                raise BadVideo(f"{self._shown} answers {page_kind(start)} instead of a video; give the file's own URL")
            known = piece[: max(0, self._file.written - position)]
            if known and not self._file.holds(known, position):
                self._changed()
            if position + len(piece) > self._max_bytes:
                raise self._too_large()
            if len(piece) > len(known):
                self._file.append(piece[len(known) :] if known else piece)
            position += len(piece)
        if part.end is not None and position != part.end:
            raise _Again(DownloadFailed(f"{self._shown} broke off after {position} of {part.end} bytes"))
        if part.total is None and part.end is None and self._file.written > position:
            self._changed()
        total = part.total if part.end is None or part.total is not None else self._file.size
        if total is not None and self._file.written < total:
            missing = f"{self._shown} answers {self._file.written} of {total} bytes"
            if self._file.written == before:
                raise DownloadFailed(f"{missing} and nothing more; the challenge needs a URL that answers 200")
            raise _Again(DownloadFailed(missing))

    async def _pieces(self, response: httpx.Response, part: _Part) -> AsyncIterator[bytes]:
        """The body, unpacked, and no more of it than was told. Raises _Again where its compression has no end."""
        if part.coding:
            unpacker, empty = Unpacker(part.coding), True
            async for packed in response.aiter_raw():
                empty = False
                for piece in unpacker.pieces(packed):
                    yield piece
            if not (unpacker.ended or empty):
                raise _Again(DownloadFailed(f"{self._shown} is compressed, and cut off"))
            return
        left = part.end - part.start if part.end is not None else self._max_bytes + 1
        async for piece in response.aiter_raw():
            if not left:
                return
            yield piece[:left]
            left = max(0, left - len(piece))

    def _check_nothing_left(self, response: httpx.Response) -> None:
        """416 to a request for more: that the file ends where ours does."""
        found = re.fullmatch(r"bytes\s+\*/(\d{1,18})", response.headers.get("content-range", "").strip())
        if found is None or int(found[1]) != self._file.written:
            raise self._cannot_resume(f"{self._shown} does not answer the rest of the file")

    def _changed(self) -> NoReturn:
        """The host has another file than before; that is as good where no reader has seen any of the first."""
        changed = DownloadFailed(f"{self._shown} changed while it was downloaded; send the challenge again")
        if not self._file.start_over():
            raise changed
        self._validator = ""
        raise _Again(changed)

    def _answered(self, response: httpx.Response) -> str:
        reason = httpx.codes.get_reason_phrase(response.status_code)
        return (
            f"{self._shown} answered {response.status_code} {reason}".rstrip()
            + "; the challenge needs a URL that answers 200"
        )

    def _too_large(self) -> DownloadFailed:
        return DownloadFailed(
            f"{self._shown} is larger than {self._limited_by} allows ({self._max_bytes // 2**20} MiB)"
        )

    def _final(self, error: BaseException) -> None:
        """Raise for failures that stay: a wrong certificate, a name that does not exist."""
        for cause in _causes(error):
            if isinstance(cause, ssl.SSLCertVerificationError):
                raise DownloadFailed(
                    f"the certificate of {self._shown} is not valid ({cause.verify_message}); check the URL"
                ) from error
            if isinstance(cause, socket.gaierror) and cause.errno != socket.EAI_AGAIN:
                raise DownloadFailed(
                    f"the host of {self._shown} has no address ({cause.strerror}); check the URL"
                ) from error
            if isinstance(cause, UnicodeError):
                raise DownloadFailed(f"the host of {self._shown} is not a name; check the URL") from error

    def _after_all(self, failure: _Again) -> GatewayError:
        """What is told when the attempts are over."""
        if failure.wait_s > self._silence_s:
            return type(failure.told)(
                f"{failure}; it asks to wait {failure.wait_s:.0f} s, longer than DOWNLOAD_TIMEOUT_S"
            )
        return type(failure.told)(f"{failure} (asked {self._attempts} times)")


def _parsed(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
        fine = parsed.scheme in _SCHEMES and _has_host(parsed)
    except (httpx.InvalidURL, ValueError) as error:
        raise BadChallenge(f"the URL is not valid: {str(error)[:200]}") from error
    if not fine:
        raise BadChallenge("the URL is not http(s)://HOST[:PORT]/PATH")
    return parsed


def _has_host(url: httpx.URL) -> bool:
    """And a port that there is. Raises ValueError for a name in Punycode that stands for none."""
    return bool(url.host) and (url.port is None or 0 < url.port < 65536)


def _validator(response: httpx.Response) -> str:
    """What If-Range may carry (RFC 9110, 13.1.5): a strong ETag, or a date at least a second before the answer's."""
    etag = str(response.headers.get("etag", ""))
    if re.fullmatch(r'"[ !#-~]*"', etag):
        return etag
    modified = str(response.headers.get("last-modified", ""))
    try:
        age = parsedate_to_datetime(response.headers.get("date", "")) - parsedate_to_datetime(modified)
    except _NO_DATE:
        return ""
    return modified if age.total_seconds() >= 1 and modified.isascii() else ""


def _retry_after(response: httpx.Response) -> float:
    """Seconds that the host asks to wait (RFC 9110, 10.2.3), 0 when it does not."""
    said = response.headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}", said):
        return float(said)
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    except _NO_DATE:
        return 0.0


def _is_html(response: httpx.Response) -> bool:
    return str(response.headers.get("content-type", "")).lower().startswith("text/html")


async def _start_of(response: httpx.Response) -> bytes:
    page = bytearray()
    async for piece in response.aiter_bytes():
        page += piece
        if len(page) > _PAGE_BYTES:
            break
    return bytes(page[:_PAGE_BYTES])


def _causes(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and len(found) < 10:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _why(error: BaseException) -> str:
    """What failed, in words: some errors have none of their own."""
    for cause in _causes(error):
        if str(cause):
            # h11 quotes what it cannot read as a whole.
            return str(cause).partition(": bytearray(")[0][:300]
    return type(error).__name__

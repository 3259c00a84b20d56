"""A web server on the loopback address that misbehaves as it is told, one request after the other."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Reply:
    """How one request is answered; by default as a good server would."""

    status: str = ""
    """Instead of what the range asked for has, as "503 Service Unavailable"."""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    """Instead of the content."""
    cut: int | None = None
    """Bytes of the body after which the connection ends."""
    reset: bool = False
    """That it ends with RST instead of FIN."""
    chunked: bool = False
    ranges: bool = True
    keep: bool = False
    """The connection stays open for the next request."""
    silent: bool = False
    """Nothing comes after `cut` bytes, or at all, and the connection stays."""


class FaultyHost:
    """Serves `content`, the first requests as `replies` say."""

    def __init__(self, content: bytes, replies: Sequence[Reply] = (), *, etag: str = '"v1"') -> None:
        self.content = content
        self.replies = list(replies)
        self.etag = etag
        self.requests: list[tuple[str, dict[str, str]]] = []
        """Target and headers of each."""
        self.connections = 0
        self.url = ""

    @property
    def ranges(self) -> list[str]:
        """What each request asked for, empty for the whole."""
        return [headers.get("range", "") for _, headers in self.requests]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while await self._answer(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines if line)}
        self.requests.append((first.split()[1], headers))
        reply = self.replies.pop(0) if self.replies else Reply()
        status, said, body = self._what(reply, headers)
        if reply.silent and reply.cut is None:
            await asyncio.sleep(60)
        length = {"Transfer-Encoding": "chunked"} if reply.chunked else {"Content-Length": str(len(body))}
        head = "".join(f"{name}: {value}\r\n" for name, value in (length | said | dict(reply.headers)).items() if value)
        writer.write(f"HTTP/1.1 {status}\r\n{head}\r\n".encode("latin-1"))
        sent = body[: reply.cut]
        if reply.chunked:
            for start in range(0, len(sent), 10_000):
                piece = sent[start : start + 10_000]
                writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            writer.write(b"" if reply.cut is not None else b"0\r\n\r\n")
        else:
            writer.write(sent)
        await writer.drain()
        if reply.silent:
            await asyncio.sleep(60)
        if reply.reset:
            await asyncio.sleep(0.02)  # what was sent is to be read before
            connection = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        return reply.keep

    def _what(self, reply: Reply, headers: Mapping[str, str]) -> tuple[str, dict[str, str], bytes]:
        if reply.status:
            return reply.status, {}, self.content if reply.body is None else reply.body
        content = self.content if reply.body is None else reply.body
        asked = re.fullmatch(r"bytes=(\d+)-", headers.get("range", ""))
        if asked and reply.ranges and headers.get("if-range") in (None, self.etag):
            start, total = int(asked[1]), len(content)
            if start >= total:
                return "416 Range Not Satisfiable", {"Content-Range": f"bytes */{total}"}, b""
            said = {"Content-Range": f"bytes {start}-{total - 1}/{total}", "ETag": self.etag}
            return "206 Partial Content", said, content[start:]
        return "200 OK", {"ETag": self.etag}, content


@asynccontextmanager
async def faulty_host(
    content: bytes, *replies: Reply, etag: str = '"v1"', tls: ssl.SSLContext | None = None
) -> AsyncIterator[FaultyHost]:
    host = FaultyHost(content, replies, etag=etag)
    connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        with suppress(asyncio.CancelledError):  # asyncio's server reports it as a failure
            await host.serve(reader, writer)
        connections.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    scheme = "https" if tls else "http"
    host.url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/clip.mp4"
    try:
        yield host
    finally:
        server.close()
        for task in list(connections):
            task.cancel()
        if connections:
            await asyncio.wait(list(connections))

"""An RTSP camera (RFC 2326, H.264 by RFC 6184) on the loopback address that misbehaves as it is told, at any moment."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import re
import secrets
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from types import TracebackType

import av
import numpy as np

from local.ports import free_ports
from tests.support.videos import frame_image

_PAYLOAD = 1200
_CLOCK = 90_000
_REALM, _NONCE = "camera", "0123456789abcdef"


@dataclass(frozen=True)
class Unit:
    """One coded picture: its NAL units, whether decoding can begin with it, and its time in 1/90000 s."""

    nals: tuple[bytes, ...]
    key: bool
    pts: int


@dataclass(frozen=True)
class Film:
    """What a camera sends, over and over."""

    units: tuple[Unit, ...]
    length: int
    """In 1/90000 s."""

    @property
    def parameter_sets(self) -> list[bytes]:
        return [nal for nal in self.units[0].nals if nal[0] & 31 in (7, 8)]


@cache
def numbered_film(
    frames: int = 50, *, width: int = 320, height: int = 180, fps: int = 25, first: int = 0, gop: int = 25
) -> Film:
    """Frame n shows `frame_image(first + n)`."""
    return encoded(
        (frame_image((first + number) % 1024, width, height) for number in range(frames)), (width, height), fps, gop
    )


def encoded(images: Iterator[np.ndarray], size: tuple[int, int], fps: int = 25, gop: int = 25) -> Film:
    """RGB pictures as a camera's encoder sends them: no B-frames, a key frame with its parameter sets every `gop`."""
    context = av.CodecContext.create("libx264", "w")
    context.width, context.height, context.pix_fmt = *size, "yuv420p"
    context.time_base, context.framerate = Fraction(1, fps), Fraction(fps)
    context.options = {"preset": "ultrafast", "tune": "zerolatency", "crf": "23", "g": str(gop), "sc_threshold": "0"}
    packets, count = [], 0
    for image in images:
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts, count = count, count + 1
        packets += context.encode(frame)
    packets += context.encode(None)
    step = _CLOCK // fps
    units = [Unit(_nals(bytes(one)), one.is_keyframe, number * step) for number, one in enumerate(packets)]
    return Film(tuple(units), count * step)


def film_of(path: Path) -> Film:
    """The H.264 of a video file as it is, B-frames and all."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        annexb = av.bitstream.BitStreamFilterContext("h264_mp4toannexb", stream)
        packets = [one for packet in container.demux(stream) if packet.size for one in annexb.filter(packet)]
        rate, base = stream.average_rate, stream.time_base
    first = min(packet.pts for packet in packets)
    units = [Unit(_nals(bytes(p)), p.is_keyframe, int((p.pts - first) * base * _CLOCK)) for p in packets]
    return Film(tuple(units), int(len(units) / rate * _CLOCK))


def _nals(annexb: bytes) -> tuple[bytes, ...]:
    return tuple(nal.rstrip(b"\0") for nal in re.split(rb"\0\0\0?\x01", annexb) if nal)


class RtspCamera:
    """Sends a film, in real time and without end, to everybody who asks; in a thread and a loop of its own.

    Everything that is public may be set at any moment from any thread.
    """

    def __init__(
        self,
        film: Film | None = None,
        *,
        user: str = "",
        password: str = "",
        digest: bool = True,
        udp: bool = True,
        tcp: bool = True,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`udp`, `tcp`: which transports it has."""
        self.film = film or numbered_film()
        self.user, self.password, self.digest = user, password, digest
        self.udp, self.tcp, self.tls = udp, tcp, tls
        self.stalled = False
        """Connections stay, nothing comes any more, and no request is answered: a network that is cut."""
        self.muted = False
        """All requests are answered, and nothing comes after PLAY."""
        self.frozen = False
        """The same picture again and again, with running time stamps."""
        self.garbage = False
        """The right number of packets with noise inside."""
        self.stopped_clock = False
        """Time stamps stand still."""
        self.jump_s = 0.0
        """Added to all time stamps from now on."""
        self.pace = 1.0
        """Of the film: 0.5 is half as fast as its time stamps say."""
        self.burst = 1
        """So many frames are sent at once, and then none for as long as they last."""
        self.status = 200
        """What DESCRIBE is answered with."""
        self.dialled: list[float] = []
        """time.monotonic() of each connection."""
        self.asked: list[str] = []
        """Methods of the requests that came."""
        self.torn_down = 0
        """Sessions that ended with TEARDOWN."""
        self.sent = 0
        """Frames, to all sessions together."""
        self.sent_at: dict[int, float] = {}
        """time.monotonic() of when each of the film's frames was last sent."""
        (self.port,) = free_ports(1)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="rtsp-camera", daemon=True)
        self._server: asyncio.Server | None = None
        self._sessions: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    @property
    def url(self) -> str:
        return f"rtsp{'s' if self.tls else ''}://127.0.0.1:{self.port}/stream"

    @property
    def open_connections(self) -> int:
        return len(self._sessions)

    def __enter__(self) -> RtspCamera:
        self._thread.start()
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def start(self) -> None:
        """Listen; after `kill` on the same port again."""

        async def listen() -> None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self.tls)

        asyncio.run_coroutine_threadsafe(listen(), self._loop).result(30)

    def kill(self) -> None:
        """Close the port and all connections, as a process that is killed."""

        async def close() -> None:
            if self._server is not None:
                self._server.close()
                self._server = None
            await self._hang_up()

        asyncio.run_coroutine_threadsafe(close(), self._loop).result(30)

    def drop(self) -> None:
        """Close all connections and go on listening."""
        asyncio.run_coroutine_threadsafe(self._hang_up(), self._loop).result(30)

    async def _hang_up(self) -> None:
        tasks = list(self._sessions)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.dialled.append(time.monotonic())
        task = asyncio.current_task()
        assert task is not None
        self._sessions[task] = writer
        try:
            await _Session(self, reader, writer).run()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            del self._sessions[task]


class _Session:
    def __init__(self, camera: RtspCamera, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._camera, self._reader, self._writer = camera, reader, writer
        self._id = secrets.token_hex(4)
        self._udp: tuple[socket.socket, tuple[str, int]] | None = None
        self._sequence = itertools.count()
        self._playing: asyncio.Task[None] | None = None

    async def run(self) -> None:
        try:
            while (request := await self._request()) is not None:
                self._camera.asked.append(request[0])
                while self._camera.stalled:
                    await asyncio.sleep(0.02)
                self._camera.torn_down += request[0] == "TEARDOWN"
                self._answer(*request)
                await self._writer.drain()
                if request[0] == "TEARDOWN":
                    break
        finally:
            if self._playing is not None:
                self._playing.cancel()
                with suppress(asyncio.CancelledError, ConnectionError):
                    await self._playing
            if self._udp is not None:
                self._udp[0].close()

    async def _request(self) -> tuple[str, str, dict[str, str]] | None:
        while True:
            first = await self._reader.read(1)
            if not first:
                return None
            if first == b"$":  # what the player says of the packets, RTCP
                (length,) = struct.unpack(">xH", await self._reader.readexactly(3))
                await self._reader.readexactly(length)
                continue
            head = (first + await self._reader.readuntil(b"\r\n\r\n")).decode()
            line, *rest = head.split("\r\n")
            headers = {name.lower(): value for name, value in (one.split(": ", 1) for one in rest if one)}
            method, url, _ = line.split()
            return method, url, headers

    def _answer(self, method: str, url: str, headers: dict[str, str]) -> None:
        camera, said, body, status = self._camera, "", "", "200 OK"
        if method == "OPTIONS":
            said = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN, GET_PARAMETER\r\n"
        elif camera.user and not self._allowed(method, headers.get("authorization", "")):
            status = "401 Unauthorized"
            way = f'Digest realm="{_REALM}", nonce="{_NONCE}"' if camera.digest else f'Basic realm="{_REALM}"'
            said = f"WWW-Authenticate: {way}\r\n"
        elif method == "DESCRIBE" and camera.status != 200:
            status = f"{camera.status} No"
        elif method == "DESCRIBE":
            body = self._sdp()
            said = f"Content-Type: application/sdp\r\nContent-Base: {url}/\r\n"
        elif method == "SETUP":
            transport = self._set_up(headers["transport"])
            status, said = ("200 OK", f"Transport: {transport}\r\n") if transport else ("461 Unsupported Transport", "")
        elif method == "PLAY":
            self._playing = self._playing or asyncio.create_task(self._play())
        self._writer.write(
            f"RTSP/1.0 {status}\r\nCSeq: {headers['cseq']}\r\nSession: {self._id};timeout=60\r\n{said}"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )

    def _allowed(self, method: str, said: str) -> bool:
        camera = self._camera
        if not camera.digest:
            return said == "Basic " + base64.b64encode(f"{camera.user}:{camera.password}".encode()).decode()
        given = dict(re.findall(r'(\w+)="([^"]*)"', said))
        first = _md5(f"{camera.user}:{_REALM}:{camera.password}")
        second = _md5(f"{method}:{given.get('uri', '')}")
        return given.get("username") == camera.user and given.get("response") == _md5(f"{first}:{_NONCE}:{second}")

    def _sdp(self) -> str:
        sets = ",".join(base64.b64encode(one).decode() for one in self._camera.film.parameter_sets)
        return (
            "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\na=control:*\r\n"
            f"m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/{_CLOCK}\r\n"
            f"a=fmtp:96 packetization-mode=1;sprop-parameter-sets={sets}\r\na=control:trackID=0\r\n"
        )

    def _set_up(self, wanted: str) -> str | None:
        if "TCP" in wanted:
            return "RTP/AVP/TCP;unicast;interleaved=0-1" if self._camera.tcp else None
        ports = re.search(r"client_port=(\d+)-(\d+)", wanted)
        if not (self._camera.udp and ports):
            return None
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sender.bind(("127.0.0.1", 0))
        self._udp = sender, ("127.0.0.1", int(ports[1]))
        own = sender.getsockname()[1]
        return f"RTP/AVP;unicast;client_port={ports[1]}-{ports[2]};server_port={own}-{own + 1}"

    async def _play(self) -> None:
        camera = self._camera
        begun, offset, waited = time.monotonic(), 0, 0
        held = 0
        for number in itertools.count():
            film = camera.film
            index = number % len(film.units)
            if number and index == 0:
                offset += film.length
            unit = film.units[index]
            # In decoding order and evenly, as an encoder sends; what is shown when is the time stamp's to say.
            due = begun + (offset + film.length * index / len(film.units)) / _CLOCK / camera.pace
            if waited % camera.burst == 0:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            waited += 1
            while camera.stalled:
                await asyncio.sleep(0.02)
                begun += 0.02
            if camera.muted:
                continue
            nals = film.units[0].nals if camera.frozen else unit.nals
            stamp = offset + unit.pts + int(camera.jump_s * _CLOCK)
            held = held if camera.stopped_clock else stamp
            camera.sent_at[index] = time.monotonic()
            self._send(nals, held if camera.stopped_clock else stamp)
            camera.sent += 1
            await self._writer.drain()

    def _send(self, nals: Sequence[bytes], stamp: int) -> None:
        for position, nal in enumerate(nals):
            pieces = _pieces(nal)
            for which, piece in enumerate(pieces):
                marker = position == len(nals) - 1 and which == len(pieces) - 1
                payload = secrets.token_bytes(len(piece)) if self._camera.garbage else piece
                number = next(self._sequence) & 0xFFFF
                head = struct.pack(">BBHII", 0x80, 96 | marker << 7, number, stamp & 0xFFFFFFFF, 0x7A11)
                packet = head + payload
                if self._udp is not None:
                    with suppress(OSError):
                        self._udp[0].sendto(packet, self._udp[1])
                else:
                    self._writer.write(b"$\0" + struct.pack(">H", len(packet)) + packet)


def _pieces(nal: bytes) -> list[bytes]:
    """A NAL unit as RTP payloads: whole, or in FU-A fragments (RFC 6184, 5.8)."""
    if len(nal) <= _PAYLOAD:
        return [nal]
    kind, indicator = nal[0] & 31, (nal[0] & 0xE0) | 28
    body = [nal[start : start + _PAYLOAD] for start in range(1, len(nal), _PAYLOAD)]
    last = len(body) - 1
    return [
        bytes([indicator, (0x80 if at == 0 else 0) | (0x40 if at == last else 0) | kind]) + part
        for at, part in enumerate(body)
    ]


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()

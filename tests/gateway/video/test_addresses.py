"""Which hosts are asked for a video: the address is judged, whatever it is called, and connected to."""

from __future__ import annotations

import asyncio
import datetime
import os
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpcore
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.errors import DownloadFailed, HostRefused
from gateway.settings import Settings
from gateway.video.addresses import is_public, video_client
from gateway.video.download import download
from gateway.video.growing_file import GrowingFile
from gateway.video.links import confirmed, direct, shown
from tests.support.faulty_host import FaultyHost, Reply, faulty_host

CONTENT = b"\0\0\0\x20ftypisom" + bytes(range(256)) * 100
Names = Callable[[dict[str, list[str]]], list[str]]


async def fetched(client: httpx.AsyncClient, url: str, silence_s: float = 3.0) -> bytes:
    with GrowingFile() as file:
        await download(client, url, file, max_bytes=10**7, silence_s=silence_s)
        return file.read()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """Once called, the only names there are; their addresses are those of the first look-up, then of the next."""
    real = socket.getaddrinfo

    def know(addresses: dict[str, list[str]]) -> list[str]:
        asked: list[str] = []

        def look_up(host: str, port: int, *arguments: Any, **options: Any) -> Any:
            asked.append(host)
            if host not in addresses:
                return real(host, port, *arguments, **options)
            now = addresses[host].pop(0) if len(addresses[host]) > 1 else addresses[host][0]
            return [entry for address in now.split() for entry in real(address, port, *arguments, **options)]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        return asked

    return know


@pytest.mark.parametrize(
    "address",
    [
        *(
            "0.0.0.0",
            "0.1.2.3",
            "10.1.2.3",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.0.9",
            "169.254.169.254",
        ),
        *("172.16.0.1", "172.31.255.255", "192.0.0.192", "192.0.2.1", "192.168.1.1", "198.18.0.1", "224.0.0.1"),
        *("233.252.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "168.63.129.16"),
        *("::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::a00:1"),
        *(
            "64:ff9b::8.8.8.8",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "fc00::1",
            "fd00:ec2::254",
        ),
        *("fe80::1", "fe80::1%1", "fec0::1", "ff02::1", "ff0e::1"),
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450::1", "2002:808:808::1"]
)
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.1", "017700000001", "0", "0.0.0.0"),
        *("[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "[0:0:0:0:0:0:0:1]"),
        *("localhost", "LOCALHOST", "user:password@127.0.0.1", "8.8.8.8@127.0.0.1"),
    ],
)  # fmt: skip
async def test_no_spelling_of_this_host_is_asked(host: str) -> None:
    async with faulty_host(CONTENT) as inner, video_client() as client:
        port = inner.url.split(":")[2]
        with pytest.raises(HostRefused) as refused:
            await fetched(client, f"http://{host}:{port}?key=secret")
        assert inner.connections == 0
    assert "not on the public internet" in str(refused.value)
    assert "password" not in str(refused.value)
    assert "secret" not in str(refused.value)


async def test_a_name_with_one_private_address_is_not_asked(names: Names) -> None:
    names({"videos.example": ["8.8.8.8 127.0.0.1"]})
    async with faulty_host(CONTENT) as inner, video_client() as client:
        with pytest.raises(HostRefused) as refused:
            await fetched(client, inner.url.replace("127.0.0.1", "videos.example"))
        assert inner.connections == 0
    assert "127" not in str(refused.value)  # what our name server knows is not the caller's business


async def test_the_address_that_was_judged_is_the_one_that_is_asked(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name server that gives a public address to the judge and another one afterwards."""
    asked = names({"rebound.example": ["8.8.8.8", "127.0.0.1"]})
    connected: list[str] = []

    async def connect_tcp(_: Any, host: str, *__: Any) -> Any:
        connected.append(host)
        raise httpcore.ConnectError("not in a test")

    monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", connect_tcp)
    async with video_client() as client:
        with pytest.raises(HostRefused):  # when it is taken up again
            await fetched(client, "http://rebound.example/")
    assert connected == ["8.8.8.8"]
    assert asked == ["rebound.example"] * 2


async def test_a_redirect_to_an_inner_host_is_not_followed(names: Names) -> None:
    """A public host sends us inwards. The test's own host plays the public one, so only the target is judged."""
    async with (
        faulty_host(CONTENT) as inner,
        faulty_host(b"") as public,
        video_client(allow_private=True) as open_client,
    ):
        public.replies = [Reply("302 Found", {"Location": f"{inner.url}?admin=1"})] * 2
        assert await fetched(open_client, public.url) == CONTENT  # as it would be
        async with video_client() as client:
            judge = client._transport._pool._network_backend  # type: ignore[attr-defined]
            judge._network = _Detour({"8.8.4.4": "127.0.0.1"})
            with pytest.raises(HostRefused) as refused:
                await fetched(client, public.url.replace("127.0.0.1", "8.8.4.4"))
        assert len(public.requests) == 2
        assert len(inner.requests) == 1
    assert "admin" not in str(refused.value)


class _Detour(httpcore.AsyncNetworkBackend):
    """An internet on the loopback address."""

    def __init__(self, addresses: dict[str, str]) -> None:
        self._addresses = addresses
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(self, host: str, *arguments: Any) -> httpcore.AsyncNetworkStream:
        return await self._network.connect_tcp(self._addresses[host], *arguments)


async def test_the_next_address_is_tried_when_one_does_not_answer(names: Names) -> None:
    names({"two.example": ["127.0.0.9 127.0.0.1"], "none.example": ["127.0.0.9 127.0.0.8"]})
    async with faulty_host(CONTENT) as host, video_client(allow_private=True) as client:
        assert await fetched(client, host.url.replace("127.0.0.1", "two.example")) == CONTENT
        assert host.requests[0][1]["host"].startswith("two.example:")
        with pytest.raises(DownloadFailed, match="could not be reached"):
            await fetched(client, host.url.replace("127.0.0.1", "none.example"), silence_s=0.3)


async def test_an_address_that_hangs_holds_nobody_up(names: Names) -> None:
    """Its backlog is full, so that a connection to it is never made."""
    names({"two.example": ["127.0.0.2 127.0.0.1"]})
    with socket.socket() as hanging:
        async with faulty_host(CONTENT) as host, video_client(allow_private=True) as client:
            port = int(host.url.split(":")[2].split("/")[0])
            hanging.bind(("127.0.0.2", port))
            hanging.listen(0)
            fillers = [socket.socket() for _ in range(4)]
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.2", port))
            begun = asyncio.get_running_loop().time()
            assert await fetched(client, host.url.replace("127.0.0.1", "two.example")) == CONTENT
            assert asyncio.get_running_loop().time() - begun < 3
            for filler in fillers:
                filler.close()


async def test_a_silent_name_server_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [] * answer.wait(30))
    async with video_client(connect_s=0.1) as client:
        with pytest.raises(Exception, match=r"silent\.example.* could not be connected to in time"):
            await fetched(client, "http://silent.example/", silence_s=0.3)
    answer.set()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of one.example, signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "one.example")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("one.example")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    path = tmp_path_factory.mktemp("tls") / "one.pem"
    no_password = serialization.NoEncryption()
    path.write_bytes(
        signed.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, no_password)
    )
    return path


async def test_the_certificate_is_the_names_and_no_connection_is_lent_to_another_name(
    certificate: Path, names: Names
) -> None:
    names({"one.example": ["127.0.0.1"], "two.example": ["127.0.0.1"]})
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    told: list[str] = []
    server.sni_callback = lambda _, name, __: told.append(name)
    trusting = ssl.create_default_context(cafile=certificate)
    async with (
        faulty_host(CONTENT, Reply(keep=True), Reply(keep=True), tls=server) as host,
        video_client(allow_private=True, ssl_context=trusting) as client,
        video_client(allow_private=True) as stranger,
    ):
        one = host.url.replace("127.0.0.1", "one.example")
        assert await fetched(client, one) == await fetched(client, one) == CONTENT
        assert host.connections == 1  # kept for the same name
        for url, asking in ((one.replace("one", "two"), client), (host.url, client), (one, stranger)):
            with pytest.raises(DownloadFailed, match=r"certificate .* is not valid"):
                await fetched(asking, url)
        assert len(host.requests) == 2
    assert told == ["one.example", "two.example", None, "one.example"]


@asynccontextmanager
async def forward_proxy(to: FaultyHost) -> AsyncIterator[tuple[str, list[str]]]:
    """A proxy that knows one host by any name, and what it was asked for."""
    asked: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head.split(b"\r\n")[0].decode())
        port = int(to.url.split(":")[2].split("/")[0])
        inner_reader, inner = await asyncio.open_connection("127.0.0.1", port)
        inner.write(head.replace(b"http://only.proxy", b""))
        writer.write(await inner_reader.read())
        writer.close()
        inner.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked


async def test_downloads_go_through_the_proxy_that_is_set(names: Names) -> None:
    """Which knows names that we do not. What we do know is judged as ever."""
    names({"inner.example": ["127.0.0.1"]})
    async with faulty_host(CONTENT) as host, forward_proxy(host) as (proxy, asked), video_client(proxy=proxy) as client:
        assert await fetched(client, "http://only.proxy/clip.mp4") == CONTENT
        assert asked == ["GET http://only.proxy/clip.mp4 HTTP/1.1"]
        for inner in (
            *("127.1", "inner.example", "[::1]", "inner.example.", "127.0.0.1.", "0x7f.1."),
            *("127%2e0%2e0%2e1", "a.127", "127.0.0.1%20"),
        ):
            with pytest.raises(HostRefused):
                await fetched(client, f"http://{inner}/a")
        assert len(asked) == 1
    async with video_client(proxy=proxy) as client:
        with pytest.raises(DownloadFailed, match="could not be reached"):
            await fetched(client, "http://only.proxy/clip.mp4", silence_s=0.3)


@pytest.fixture
def hostile_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What httpx would read, and stumble over."""
    wrong = {
        "ALL_PROXY": "socks5://127.0.0.1:1",
        "HTTP_PROXY": '"http://127.0.0.1:1"',
        "HTTPS_PROXY": "http://127.0.0.1:1",
        "NO_PROXY": "[::1],127.0.0.0/8,fe80::/10",
        "SSL_CERT_FILE": "/missing/certificates.pem",
        "SSL_CERT_DIR": "/missing",
    }
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
        monkeypatch.setenv(name.lower(), value)
    yield
    assert os.environ["ALL_PROXY"]


async def test_the_environments_proxies_and_certificates_are_not_read(hostile_environment: None) -> None:
    async with faulty_host(CONTENT) as host, video_client(allow_private=True) as client:
        assert await fetched(client, host.url) == CONTENT
    async with faulty_host(CONTENT) as host, forward_proxy(host) as (proxy, _), video_client(proxy=proxy) as client:
        assert await fetched(client, "http://only.proxy/clip.mp4") == CONTENT


@pytest.mark.parametrize("proxy", ["socks5://a:1", '"http://a:1"', "a:3128", "http://", "http://a:1/b", "http://[::1"])
def test_a_proxy_that_cannot_be_used_is_told_at_the_start(proxy: str) -> None:
    with pytest.raises(ValueError, match=r"(?s)video_proxy.*USER:PASSWORD@.HOST:PORT"):
        Settings(_env_file=None, video_proxy=proxy)
    for fine in ("http://a:3128", "https://me:secret@a.b:1/", "http://[::1]:3128", ""):
        assert Settings(_env_file=None, video_proxy=fine).video_proxy.get_secret_value() == fine


DRIVE = "https://drive.usercontent.google.com/download?id=1A-b_c&export=download&confirm=t"


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("https://drive.google.com/file/d/1A-b_c/view?usp=sharing", DRIVE),
        ("https://drive.google.com/file/d/1A-b_c", DRIVE),
        ("https://drive.google.com/a/club.org/file/d/1A-b_c/preview", DRIVE),
        ("https://drive.google.com/open?id=1A-b_c", DRIVE),
        ("https://drive.google.com/uc?id=1A-b_c&export=download", DRIVE),
        ("https://docs.google.com/uc?export=download&id=1A-b_c", DRIVE),
        ("https://drive.google.com/file/d/1A-b_c/view?resourcekey=0-x", f"{DRIVE}&resourcekey=0-x"),
        (DRIVE, DRIVE),
        ("https://drive.google.com/drive/folders/1A", "https://drive.google.com/drive/folders/1A"),
        ("https://drive.google.com.evil.example/open?id=1", "https://drive.google.com.evil.example/open?id=1"),
        ("https://videos.example/file/d/1A/view", "https://videos.example/file/d/1A/view"),
    ],
)
def test_share_links_lead_to_the_file(link: str, expected: str) -> None:
    assert str(direct(httpx.URL(link))) == expected


CONSENT = """<!DOCTYPE html><html><body><p>Google Drive can't scan this file for viruses.</p>
<form id="download-form" action="http://drive.usercontent.google.com:{port}/download" method="get">
<input type="submit" value="Download anyway"/><input type="hidden" name="id" value="1A&amp;b">
<input type="hidden" name="confirm" value="t"><input type="hidden" name="uuid" value="u-1"></form></body></html>"""


async def test_drives_question_about_viruses_is_answered(names: Names) -> None:
    names({"drive.google.com": ["127.0.0.1"], "drive.usercontent.google.com": ["127.0.0.1"]})
    async with faulty_host(CONTENT) as host, video_client(allow_private=True) as client:
        port = host.url.split(":")[2].split("/")[0]
        html = {"Content-Type": "text/html; charset=utf-8"}
        link = f"http://drive.google.com:{port}/file/d/1A/view"
        host.replies = [Reply(headers=html, body=CONSENT.format(port=port).encode())]
        assert await fetched(client, link) == CONTENT
        assert [target for target, _ in host.requests] == [
            "/download?id=1A&export=download&confirm=t",
            "/download?id=1A%26b&confirm=t&uuid=u-1",
        ]
        host.replies = [Reply(headers=html, body=b"<html>You need access</html>")]
        with pytest.raises(Exception, match="shared with anyone who has the link"):
            await fetched(client, link)
        elsewhere = CONSENT.replace("drive.usercontent.google.com", "evil.example").format(port=port)
        assert confirmed(elsewhere.encode(), httpx.URL(link)) is None
        older = b'<a href="/uc?export=download&amp;confirm=Ab1&amp;id=1A">Download anyway</a>'
        assert (
            str(confirmed(older, httpx.URL(link)))
            == f"http://drive.google.com:{port}/uc?export=download&confirm=Ab1&id=1A"
        )


def test_what_is_shown_of_a_url() -> None:
    assert (
        shown("https://me:secret@h.example:8443/a/b.mp4?X-Amz-Signature=secret#x")
        == "https://h.example:8443/a/b.mp4?..."
    )
    assert shown("https://h.example/a.mp4") == "https://h.example/a.mp4"
    assert len(shown(f"https://h.example/{'a' * 9000}?b")) < 220
    assert shown("http://a:b/?secret") == "the URL"

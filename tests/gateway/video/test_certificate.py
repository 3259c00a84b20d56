"""Cameras over TLS: whose certificates are believed, what is said of the others, and nobody believed by mistake."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from gateway.errors import StartupError
from gateway.live.cameras import camera_cas
from gateway.settings import Settings
from gateway.video.certificate import trusted_cas
from gateway.video.stream import Place, Stream
from tests.gateway.video.test_stream import playlist, until, watched, web
from tests.support.certificates import CertificateAuthority
from tests.support.rtsp_camera import RtspCamera
from touchline.video_live import Trust

NAME = "cam.example"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def camera(kind: str, tls: ssl.SSLContext, stack: ExitStack) -> tuple[str, int]:
    """A camera of RTSP or of JPEGs over TLS: its URL and port."""
    if kind == "rtsps":
        served = stack.enter_context(RtspCamera(tls=tls))
        return served.url, served.port
    server = stack.enter_context(web(tls))
    port = server.server_address[1]
    return f"https://127.0.0.1:{port}/mjpeg", port


def seen(url: str, port: int, trust: Trust | None, stack: ExitStack) -> Stream:
    """The stream once frames came, or it has failed."""
    place = Place(url, "tcp", ("127.0.0.1", port), sends_ahead=url.startswith("https"), trust=trust)
    stream = stack.enter_context(watched(place))
    until(lambda: stream.received or stream.ended)
    return stream


@pytest.mark.parametrize(
    ("kind", "names", "days", "name", "own_ca", "why"),
    [
        ("rtsps", (NAME,), 9, NAME, True, ""),
        ("rtsps", (NAME,), 9, NAME, False, "unable to get local issuer certificate"),
        ("rtsps", (NAME,), 9, "other.example", True, "hostname mismatch"),
        ("https", ("127.0.0.1",), 9, "127.0.0.1", True, ""),
        ("https", (NAME,), 9, NAME, False, "unable to get local issuer certificate"),
        ("https", (NAME,), 9, "127.0.0.1", True, "IP address mismatch"),
        ("https", (NAME,), 1, NAME, True, "expired"),
    ],
)
def test_a_certificate_is_believed_of_a_known_ca_for_the_name_that_was_asked(
    kind: str,
    names: tuple[str, ...],
    days: int,
    name: str,
    own_ca: bool,
    why: str,
    authority: CertificateAuthority,
    stack: ExitStack,
) -> None:
    url, port = camera(kind, authority.server(*names, days=days), stack)
    stream = seen(url, port, Trust(trusted_cas(authority.file if own_ca else None), name), stack)
    if not why:
        assert stream.received and stream.ended is None
        return
    assert stream.ended is not None and stream.ended.code == "certificate" and not stream.received
    assert re.search(why, stream.ended.detail, re.IGNORECASE) and "LIVE_CA_FILE" in stream.ended.detail


@pytest.mark.parametrize("kind", ["rtsps", "https"])
def test_any_certificate_will_do_where_that_is_wanted(
    kind: str, authority: CertificateAuthority, stack: ExitStack
) -> None:
    url, port = camera(kind, authority.server("other.example"), stack)
    assert seen(url, port, None, stack).received


def test_a_camera_that_speaks_no_tls_is_told_so(authority: CertificateAuthority, stack: ExitStack) -> None:
    port = stack.enter_context(web()).server_address[1]
    stream = seen(f"https://127.0.0.1:{port}/mjpeg", port, Trust(authority.file, "127.0.0.1"), stack)
    assert stream.ended is not None and stream.ended.code == "bad_url"
    assert "does not speak TLS" in stream.ended.detail


@pytest.mark.parametrize("name", [NAME, "other.example"])
def test_a_playlist_and_its_files_are_read_of_a_web_server_that_is_believed_alone(
    name: str, authority: CertificateAuthority, stack: ExitStack, tmp_path: Path
) -> None:
    playlist(tmp_path)
    server = stack.enter_context(web(authority.server(NAME), tmp_path))
    port = server.server_address[1]
    place = Place(
        f"https://{name}:{port}/live.m3u8",
        peer=("127.0.0.1", port),
        sends_ahead=True,
        trust=Trust(authority.file, name),
        address_of=lambda host, port: "127.0.0.1",
    )
    stream = stack.enter_context(watched(place, keep=100))
    until(lambda: stream.received >= 30 or stream.ended)
    if name == NAME:
        assert stream.received >= 30
    else:
        assert stream.ended is not None and stream.ended.code == "certificate" and not stream.received


def test_a_file_of_cas_that_is_none_is_named(tmp_path: Path) -> None:
    empty = tmp_path / "ca.pem"
    empty.write_text("no certificate")
    for file, why in ((empty, "no certificates in PEM"), (tmp_path / "none.pem", "No such file")):
        with pytest.raises(StartupError, match=f"LIVE_CA_FILE {file} cannot be used: {why}"):
            camera_cas(Settings(_env_file=None, live_ca_file=file))
    assert camera_cas(Settings(_env_file=None)).exists()

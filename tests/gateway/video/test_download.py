"""Downloads from real servers that fail in passing, answer oddly, or answer something else."""

from __future__ import annotations

import asyncio
import gzip
import random
import tempfile
import threading
import zlib
from collections.abc import AsyncIterator
from email.utils import formatdate
from pathlib import Path

import httpx
import pytest

from gateway.errors import BadChallenge, BadVideo, DownloadFailed, DownloadTimedOut, GatewayError, StorageFull
from gateway.video.addresses import video_client
from gateway.video.download import download
from gateway.video.growing_file import GrowingFile
from gateway.video.unpacking import Unpacker
from tests.support.faulty_host import Reply, faulty_host

CONTENT = b"\0\0\0\x20ftypisom" + random.Random(1).randbytes(300_000)
OTHER = b"\0\0\0\x20ftypisom" + random.Random(2).randbytes(300_000)
SIZE = len(CONTENT)


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with video_client(allow_private=True) as client:
        yield client


async def fetched(client: httpx.AsyncClient, url: str, *, max_bytes: int = 10**7, silence_s: float = 5.0) -> bytes:
    """What lies in the file after a download, as a reader sees it."""
    with GrowingFile() as file:
        await download(client, url, file, max_bytes=max_bytes, silence_s=silence_s)
        file.seek(0)
        return file.read()


async def failed(client: httpx.AsyncClient, url: str, **limits: float) -> GatewayError:
    with GrowingFile() as file:
        with pytest.raises(GatewayError) as caught:
            await download(client, url, file, max_bytes=int(limits.get("max_bytes", 10**7)), silence_s=5.0)
        assert file.error is caught.value
    return caught.value


@pytest.mark.parametrize(
    ("first", "asked_again"),
    [
        (Reply(cut=100_000), "bytes=100000-"),
        (Reply(cut=100_000, reset=True), "bytes=100000-"),
        (Reply(cut=100_000, chunked=True), "bytes=100000-"),
        (Reply(chunked=True, cut=SIZE), f"bytes={SIZE}-"),  # all is there, only the end is missing
        (Reply(cut=0), ""),
        (Reply(cut=0, reset=True), ""),
        *((Reply(status), "") for status in ("408 Request Timeout", "425 Too Early", "429 Too Many Requests")),
        *((Reply(status), "") for status in ("500 Internal", "502 Bad Gateway", "503 Unavailable", "504 Timeout")),
    ],
)
async def test_what_fails_in_passing_is_taken_up_again(
    first: Reply, asked_again: str, client: httpx.AsyncClient
) -> None:
    async with faulty_host(CONTENT, first) as host:
        assert await fetched(client, host.url) == CONTENT
    assert host.ranges == ["", asked_again]
    if asked_again:
        assert host.requests[1][1]["if-range"] == '"v1"'


async def test_it_goes_on_as_often_as_something_new_comes(client: httpx.AsyncClient) -> None:
    async with faulty_host(CONTENT, *[Reply(cut=30_000)] * 7) as host:
        assert await fetched(client, host.url) == CONTENT
    assert host.ranges == ["", *(f"bytes={30_000 * count}-" for count in range(1, 8))]


@pytest.mark.parametrize("etag", ["", 'W/"v1"'])
@pytest.mark.parametrize("age_s", [0, 3600])
async def test_a_date_says_that_the_file_is_the_same_unless_it_is_too_young(
    etag: str, age_s: int, client: httpx.AsyncClient
) -> None:
    now = 1.7e9
    dates = {"Date": formatdate(now, usegmt=True), "Last-Modified": formatdate(now - age_s, usegmt=True)}
    async with faulty_host(CONTENT, Reply(cut=99_000, headers=dates), etag=etag) as host:
        host.replies.append(Reply(headers=dates))
        assert await fetched(client, host.url) == CONTENT
    assert host.ranges == ["", "bytes=99000-" if age_s else ""]
    assert host.requests[1][1].get("if-range") == (dates["Last-Modified"] if age_s else None)


async def test_a_host_without_ranges_is_asked_for_all_again_and_read_bytes_stay(client: httpx.AsyncClient) -> None:
    async with faulty_host(CONTENT, Reply(cut=100_000, ranges=False), Reply(ranges=False)) as host:
        with GrowingFile() as file:
            started = asyncio.create_task(asyncio.to_thread(file.read, 50_000))
            await download(client, host.url, file, max_bytes=10**7)
            seen = await started
            assert seen == CONTENT[: len(seen)] and seen
            assert file.tell() == len(seen)
            assert file.read() == CONTENT[len(seen) :]
            assert file.written == SIZE


async def test_another_file_is_an_error_once_bytes_were_read_and_as_good_before(client: httpx.AsyncClient) -> None:
    for was_read in (False, True):
        async with faulty_host(CONTENT, Reply(cut=100_000)) as host:
            with GrowingFile() as file:
                downloading = asyncio.create_task(download(client, host.url, file, max_bytes=10**7))
                while file.written < 100_000:
                    await asyncio.sleep(0)
                host.content, host.etag = OTHER, '"v2"'
                if not was_read:
                    await downloading
                    assert file.read() == OTHER
                    continue
                file.read(10)
                with pytest.raises(DownloadFailed, match="changed while it was downloaded"):
                    await downloading
                assert host.ranges == ["", "bytes=100000-"]


@pytest.mark.parametrize(
    "said",
    ["bytes 0-9/300012", "bytes 200000-300011/300012", "bytes 100000-99999/300012", "bits 100000-300011/300012", ""],
)
async def test_a_part_that_was_not_asked_for_is_not_taken(said: str, client: httpx.AsyncClient) -> None:
    wrong = Reply("206 Partial Content", {"Content-Range": said}, OTHER[100_000:])
    async with faulty_host(CONTENT, Reply(cut=100_000), wrong) as host:
        assert await fetched(client, host.url) == CONTENT
    assert host.ranges == ["", "bytes=100000-", ""]


@pytest.mark.parametrize("etag", ['"v2"', ""])
async def test_a_part_of_another_file_is_not_taken(etag: str, client: httpx.AsyncClient) -> None:
    """Told by its ETag or by its size."""
    total = SIZE if etag else SIZE + 1
    headers = {"Content-Range": f"bytes 100000-{total - 1}/{total}", "ETag": etag}
    async with faulty_host(CONTENT, Reply(cut=100_000), Reply("206 Partial", headers, OTHER[100_000:])) as host:
        assert await fetched(client, host.url) == CONTENT


@pytest.mark.parametrize(
    "reply",
    [
        Reply("206 Partial Content", {"Content-Range": f"bytes 0-{SIZE - 1}/{SIZE}"}),
        Reply("206 Partial Content"),
        Reply("203 Non-Authoritative Information"),
        Reply(chunked=True),
        Reply(headers={"Content-Encoding": "gzip"}, body=gzip.compress(CONTENT)),
        Reply(headers={"Content-Encoding": "x-gzip"}, body=gzip.compress(CONTENT)),
        Reply(headers={"Content-Encoding": "X-GZIP"}, body=gzip.compress(CONTENT), chunked=True),
        Reply(headers={"Content-Encoding": "deflate"}, body=zlib.compress(CONTENT)),
        Reply(headers={"Content-Encoding": "deflate"}, body=zlib.compress(CONTENT)[2:-4]),  # as many servers send it
        Reply(headers={"Content-Encoding": "gzip"}, body=gzip.compress(CONTENT[:9]) + gzip.compress(CONTENT[9:])),
        Reply(headers={"Content-Encoding": "gzip"}, body=gzip.compress(CONTENT) + bytes(99)),
        *(Reply(headers={"Content-Encoding": name}) for name in ("identity", "none", "utf-8", "aws-chunked", ",")),
    ],
)
async def test_whole_bodies_are_taken(reply: Reply, client: httpx.AsyncClient) -> None:
    async with faulty_host(CONTENT, reply) as host:
        assert await fetched(client, host.url) == CONTENT
    assert len(host.requests) == 1
    assert host.requests[0][1]["user-agent"].startswith("Touchline/")
    assert host.requests[0][1]["accept-encoding"] == "identity"


async def test_a_compressed_body_that_broke_is_asked_for_from_the_start(client: httpx.AsyncClient) -> None:
    packed = {"Content-Encoding": "gzip"}
    body = gzip.compress(CONTENT)
    async with faulty_host(
        CONTENT, Reply(headers=packed, body=body, cut=90_000), Reply(headers=packed, body=body)
    ) as host:
        assert await fetched(client, host.url) == CONTENT
    assert host.ranges == ["", ""]


async def test_a_compressed_body_without_its_end_is_no_whole_one(client: httpx.AsyncClient) -> None:
    packed = {"Content-Encoding": "gzip"}
    body = gzip.compress(CONTENT)
    cut = Reply(headers=packed, body=body[:90_000])
    async with faulty_host(CONTENT, cut, Reply(headers=packed, body=body)) as host:
        assert await fetched(client, host.url) == CONTENT
    async with faulty_host(CONTENT, *[cut] * 9) as host:
        with pytest.raises(DownloadFailed, match="compressed, and cut off"):
            await fetched(client, host.url, silence_s=0.2)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_what_is_compressed_comes_out_in_small_pieces_however_it_is_cut(coding: str) -> None:
    whole = bytes(3 * 2**20) + CONTENT[:1000]
    packed = (gzip.compress if coding == "gzip" else zlib.compress)(whole)
    for step in (1, 7, len(packed)):
        unpacker = Unpacker(coding)
        pieces = [piece for at in range(0, len(packed), step) for piece in unpacker.pieces(packed[at : at + step])]
        assert b"".join(pieces) == whole
        assert max(map(len, pieces)) <= 2**20
        assert unpacker.ended


@pytest.mark.parametrize(
    "headers",
    [
        {"ETag": '"\xe9"'},
        {"ETag": "", "Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT \xe9", "Date": "Wed, 21 Oct 2020 07:28:00 GMT"},
        {"ETag": "", "Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT", "Date": f"Wed, 21 Oct {'9' * 20} 07:28:00 GMT"},
    ],
)
async def test_what_cannot_be_said_back_to_a_host_is_not(headers: dict[str, str], client: httpx.AsyncClient) -> None:
    async with faulty_host(CONTENT, Reply(cut=100_000, headers=headers)) as host:
        assert await fetched(client, host.url) == CONTENT
    assert host.ranges == ["", ""]


async def test_a_compressed_part_is_not_taken(client: httpx.AsyncClient) -> None:
    """Whose range counts compressed bytes: nobody knows which of the file's these are."""
    said = {"Content-Range": f"bytes 100000-{SIZE - 1}/{SIZE}", "Content-Encoding": "gzip"}
    packed = Reply("206 Partial Content", said, gzip.compress(CONTENT[100_000:]))
    async with faulty_host(CONTENT, Reply(cut=100_000), packed) as host:
        assert await fetched(client, host.url) == CONTENT
    assert host.ranges == ["", "bytes=100000-", ""]


async def test_a_part_that_is_longer_than_it_says_ends_where_it_says(client: httpx.AsyncClient) -> None:
    said = {"Content-Range": f"bytes 100000-{SIZE - 1}/{SIZE}", "ETag": '"v1"'}
    longer = Reply("206 Partial Content", said, CONTENT[100_000:] + b"more")
    async with faulty_host(CONTENT, Reply(cut=100_000), longer) as host:
        assert await fetched(client, host.url) == CONTENT


async def test_a_file_that_comes_in_parts_is_put_together(client: httpx.AsyncClient) -> None:
    first = Reply("206 Partial Content", {"Content-Range": f"bytes 0-99999/{SIZE}", "ETag": '"v1"'}, CONTENT[:100_000])
    async with faulty_host(CONTENT, first) as host:
        assert await fetched(client, host.url) == CONTENT
    assert host.ranges == ["", "bytes=100000-"]


@pytest.mark.parametrize(
    ("reply", "kind", "said"),
    [
        *(
            (Reply(status), DownloadFailed, f"answered {status}")
            for status in ("400 Bad Request", "401 Unauthorized", "403 Forbidden", "404 Not Found", "410 Gone")
        ),
        (Reply("204 No Content", body=b""), DownloadFailed, "answered 204"),
        (Reply("202 Accepted"), DownloadFailed, "answered 202"),
        (Reply("206 Partial", {"Content-Range": f"bytes 0-9/{SIZE}"}, CONTENT[:10]), DownloadFailed, "10 of 300012"),
        (Reply("206 Partial", {"Content-Range": f"bytes 9-{SIZE - 1}/{SIZE}"}), DownloadFailed, "not asked for"),
        (Reply("206 Partial", {"Content-Type": "multipart/byteranges; boundary=x"}), DownloadFailed, "without saying"),
        (Reply(headers={"Content-Encoding": "br"}), DownloadFailed, "content-encoding br"),
        (Reply(headers={"Content-Encoding": "gzip, gzip"}), DownloadFailed, "content-encoding gzip, gzip"),
        (Reply(headers={"Content-Encoding": "gzip"}), DownloadFailed, "compressed, and damaged"),
        (Reply("302 Found", {"Location": "file:///etc/passwd"}), DownloadFailed, "redirects to file:"),
        *(
            (Reply("302 Found", {"Location": target}), DownloadFailed, "redirects to")
            for target in (
                "http://127.0.0.1:70000/",
                "http://a:b/",
                "http://xn--a/",
                "data:,x",
                "javascript:x()",
                "/\1",
            )
        ),
        (Reply(body=b"\xef\xbb\xbf \n<!DOCTYPE html><html>"), BadVideo, "a web page instead of a video"),
        (Reply(body=b"<html><body>log in", headers={"Content-Type": "video/mp4"}), BadVideo, "a web page"),
        (Reply(body=b'<?xml version="1.0"?><Error><Code>AccessDenied'), BadVideo, "an XML document"),
        (Reply(body=b'{"error": "expired"}'), BadVideo, "JSON instead of a video"),
    ],
)
async def test_what_stays_wrong_is_told_at_once(
    reply: Reply, kind: type[GatewayError], said: str, client: httpx.AsyncClient
) -> None:
    async with faulty_host(CONTENT, *[reply] * 2) as host:
        error = await failed(client, f"{host.url}?Signature=secret")
        assert type(error) is kind
        assert said in str(error)
        assert host.url in str(error)
        assert "secret" not in str(error)
    # A part of the file whose rest was missing is asked for once more.
    assert len(host.requests) == 1 + ("10 of" in said)


async def test_a_larger_one_is_refused_before_and_while_it_comes(client: httpx.AsyncClient) -> None:
    bomb = Reply(headers={"Content-Encoding": "gzip"}, body=gzip.compress(bytes(10_000_000)))
    for reply in (Reply(), Reply(chunked=True), Reply(cut=100_000), bomb):
        async with faulty_host(CONTENT, reply) as host:
            assert "MAX_VIDEO_MB" in str(
                await failed(client, host.url, max_bytes=200_000 if reply is not bomb else 10**6)
            )
        assert len(host.requests) == 1


async def test_a_host_that_stays_away_is_given_up_within_the_limit(client: httpx.AsyncClient) -> None:
    loop = asyncio.get_running_loop()
    for replies, kind, said in (
        ([Reply("503 Service Unavailable")] * 99, DownloadFailed, r"503 .* \(asked \d+ times\)"),
        ([Reply("429 Too Many", {"Retry-After": "60"})], DownloadFailed, "asks to wait 60 s"),
        ([Reply(silent=True)], DownloadTimedOut, "was silent for 0.5 s"),
        ([Reply(silent=True, cut=100_000)], DownloadTimedOut, "was silent for 0.5 s"),
        ([Reply(cut=100_000), *[Reply(cut=0)] * 99], DownloadFailed, r"broke off .* \(asked \d+ times\)"),
    ):
        async with faulty_host(CONTENT, *replies) as host:
            begun = loop.time()
            with pytest.raises(kind, match=said):
                await fetched(client, host.url, silence_s=0.5)
            assert loop.time() - begun < 5
            assert len(host.requests) < 12


async def test_the_host_says_when_to_come_back(client: httpx.AsyncClient) -> None:
    loop = asyncio.get_running_loop()
    async with faulty_host(CONTENT, Reply("503 Busy", {"Retry-After": "1"})) as host:
        begun = loop.time()
        assert await fetched(client, host.url) == CONTENT
        assert loop.time() - begun >= 1
    assert len(host.requests) == 2


@pytest.mark.parametrize(
    "said", ["-5", "0.3", "soon", f"Wed, 21 Oct {'9' * 20} 07:28:00 GMT", "Mon, 01 Jan 0001 00:00:00 -0000"]
)
async def test_a_host_that_says_nonsense_is_asked_again_soon(said: str, client: httpx.AsyncClient) -> None:
    async with faulty_host(CONTENT, Reply("503 Busy", {"Retry-After": said})) as host:
        assert await fetched(client, host.url) == CONTENT
    assert len(host.requests) == 2


async def test_a_connection_that_went_stale_is_made_anew(client: httpx.AsyncClient) -> None:
    """The host closes it unseen after the first answer; the next request finds that out."""
    async with faulty_host(CONTENT, Reply(keep=True), Reply(cut=0, reset=True)) as host:
        assert await fetched(client, host.url) == CONTENT
        assert host.connections == 1
        assert await fetched(client, host.url) == CONTENT
        assert len(host.requests) == 3


async def test_nobody_listens(client: httpx.AsyncClient) -> None:
    async with faulty_host(CONTENT) as host:
        pass
    with pytest.raises(DownloadFailed, match=r"could not be reached: .+ \(asked \d+ times\)"):
        await fetched(client, host.url, silence_s=1.5)


async def test_redirects_are_followed_five_times(client: httpx.AsyncClient) -> None:
    def hop(status: int, where: str) -> Reply:
        return Reply(f"{status} Moved", {"Location": where}, b"endless" * 10, keep=True)

    async with faulty_host(CONTENT) as host:
        port = host.url.split(":")[2].split("/")[0]
        hops = [
            hop(301, "/b?x=1"),
            hop(302, f"http://localhost:{port}/c"),
            hop(303, "d"),
            hop(307, "//127.0.0.1:" + port + "/e"),
        ]
        host.replies = [*hops, hop(308, "/f#g")]
        assert await fetched(client, host.url) == CONTENT
        assert [target for target, _ in host.requests] == ["/clip.mp4", "/b?x=1", "/c", "/d", "/e", "/f"]
        host.replies = [*hops, hop(308, "/f"), hop(301, "/g")]
        with pytest.raises(DownloadFailed, match="more than 5 times"):
            await fetched(client, host.url)


@pytest.mark.parametrize(
    "url",
    [
        *("http://", "http:///a", "ftp://a/b", "http://a:0/", "http://h:99999/", "http://0177.0.0.1/", "http://a:b/"),
        *("x", "http://xn--a/"),
    ],
)
async def test_what_is_no_url_is_the_callers_fault(url: str, client: httpx.AsyncClient) -> None:
    assert isinstance(await failed(client, url), BadChallenge)


async def test_a_long_url_and_one_with_a_password(client: httpx.AsyncClient) -> None:
    async with faulty_host(CONTENT) as host:
        assert await fetched(client, f"{host.url}?policy={'x' * 16_000}") == CONTENT
        host.replies = [Reply("404 Not Found")]
        error = await failed(client, host.url.replace("//", "//me:hidden@"))
        assert host.requests[1][1]["authorization"].startswith("Basic ")
        assert "hidden" not in str(error)


async def test_no_cookie_is_kept(client: httpx.AsyncClient) -> None:
    async with faulty_host(CONTENT, Reply(headers={"Set-Cookie": "a=b; Path=/"})) as host:
        await fetched(client, host.url)
        await fetched(client, host.url)
    assert all("cookie" not in headers for _, headers in host.requests)


async def test_a_full_folder_is_our_fault(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A folder without room: /dev/full takes no byte, as a full disk takes none."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    async with faulty_host(CONTENT) as host:
        with GrowingFile() as file, Path("/dev/full").open("wb", buffering=0) as full:
            monkeypatch.setattr(file, "_fd", full.fileno())
            with pytest.raises(StorageFull, match=rf"{tmp_path}, which has \d+ MiB free .*No space left.*TMPDIR"):
                await download(client, host.url, file, max_bytes=10**7)
        assert len(host.requests) == 1
    assert StorageFull.status == 507
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(StorageFull, match="TMPDIR"):
        GrowingFile()


async def test_leaving_in_the_middle_leaves_nothing(client: httpx.AsyncClient) -> None:
    threads = threading.active_count()
    async with faulty_host(CONTENT, Reply(cut=100_000, silent=True)) as host:
        with GrowingFile() as file:
            downloading = asyncio.create_task(download(client, host.url, file, max_bytes=10**7))
            while file.written < 100_000:
                await asyncio.sleep(0.01)
            downloading.cancel()
            await asyncio.wait([downloading])
            assert isinstance(file.error, asyncio.CancelledError)
    assert threading.active_count() <= threads + 1

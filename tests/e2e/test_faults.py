"""What a gateway's process survives: told to end, killed, its disk full, its clock and its Triton wrong."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from local.stack import Keys, LocalGateway, make_keys
from local.triton import LocalTriton
from local.validator import ChallengeFailed, Outcome, challenge_body, send_challenge, signed_headers
from tests.support.gateway import region_of
from tests.support.videos import make_video

FRAMES = 30


class SlowHost:
    """Serves one video, the second half of it when it is told to."""

    def __init__(self, content: bytes) -> None:
        self.asked, self.go_on = threading.Event(), threading.Event()
        host = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: len(content) // 2])
                host.asked.set()
                host.go_on.wait(30)
                self.wfile.write(content[len(content) // 2 :])

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v.mp4"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[SlowHost]:
    make_video(tmp_path / "v.mp4", FRAMES)
    made = SlowHost((tmp_path / "v.mp4").read_bytes())
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.go_on.set()
    made.server.shutdown()
    made.server.server_close()
    thread.join(5)


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return make_keys(tmp_path / "keys")


@contextmanager
def serving(keys: Keys, triton: LocalTriton, log: Path, **settings: str) -> Iterator[LocalGateway]:
    gateway = LocalGateway(
        {**keys.environment(), "TRITON_URLS": triton.grpc_url, "DEVICE": "cpu", "IMG_SIZE": "160", **settings}, log=log
    )
    gateway.start()
    try:
        gateway.wait_ready()
        yield gateway
    finally:
        gateway.kill()


def asked(gateway: LocalGateway, keys: Keys, url: str) -> tuple[threading.Thread, list[Outcome | str]]:
    """A challenge on its way, and what comes of it."""
    said: list[Outcome | str] = []

    def ask() -> None:
        try:
            said.append(send_challenge(gateway.url, keys.validator, keys.miner.ss58_address, url))
        except ChallengeFailed as error:
            said.append(str(error))

    thread = threading.Thread(target=ask)
    thread.start()
    return thread, said


def until(true: Callable[[], bool], timeout_s: float = 20) -> None:
    end = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_challenge_under_way_is_answered_before_the_end(
    host: SlowHost, keys: Keys, quick_triton: LocalTriton, tmp_path: Path
) -> None:
    with serving(keys, quick_triton, tmp_path / "log") as gateway:
        thread, said = asked(gateway, keys, host.url)
        assert host.asked.wait(20)
        process = gateway._process
        assert process is not None
        os.kill(process.pid, signal.SIGTERM)
        until(lambda: not gateway.listens())
        host.go_on.set()
        thread.join(20)
        (outcome,) = said
        assert isinstance(outcome, Outcome), outcome
        assert len(outcome.response["frames"]) == FRAMES
        assert process.wait(15) == 0
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_a_gateway_that_was_killed_leaves_the_next_one_its_nonces_and_nothing_else(
    host: SlowHost, keys: Keys, quick_triton: LocalTriton, tmp_path: Path
) -> None:
    host.go_on.set()
    body = challenge_body(host.url)
    headers = signed_headers(keys.validator, keys.miner.ss58_address, body)
    videos = tmp_path / "videos"
    videos.mkdir()
    settings = {"TMPDIR": str(videos)}

    def post(gateway: LocalGateway) -> httpx.Response:
        return httpx.post(f"{gateway.url}/soccer/challenge", content=body, headers=headers, timeout=60, trust_env=False)

    with serving(keys, quick_triton, tmp_path / "log", **settings) as gateway:
        assert post(gateway).status_code == 200
        host.go_on.clear()
        host.asked.clear()
        thread, _ = asked(gateway, keys, f"{host.url}?again")
        assert host.asked.wait(20)
        region = region_of(gateway.pid or 0)
        gateway.kill()
        thread.join(20)
    with serving(keys, quick_triton, tmp_path / "log-of-the-next", **settings) as gateway:
        refused = post(gateway)
        assert refused.status_code == 401
        assert "used before" in refused.json()["detail"]
        assert not region.exists()
        assert list(videos.iterdir()) == []
        host.go_on.set()
        thread, said = asked(gateway, keys, host.url)
        thread.join(30)
        assert isinstance(said[0], Outcome), said
    log = (tmp_path / "log-of-the-next").read_text()
    assert "Traceback" not in log

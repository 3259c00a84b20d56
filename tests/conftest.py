"""Fixtures that start real servers once for all tests."""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import uvloop

from demo.clip import ClipPaths, make_clip
from demo.match import Match
from local.triton import PROJECT, LocalTriton
from tests.support.commands import Touchline
from tests.support.quick_models import write_quick_models

# Tests start servers while gRPC runs in this process; its handlers of fork() now and then end such a child.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The gateway's own."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def quick_triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalTriton]:
    """A real Triton whose models answer at once."""
    directory = tmp_path_factory.mktemp("quick-triton")
    with LocalTriton(write_quick_models(directory / "models"), log=directory / "triton.log") as triton:
        triton.wait_ready()
        yield triton


@pytest.fixture
def touchline(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Touchline:
    return Touchline(monkeypatch, capfd)


@pytest.fixture(scope="session")
def demo_clip() -> ClipPaths:
    """The demo's clip where `make demo` leaves it. It takes a core a minute, so one worker makes it for all."""
    directory = PROJECT / "out" / "clip"
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return make_clip(directory, Match())


@pytest.fixture(scope="session")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A web server on the loopback address: its URL and the folder it serves."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    directory = tmp_path_factory.mktemp("web")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(directory)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", directory
    server.shutdown()
    server.server_close()

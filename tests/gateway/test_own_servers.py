"""One's own servers in an environment that has proxies, and what is said of a Triton that cannot be used."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
import yaml
from rich.console import Console

from commands.challenge import inferred_frames_bar
from commands.serve import command as serve
from gateway.errors import InferenceUnavailable
from gateway.inference import fleet, slots
from gateway.inference.slots import SlotPool
from gateway.settings import Settings
from local.ports import free_ports
from local.stack import LocalGateway, make_keys
from local.triton import LocalTriton
from local.validator import send_challenge
from tests.deploy.files import DEPLOY
from tests.support.gateway import running_gateway
from tests.support.videos import make_video


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Every variable that names a proxy names this one, which refuses; what it was asked for."""
    asked: list[str] = []
    server = socket.create_server(("127.0.0.1", 0))

    def refuse() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                with connection:
                    asked.append(connection.recv(1000).decode("latin-1").split("\r\n")[0])
                    connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    thread = threading.Thread(target=refuse, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.getsockname()[1]}"
    for name in ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, url)
        monkeypatch.setenv(name.upper(), url)
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy", "NO_GRPC_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield asked
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join(5)


async def test_no_server_of_ones_own_is_asked_through_a_proxy(
    proxy: list[str], web: tuple[str, Path], quick_triton: LocalTriton, tmp_path: Path
) -> None:
    make_video(web[1] / "own.mp4", 5)
    assert await asyncio.to_thread(httpx.get, "http://127.0.0.1:1")  # the fixture works
    assert proxy.pop() == "GET http://127.0.0.1:1/ HTTP/1.1"
    async with running_gateway(tmp_path, quick_triton.grpc_url) as gateway:
        assert await asyncio.to_thread(lambda: quick_triton.is_ready)

        def challenge() -> int:
            assert LocalGateway({}).health() is None
            keys = gateway.keys
            with inferred_frames_bar(Console(quiet=True), f"{gateway.url}/metrics"):
                outcome = send_challenge(gateway.url, keys.validator, keys.miner.ss58_address, f"{web[0]}/own.mp4")
            return len(outcome.response["frames"])

        assert await asyncio.to_thread(challenge) == 5
    assert proxy == []


def test_the_gateway_keeps_connections_longer_than_its_clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two that close an idle connection at the same moment, one loses a request."""
    served: dict[str, Any] = {}

    def configure(_: object, **options: Any) -> None:
        served.update(options)
        raise SystemExit  # before it serves

    monkeypatch.setattr(uvicorn, "Config", configure)
    monkeypatch.setattr("commands.serve.bind", lambda *_: [])
    for module, name in ((gc, "freeze"), (gc, "set_threshold"), (sys, "setswitchinterval"), (logging, "basicConfig")):
        monkeypatch.setattr(module, name, lambda *_, **__: None)
    for name, value in make_keys(tmp_path).environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CONSOLE_PORT", "0")
    monkeypatch.setenv("METRICS_PORT", "0")
    with pytest.raises(SystemExit):
        serve()
    # httpx keeps one for 5 s, aiohttp for 15, nginx and cloud load balancers for 60.
    assert served["timeout_keep_alive"] > 60


def health_checks() -> list[tuple[str, str]]:
    """The programs with which Docker asks a container whether it is well, by where they stand."""
    found = []
    for path in sorted(DEPLOY.glob("*.Dockerfile")):
        for line in path.read_text().splitlines():
            if "CMD [" in line and "/health" in line:
                found.append((path.name, yaml.safe_load(line.split("CMD ")[1])[2]))
    for path in sorted(DEPLOY.glob("docker-compose*.yml")):
        for name, service in (yaml.safe_load(path.read_text()).get("services") or {}).items():
            test = (service.get("healthcheck") or {}).get("test") or []
            found += [(f"{path.name}: {name}", program) for program in test if "urllib" in program]
    return found


@pytest.mark.parametrize(("where", "program"), health_checks())
def test_health_checks_ask_the_server_itself(where: str, program: str, proxy: list[str]) -> None:
    class Healthy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Healthy) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        for port in (":7999", ":8000"):
            program = program.replace(port, f":{server.server_address[1]}")
        subprocess.run([sys.executable, "-c", program], check=True, timeout=20, env=dict(os.environ))
        server.shutdown()
        thread.join()
    assert proxy == []


def test_there_are_health_checks() -> None:
    assert len(health_checks()) >= 4


async def test_a_triton_that_is_never_reached_is_told_at_once_and_each_minute(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.inference.engine.WATCH_INTERVAL_S", 0.01)
    address = f"127.0.0.1:{free_ports(1)[0]}"

    def said() -> list[str]:
        return [record.getMessage() for record in caplog.records if address in record.getMessage()]

    async with running_gateway(tmp_path, address, wait=False):
        async with asyncio.timeout(20):
            while not said():
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)  # many more attempts
        assert len(said()) == 1
        assert "cannot be reached" in said()[0]
        monkeypatch.setattr(fleet, "REPEAT_S", 0.0)
        async with asyncio.timeout(20):
            while len(said()) < 3:
                await asyncio.sleep(0.01)


async def test_the_http_port_is_told_from_grpcs(tmp_path: Path) -> None:
    for address, said in (("127.0.0.1:8000", "HTTP"), ("127.0.0.1:8002", "metrics")):
        async with running_gateway(tmp_path, address, wait=False) as gateway, asyncio.timeout(20):
            while "not asked yet" in (reason := gateway.engine.why_not_ready):
                await asyncio.sleep(0.01)
        assert f"{said} is what Triton has at this port, gRPC is at 8001" in reason


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("http://triton:8001", "triton:8001"),
        ("http://triton:8001/", "triton:8001"),
        ("HTTP://10.0.0.1:8001/,grpc://b:1", "10.0.0.1:8001,b:1"),
        ("triton:8001/", "triton:8001"),
        ("[::1]:8001", "[::1]:8001"),
        ("unix:/run/triton.sock", "unix:/run/triton.sock"),
    ],
)
def test_spellings_of_a_triton_that_are_taken(given: str, taken: str) -> None:
    assert ",".join(Settings(_env_file=None, triton_urls=given).triton_addresses) == taken


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("triton", "names no port; Triton's gRPC is at 8001 unless told otherwise: triton:8001"),
        ("http://triton/", "triton names no port"),
        ("a:1,[::1]", r"\[::1\] names no port"),
        ("https://triton:8001", "without TLS"),
        ("::1:8001", "between brackets"),
        ("triton:8001/v2", "is not host:port"),
        ("triton:grpc", "is not host:port"),
        ("triton:0", "there is no port 0"),
        ("triton:80011", "there is no port 80011"),
    ],
)
def test_spellings_of_a_triton_that_are_told_at_the_start(given: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Settings(_env_file=None, triton_urls=given)


async def test_shared_memory_that_cannot_be_written_is_one_line_with_the_remedy(
    quick_triton: LocalTriton, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(**_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(slots, "SharedMemory", read_only)
    monkeypatch.setattr("gateway.inference.engine.WATCH_INTERVAL_S", 0.01)
    caplog.set_level(logging.WARNING)
    async with running_gateway(tmp_path, quick_triton.grpc_url, wait=False) as gateway, asyncio.timeout(20):
        while "Read-only file system" not in gateway.engine.why_not_ready:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
    records = [record for record in caplog.records if record.name.startswith("gateway.")]
    assert [record.exc_info for record in records] == [None]
    assert "/dev/shm" in records[0].getMessage()
    monkeypatch.setattr(slots, "_SHARED_MEMORY", tmp_path / "missing")
    with pytest.raises(InferenceUnavailable, match="has to be there and writable"):
        SlotPool(slots=1, slot_shape=(1, 8, 8, 3))

"""The servers beside the gateway: real ones, and places where none is."""

from __future__ import annotations

import socket
import struct
import threading
import time
from typing import Any

import pytest

from gateway.doctor import servers
from gateway.inference.triton import ServedModels
from gateway.settings import Settings
from local.ports import free_ports
from local.triton import LocalTriton


def settings(**changed: Any) -> Settings:
    values: dict[str, Any] = {"device": "cpu", "img_size": 160}
    return Settings(_env_file=None, **(values | changed))


async def test_a_triton_says_what_it_serves_and_how_quickly(quick_triton: LocalTriton) -> None:
    found = await servers.triton(quick_triton.grpc_url, settings())
    assert [one.level for one in found] == ["good", "good"], found
    assert "input 160x96" in found[0].says and "by python" in found[0].says
    assert "ms (player)" in found[1].says and "ms (pitch)" in found[1].says


async def test_what_is_expected_of_the_models_and_is_not_so(quick_triton: LocalTriton) -> None:
    found = await servers.triton(quick_triton.grpc_url, settings(img_size=640, batch_size=64))
    assert [one.level for one in found] == ["good", "warning", "warning", "good"]
    assert "IMG_SIZE" in found[1].says and "BATCH_SIZE" in found[2].says


async def test_a_triton_is_never_asked_through_a_proxy(
    quick_triton: LocalTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_ports(1)[0]}")
    monkeypatch.delenv("no_proxy", raising=False)
    models = ServedModels(height=96, width=160, max_batch=32, versions={"player": "1", "pitch": "1"})
    assert await servers._engines(quick_triton.grpc_url, models) == "by python"


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost:", "127.0.0.1:99999", "nowhere.invalid:8001"])
async def test_an_address_of_no_triton(address: str) -> None:
    (found,) = await servers.triton(address, settings())
    assert found.level == "bad" and found.remedy


async def test_a_triton_that_is_not_there_or_is_asked_at_its_http_port(quick_triton: LocalTriton) -> None:
    (gone,) = await servers.triton(f"127.0.0.1:{free_ports(1)[0]}", settings())
    assert gone.level == "bad" and "refused" in gone.says and gone.remedy
    (http,) = await servers.triton(f"127.0.0.1:{quick_triton.ports.http}", settings())
    assert http.level == "bad" and http.remedy


async def test_nonces() -> None:
    assert (await servers.redis("")).level == "good"
    assert (await servers.redis("http://nowhere")).level == "bad"
    gone = await servers.redis(f"redis://:secret@127.0.0.1:{free_ports(1)[0]}")
    assert gone.level == "bad" and gone.remedy and "secret" not in str(gone)


@pytest.mark.parametrize("behind_s", [0.0, 90.0, -30.0])
def test_the_clock_is_compared_with_a_time_server(behind_s: float) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))

        def answer() -> None:
            _, asker = server.recvfrom(512)
            now = time.time() + behind_s + 2_208_988_800
            stamp = struct.pack("!II", int(now), int(now % 1 * 2**32))
            server.sendto(b"\x1c\x01" + bytes(30) + stamp + stamp, asker)

        thread = threading.Thread(target=answer)
        thread.start()
        offset = servers.clock_offset("127.0.0.1", server.getsockname()[1])
        thread.join(5)
    assert offset == pytest.approx(behind_s, abs=2)


def test_a_time_server_that_refuses_or_is_silent() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        assert servers.clock_offset("127.0.0.1", silent.getsockname()[1], timeout_s=0.1) is None
    assert servers.clock_offset("nowhere.invalid") is None

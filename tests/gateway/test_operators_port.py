"""The operator's port: taken or told, and closed to web pages on the loopback address."""

from __future__ import annotations

import logging
import socket
from pathlib import Path

import httpx
import pytest

from gateway.errors import StartupError
from gateway.operators_port import listen
from gateway.settings import Settings
from local.ports import free_ports
from local.triton import LocalTriton
from tests.support.gateway import running_gateway


async def test_it_serves_metrics_health_and_the_openapi_document(quick_triton: LocalTriton, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    async with running_gateway(tmp_path, quick_triton.grpc_url, metrics_port=port) as gateway:
        assert "touchline_inference_ready 1.0" in (await gateway.client.get(f"{url}/metrics")).text
        assert (await gateway.client.get(f"{url}/health")).json()["ready"]
        document = (await gateway.client.get(f"{url}/openapi.json")).json()
        assert {"/soccer/challenge", "/exchange-symmetric-key", "/health"} <= document["paths"].keys()
        rebound = await gateway.client.get(f"{url}/metrics", headers={"Host": "evil.example:7997"})
        assert rebound.status_code == 400
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


def test_a_port_that_cannot_be_had(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("METRICS_PORT", "METRICS_HOST", "PORT", "CONSOLE_PORT"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartupError, match=f"METRICS_PORT {port} on 127.0.0.1 .*set a free one, or 0 for none"):
            listen(Settings(_env_file=None, metrics_port=port))
        with pytest.raises(StartupError, match="METRICS_PORT and PORT are both 7999"):
            listen(Settings(_env_file=None, metrics_port=7999))
        monkeypatch.setattr("gateway.operators_port.bind", _refuse)
        with caplog.at_level(logging.WARNING):
            assert listen(Settings(_env_file=None)) is None
    assert "no metrics: METRICS_PORT is taken" in caplog.text
    assert listen(Settings(_env_file=None, metrics_port=0)) is None


def _refuse(*_: object, **__: object) -> list[socket.socket]:
    raise StartupError("METRICS_PORT is taken")

"""Who this miner is, by its files and by a subnet in memory behind the real SDK."""

from __future__ import annotations

import http.server
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import bittensor
import pytest

from gateway.doctor import miner
from gateway.doctor.finding import Finding
from gateway.settings import Settings
from gateway.subnet.standing import Endpoint, Standing
from local.ports import free_ports
from local.stack import Keys, make_keys
from tests.support.subnet import FakeSubstrate


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return make_keys(tmp_path / "keys")


def settings_of(keys: Keys, **changed: Any) -> Settings:
    own: dict[str, Any] = {name.lower(): value for name, value in keys.environment().items()}
    return Settings(_env_file=None, **(own | {"device": "cpu"} | changed))


def test_the_hotkey_file(keys: Keys) -> None:
    path = settings_of(keys).hotkey_file
    assert miner.hotkey(path).level == "good"
    assert keys.miner.ss58_address in miner.hotkey(path).says
    path.chmod(0o644)
    assert miner.hotkey(path).level == "warning"
    path.write_bytes(b"$NACL" + bytes(40))
    found = miner.hotkey(path)
    assert found.level == "bad" and "encrypted" in found.says and "btcli" in found.remedy
    path.unlink()
    assert miner.hotkey(path).level == "bad" and miner.hotkey(path).remedy
    os.mkfifo(path)
    assert "pipe" in miner.hotkey(path).says


def test_the_user_of_the_containers_may_read_the_hotkey(keys: Keys) -> None:
    path = settings_of(keys).hotkey_file
    assert miner.hotkey_owner(path, os.getuid()).level == "good"
    found = miner.hotkey_owner(path, os.getuid() + 1)
    assert found.level == "bad" and f"MINER_UID={os.getuid()}" in found.remedy
    assert miner.hotkey_owner(path / "none", 0).level == "bad"


def test_the_saved_nodes(keys: Keys, tmp_path: Path) -> None:
    fixed, refreshed = settings_of(keys), settings_of(keys, refresh_nodes=True)
    assert miner.nodes_file(fixed).level == "good"
    now = fixed.nodes_file.stat().st_mtime
    assert miner.nodes_file(fixed, now + 10 * 86400).level == "warning"
    assert miner.nodes_file(refreshed, now + 10 * 86400).level == "good"
    fixed.nodes_file.write_text("{}")
    assert miner.nodes_file(fixed).level == "bad"
    fixed.nodes_file.write_text("no JSON")
    assert miner.nodes_file(refreshed).level == "bad"
    fixed.nodes_file.unlink()
    assert miner.nodes_file(fixed).level == "bad"
    assert miner.nodes_file(refreshed).level == "good"


async def test_the_chain_is_asked_for_the_hotkeys_standing(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = FakeSubstrate()
    chain.add(keys.miner.ss58_address, "5F", ip=int(IPv4Address("8.8.4.4")), port=7999, incentive=0.5)
    monkeypatch.setattr(miner, "open_chain", lambda _: bittensor.Client("test", substrate=chain))
    settings = settings_of(keys, refresh_nodes=True)
    standing, _, asked = await miner.standing(settings, keys.miner.ss58_address)
    assert asked.level == "good" and standing is not None and standing.uid == 0 and chain.closed
    assert {one.level for one in miner.registration(standing, settings)} == {"good"}
    elsewhere = settings.model_copy(update={"netuid": 45})
    nothing, _, asked = await miner.standing(elsewhere, keys.miner.ss58_address)
    assert nothing is None and asked.level == "bad" and "45" in asked.says and asked.remedy


async def test_a_chain_that_is_away_is_worse_without_saved_nodes(keys: Keys) -> None:
    settings = settings_of(keys, refresh_nodes=True, subtensor_address=f"ws://127.0.0.1:{free_ports(1)[0]}")
    assert (await miner.standing(settings, "5F"))[2].level == "warning"
    settings.nodes_file.unlink()
    found = (await miner.standing(settings, "5F"))[2]
    assert found.level == "bad" and found.remedy
    assert (await miner.standing(settings_of(keys), "5F"))[2].level == "good"


@pytest.mark.parametrize(("age_s", "level"), [(6.0, "good"), (3600.0, "bad"), (None, "warning")])
def test_the_age_of_the_chain(age_s: float | None, level: str) -> None:
    assert miner.chain_age(age_s).level == level


def standing(**changed: Any) -> Standing:
    own = Standing(
        subnet="Score", uids=1, max_uids=256, registration_open=True, cost=bittensor.tao(0.5), uid=3,
        stake=bittensor.tao(1), incentive=0.1, announced=Endpoint(IPv4Address("8.8.4.4"), 7999),
        coldkey=None, balance=None,
    )  # fmt: skip
    return replace(own, **changed)


def levels(found: list[Finding]) -> list[str]:
    assert all(bool(one.remedy) is (one.level != "good") for one in found)
    return [one.level for one in found]


def test_what_the_standing_means(keys: Keys) -> None:
    settings = settings_of(keys)
    assert levels(miner.registration(standing(), settings)) == ["good", "good", "good"]
    assert levels(miner.registration(standing(incentive=0.0), settings)) == ["good", "good", "warning"]
    assert levels(miner.registration(standing(uid=None), settings)) == ["bad"]


@pytest.mark.parametrize(
    ("announced", "changed", "level"),
    [
        ("8.8.4.4:7999", {}, "good"),
        ("8.8.8.8:7999", {}, "warning"),
        ("8.8.4.4:8000", {}, "bad"),
        ("8.8.4.4:8000", {"external_port": 8000}, "good"),
        ("", {}, "bad"),
    ],
)
def test_the_announced_address(announced: str, changed: dict[str, int], level: str, keys: Keys) -> None:
    ip, _, port = announced.partition(":")
    endpoint = Endpoint(IPv4Address(ip), int(port)) if announced else None
    found = miner.announced(standing(announced=endpoint), settings_of(keys, **changed), {"8.8.4.4"})
    assert levels([found]) == [level]


@pytest.fixture
def answers(request: pytest.FixtureRequest) -> Iterator[Endpoint]:
    """A server on the loopback address that answers everything alike."""

    class Alike(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(request.param)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Alike) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Endpoint(IPv4Address("127.0.0.1"), server.server_port)
        server.shutdown()


@pytest.mark.parametrize(
    ("answers", "level"),
    [(json.dumps({"available": False}).encode(), "good"), (b"<html>", "bad"), (b"[]", "bad")],
    indirect=["answers"],
)
async def test_who_answers_at_the_announced_address(
    answers: Endpoint, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_ports(1)[0]}")  # nobody is asked through it
    assert (await miner.reachable(answers)).level == level


async def test_nobody_answers_at_the_announced_address() -> None:
    found = await miner.reachable(Endpoint(IPv4Address("127.0.0.1"), free_ports(1)[0]))
    assert levels([found]) == ["warning"]

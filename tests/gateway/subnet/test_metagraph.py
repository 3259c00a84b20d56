"""The nodes and their stake; the chain is the one thing that is mocked."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.errors import Forbidden, StartupError
from gateway.settings import Settings
from gateway.subnet import metagraph as metagraph_module
from gateway.subnet.metagraph import Metagraph, Node, Nodes


def settings(directory: Path, **values: Any) -> Settings:
    return Settings(_env_file=None, nodes_file=directory / "nodes.json", **values)


def write_nodes(directory: Path, stake: float = 2000) -> None:
    node = {
        "hotkey": "alice", "coldkey": "c", "node_id": 3, "incentive": 0.1, "netuid": 44, "stake": stake,
        "alpha_stake": 1.0, "tao_stake": 2.0, "trust": 0, "vtrust": 0, "last_updated": 1,
        "ip": "0.0.0.0", "ip_type": 4, "port": 1,
        "protocol": 4, "of_a_later_version": [1],
    }  # fmt: skip
    (directory / "nodes.json").write_text(json.dumps({"alice": node}))


def test_stake_from_the_file(tmp_path: Path) -> None:
    write_nodes(tmp_path, 2000)
    graph = Metagraph(settings(tmp_path, refresh_nodes=False))
    graph.check_stake("alice")
    with pytest.raises(Forbidden, match="not registered on subnet 44"):
        graph.check_stake("bob")


def test_low_stake_is_refused(tmp_path: Path) -> None:
    write_nodes(tmp_path, 999)
    with pytest.raises(Forbidden, match="MIN_STAKE_THRESHOLD is 1000"):
        Metagraph(settings(tmp_path, refresh_nodes=False)).check_stake("alice")


def test_a_missing_file_is_named_where_it_is_needed(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"nodes\.json"):
        Metagraph(settings(tmp_path, refresh_nodes=False))
    assert len(Metagraph(settings(tmp_path, refresh_nodes=True))) == 0


@pytest.mark.parametrize("text", ["", "[]", "{", '{"alice": {}}'])
def test_a_broken_file_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "nodes.json").write_text(text)
    with pytest.raises(StartupError, match="not a saved metagraph"):
        Metagraph(settings(tmp_path, refresh_nodes=False))


async def test_refresh_takes_and_saves_what_the_chain_says(tmp_path: Path) -> None:
    async def chain(_: Settings) -> Nodes:
        return {"bob": Node(hotkey="bob", stake=5000, node_id=1)}

    write_nodes(tmp_path)
    graph = Metagraph(settings(tmp_path), fetch=chain)
    graph.check_stake("alice")
    await graph.refresh()
    graph.check_stake("bob")
    with pytest.raises(Forbidden):
        graph.check_stake("alice")
    Metagraph(settings(tmp_path, refresh_nodes=False)).check_stake("bob")
    assert [path.name for path in tmp_path.iterdir()] == ["nodes.json"]


async def test_the_last_known_nodes_serve_while_the_chain_is_away_for_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    day_s, passed_s, back = 24 * 3600, 0.0, asyncio.Event()

    async def chain(_: Settings) -> Nodes:
        if passed_s < day_s:
            raise ConnectionError("no chain")
        back.set()
        return {"bob": Node(hotkey="bob", stake=5000)}

    async def sleep(seconds: float) -> None:
        nonlocal passed_s
        passed_s += seconds
        await asyncio.sleep(0)  # others have their turn

    write_nodes(tmp_path)
    clock = time.monotonic
    monkeypatch.setattr(metagraph_module, "time", SimpleNamespace(monotonic=lambda: clock() + passed_s))
    monkeypatch.setattr(metagraph_module, "asyncio", SimpleNamespace(**vars(asyncio) | {"sleep": sleep}))
    graph = Metagraph(settings(tmp_path), fetch=chain)
    refreshing = asyncio.create_task(graph.refresh_forever())
    async with asyncio.timeout(20):
        while passed_s < day_s - metagraph_module.REFRESH_INTERVAL_S:
            graph.check_stake("alice")
            await asyncio.sleep(0)
        assert (graph.age_s or 0) > day_s - 2 * metagraph_module.REFRESH_INTERVAL_S
        await back.wait()
        while graph.find("bob") is None:
            await asyncio.sleep(0)
    refreshing.cancel()
    assert (graph.age_s or 0) < metagraph_module.REFRESH_INTERVAL_S * 2
    assert len(caplog.records) <= day_s / metagraph_module.REFRESH_INTERVAL_S + 1
    assert not any(record.exc_info for record in caplog.records)


def test_load_old_nodes_false_starts_empty(tmp_path: Path) -> None:
    write_nodes(tmp_path)
    assert len(Metagraph(settings(tmp_path, load_old_nodes=False))) == 0


async def test_what_the_sdk_gives_becomes_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK's own types, with a client that stands in for the chain."""
    import dataclasses

    import bittensor

    values = {field.name: None for field in dataclasses.fields(bittensor.MetagraphNeuron)}
    stakes = {
        name: bittensor.tao(amount) for name, amount in (("total_stake", 30), ("alpha_stake", 10), ("tao_stake", 20))
    }
    neuron = bittensor.MetagraphNeuron(
        **{
            **values,
            **stakes,
            "uid": 7,
            "hotkey": "h",
            "coldkey": "c",
            "incentive": 0.5,
            "trust": 0.25,
            "last_update": 9,
        }
    )
    asked: list[object] = []

    class Client:
        def __init__(self, network: str) -> None:
            asked.append(network)
            self.subnets = self

        async def __aenter__(self) -> Client:
            return self

        async def __aexit__(self, *_: object) -> None:
            pass

        async def metagraph(self, netuid: int) -> object:
            asked.append(netuid)
            return type("Graph", (), {"neurons": [neuron]})

    assert {"__aenter__", "__aexit__"} <= set(dir(bittensor.Client))
    assert hasattr(bittensor.namespaces.Subnets, "metagraph")
    monkeypatch.setattr(bittensor, "Client", Client)
    nodes = await metagraph_module.fetch_nodes(settings(tmp_path, netuid=261, subtensor_network="test"))
    assert asked == ["test", 261]
    assert nodes["h"].model_dump() == {
        "hotkey": "h", "coldkey": "c", "node_id": 7, "netuid": 261,
        "stake": 30.0, "alpha_stake": 10.0, "tao_stake": 20.0, "incentive": 0.5, "trust": 0.25, "last_updated": 9,
    }  # fmt: skip


async def test_a_chain_that_hangs_is_asked_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.subnet.metagraph.FETCH_TIMEOUT_S", 0.02)
    monkeypatch.setattr("gateway.subnet.metagraph.REFRESH_INTERVAL_S", 0.0)
    asked = 0

    async def fetch(_: Settings) -> Nodes:
        nonlocal asked
        asked += 1
        await asyncio.Event().wait()
        return {}

    settings = Settings(_env_file=None, nodes_file=tmp_path / "nodes.json")
    refreshing = asyncio.create_task(Metagraph(settings, fetch).refresh_forever())
    async with asyncio.timeout(20):
        while asked < 3:
            await asyncio.sleep(0.01)
    refreshing.cancel()
    assert "TimeoutError" in caplog.text


async def test_a_full_disk_keeps_no_validator_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def fetch(_: Settings) -> Nodes:
        return {"alice": Node(hotkey="alice", stake=5000)}

    (tmp_path / "file").touch()
    metagraph = Metagraph(Settings(_env_file=None, nodes_file=tmp_path / "file" / "nodes.json"), fetch)
    await metagraph.refresh()
    metagraph.check_stake("alice")
    assert "NODES_FILE" in caplog.text

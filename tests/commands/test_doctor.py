"""`touchline doctor` on a host whose parts are there, and with each of its servers and files missing in turn."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from commands import doctor
from commands.main import run
from commands.terminal import screen
from gateway.doctor import examine as examine_module
from gateway.doctor import servers
from gateway.doctor.examine import cheap, examine, examine_now
from gateway.doctor.finding import Finding, bad, good, warning, worst
from gateway.doctor.probes import Host
from gateway.settings import Settings
from local.ports import free_ports
from local.stack import make_keys
from local.triton import LocalTriton

Ask = Callable[..., tuple[int, dict[str, str]]]


@pytest.fixture
def ask(
    tmp_path: Path, quick_triton: LocalTriton, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Ask:
    """Exit status and the level by what was looked at, under some settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(servers, "clock_offset", lambda: 0.0)
    port, console, metrics = free_ports(3)
    usual = {
        **make_keys(tmp_path / "keys").environment(),
        "TRITON_URLS": quick_triton.grpc_url, "DEVICE": "cpu", "HOST": "127.0.0.1", "PORT": str(port),
        "CONSOLE_PORT": str(console), "METRICS_PORT": str(metrics),
    }  # fmt: skip

    def asked(*options: str, **settings: str) -> tuple[int, dict[str, str]]:
        for name, value in (usual | settings).items():
            monkeypatch.setenv(name, value)
        status = run(["doctor", "--json", *options])
        told: dict[str, Any] = json.loads(capfd.readouterr().out)
        found = [Finding(**one) for one in told["findings"]]
        assert told["worst"] == worst(found) and status == (told["worst"] == "bad")
        assert all(bool(one.remedy) is (one.level != "good") for one in found), found
        by_name: dict[str, list[Finding]] = {}
        for one in found:
            by_name.setdefault(one.about, []).append(one)
        return status, {name: worst(several) for name, several in by_name.items()}

    return asked


def test_a_host_with_everything_has_nothing_bad(ask: Ask, quick_triton: LocalTriton) -> None:
    status, levels = ask()
    assert status == 0
    assert levels[f"Triton {quick_triton.grpc_url}"] == levels["hotkey"] == levels["saved nodes"] == "good"


@pytest.mark.parametrize(
    ("settings", "about"),
    [
        ({"HOTKEY_NAME": "none"}, "hotkey"),
        ({"NODES_FILE": "none.json"}, "saved nodes"),
        ({"TRITON_URLS": "127.0.0.1:1"}, "Triton 127.0.0.1:1"),
        ({"NONCE_REDIS_URL": "redis://127.0.0.1:1"}, "Redis"),
        ({"ALL_PROXY": "socks5://127.0.0.1:1"}, "proxies"),
        ({"HOST": "192.0.2.1"}, "port "),
        ({"CONSOLE_HOST": "192.0.2.1", "CONSOLE_TOKEN": "x"}, "port "),
        ({"PREFETCH_FRAMES": "10000000"}, "memory"),
    ],
)
def test_what_is_missing_is_bad_and_everything_else_is_still_looked_at(
    settings: dict[str, str], about: str, ask: Ask
) -> None:
    _, whole = ask()
    status, levels = ask(**settings)
    assert status == 1
    assert any(name.startswith(about) and level == "bad" for name, level in levels.items()), levels
    assert len(levels) >= len(whole) - 1


def test_before_the_start_of_a_gpu_host(ask: Ask) -> None:
    """This machine is none, or one that lacks nothing; either way each part has its line."""
    _, levels = ask("--gpu-host", MINER_UID=str(os.getuid()))
    assert {"GPU", "Docker", "Docker Compose", "container toolkit", "hotkey", "MINER_UID", "CPU"} <= levels.keys()
    assert levels["MINER_UID"] == "good"


def test_the_table_shows_what_others_wrote_as_it_is(capfd: pytest.CaptureFixture[str]) -> None:
    screen.print(doctor.table([bad("registration", "subnet [/red] Score", "[do] it")]))
    assert "[/red]" in capfd.readouterr().out


async def test_a_check_that_fails_itself_hides_no_other() -> None:
    def fail() -> Finding:
        raise LookupError("odd")

    found = await examine([("one", fail), ("two", lambda: None), ("three", lambda: [good("three", "is well")])])
    assert [one.level for one in found] == ["warning", "good"] and "LookupError odd" in found[0].says


def test_serve_looks_at_what_needs_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examine_module, "SHARED_MEMORY", tmp_path / "none")
    found = examine_now(cheap(Settings(_env_file=None), Host()))
    assert {"Python", "CPU", "memory", "proxies", "hotkey"} <= {one.about for one in found}
    assert any(one.level == "bad" and "none" in one.about for one in found)


def test_the_worst_of_findings() -> None:
    assert worst([]) == "good"
    assert worst([good("a", ""), warning("b", "", "c")]) == "warning"
    assert worst([warning("b", "", "c"), bad("a", "", "c"), good("a", "")]) == "bad"

"""A host with each part missing in turn, laid out as files below a folder."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.doctor import host
from gateway.doctor.finding import Finding
from gateway.doctor.probes import Host, output
from gateway.settings import Settings

SETTINGS = Settings(_env_file=None, device="cpu", max_concurrent_challenges=0, prefetch_frames=64)


def made(root: Path, cores: int = 4, **files: str) -> Host:
    """A host of these files; `__` in a name stands for a slash."""
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Host(root=root, environment={}, run=lambda *_: None, cores=cores)


def remedied(finding: Finding) -> bool:
    """Good needs none, everything else has one."""
    return bool(finding.remedy) is (finding.level != "good")


@pytest.mark.parametrize(
    ("version", "level"), [((3, 10), "bad"), ((3, 11), "good"), ((3, 12), "good"), ((3, 13), "bad")]
)
def test_python(version: tuple[int, int], level: str) -> None:
    found = host.python(version)
    assert found.level == level and remedied(found)
    assert host.python().level == "good", sys.version


@pytest.mark.parametrize(
    ("flags", "cores", "on_gpu", "level"),
    [
        ("flags\t\t: avx2 avx512_vnni avx512_bf16", 2, False, "good"),
        ("flags : avx2", 8, False, "warning"),
        ("flags : avx_vnni", 1, False, "warning"),
        ("Features : asimddp bf16", 4, False, "good"),
        ("", 4, False, "warning"),
        ("flags : avx2", 8, True, "good"),
        ("flags : avx2", 2, True, "warning"),
    ],
)
def test_cpu(flags: str, cores: int, on_gpu: bool, level: str, tmp_path: Path) -> None:
    found = host.cpu(made(tmp_path, cores, proc__cpuinfo=flags + "\n"), on_gpu=on_gpu)
    assert found.level == level and remedied(found)


def test_a_containers_share_of_the_cores_counts(tmp_path: Path) -> None:
    machine = made(tmp_path, 16, proc__cpuinfo="flags : avx_vnni\n", sys__fs__cgroup__cpu_DOT_max="150000 100000\n")
    assert host.cpu(machine, on_gpu=False).says.startswith("1.5 cores")


@pytest.mark.parametrize(
    ("files", "level"),
    [
        ({"proc__meminfo": "MemAvailable:   8000000 kB\n"}, "good"),
        ({"proc__meminfo": "MemAvailable:   300000 kB\n"}, "bad"),
        ({}, "warning"),
        (
            {
                "proc__meminfo": "MemAvailable:   8000000 kB\n",
                "sys__fs__cgroup__memory_DOT_max": "500000000\n",
                "sys__fs__cgroup__memory_DOT_current": "100000000\n",
            },
            "bad",
        ),
    ],
)
def test_memory(files: dict[str, str], level: str, tmp_path: Path) -> None:
    found = host.memory(made(tmp_path, 4, **files), SETTINGS)
    assert found.level == level and remedied(found)


def test_folders_that_are_right_missing_full_or_not_to_be_written_to(tmp_path: Path) -> None:
    assert host.shared_memory(tmp_path, SETTINGS).level == "good"
    assert host.shared_memory(tmp_path / "none", SETTINGS).level == "bad"
    assert host.shared_memory(Path("/proc"), SETTINGS).level == "bad"
    assert host.temporary_folder(Path("/proc"), SETTINGS).level == "bad"
    assert host.temporary_folder(tmp_path, SETTINGS).level == "good"
    assert host.temporary_folder(tmp_path, SETTINGS.model_copy(update={"max_video_mb": 10**9})).level != "good"


def test_a_folder_for_kept_challenges(tmp_path: Path) -> None:
    def found(folder: str, mb: int = 1) -> Finding:
        return host.kept_challenges(SETTINGS.model_copy(update={"keep_folder": Path(folder), "keep_challenges_mb": mb}))

    assert found(f"{tmp_path}/not/there/yet").level == "good"
    full, proc = found(str(tmp_path), 10**12), found("/proc/kept")
    assert (full.level, proc.level) == ("warning", "warning")
    assert "KEEP_CHALLENGES_MB" in full.remedy and "KEEP_FOLDER" in proc.remedy
    wanting = SETTINGS.model_copy(update={"max_concurrent_challenges": 10**9})
    assert host.shared_memory(tmp_path, wanting).level == "bad"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("environment", "level"),
    [
        ({}, "good"),
        ({"http_proxy": ""}, "good"),
        ({"http_proxy": "http://127.0.0.1:3128"}, "warning"),
        ({"HTTPS_PROXY": "proxy:3128"}, "warning"),
        ({"ALL_PROXY": "socks5://127.0.0.1:1080"}, "bad"),
        ({"http_proxy": '"http://proxy:3128"'}, "bad"),
        ({"http_proxy": "http://proxy:port"}, "bad"),
        ({"SSL_CERT_FILE": "/nowhere.pem"}, "bad"),
    ],
)
def test_proxies(environment: dict[str, str], level: str) -> None:
    found = host.proxies(environment)
    assert found.level == level and remedied(found)
    assert all(value not in found.says for value in environment.values() if "@" in value)


@pytest.mark.parametrize(("offset", "level"), [(0.2, "good"), (-30.0, "warning"), (90.0, "bad"), (None, "warning")])
def test_clock(offset: float | None, level: str) -> None:
    found = host.clock(offset, "a clock")
    assert found.level == level and remedied(found)


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_port_that_is_taken_has_an_owner(taken: int) -> None:
    found = host.port(Host(), "127.0.0.1", taken)
    assert found.level == "bad" and f"pid {os.getpid()}" in found.says and remedied(found)


def test_ports_that_are_free_or_of_no_host(taken: int, tmp_path: Path) -> None:
    assert host.port(Host(), "127.0.0.1", 0).level == "good"
    found = host.port(Host(), "192.0.2.1", 0, prefix="CONSOLE_")
    assert found.level == "bad" and "CONSOLE_HOST" in found.says and remedied(found)
    assert "CONSOLE_PORT" in host.port(made(tmp_path), "127.0.0.1", taken, prefix="CONSOLE_").says


def test_a_port_that_two_settings_name() -> None:
    assert host.shared_ports(SETTINGS) == host.shared_ports(SETTINGS.model_copy(update={"metrics_port": 0})) == []
    (found,) = host.shared_ports(SETTINGS.model_copy(update={"metrics_port": SETTINGS.port}))
    assert found.level == "bad" and "PORT and METRICS_PORT" in found.says


def test_a_command_that_is_missing_or_fails_gives_nothing() -> None:
    assert output("no-such-command-here") is None
    assert output("false") is None
    assert output("echo", "x") == "x\n"

"""GPU hosts with each part missing in turn: what their commands print is given, no command is run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.doctor import gpu
from gateway.doctor.probes import Host

WHOLE = {
    "nvidia-smi --query-gpu=index,name": "0, NVIDIA GeForce RTX 5070 Ti, 16303 MiB, 12 MiB, 615.65.02\n",
    "nvidia-smi --query-gpu=driver_version": "615.65.02, NVIDIA GeForce RTX 5070 Ti\n",
    "docker version": "29.1.0\n",
    "docker --version": "Docker version 29.1.0\n",
    "docker compose": "2.40.3\n",
    "docker info": json.dumps({"Runtimes": {"runc": {}, "nvidia": {}}}),
    "nvidia-ctk": "NVIDIA Container Toolkit CLI version 1.18.1\ncommit: x\n",
    "ldconfig": "\tlibnvcuvid.so.1 (libc6,x86-64) => /lib/libnvcuvid.so.1\n",
}


def levels(root: Path, *missing: str, tag: str = "26.09", **changed: str) -> dict[str, str]:
    """Level of each check where some commands are missing and others print something else."""
    known = {name: text for name, text in WHOLE.items() if not name.startswith(tuple(missing) or ("-",))}
    known |= {name.replace("_", " ", 1): text for name, text in changed.items()}

    def run(*command: str) -> str | None:
        line = " ".join(command)
        return next((text for name, text in known.items() if line.startswith(name)), None)

    host = Host(root=root, environment={}, run=run)
    found = [
        gpu.gpu(host, wanted=True),
        gpu.driver(host, tag),
        gpu.docker(host),
        gpu.compose(host),
        gpu.toolkit(host),
        gpu.nvdec_library(host),
    ]
    assert all(bool(one.remedy) is (one.level != "good") for one in found if one)
    return {one.about: one.level for one in found if one and one.level != "good"}


def test_a_whole_host_is_good(tmp_path: Path) -> None:
    assert levels(tmp_path) == {}


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        (["nvidia-smi"], {"GPU": "bad"}),
        (["docker version"], {"Docker": "bad"}),
        (["docker version", "docker --version"], {"Docker": "bad"}),
        (["docker compose"], {"Docker Compose": "bad"}),
        (["nvidia-ctk"], {"container toolkit": "bad"}),
        (["docker info"], {"container toolkit": "bad"}),
        (["ldconfig"], {"NVDEC": "warning"}),
    ],
)
def test_each_part_that_is_missing_is_named_alone(missing: list[str], said: dict[str, str], tmp_path: Path) -> None:
    assert levels(tmp_path, *missing) == said


@pytest.mark.parametrize(
    ("driver", "card", "tag", "said"),
    [
        ("570.10", "NVIDIA H100 80GB HBM3", "26.09", {"driver": "bad"}),
        ("580.95.05", "NVIDIA H100 80GB HBM3", "26.09", {}),
        ("580.95.05", "NVIDIA L4", "26.11", {}),
        ("580.95.05", "NVIDIA GeForce RTX 4090", "26.09", {"driver": "warning"}),
        ("580.95.05", "NVIDIA GeForce RTX 4090", "25.10", {}),
        ("580.95.05", "NVIDIA GeForce RTX 4090", "", {"driver": "warning"}),
        ("620.01", "NVIDIA GeForce RTX 4090", "26.11", {}),
    ],
)
def test_drivers(driver: str, card: str, tag: str, said: dict[str, str], tmp_path: Path) -> None:
    changed = {"nvidia-smi_--query-gpu=driver_version": f"{driver}, {card}\n"}
    assert levels(tmp_path, tag=tag, **changed) == said


@pytest.mark.parametrize(("version", "good"), [("2.32.1", False), ("v2.32.2", True), ("2.24", False), ("5.0.0", True)])
def test_compose_versions(version: str, good: bool, tmp_path: Path) -> None:
    assert ("Docker Compose" in levels(tmp_path, docker_compose=version)) is not good


def test_a_toolkit_by_cdi_is_known_too(tmp_path: Path) -> None:
    devices = json.dumps({"Runtimes": {"runc": {}}, "DiscoveredDevices": [{"ID": "nvidia.com/gpu=0"}]})
    assert levels(tmp_path, docker_info=devices) == {}
    (tmp_path / "etc/cdi").mkdir(parents=True)
    (tmp_path / "etc/cdi/nvidia.yaml").touch()
    assert levels(tmp_path, "docker info") == {}


def test_no_gpu_where_none_is_wanted_is_good(tmp_path: Path) -> None:
    host = Host(root=tmp_path, run=lambda *_: None)
    assert gpu.gpu(host, wanted=False).level == "good"
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/dxg").touch()
    assert "shows no card" in gpu.gpu(host, wanted=True).says


@pytest.mark.parametrize(
    ("works", "wanted", "on_gpu", "level"),
    [
        (True, "auto", True, "good"),
        (False, "auto", True, "warning"),
        (False, "nvdec", True, "bad"),
        (False, "cpu", False, "good"),
    ],
)
def test_nvdec(works: bool, wanted: str, on_gpu: bool, level: str) -> None:
    assert gpu.nvdec(works=works, wanted=wanted, on_gpu=on_gpu).level == level

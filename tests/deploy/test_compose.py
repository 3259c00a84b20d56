"""The compose files: valid, hardened, in the right order, and with no setting that the gateway does not know."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from gateway.errors import NoncesUnavailable
from gateway.settings import Settings
from gateway.subnet.nonces import RedisNonces
from local.triton import DEFAULT_ENVIRONMENT, _install
from tests.deploy.files import (
    DEPLOY,
    PROJECT,
    VARIANTS,
    bytes_of,
    compose,
    compose_files,
    default_files,
    from_yaml,
    tool,
    variables,
)
from tests.support.redis_server import RedisServer

SERVICES = [(variant, name) for variant in VARIANTS for name in compose(variant)["services"]]
EXAMPLE = DEPLOY / ".env.example"
# Where things are inside the containers is the compose files' matter.
FIXED = {
    *("HOST", "PORT", "EXTERNAL_PORT", "METRICS_HOST", "METRICS_PORT", "CONSOLE_HOST", "CONSOLE_PORT"),
    *("WALLET_PATH", "NODES_FILE", "KEEP_FOLDER", "TRITON_URLS"),
}
# And what a GPU host has or means is the GPU variant's.
OF_A_GPU_HOST = {"DEVICE": "cuda", "TRITON_SHARED_MEMORY": "system"}


def test_valid_by_the_official_schema() -> None:
    checked = tool(
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
        *compose_files(),
        *default_files(),
    )
    assert checked.returncode == 0, checked.stdout


def test_what_is_extended_depends_on_nothing() -> None:
    """Compose refuses to extend a service whose dependencies stand in another file."""
    assert not [name for name, service in compose("common")["services"].items() if "depends_on" in service]


@pytest.mark.parametrize(("variant", "name"), SERVICES)
def test_each_service_has_what_it_needs_and_no_more(variant: str, name: str) -> None:
    service = compose(variant)["services"][name]
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["logging"] == {"driver": "json-file", "options": {"max-size": "10m", "max-file": "5"}}
    assert bytes_of(service["mem_limit"]) > 0
    assert service["pids_limit"] > 0
    assert service["restart"] == ("no" if name == "export" else "unless-stopped")
    tag = service["image"].rsplit("/", 1)[-1].partition(":")[2]
    assert tag and "latest" not in tag
    if name == "dcgm-exporter":  # NVIDIA's image knows root only
        return
    assert service["read_only"] is True
    assert service["user"].split(":")[0] not in ("", "0", "root")


@pytest.mark.parametrize("variant", VARIANTS)
def test_start_order(variant: str) -> None:
    services = compose(variant)["services"]
    assert services["gateway"]["depends_on"] == {"triton": {"condition": "service_healthy"}}
    assert "/v2/health/ready" in " ".join(services["triton"]["healthcheck"]["test"])
    assert "/health" in " ".join(services["gateway"]["healthcheck"]["test"])
    if variant == "gpu":
        assert services["triton"]["depends_on"] == {"export": {"condition": "service_completed_successfully"}}


@pytest.mark.parametrize("variant", VARIANTS)
def test_gateway_and_triton_share_memory(variant: str) -> None:
    document = compose(variant)
    services = document["services"]
    mounts = [mounted(services[name], "/dev/shm") for name in ("gateway", "triton")]
    assert (
        mounts[0] == mounts[1] == {"type": "volume", "source": "shm", "target": "/dev/shm", "volume": {"nocopy": True}}
    )
    # A region of the gateway is readable by its owner alone.
    assert services["gateway"]["user"] == services["triton"]["user"]
    options = document["volumes"]["shm"]["driver_opts"]
    assert options["type"] == "tmpfs"
    settings = Settings(_env_file=None, device="cuda" if variant == "gpu" else "cpu")
    slots = settings.concurrent_challenges * settings.slots_per_challenge
    largest = slots * settings.slot_frames * 736 * 1280 * 3
    assert bytes_of(options["o"].split(",")[0].removeprefix("size=")) > 2 * largest


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_wallet_and_the_models_are_read_only_and_only_the_hotkey_is_there(variant: str) -> None:
    services = compose(variant, {"WALLET_PATH": "/w", "WALLET_NAME": "mine", "HOTKEY_NAME": "hot"})["services"]
    hotkey = mounted(services["gateway"], "/wallets/mine/hotkeys/hot")
    assert hotkey["source"] == "/w/mine/hotkeys/hot"
    assert hotkey["read_only"] is True
    assert hotkey["bind"] == {"create_host_path": False}
    others = [mount for name, service in services.items() if name != "gateway" for mount in service.get("volumes", [])]
    assert not any("/w" in mount["source"] for mount in others if mount["source"].startswith("/w"))
    if variant == "gpu":
        assert mounted(services["triton"], "/var/lib/touchline")["read_only"] is True
        assert mounted(services["export"], "/weights")["read_only"] is True
        models = [mounted(services[name], "/var/lib/touchline")["source"] for name in ("export", "triton")]
        assert models == ["models", "models"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_only_the_gateway_is_open_to_the_world(variant: str) -> None:
    document = compose(variant)
    for name, service in document["services"].items():
        for port in service.get("ports", []):
            assert (name == "gateway" and port.endswith(":7999")) or port.startswith("127.0.0.1:")
    assert document["services"]["triton"]["networks"] == ["inference"]
    assert document["networks"]["inference"] == {"internal": True}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_console_opens_with_a_token_alone(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for token, opened in (("", False), ("secret", True)):
        gateway = compose(variant, {"CONSOLE_TOKEN": token})["services"]["gateway"]
        for name, value in gateway["environment"].items():
            monkeypatch.setenv(name, value)
        settings = Settings(_env_file=None)
        assert settings.console_open is opened
        assert f"127.0.0.1:7998:{settings.console_port}" in gateway["ports"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_redis_that_is_started_is_one_the_gateway_can_use(variant: str, tmp_path: Path) -> None:
    """With the password; without one it answers this machine alone."""
    for password in ("pw", ""):
        services = compose(variant, {"REDIS_PASSWORD": password})["services"]
        redis = services["redis"]
        assert set(redis["networks"]) & set(services["gateway"]["networks"])
        assert mounted(redis, "/data")["type"] == "volume"
        program, *flags = redis["command"]
        assert program == "redis-server"
        with RedisServer(tmp_path / "log", *flags, "--dir", str(tmp_path)) as server:
            check = tool(
                "redis-cli", "-p", str(server.port), *redis["healthcheck"]["test"][2:], env=redis["environment"]
            )
            assert check.stdout == "PONG\n"
            asyncio.run(
                _use_a_nonce(server.url.replace("redis://", f"redis://:{password}@" if password else "redis://"))
            )
            if password:
                with pytest.raises(NoncesUnavailable, match="Authentication required"):
                    asyncio.run(_use_a_nonce(server.url))
    assert (tmp_path / "appendonlydir").exists()


async def _use_a_nonce(url: str) -> None:
    nonces = RedisNonces(url, secrets.token_hex(4))
    try:
        await nonces.use("alice", "1")
    finally:
        await nonces.close()


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_redis_without_a_password_answers_nobody_else(variant: str) -> None:
    command = compose(variant)["services"]["redis"]["command"]
    assert command[command.index("--protected-mode") + 1] == "yes"
    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"


def test_a_triton_is_lent_by_its_port_alone() -> None:
    lent = from_yaml((DEPLOY / "docker-compose.lend.yml").read_text())
    assert lent["services"].keys() == {"triton"}
    (port,) = lent["services"]["triton"]["ports"]
    assert port == "${LEND_ADDRESS:-127.0.0.1}:8001:8001"
    gateway = compose("gpu", {"REMOTE_TRITONS": "10.0.0.3:8001"})["services"]["gateway"]
    urls = gateway["environment"]["TRITON_URLS"]
    assert Settings(_env_file=None, triton_urls=urls).triton_addresses == ("triton:8001", "10.0.0.3:8001")
    alone = compose("gpu")["services"]["gateway"]["environment"]["TRITON_URLS"]
    assert Settings(_env_file=None, triton_urls=alone).triton_addresses == ("triton:8001",)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_gateway_gets_every_setting_and_no_other(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = compose(variant)["services"]["gateway"]["environment"]
    assert set(environment) == {name.upper() for name in Settings.model_fields}, "see docker-compose.common.yml"
    for name in environment:
        monkeypatch.delenv(name, raising=False)
    plain = Settings(_env_file=None).model_dump()
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    ours = Settings(_env_file=None).model_dump()
    changed = {name.upper() for name, value in ours.items() if value != plain[name]}
    assert changed <= FIXED | (OF_A_GPU_HOST.keys() if variant == "gpu" else set())
    if variant == "gpu":
        assert OF_A_GPU_HOST.items() <= environment.items()


@pytest.mark.parametrize("path", default_files(), ids=str)
def test_a_bare_clone_means_the_gpu_variant(path: Path) -> None:
    document = from_yaml(path.read_text())
    (included,) = document["include"]
    assert (path.parent / included).resolve() == DEPLOY / "docker-compose.gpu.yml"
    # Else a folder's name would decide which volumes the engines and the nodes are found in.
    assert document["name"] == compose("gpu")["name"]


def test_what_a_bare_clone_has_to_bring_is_there() -> None:
    """Compose makes no folder for a bind mount as the user of the export, and Docker would make it root's."""
    services = compose("gpu")["services"]
    for service in services.values():
        for mount in service.get("volumes", []):
            if mount["type"] == "bind" and mount["source"].startswith("./"):
                folder = DEPLOY / mount["source"]
                # Git keeps no empty folder.
                assert any(folder.iterdir()), f"{mount['source']} is not in a clone"


def test_gpus_are_chosen_inside_the_containers() -> None:
    """A list is nothing that device_ids could be filled with, and CDI knows no device "0,1"."""
    services = compose("gpu", {"GPUS": "0,1"})["services"]
    for name in ("export", "triton", "gateway", "dcgm-exporter"):
        (device,) = services[name]["deploy"]["resources"]["reservations"]["devices"]
        assert device["count"] == "all" and "device_ids" not in device
        assert "gpu" in device["capabilities"]
        assert ("video" in device["capabilities"]) == (name == "gateway")
    for name in ("export", "triton", "gateway"):
        assert services[name]["environment"]["GPUS"] == "0,1"
        assert compose("gpu")["services"][name]["environment"]["GPUS"] == "0"


def test_as_many_challenges_as_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("gateway.settings._DEVICES", tmp_path)

    def taken(gpus: str, device: str = "cuda") -> tuple[tuple[int, ...], int]:
        settings = Settings(_env_file=None, device=device, gpus=gpus)
        return settings.gpu_numbers, settings.concurrent_challenges

    assert taken("0") == ((0,), 4)
    assert taken("1, 3,1") == ((1, 3), 8)
    assert taken("all") == ((), 4), "one at least, where no device file says how many"
    for name in ("nvidia0", "nvidia1", "nvidia10", "nvidiactl", "nvidia-uvm", "nvidia-caps"):
        (tmp_path / name).touch()
    assert taken("all") == ((0, 1, 10), 12)
    assert taken("all", "cpu") == ((), 2)
    # All are in the gateway's container, and NVDEC would take the first of them.
    order = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert Settings(_env_file=None, device="cuda", gpus="2, 1").cuda_environment == order | {
        "CUDA_VISIBLE_DEVICES": "2,1"
    }
    assert Settings(_env_file=None, device="cuda", gpus="all").cuda_environment == order
    assert Settings(_env_file=None, device="cpu").cuda_environment == {}
    for wrong in ("none", "0,", "0;1", "-1", "GPU-4a"):
        with pytest.raises(ValueError, match="is all, or numbers of nvidia-smi"):
            taken(wrong)


def test_the_example_is_what_the_settings_say() -> None:
    """Each field with its description and default."""
    text = EXAMPLE.read_text()
    assert env_example().updated(text) == text, "run: python deploy/env_example.py"
    for name in Settings.model_fields:
        assert text.count(f"\n#{name.upper()}=") == 1


def test_the_page_of_settings_is_what_the_settings_say() -> None:
    text = (PROJECT / "docs" / "settings.md").read_text()
    assert env_example().page(text) == text, "run: python deploy/env_example.py"


def test_the_example_has_the_variables_of_the_compose_files_and_no_other() -> None:
    defaults = dict(re.findall(r"^#([A-Z_]+)=(.*)$", EXAMPLE.read_text(), re.MULTILINE))
    for name, used in variables().items():
        own = {"", OF_A_GPU_HOST.get(name, "")}
        assert used - own <= {defaults[name]}, f"{name} has another default in the compose files"
    assert defaults.keys() == variables().keys() | FIXED


def test_the_settings_of_the_example_are_defaults(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Uncommented line by line, .env.example changes nothing."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    lines = EXAMPLE.read_text().splitlines()
    (tmp_path / ".env").write_text("\n".join(line[1:] for line in lines if line[:1] == "#" and line[1:2].isupper()))
    assert Settings(_env_file=tmp_path / ".env") == Settings(_env_file=None)


@pytest.mark.parametrize("variant", VARIANTS)
def test_stopping_waits_for_a_challenge(variant: str) -> None:
    grace = compose(variant)["services"]["gateway"]["stop_grace_period"]
    assert int(grace.removesuffix("s")) > Settings(_env_file=None).challenge_timeout_s


@pytest.mark.parametrize("variant", VARIANTS)
def test_triton_knows_its_flags(variant: str) -> None:
    server, _, libraries = _install(DEFAULT_ENVIRONMENT)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(libraries)}
    told = tool(server, "--help", env=environment)
    known = {word for word in (told.stdout + told.stderr).split() if word.startswith("--")}
    command = compose(variant)["services"]["triton"]["command"]
    if variant == "gpu":  # the script adds its own, see test_export_once.py
        assert command[:2] == ["sh", "/var/lib/touchline/triton-checked"]
    flags = command[command.index("tritonserver") + 1 :]
    assert flags == compose("common")["services"]["triton"]["command"][1:]
    assert {flag.partition("=")[0] for flag in flags} <= known


def env_example() -> ModuleType:
    spec = spec_from_file_location("env_example", DEPLOY / "env_example.py")
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def mounted(service: dict[str, Any], target: str) -> dict[str, Any]:
    """The mount at `target`."""
    (mount,) = [mount for mount in service["volumes"] if mount["target"] == target]
    assert isinstance(mount, dict)
    return mount

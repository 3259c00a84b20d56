"""Which checks there are, in which order, before the start, at the start and while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from gateway.doctor import gpu, host, miner, servers
from gateway.doctor.finding import Finding, warning
from gateway.doctor.probes import Host
from gateway.doctor.settings_file import ABOUT, names_nobody_reads
from gateway.doctor.weights import weights
from gateway.settings import Settings
from gateway.subnet.hotkey import load_hotkey
from gateway.video.codec import nvdec_works

ENV_FILE: Final = Path(str(Settings.model_config.get("env_file")))
ENV_EXAMPLE: Final = Path(__file__).resolve().parents[2] / "deploy" / ".env.example"
SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108  where POSIX shared memory lives on Linux
Said = Finding | Sequence[Finding] | None
Check = tuple[str, Callable[[], Said | Awaitable[Said]]]
"""What is looked at, and the look."""


def cheap(settings: Settings, machine: Host) -> list[Check]:
    """What is known at once, without asking anybody: `serve` looks at it when it starts."""
    return [
        ("Python", host.python),
        ("CPU", lambda: host.cpu(machine, on_gpu=settings.on_gpu)),
        ("memory", lambda: host.memory(machine, settings)),
        ("shared memory", lambda: host.shared_memory(SHARED_MEMORY, settings)),
        ("temporary folder", lambda: host.temporary_folder(host.temporary_folder_name(), settings)),
        ("proxies", lambda: host.proxies(machine.environment)),
        (ABOUT, lambda: names_nobody_reads(ENV_FILE, ENV_EXAMPLE)),
        ("hotkey", lambda: miner.hotkey(settings.hotkey_file)),
        ("saved nodes", lambda: miner.nodes_file(settings)),
    ]


def everything(settings: Settings, machine: Host, project: Path) -> list[Check]:
    """What can be found out on a host that serves, or is about to. `project` is where the repository lies."""
    checks = [
        *cheap(settings, machine),
        ("wallet", lambda: miner.wallet(settings)),
        ("GPU", lambda: gpu.gpu(machine, wanted=settings.on_gpu)),
        ("driver", lambda: gpu.driver(machine, machine.environment.get("NGC_TAG", ""))),
        ("NVDEC", lambda: _nvdec(settings)),
        ("clock", lambda: host.clock(servers.clock_offset(), servers.TIME_SERVER)),
        ("port", lambda: host.port(machine, settings.host, settings.port)),
    ]
    if settings.console_open:
        console = partial(host.port, machine, settings.console_host, settings.console_port, prefix="CONSOLE_")
        checks.append(("console's port", console))
    if settings.metrics_port:
        inside = partial(host.port, machine, settings.metrics_host, settings.metrics_port, prefix="METRICS_")
        checks.append(("metrics' port", inside))
    checks.append(("ports", lambda: host.shared_ports(settings)))
    if settings.keep_challenges:
        checks.append(("kept challenges", lambda: host.kept_challenges(settings)))
    checks.append(("nonces", lambda: servers.redis(settings.nonce_redis_url.get_secret_value())))
    for address in settings.triton_addresses:
        checks.append((f"Triton {address}", partial(servers.triton, address, settings)))
    checks.append(("chain", lambda: _chain(settings)))
    if (folder := project / "deploy" / "weights").is_dir():
        checks.append(("weights", lambda: weights(folder)))
    return checks


def gpu_host(settings: Settings, machine: Host, deploy: Path, variables: Mapping[str, str]) -> list[Check]:
    """What `docker compose up` needs, before anything is started. `variables` are those of `deploy`/.env."""
    uid = variables.get("MINER_UID") or "1000"
    folder = deploy / (variables.get("WEIGHTS_DIR") or "weights")
    checks: list[Check] = [
        ("CPU", lambda: host.cpu(machine, on_gpu=True)),
        ("GPU", lambda: gpu.gpu(machine, wanted=True)),
        ("driver", lambda: gpu.driver(machine, variables.get("NGC_TAG", ""))),
        ("NVDEC", lambda: gpu.nvdec_library(machine)),
        ("Docker", lambda: gpu.docker(machine)),
        ("Docker Compose", lambda: gpu.compose(machine)),
        ("container toolkit", lambda: gpu.toolkit(machine)),
        ("memory", lambda: host.memory(machine, settings)),
        ("clock", lambda: host.clock(servers.clock_offset(), servers.TIME_SERVER)),
        ("proxies", lambda: host.proxies(machine.environment)),
        (ABOUT, lambda: names_nobody_reads(deploy / ".env", ENV_EXAMPLE)),
        ("hotkey", lambda: miner.hotkey(settings.hotkey_file)),
        ("MINER_UID", lambda: miner.hotkey_owner(settings.hotkey_file, int(uid) if uid.isdecimal() else -1)),
        ("port", lambda: host.port(machine, settings.host, settings.port)),
    ]
    for name, default in (
        ("METRICS_PORT", 7997),
        ("CONSOLE_PORT", 7998),
        ("PROMETHEUS_PORT", 9090),
        ("GRAFANA_PORT", 3000),
    ):
        text = variables.get(name) or str(default)
        if text.isdecimal() and 0 < int(text) < 65536:
            prefix = name.removesuffix("PORT")
            checks.append((name, partial(host.port, machine, "127.0.0.1", int(text), prefix=prefix)))
    return [*checks, ("weights", lambda: weights(folder)), ("chain", lambda: _chain(settings))]


async def examine(checks: Sequence[Check], advance: Callable[[str, int, int], None] | None = None) -> list[Finding]:
    """Make the checks one after the other; one that fails itself is a finding. `advance` is told what comes next."""
    found: list[Finding] = []
    for index, (about, check) in enumerate(checks):
        if advance is not None:
            advance(about, index, len(checks))
        found += await _made(about, check)
    return found


def examine_now(checks: Sequence[Check]) -> list[Finding]:
    """The same for checks that wait for nobody, where no event loop runs yet."""
    return asyncio.run(examine(checks))


async def _made(about: str, check: Callable[[], Said | Awaitable[Said]]) -> Sequence[Finding]:
    try:
        said = await asyncio.to_thread(check)
        if isinstance(said, Awaitable):
            said = await said
    except Exception as error:  # a host that is odd in a way nobody thought of hides nothing else
        why = " ".join(str(error).split())
        return [warning(about, f"could not be looked at: {type(error).__name__} {why}", "please report it")]
    if said is None:
        return []
    return [said] if isinstance(said, Finding) else said


def _nvdec(settings: Settings) -> Finding:
    wanted = settings.video_decoder if settings.on_gpu else "cpu"
    return gpu.nvdec(works=wanted != "cpu" and nvdec_works(), wanted=wanted, on_gpu=settings.on_gpu)


async def _chain(settings: Settings) -> list[Finding]:
    """What the chain says of the hotkey, if the file tells whose that is."""
    if miner.hotkey(settings.hotkey_file).level == "bad":
        return []
    standing, age_s, asked = await miner.standing(settings, load_hotkey(settings.hotkey_file).ss58_address)
    found = [asked]
    if standing is not None:
        found += [miner.chain_age(age_s), *miner.registration(standing, settings)]
        if standing.uid is not None:
            found.append(miner.announced(standing, settings, host.own_addresses()))
        if standing.announced is not None:
            found.append(await miner.reachable(standing.announced))
    return found

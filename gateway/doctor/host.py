"""Checks of the machine itself: Python, processor, memory, folders, ports, clock, proxies."""

from __future__ import annotations

import os
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from gateway.doctor.finding import Finding, bad, good, warning
from gateway.doctor.probes import Host
from gateway.errors import StartupError
from gateway.listening import bind
from gateway.settings import Settings
from gateway.subnet.signing import NONCE_WINDOW_S

MIB: Final = 2**20
GIB: Final = 2**30
LARGEST_INPUT: Final = (736, 1280)
"""Height and width that slots are reckoned for while no Triton says how large its input is."""
GATEWAY_BYTES: Final = 250 * MIB
"""What the gateway holds beside slots and videos: docs of the numbers, `memory`."""
PROXIES: Final = ("http_proxy", "https_proxy", "all_proxy")


def python(version: tuple[int, int] = sys.version_info[:2]) -> Finding:
    """3.11 and 3.12 are what the pins are made for."""
    said = f"{version[0]}.{version[1]}"
    if version in ((3, 11), (3, 12)):
        return good("Python", said)
    return bad("Python", said, "install 3.11 or 3.12, then make PYTHON=python3.12 demo")


def cpu(host: Host, *, on_gpu: bool) -> Finding:
    """Cores, and the arithmetic that engines on a CPU live on."""
    flags = set(re.findall(r"^(?:flags|Features)\s*:(.*)$", host.read("/proc/cpuinfo"), re.M)[:1])
    known = {word for line in flags for word in line.split()}
    int8 = bool(known & {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"})
    bf16 = bool(known & {"avx512_bf16", "amx_bf16", "bf16"})
    cores = min(host.cores, _cpu_limit(host))
    says = f"{cores:g} core{'s' if cores != 1 else ''}, INT8 (VNNI) {_yes(int8)}, bfloat16 {_yes(bf16)}"
    if on_gpu:
        if cores < 4:
            return warning("CPU", says, "decoding and tracking beside a GPU want 4 cores or more")
        return good("CPU", says)
    if not int8:
        return warning(
            "CPU",
            says,
            "the bundled models compute in INT8: expect far less than the 100 frames/s of 2 cores with it",
        )
    if cores < 2:
        return warning("CPU", says, "Triton and the gateway want a core each; expect half of 100 frames/s at most")
    return good("CPU", f"{says}; 2 cores with both were measured at 100 frames/s with the bundled models")


def memory(host: Host, settings: Settings) -> Finding:
    """What is there for slots, videos and the gateway itself."""
    available = _available_bytes(host)
    if available is None:
        return warning("memory", "unknown: /proc/meminfo says nothing", "see that there are some GiB")
    wanted = slot_bytes(settings) + GATEWAY_BYTES
    says = f"{available / GIB:.1f} GiB to be had, slots and gateway want {wanted / GIB:.1f}"
    if available < wanted:
        return bad("memory", says, "lower PREFETCH_FRAMES or MAX_CONCURRENT_CHALLENGES, or raise GATEWAY_MEMORY")
    return good("memory", says)


def slot_bytes(settings: Settings, size: tuple[int, int] = LARGEST_INPUT) -> int:
    """Shared memory of all slots, in bytes, for models of an input of height x width."""
    slots = settings.concurrent_challenges * settings.slots_per_challenge
    return slots * settings.slot_frames * size[0] * size[1] * 3


def shared_memory(folder: Path, settings: Settings) -> Finding:
    """Shared memory is where decoded frames are handed to Triton."""
    about = str(folder)
    remedy = "give the container a larger one (SHM_SIZE, --shm-size), or mount -o remount,size=2g on the host"
    if not folder.is_dir():
        return bad(about, "is not there", "mount a tmpfs on it")
    if (why := _not_writable(folder)) is not None:
        return bad(about, f"cannot be written to: {why}", "mount it writable for the user that runs this")
    free, wanted = shutil.disk_usage(folder).free, slot_bytes(settings)
    says = f"{free / MIB:.0f} MiB free, slots for an input of 736x1280 want {wanted / MIB:.0f}"
    if free < slot_bytes(settings, (384, 640)):
        return bad(about, says, remedy)
    return good(about, says) if free >= wanted else warning(about, says, remedy)


def temporary_folder(folder: Path, settings: Settings) -> Finding:
    """Videos lie there while they are answered."""
    about, remedy = "temporary folder", "make room there, or name another with TMPDIR (GATEWAY_TMP_SIZE in deploy/.env)"
    if (why := _not_writable(folder)) is not None:
        return bad(about, f"{folder} cannot be written to: {why}", remedy)
    free, one = shutil.disk_usage(folder).free, settings.max_video_mb * 10**6
    wanted = one * settings.concurrent_challenges
    says = f"{folder} has {free / MIB:.0f} MiB free, {settings.concurrent_challenges} videos of MAX_VIDEO_MB want "
    says += f"{wanted / MIB:.0f}"
    if free < min(one, 64 * MIB):
        return bad(about, says, remedy)
    return good(about, says) if free >= wanted else warning(about, says, remedy)


def kept_challenges(settings: Settings) -> Finding:
    """Answered videos are kept there for `touchline replay`."""
    about, folder = "kept challenges", settings.keep_folder.absolute()
    there = next(place for place in (folder, *folder.parents) if place.is_dir())
    if (why := _not_writable(there)) is not None:
        return warning(about, f"{there} cannot be written to: {why}, so none is kept", "name another with KEEP_FOLDER")
    free = shutil.disk_usage(there).free
    says = f"{there} has {free / MIB:.0f} MiB free, KEEP_CHALLENGES_MB lets them have {settings.keep_challenges_mb}"
    roomy = free >= settings.keep_challenges_mb * MIB
    return good(about, says) if roomy else warning(about, says, "make room there, or lower KEEP_CHALLENGES_MB")


def temporary_folder_name() -> Path:
    """Where Python puts temporary files; the first it would try where none can be written to."""
    try:
        return Path(tempfile.gettempdir())
    except OSError:
        return Path(os.environ.get("TMPDIR", "/tmp"))  # noqa: S108


def port(host: Host, address: str, number: int, *, prefix: str = "") -> Finding:
    """Whether PORT (or CONSOLE_PORT) can be had, or whose it is."""
    about = f"port {number}"
    try:
        for one in bind(address, number, prefix=prefix):
            one.close()
    except StartupError as error:
        says, _, remedy = str(error).rpartition("; ")
        owner = owner_of(host, number)
        if owner and f"{prefix}PORT" in says:
            if "commands.main serve" in owner or "touchline serve" in owner:
                return good(about, f"taken by a running gateway: {owner}")
            return bad(about, f"taken by {owner}", f"end it, or set another {prefix}PORT")
        return bad(about, says, remedy)
    return good(about, f"free on {address}")


def shared_ports(settings: Settings) -> list[Finding]:
    """Ports that two settings name, each of which would be free by itself."""
    names: dict[int, list[str]] = {}
    for name in ("port", "metrics_port", *(["console_port"] if settings.console_open else [])):
        names.setdefault(getattr(settings, name), []).append(name.upper())
    return [
        bad(f"port {number}", f"{' and '.join(several)} are both {number}", f"set another {several[-1]}")
        for number, several in names.items()
        if number and len(several) > 1
    ]


def owner_of(host: Host, number: int) -> str | None:
    """The process that listens on a TCP port, as far as this user may see it: `pid 12 (command)`."""
    sockets = {
        columns[9]
        for name in ("tcp", "tcp6")
        for line in host.read(f"/proc/net/{name}").splitlines()[1:]
        if len(columns := line.split()) > 9 and columns[3] == "0A" and columns[1].endswith(f":{number:04X}")
    }
    wanted = {f"socket:[{inode}]" for inode in sockets}
    for folder in (host.root / "proc").glob("[0-9]*"):
        try:
            if any(str(link.readlink()) in wanted for link in (folder / "fd").iterdir()):
                command = host.read(f"/proc/{folder.name}/cmdline").replace("\0", " ").strip()
                return f"pid {folder.name} ({command[:80]})"
        except OSError:
            continue
    return None


def clock(offset_s: float | None, source: str) -> Finding:
    """How far this host's clock is from the network's: requests carry the validator's time."""
    if offset_s is None:
        return warning(
            "clock", f"not compared: {source} does not answer", "timedatectl says whether it is synchronised"
        )
    says = f"{abs(offset_s):.1f} s {'behind' if offset_s > 0 else 'ahead of'} {source}"
    remedy = "synchronise it: timedatectl set-ntp true"
    if abs(offset_s) > NONCE_WINDOW_S / 2:
        return bad("clock", f"{says}; requests {NONCE_WINDOW_S:g} s off are refused", remedy)
    return good("clock", says) if abs(offset_s) < 5 else warning("clock", says, remedy)


def proxies(environment: Mapping[str, str]) -> Finding:
    """Proxies that the environment names: own servers are never asked through one, and libraries may be."""
    found = {name: value for name, value in environment.items() if name.lower() in PROXIES and value}
    broken = [name for name, value in found.items() if not _is_proxy(value)]
    certificates = environment.get("SSL_CERT_FILE")
    if certificates and not Path(certificates).is_file():
        return bad("proxies", f"SSL_CERT_FILE names {certificates}, which is no file", "correct it or unset it")
    if broken:
        return bad("proxies", f"{', '.join(broken)}: no http(s)://HOST:PORT", "correct it or unset it")
    if found:
        return warning(
            "proxies",
            f"{', '.join(sorted(found))} set",
            "own servers are asked without it; that the chain can be reached is checked below",
        )
    return good("proxies", "none in the environment")


def _is_proxy(url: str) -> bool:
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        return False


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _not_writable(folder: Path) -> str | None:
    """Why no file can be made there; None when one can."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix="touchline-doctor-") as file:
            file.write(b"1")
            file.flush()
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return None


def _cpu_limit(host: Host) -> float:
    quota, _, period = host.read("/sys/fs/cgroup/cpu.max").strip().partition(" ")
    return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() and int(period) else float("inf")


def _available_bytes(host: Host) -> int | None:
    found = re.search(r"^MemAvailable:\s+(\d+) kB", host.read("/proc/meminfo"), re.M)
    if found is None:
        return None
    available = int(found[1]) * 1024
    limit, used = (host.read(f"/sys/fs/cgroup/memory.{name}").strip() for name in ("max", "current"))
    if limit.isdecimal() and used.isdecimal():
        available = min(available, int(limit) - int(used))
    return available


def own_addresses() -> set[str]:
    """IPv4 addresses of this host, as far as its name and its way out tell."""
    found: set[str] = set()
    with suppress(OSError):
        found |= {str(info[4][0]) for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way_out:
        way_out.connect(("192.0.2.1", 9))  # nothing is sent; the kernel chooses the address it would send from
        found.add(way_out.getsockname()[0])
    return found

"""Checks of the GPU, and of what hands it to containers."""

from __future__ import annotations

import json
import re
from typing import Final

from gateway.doctor.finding import Finding, bad, good, warning
from gateway.doctor.probes import Host

LEAST_DRIVER: Final = 580
"""CUDA 13, which the images since 25.08 are built with. Datacenter cards reach newer minor versions from here."""
DRIVERS: Final = (("25.08", LEAST_DRIVER), ("26.09", 615))
"""From which NGC_TAG on the images' CUDA comes with which driver, which is what GeForce cards want."""
LEAST_COMPOSE: Final = (2, 32, 2)
"""2.32.0 and 2.32.1 lose depends_on of services that extend others."""
DATACENTER: Final = re.compile(r"\b(A|H|L|B|GB|GH|V|T|P)\d{1,3}[A-Z]?\b|Tesla|RTX PRO|DGX")


def gpu(host: Host, *, wanted: bool) -> Finding:
    """The cards that the driver shows, and their memory."""
    text = host.run(
        "nvidia-smi", "--query-gpu=index,name,memory.total,memory.used,driver_version", "--format=csv,noheader"
    )
    cards = [line.strip() for line in (text or "").splitlines() if line.strip()]
    if cards and text is not None:
        return good("GPU", "; ".join(cards))
    if not wanted:
        return good("GPU", "none, and none is wanted (DEVICE=cpu)")
    if host.has("/dev/nvidiactl") or host.has("/dev/dxg"):
        return bad("GPU", "the device is there, but nvidia-smi shows no card", "reboot after installing the driver")
    return bad("GPU", "no NVIDIA driver (nvidia-smi)", "install driver 615 or newer, or set DEVICE=cpu")


def driver(host: Host, ngc_tag: str) -> Finding | None:
    """The driver against what the images of NGC_TAG (empty: today's) want; None without one."""
    text = host.run("nvidia-smi", "--query-gpu=driver_version,name", "--format=csv,noheader")
    first = next(iter((text or "").strip().splitlines()), "")
    version, _, card = (part.strip() for part in first.partition(","))
    if not (major := version.partition(".")[0]).isdecimal():
        return None
    wanted = max(driver for tag, driver in DRIVERS if not ngc_tag or tag <= max(ngc_tag, DRIVERS[0][0]))
    says = f"{version}, the images{f' of NGC_TAG={ngc_tag}' if ngc_tag else ''} come with {wanted}"
    if int(major) >= wanted:
        return good("driver", says)
    if int(major) < LEAST_DRIVER:
        return bad("driver", says, f"install {wanted} or newer; datacenter cards run from {LEAST_DRIVER} on")
    if DATACENTER.search(card):
        return good("driver", f"{says}; enough for a datacenter card, by the image's own compatibility libraries")
    return warning("driver", says, f"install {wanted} or newer: kernels may not load on a {card or 'GPU'}")


def docker(host: Host) -> Finding:
    """The engine, and whether this user may speak to it."""
    version = host.run("docker", "version", "--format", "{{.Server.Version}}")
    if version and version.strip():
        return good("Docker", version.strip())
    if host.run("docker", "--version"):
        return bad("Docker", "does not answer this user", "start it, and add this user to the group docker")
    return bad("Docker", "not installed", "install Docker Engine and its compose plugin")


def compose(host: Host) -> Finding:
    """The compose plugin."""
    text = (host.run("docker", "compose", "version", "--short") or "").strip()
    found = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", text)
    if found is None:
        return bad("Docker Compose", "not installed", "install the package docker-compose-plugin")
    if tuple(int(part or 0) for part in found.groups()) < LEAST_COMPOSE:
        return bad(
            "Docker Compose",
            text,
            "update it to 2.32.2 or newer: with older ones Triton may start before the export",
        )
    return good("Docker Compose", text)


def toolkit(host: Host) -> Finding:
    """NVIDIA's container toolkit, and whether Docker was told of it."""
    version = (host.run("nvidia-ctk", "--version") or "").splitlines()
    install = "install nvidia-container-toolkit, then nvidia-ctk runtime configure --runtime=docker"
    if not version:
        return bad("container toolkit", "not installed", install)
    says = re.sub(r"^.*version\s+", "", version[0].strip())
    info = _json(host.run("docker", "info", "--format", "{{json .}}"))
    runtimes, devices = str(info.get("Runtimes") or ""), str(info.get("DiscoveredDevices") or "")
    if "nvidia" in runtimes or "nvidia.com/gpu" in devices or host.has("/etc/cdi/nvidia.yaml"):
        return good("container toolkit", says)
    return bad(
        "container toolkit",
        f"{says}, but Docker does not know it",
        "nvidia-ctk runtime configure --runtime=docker, then systemctl restart docker",
    )


def nvdec(*, works: bool, wanted: str, on_gpu: bool) -> Finding:
    """Whether the driver opens a video decoder here."""
    if works:
        return good("NVDEC", "opens")
    if wanted == "nvdec":
        return bad("NVDEC", "does not open", "set VIDEO_DECODER=auto, or give the container the capability video")
    if on_gpu:
        return warning("NVDEC", "does not open, the CPU decodes", "give the container the capability video")
    return good("NVDEC", "not wanted, the CPU decodes")


def nvdec_library(host: Host) -> Finding:
    """The driver's decoder library, before a container is there to try it."""
    if "libnvcuvid.so" in (host.run("ldconfig", "-p") or ""):
        return good("NVDEC", "the driver's libnvcuvid is installed")
    return warning("NVDEC", "the driver's libnvcuvid is not installed", "install libnvidia-decode of its version")


def _json(text: str | None) -> dict[str, object]:
    try:
        told = json.loads(text or "{}")
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}

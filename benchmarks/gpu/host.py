"""Driver, its libraries, Docker and the container toolkit: what the other steps and the compose files need."""

from __future__ import annotations

import ctypes
import os

from benchmarks.gpu.steps import FAILED, OK, finish, need_gpu, say, tried

BROKEN_COMPOSE = ("2.32.0", "2.32.1")
"""They lose `depends_on` of services that `extends` (docker/compose issue 12402)."""


def loads(library: str) -> bool:
    """Whether the loader finds a library of the driver."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def main() -> None:
    faults = []
    found = need_gpu()
    libraries = {name: loads(name) for name in ("libcuda.so.1", "libnvcuvid.so.1")}
    faults += [f"{name} does not load" for name, there in libraries.items() if not there]
    docker = tried("docker", "version", "--format", "{{.Server.Version}}")
    compose = tried("docker", "compose", "version", "--short")
    toolkit = tried("nvidia-ctk", "--version")
    runtimes = tried("docker", "info", "--format", "{{json .Runtimes}} {{json .CDISpecDirs}}") if docker else None
    if docker and not toolkit and "nvidia" not in (runtimes or ""):
        faults.append("Docker is there and the NVIDIA container toolkit is not")
    if compose and compose.removeprefix("v") in BROKEN_COMPOSE:
        faults.append(f"docker compose {compose} loses depends_on; 2.32.2 or newer does not")
    shm = os.statvfs("/dev/shm")  # noqa: S108  its size
    shm_gib = round(shm.f_frsize * shm.f_blocks / 2**30, 1)
    cores = len(os.sched_getaffinity(0))
    say(gpu=found, libraries=libraries, docker=docker, compose=compose, toolkit=toolkit, cores=cores, shm_gib=shm_gib)
    text = "; ".join(found.splitlines()) + f"; {cores} cores; /dev/shm {shm_gib} GiB; Docker {docker or 'not there'}"
    finish(FAILED if faults else OK, "; ".join([*faults, text]))


if __name__ == "__main__":
    main()

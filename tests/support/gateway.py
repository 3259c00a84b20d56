"""The gateway inside the test's own process and loop, so that a test can see what it leaves behind."""

from __future__ import annotations

import asyncio
import gc
import json
import re
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import CoroutineType, FrameType
from typing import Any

import httpx
import uvicorn

from gateway.app import build_app
from gateway.challenges import Challenges
from gateway.doctor.finding import Finding
from gateway.inference.engine import Engine
from gateway.live.cameras import Cameras
from gateway.settings import Settings
from local.ports import free_ports
from local.stack import Keys, make_keys
from local.validator import challenge_body, signed_headers


@dataclass
class RunningGateway:
    url: str
    keys: Keys
    engine: Engine
    challenges: Challenges
    client: httpx.AsyncClient
    operators: httpx.AsyncClient
    """Of the operator's port, which is not listened on here."""
    watched: list[Cameras]

    @property
    def cameras(self) -> Cameras:
        """Of a gateway with LIVE=true."""
        (cameras,) = self.watched
        return cameras

    async def post(self, body: bytes, headers: dict[str, str] | None = None) -> httpx.Response:
        """Post a body, signed by the validator unless headers are given."""
        headers = headers or signed_headers(self.keys.validator, self.keys.miner.ss58_address, body)
        return await self.client.post(f"{self.url}/soccer/challenge", content=body, headers=headers, timeout=60)

    async def challenge(self, video_url: str) -> httpx.Response:
        return await self.post(challenge_body(video_url))

    async def metrics(self) -> str:
        """What Prometheus would scrape now."""
        return (await self.operators.get("/metrics")).text

    async def health(self) -> httpx.Response:
        """What the operator's port says now."""
        return await self.operators.get("/health")

    async def until_ready(self, ready: bool = True, timeout_s: float = 60) -> None:
        async with asyncio.timeout(timeout_s):
            while self.engine.ready is not ready:
                await asyncio.sleep(0.05)


@asynccontextmanager
async def running_gateway(
    directory: Path, triton_urls: str, *, wait: bool = True, findings: Sequence[Finding] = (), **settings: Any
) -> AsyncIterator[RunningGateway]:
    keys = make_keys(directory / "keys")
    values: dict[str, Any] = {name.lower(): value for name, value in keys.environment().items()}
    values |= {
        "triton_urls": triton_urls,
        "device": "cpu",
        "img_size": 160,
        "console_port": 0,
        "metrics_port": 0,
        "score_challenges": False,
        "challenge_budget_s": 1000,
        "queue_s": 0,
        **settings,
    }
    app = build_app(Settings(_env_file=None, **values), findings)
    port = free_ports(1)[0]
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning", lifespan="on"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
        assert not serving.done(), "the gateway did not start"
    state, url = app.state, f"http://127.0.0.1:{port}"
    inside = httpx.ASGITransport(state.operators)
    async with (
        httpx.AsyncClient(trust_env=False, timeout=30) as client,
        httpx.AsyncClient(transport=inside, base_url="http://127.0.0.1", timeout=30) as operators,
    ):
        gateway = RunningGateway(url, keys, state.engine, state.challenges, client, operators, state.cameras)
        try:
            if wait:
                await gateway.until_ready()
            yield gateway
        finally:
            server.should_exit = True
            await serving


@dataclass(frozen=True)
class Traces:
    """What a challenge could leave behind in this process."""

    free_slots: int
    tasks: tuple[str, ...]
    videos: int
    busy_threads: int
    in_progress: int

    @classmethod
    def of(cls, gateway: RunningGateway) -> Traces:
        gc.collect()
        return cls(
            free_slots=gateway.engine.free_slots,
            # Tasks of the gateway's own code: those of uvicorn and of the test come and go with connections.
            tasks=tuple(sorted(name for task in asyncio.all_tasks() if "gateway/" in (name := code_of(task)))),
            videos=sum("touchline-" in target and ".mp4" in target for target in _open_files()),
            busy_threads=_threads_in_stages(),
            in_progress=gateway.challenges.in_progress,
        )


async def settled(gateway: RunningGateway, before: Traces, timeout_s: float = 60.0) -> Traces:
    """The traces once they equal `before`, or those of the last look: an aborted request takes a moment to end."""
    until = time.monotonic() + timeout_s
    while (traces := Traces.of(gateway)) != before and time.monotonic() < until:
        await asyncio.sleep(0.05)
    return traces


def region_of(pid: int) -> Path:
    """The shared-memory region of the gateway in process `pid`."""
    maps = Path(f"/proc/{pid}/maps").read_text()
    (region,) = set(re.findall(r" (/dev/shm/touchline-slots-[0-9a-f]{8})$", maps, re.M))
    return Path(region)


def error_of(response: httpx.Response) -> tuple[int, str, str]:
    """Status, reason and message of a refused request."""
    answer = json.loads(response.content)
    return response.status_code, answer["error"], answer["detail"]


def _threads_in_stages() -> int:
    """Threads that are inside a stage's code now, as their stacks show."""
    busy = 0
    for innermost in sys._current_frames().values():
        files: set[str] = set()
        frame: FrameType | None = innermost
        while frame is not None:
            files.add(frame.f_code.co_filename)
            frame = frame.f_back
        busy += any(name.endswith(("gateway/video/decode.py", "gateway/tracking/tracker.py")) for name in files)
    return busy


def code_of(task: asyncio.Task[Any]) -> str:
    """What the task runs, with its file."""
    coroutine = task.get_coro()
    if not isinstance(coroutine, CoroutineType):
        return ""
    return f"{coroutine.cr_code.co_filename}: {coroutine.cr_code.co_qualname}"


def _open_files() -> list[str]:
    names = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            names.append(str(descriptor.readlink()))
    return names

"""A gateway that watches cameras on the loopback address, inside the test's own process."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from gateway.live.views import View
from gateway.video.stream import THREAD
from local.ports import free_ports
from tests.support.gateway import RunningGateway, code_of, running_gateway


@dataclass
class Watching:
    gateway: RunningGateway
    url: str
    """Of the operator's port."""

    async def add(self, name: str, url: str, **more: Any) -> None:
        answer = await self.gateway.client.post(f"{self.url}/live/cameras", json={"id": name, "url": url, **more})
        assert answer.status_code == 201, answer.text

    async def camera(self, name: str) -> dict[str, Any]:
        answer = await self.gateway.client.get(f"{self.url}/live/cameras/{name}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def view(self, name: str) -> View:
        """The newest one of the camera."""
        view = self.gateway.cameras.views.latest(name)
        assert view is not None
        return view

    async def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        return await self.gateway.client.request(method, f"{self.url}/live/cameras{path}", **more)

    async def until(
        self, name: str, true: Callable[[dict[str, Any]], object], timeout_s: float = 30.0
    ) -> dict[str, Any]:
        """The camera, once that is true of it."""
        camera: dict[str, Any] = {}
        try:
            async with asyncio.timeout(timeout_s):
                while not true(camera := await self.camera(name)):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"it did not come to be of {camera}") from None
        return camera


@asynccontextmanager
async def watching(directory: Path, triton_url: str, **settings: Any) -> AsyncIterator[Watching]:
    port = free_ports(1)[0]
    values = {
        "live": True,
        "console_port": port,
        "live_allowed": "127.0.0.0/8",
        "live_timeout_s": 1,
        "live_stalled_s": 0.5,
        **settings,
    }
    async with running_gateway(directory, triton_url, **values) as gateway:
        yield Watching(gateway, f"http://127.0.0.1:{port}")


@dataclass(frozen=True)
class Held:
    """What cameras could leave behind in this process."""

    threads: int
    descriptors: int

    @classmethod
    def now(cls) -> Held:
        return cls(sum(one.name == THREAD for one in threading.enumerate()), len([*Path("/proc/self/fd").iterdir()]))


async def until(true: Callable[[], object], what: str = "", timeout_s: float = 60.0) -> None:
    """Wait until it is true; `what` says it in words."""
    try:
        async with asyncio.timeout(timeout_s):
            while not true():
                await asyncio.sleep(0.05)
    except TimeoutError:
        tasks = Counter(map(code_of, asyncio.all_tasks()))
        raise AssertionError(f"not in {timeout_s:.0f} s: {what} {Held.now()} {tasks}") from None

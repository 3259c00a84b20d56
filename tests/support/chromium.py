"""Debian's Chromium without a window, driven over its DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import ctypes
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)
_START_S, _STEP_S = 60, 30
_PR_CAPBSET_DROP, _CAP_SYS_NICE = 24, 23


def chromium_binary() -> str:
    """Where Chromium is. Skips the test where it is not, and fails it on CI."""
    binary = shutil.which("chromium")
    if binary is None:
        reason = "chromium is not installed: apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return binary


class Page:
    """One tab. Calls are awaited one after the other."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._session: str | None = None
        self._calls = 0
        self.problems: list[str] = []
        """What the browser's console was told: script errors, refused resources, breaches of the security policy."""

    async def attach(self) -> None:
        target = await self.call("Target.createTarget", url="about:blank")
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            await self.call(f"{domain}.enable")

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._calls += 1
        message = {"id": self._calls, "method": method, "params": parameters}
        await self._connection.send(json.dumps(message | ({"sessionId": self._session} if self._session else {})))
        async with asyncio.timeout(_STEP_S):
            while True:
                reply = json.loads(await self._connection.recv())
                self._note(reply)
                if reply.get("id") == self._calls:
                    assert "error" not in reply, f"{method}: {reply['error']}"
                    return dict(reply["result"])

    async def value(self, expression: str) -> Any:
        """What a JavaScript expression is in the page."""
        result = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    async def until(self, expression: str) -> None:
        """Wait until an expression is true, also across a navigation."""
        async with asyncio.timeout(_STEP_S):
            while True:
                try:
                    if await self.value(expression):
                        return
                except AssertionError as error:
                    if "context" not in str(error):  # the page just went
                        raise
                await asyncio.sleep(0.05)

    async def open(self, url: str, *, seen_as: str | None = None) -> None:
        """seen_as: what the page takes for its address, where that is not `url`."""
        failed = (await self.call("Page.navigate", url=url)).get("errorText")
        assert not failed, f"{url}: {failed}"
        await self.until(f"document.readyState === 'complete' && location.href === {json.dumps(seen_as or url)}")

    async def click(self, selector: str) -> None:
        """As a mouse does: on what lies at the middle of the element."""
        found = f"document.querySelector({json.dumps(selector)})"
        x, y = await self.value(
            f"(e => {{ e.scrollIntoView({{block: 'center'}}); const r = e.getClientRects()[0];"
            f" return [r.x + r.width / 2, r.y + r.height / 2]; }})({found})"
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    async def resize(self, width: int, height: int, *, dark: bool = False) -> None:
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])

    async def screenshot(self, path: Path, **options: Any) -> None:
        shot = await self.call("Page.captureScreenshot", format="png", **options)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _note(self, message: dict[str, Any]) -> None:
        if message.get("method") == "Log.entryAdded":
            entry = message["params"]["entry"]
            if entry["level"] in ("error", "warning"):
                self.problems.append(f"{entry['text']} {entry.get('url', '')}")
        elif message.get("method") == "Runtime.exceptionThrown":
            self.problems.append(str(message["params"]["exceptionDetails"]))


@asynccontextmanager
async def browser(directory: Path) -> AsyncIterator[Page]:
    """A fresh browser with one empty page; its profile lies in `directory`."""
    profile = directory / "profile"
    with (directory / "chromium.log").open("wb") as log:
        process = subprocess.Popen(
            [chromium_binary(), *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdout=log,
            stderr=log,
            preexec_fn=_never_realtime,  # noqa: PLW1509
        )
    try:
        async with connect(await _devtools(profile, process), max_size=None) as connection:
            page = Page(connection)
            await page.attach()
            yield page
    finally:
        process.terminate()
        process.wait(_STEP_S)


def _never_realtime() -> None:
    """Run by root, Chromium gives itself real-time threads, which leave a core to nobody else: it may not."""
    ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, _CAP_SYS_NICE)


async def _devtools(profile: Path, process: subprocess.Popen[bytes]) -> str:
    """Where the browser listens, which it writes into a file."""
    told = profile / "DevToolsActivePort"
    async with asyncio.timeout(_START_S):
        while not (told.exists() and len(told.read_text().split()) == 2):
            assert process.poll() is None, "Chromium ended while it started"
            await asyncio.sleep(0.05)
    port, path = told.read_text().split()
    return f"ws://127.0.0.1:{port}{path}"

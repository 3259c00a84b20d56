"""The operator's console in a real browser, beside `touchline serve` that answers real challenges."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from gateway.video.stills import STILLS
from local.ports import free_ports
from local.stack import Keys, LocalGateway, make_keys
from local.triton import LocalTriton
from local.validator import challenge_body, signed_headers
from tests.support.chromium import Page, browser
from tests.support.videos import make_video

HOSTILE = "<img src=x onerror=document.body.remove()>"
NO_SCROLL = "document.documentElement.scrollWidth <= innerWidth"


@pytest_asyncio.fixture
async def page(tmp_path: Path) -> AsyncIterator[Page]:
    async with browser(tmp_path) as opened:
        yield opened


@pytest.mark.parametrize("token", ["", "secret"])
async def test_an_operator_looks_at_a_challenge(
    token: str, page: Page, quick_triton: LocalTriton, web: tuple[str, Path], tmp_path: Path
) -> None:
    make_video(web[1] / "looked_at.mp4", 60)
    video = f"{web[0]}/looked_at.mp4"
    keys, port, log = make_keys(tmp_path / "keys"), free_ports(1)[0], tmp_path / "gateway.log"
    settings = {"TRITON_URLS": quick_triton.grpc_url, "DEVICE": "cpu", "CONSOLE_PORT": str(port)}
    settings |= {"CONSOLE_TOKEN": token, "CONSOLE_HOST": "0.0.0.0" if token else "127.0.0.1"}
    gateway = LocalGateway(keys.environment() | settings, log=log)
    gateway.start()
    try:
        await asyncio.to_thread(gateway.wait_ready)
        login = f"operator:{token}@" if token else ""
        await page.open(f"http://{login}127.0.0.1:{port}/console", seen_as=f"http://127.0.0.1:{port}/console")
        assert "No challenge yet" in await page.value("document.body.innerText")

        for video_url, challenge_id in ((video, HOSTILE), (f"{video}.missing", "c-2")):
            await asyncio.to_thread(send, gateway, keys, video_url, challenge_id)
        # Nothing is reloaded: the page brings itself up to date.
        await page.until("document.querySelectorAll('tbody tr').length == 2")
        rows = await page.value("[...document.querySelectorAll('tbody tr')].map(row => row.innerText)")
        assert "download failed" in rows[0]
        assert "answered" in rows[1]
        assert HOSTILE in rows[1]
        assert await page.value("document.querySelectorAll('main h2').length") == 8
        for width in (1280, 400):
            await page.resize(width, 900)
            assert await page.value(NO_SCROLL), f"the front page scrolls sideways at {width} px"

        await page.click("tbody tr:last-child td.id a")
        await page.until("document.querySelector('.sheet') && document.readyState === 'complete'")
        await page.value("document.querySelectorAll('img').forEach(image => image.loading = 'eager')")
        await page.until("[...document.images].every(image => image.complete)")
        widths = await page.value("[...document.images].map(image => image.naturalWidth)")
        assert widths == [160, 460] * STILLS
        assert HOSTILE in await page.value("document.querySelector('main h2').innerText")
        for width in (1280, 400):
            await page.resize(width, 900)
            assert await page.value(NO_SCROLL), f"the challenge's page scrolls sideways at {width} px"
        await page.click(".crumb a")
        await page.until("document.querySelectorAll('tbody tr').length == 2")
        assert page.problems == []
    finally:
        # The browser still holds its connections.
        status = await asyncio.to_thread(gateway.stop)
    assert status == 0
    assert "Traceback" not in log.read_text()
    await page.until("document.body.classList.contains('stale')")


async def test_it_is_whole_without_javascript(
    page: Page, quick_triton: LocalTriton, web: tuple[str, Path], tmp_path: Path
) -> None:
    make_video(web[1] / "looked_at.mp4", 60)
    keys, port = make_keys(tmp_path / "keys"), free_ports(1)[0]
    settings = {"TRITON_URLS": quick_triton.grpc_url, "DEVICE": "cpu", "CONSOLE_PORT": str(port)}
    gateway = LocalGateway(keys.environment() | settings, log=tmp_path / "gateway.log")
    gateway.start()
    try:
        await asyncio.to_thread(gateway.wait_ready)
        await asyncio.to_thread(send, gateway, keys, f"{web[0]}/looked_at.mp4", "c-1")
        await page.call("Emulation.setScriptExecutionDisabled", value=True)
        await page.open(f"http://127.0.0.1:{port}/console")
        await page.click("tbody td.id a")
        await page.until("document.querySelector('.sheet') && document.readyState === 'complete'")
        assert await page.value("document.images[0].naturalWidth") == 160
    finally:
        await asyncio.to_thread(gateway.stop)


async def test_it_stays_while_accepted_challenges_are_finished(quick_triton: LocalTriton, tmp_path: Path) -> None:
    keys, port = make_keys(tmp_path / "keys"), free_ports(1)[0]
    settings = {"TRITON_URLS": quick_triton.grpc_url, "DEVICE": "cpu", "CONSOLE_PORT": str(port)}
    gateway = LocalGateway(keys.environment() | settings | {"DOWNLOAD_TIMEOUT_S": "5"}, log=tmp_path / "gateway.log")
    gateway.start()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        try:
            await asyncio.to_thread(gateway.wait_ready)
            video_url = f"http://127.0.0.1:{silent.getsockname()[1]}/video.mp4"
            asking = asyncio.create_task(asyncio.to_thread(send, gateway, keys, video_url, "c-1"))
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as operator:
                while '<p class="big">1<small> of' not in (await operator.get("/console")).text:
                    await asyncio.sleep(0.05)
                os.kill(gateway.pid or 0, signal.SIGINT)
                while await asyncio.to_thread(gateway.listens):
                    await asyncio.sleep(0.05)
                assert (await operator.get("/console")).status_code == 200
                assert not asking.done()
            await asking
            assert gateway._process is not None
            status = await asyncio.to_thread(gateway._process.wait, 20)
        finally:
            await asyncio.to_thread(gateway.stop)
    assert status == 0


def send(gateway: LocalGateway, keys: Keys, video_url: str, challenge_id: str) -> None:
    body = challenge_body(video_url, challenge_id)
    headers = signed_headers(keys.validator, keys.miner.ss58_address, body)
    httpx.post(f"{gateway.url}/soccer/challenge", content=body, headers=headers, timeout=60)

"""The grid of cameras in a real browser, beside `touchline serve` that watches real RTSP cameras."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from local.ports import free_ports
from local.stack import LocalGateway, make_keys
from local.triton import LocalTriton
from tests.support.chromium import Page, browser
from tests.support.rtsp_camera import RtspCamera, numbered_film

HOSTILE = "<img src=x onerror=document.body.remove()>"
TOKEN = "secret"
NO_SCROLL = "document.documentElement.scrollWidth <= innerWidth"
SHOWN = "document.querySelectorAll('.camera:not(.away)').length"
PICTURES = """[...document.querySelectorAll('.camera:not(.away) canvas')].map(canvas => {
  const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  let sum = 0;
  for (let at = 0; at < pixels.length; at += 4) sum = (sum * 31 + pixels[at]) % 1000003;
  return `${canvas.width}x${canvas.height} ${sum}`;
})"""


@pytest_asyncio.fixture
async def page(tmp_path: Path) -> AsyncIterator[Page]:
    async with browser(tmp_path) as opened:
        yield opened


async def add(page: Page, url: str, name: str = "") -> None:
    """By the form, as an operator does."""
    await page.value("document.getElementById('adding').open = true")
    for field, value in (("url", url), ("name", name)):
        await page.value(f"document.querySelector('#add [name={field}]').value = {json.dumps(value)}")
    await page.click("#add button")


async def test_an_operator_watches_cameras(page: Page, quick_triton: LocalTriton, tmp_path: Path) -> None:
    keys, port, log = make_keys(tmp_path / "keys"), free_ports(1)[0], tmp_path / "gateway.log"
    settings = {"TRITON_URLS": quick_triton.grpc_url, "DEVICE": "cpu", "CONSOLE_PORT": str(port), "LIVE": "true"}
    settings |= {"CONSOLE_TOKEN": TOKEN, "LIVE_ALLOWED": "127.0.0.0/8"}
    gateway = LocalGateway(keys.environment() | settings, log=log)
    gateway.start()
    with RtspCamera(numbered_film(25)) as north, RtspCamera(numbered_film(25, first=500)) as south:
        try:
            await asyncio.to_thread(gateway.wait_ready)
            front = f"http://127.0.0.1:{port}/console"
            await page.open(f"http://operator:{TOKEN}@127.0.0.1:{port}/console", seen_as=front)
            await page.click("a[href='/live']")
            await page.until("document.getElementById('none')?.hidden === false")

            await add(page, "rtsp://127.0.0.1:99999/")
            await page.until("document.getElementById('refused').innerText.includes('url')")
            await add(page, north.url, HOSTILE)
            await page.until("document.querySelectorAll('.camera').length === 1 && !document.forms[0].url.value")
            await add(page, south.url, "South")
            await page.until(f"{SHOWN} === 2 && document.querySelectorAll('.seen')[1].innerText.includes('1 player')")
            assert await page.value("document.getElementById('refused').hidden")
            assert await page.value("document.querySelector('.camera h3').innerText") == HOSTILE
            assert await page.value("document.getElementById('count').innerText") == "2 of 2 live"
            await page.until("document.querySelector('.times').innerText.includes('infer')")
            before = await page.value(PICTURES)
            assert len({*before}) == 2 and all(picture.startswith("320x180") for picture in before)
            await page.until(f"{PICTURES}.every((picture, index) => picture !== {json.dumps(before)}[index])")
            for width in (1280, 400):
                await page.resize(width, 900)
                assert await page.value(NO_SCROLL), f"the grid scrolls sideways at {width} px"

            # A camera that goes leaves no old picture, and the other goes on.
            north.kill()
            await page.until(f"{SHOWN} === 1 && !document.querySelector('.camera.away .lost').hidden")
            assert "No signal" in await page.value("document.querySelector('.camera.away .screen').innerText")
            assert await page.value("getComputedStyle(document.querySelector('.away canvas')).visibility") == "hidden"
            north.start()
            await page.until(f"{SHOWN} === 2")

            await page.click(".camera .remove")
            assert await page.value("document.querySelectorAll('.camera').length") == 2, "one click is no consent"
            await page.click(".camera .remove")
            await page.until("document.querySelectorAll('.camera').length === 1")
            assert await page.value("document.querySelector('.camera h3').innerText") == "South"
            expected = ("422", "willReadFrequently")  # what was refused above, and what this test does to canvases
            assert [said for said in page.problems if not any(word in said for word in expected)] == []
        finally:
            # The browser still watches.
            status = await asyncio.to_thread(gateway.stop, 10)
    assert status == 0
    assert "Traceback" not in log.read_text()
    await page.until("document.getElementById('link').classList.contains('bad')")
    await page.until(f"{SHOWN} === 0")

"""The console over HTTP, beside a gateway that answers real challenges: what it shows, to whom, and what it keeps."""

from __future__ import annotations

import asyncio
import gc
import re
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest

from gateway.console.server import open_console
from gateway.doctor.finding import bad, good, warning
from gateway.errors import StartupError
from gateway.history import Scene
from gateway.settings import Settings
from gateway.video.stills import STILLS, Stills
from local.ports import free_ports
from local.triton import LocalTriton
from local.validator import challenge_body
from tests.support.gateway import RunningGateway, Traces, running_gateway, settled
from tests.support.videos import make_video, read_number

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>'


@pytest.fixture(scope="module")
def video(web: tuple[str, Path]) -> str:
    make_video(web[1] / "console.mp4", 120)
    return f"{web[0]}/console.mp4"


@asynccontextmanager
async def gateway_with_console(
    directory: Path, triton: LocalTriton, **settings: Any
) -> AsyncIterator[tuple[RunningGateway, httpx.AsyncClient]]:
    """The gateway, and a browser at its console."""
    port = free_ports(1)[0]
    async with (
        running_gateway(directory, triton.grpc_url, console_port=port, **settings) as gateway,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as browser,
    ):
        yield gateway, browser


def links(page: httpx.Response) -> list[str]:
    """Where the rows of the front page lead, top to bottom."""
    return re.findall(r'<td class="id"[^>]*><a href="([^"]+)"', page.text)


def pictures(page: httpx.Response) -> list[str]:
    return re.findall(r'<img [^>]*?src="([^"]+)"', page.text, re.DOTALL)


async def test_state_counters_and_both_kinds_of_challenges(
    video: str, quick_triton: LocalTriton, tmp_path: Path
) -> None:
    async with gateway_with_console(tmp_path, quick_triton) as (gateway, browser):
        assert "No challenge yet" in (await browser.get("/console")).text
        body = challenge_body(video, "first")
        assert (await gateway.post(body)).status_code == 200
        assert (await gateway.challenge(f"{video}.missing")).status_code == 502
        assert (await gateway.post(b"{")).status_code == 400
        front = await browser.get("/console")
        assert front.status_code == 200
        assert gateway.keys.miner.ss58_address in front.text
        assert quick_triton.grpc_url in front.text
        plain = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", front.text))
        assert "Ready" in plain
        assert "Answered 1 " in plain
        assert "Refused 2 " in plain
        assert "120 frames decoded, 61 inferred" in plain.replace(" ,", ",")
        rows = front.text.split("<tbody>")[1].split("<tr>")[1:]
        for outcome, row in zip(("bad request", "download failed", "answered"), rows, strict=True):
            assert outcome in row
        assert gateway.keys.validator.ss58_address in rows[2]
        shown = {name: (await browser.get("/console", params={"show": name})).text for name in ("answered", "refused")}
        assert (shown["answered"].count("<tr>"), shown["refused"].count("<tr>")) == (2, 3)
        assert (await browser.get("/")).headers["location"] == "/console"


async def test_a_challenge_with_its_stages_and_pictures(video: str, quick_triton: LocalTriton, tmp_path: Path) -> None:
    async with gateway_with_console(tmp_path, quick_triton) as (gateway, browser):
        await gateway.challenge(video)
        page = await browser.get(links(await browser.get("/console"))[0])
        for stage in ("download", "decode", "infer", "track", "respond"):
            assert f"<th>{stage}</th>" in page.text
        assert "120, 61 inferred" in page.text
        found = pictures(page)
        frames, maps = found[::2], found[1::2]
        assert len(frames) == len(maps) == STILLS
        for index, (frame, seen_from_above) in enumerate(zip(frames, maps, strict=True)):
            number = int(re.findall(r"frame-(\d+)\.jpg", frame)[0])
            assert abs(number - (index + 0.5) * 120 / STILLS) <= 2
            shot = await picture(browser, frame, "image/jpeg")
            # The frame is the one it says, without the letterbox's padding: 160x96 holds 320x180 as 160x90.
            assert shot.shape == (90, 160, 3)
            assert read_number(shot[-20:]) == number
            above = await picture(browser, seen_from_above, "image/png")
            assert above.shape[1] == 460


async def picture(browser: httpx.AsyncClient, path: str, kind: str) -> np.ndarray:
    answer = await browser.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
    image = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return np.asarray(image)


async def test_a_hostile_id_stays_text(video: str, quick_triton: LocalTriton, tmp_path: Path) -> None:
    async with gateway_with_console(tmp_path, quick_triton) as (gateway, browser):
        assert (await gateway.post(challenge_body(video, HOSTILE))).status_code == 200
        assert (await gateway.post(challenge_body(f"{video}?{HOSTILE}", HOSTILE))).status_code == 200
        await gateway.post(b"{}", dict.fromkeys(("validator-hotkey", "miner-hotkey", "nonce", "signature"), HOSTILE))
        front = await browser.get("/console")
        pages = [front, *[await browser.get(link) for link in links(front)]]
        assert len(pages) == 4
        for page in pages:
            assert "&lt;script&gt;alert(1)" in page.text
            assert "<script>" not in page.text
            assert "<img src=x" not in page.text


async def test_what_a_browser_may_do(video: str, quick_triton: LocalTriton, tmp_path: Path) -> None:
    async with gateway_with_console(tmp_path, quick_triton) as (gateway, browser):
        await gateway.challenge(video)
        link = links(await browser.get("/console"))[0]
        for path in ("/console", link, "/console/static/console.css", "/nothing", "/console/challenges/1"):
            headers = (await browser.get(path)).headers
            assert "default-src 'none'" in headers["content-security-policy"]
            assert "unsafe" not in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
        for path in ("/console", link):
            text = (await browser.get(path)).text
            assert not re.findall(r'(?:src|href)="(?!/console)', text), "something comes from elsewhere"
            assert not re.findall(r" (?:style|on\w+)=", text), "the policy refuses it"
        # Cameras are off unless LIVE says otherwise.
        assert "/live" not in (await browser.get("/console")).text
        for path in ("/live", "/live/cameras", "/live/cameras/x/stream.mjpeg"):
            assert (await browser.get(path)).status_code == 404


async def test_without_a_token_only_this_machines_names_count(quick_triton: LocalTriton, tmp_path: Path) -> None:
    async with gateway_with_console(tmp_path, quick_triton) as (_, browser):
        port = browser.base_url.port
        for host, status in (("localhost", 200), ("127.0.0.1", 200), ("evil.example", 403), ("10.1.2.3", 403)):
            answer = await browser.get("/console", headers={"Host": f"{host}:{port}"})
            assert answer.status_code == status, host
            assert (gateway_name(answer) is not None) is (status == 200)


def gateway_name(page: httpx.Response) -> str | None:
    return "Touchline" if "<title>" in page.text else None


async def test_the_token(video: str, quick_triton: LocalTriton, tmp_path: Path) -> None:
    token = "a secret: of ünïcode"
    async with gateway_with_console(tmp_path, quick_triton, console_host="0.0.0.0", console_token=token) as (
        gateway,
        browser,
    ):
        await gateway.challenge(video)
        link = links(await browser.get("/console", auth=("anyone", token)))[0]
        page = await browser.get(link, auth=("", token))
        paths = ["/", "/console", link, *pictures(page)[:2], "/console/static/console.css", "/nothing"]
        for path in paths:
            for auth in (None, ("anyone", ""), ("anyone", token[:-1]), (token, "wrong")):
                refused = await browser.get(path, auth=auth)
                assert refused.status_code == 401, (path, auth)
                assert refused.headers["www-authenticate"].startswith("Basic ")
                assert "CONSOLE_TOKEN" in refused.text
            assert (await browser.get(path, auth=("anyone", token))).status_code != 401
        for header in (b"Basic", b"Basic ???", "Basic ü".encode("latin-1"), b"Bearer secret"):
            assert (await browser.get("/console", headers={b"Authorization": header})).status_code == 401


async def test_only_the_last_ones_are_kept_and_strangers_push_nothing_out(
    video: str, quick_triton: LocalTriton, tmp_path: Path
) -> None:
    async with gateway_with_console(tmp_path, quick_triton, console_challenges=2, answer_cache_s=0) as (
        gateway,
        browser,
    ):
        for number in range(3):
            await gateway.post(challenge_body(video, f"challenge {number}"))
            if number == 0:
                (oldest,) = links(await browser.get("/console"))
                (shot, *_) = pictures(await browser.get(oldest))
        for _ in range(5):
            await gateway.post(b"x" * 70_000)
        page = (await browser.get("/console")).text
        assert [f"challenge {number}<" in page for number in range(3)] == [False, True, True]
        assert page.count('bad">bad request</span>') == 2
        assert "is larger than" in page
        assert "any more" in (await browser.get(oldest)).text
        assert (await browser.get(oldest)).status_code == (await browser.get(shot)).status_code == 404
        (answered, _) = links(await browser.get("/console", params={"show": "answered"}))
        assert (await browser.get(f"{answered}/frame-0.jpg")).status_code == 404


async def test_a_kept_challenge_is_small(web: tuple[str, Path], quick_triton: LocalTriton, tmp_path: Path) -> None:
    """Of the frames JPEGs stay, of the answer a second before each; the copies and the rest of the answer go."""
    make_video(web[1] / "console_long.mp4", 600)
    known = alive("Scene", "Stills")
    async with gateway_with_console(tmp_path, quick_triton, answer_cache_s=0) as (gateway, browser):
        await gateway.challenge(f"{web[0]}/console_long.mp4")
        page = await browser.get(links(await browser.get("/console"))[0])
        await browser.get(pictures(page)[0])
        made = [item for key, item in alive("Scene", "Stills").items() if key not in known]
        scenes = [item for item in made if isinstance(item, Scene)]
        (stills,) = [item for item in made if isinstance(item, Stills)]
        assert len(scenes) == STILLS
        kept = sum(
            value.nbytes + (value.base.nbytes if value.base is not None else 0)
            for scene in scenes
            for value in (scene.keypoints, scene.frame_numbers, scene.ids, scene.classes, scene.boxes)
        )
        assert kept < STILLS * 26 * (32 * 2 * 4 + 3 * 64)
        assert not stills._copies
        assert len(stills.pictures) == STILLS


async def test_a_reused_answer_keeps_its_pictures(video: str, quick_triton: LocalTriton, tmp_path: Path) -> None:
    async with gateway_with_console(tmp_path, quick_triton) as (gateway, browser):
        for name in ("computed", "again"):
            await gateway.post(challenge_body(video, name))
        front = await browser.get("/console")
        assert front.text.count('class="tag">reused') == 1
        for link in links(front):
            shots = pictures(await browser.get(link))
            assert len(shots) == 2 * STILLS
            assert (await browser.get(shots[0])).status_code == 200


async def test_pictures_wait_for_a_challenge(
    video: str, stalling_url: str, quick_triton: LocalTriton, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gateway_with_console(tmp_path, quick_triton) as (gateway, browser):
        await gateway.challenge(video)
        shots = pictures(await browser.get(links(await browser.get("/console"))[0]))
        asking = asyncio.create_task(gateway.challenge(stalling_url))
        while gateway.challenges.in_progress == 0:
            await asyncio.sleep(0.01)
        drawing = asyncio.create_task(browser.get(shots[0]))
        await asyncio.sleep(0.5)
        assert not drawing.done()
        assert (await browser.get("/console")).status_code == 200
        asking.cancel()
        assert (await drawing).status_code == 200
        # Who keeps a gateway busy all the time sees pictures all the same.
        monkeypatch.setattr("gateway.console.pictures._LONGEST_WAIT_S", 0.2)
        asking = asyncio.create_task(gateway.challenge(stalling_url))
        while gateway.challenges.in_progress == 0:
            await asyncio.sleep(0.01)
        assert (await browser.get(shots[1])).status_code == 200
        assert not asking.done()
        asking.cancel()


@pytest.fixture
def stalling_url() -> Any:
    """A host that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/video.mp4"


async def test_triton_away_is_said(tmp_path: Path, quick_triton: LocalTriton) -> None:
    nobody, port = free_ports(2)
    async with (
        running_gateway(tmp_path, f"127.0.0.1:{nobody}", wait=False, console_port=port) as gateway,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as browser,
    ):
        await gateway.until_ready(False)
        page = await browser.get("/console")
        assert "Not ready" in page.text
        assert f"127.0.0.1:{nobody}" in page.text
        assert (await gateway.challenge("http://127.0.0.1:9/x.mp4")).status_code == 503
        assert "inference unavailable" in (await browser.get("/console")).text


async def test_what_the_doctor_found_is_shown_as_text_and_what_is_good_is_not(
    quick_triton: LocalTriton, tmp_path: Path
) -> None:
    findings = [good("CPU", "is well"), warning("clock", HOSTILE, "set it"), bad("memory", "too little", "add some")]
    async with gateway_with_console(tmp_path, quick_triton, findings=findings) as (_, browser):
        front = (await browser.get("/console")).text
    assert "too little" in front and "add some" in front and "set it" in front
    assert "is well" not in front and HOSTILE not in front
    async with gateway_with_console(tmp_path, quick_triton, findings=findings[:1]) as (_, browser):
        assert "findings" not in (await browser.get("/console")).text


async def test_nothing_is_left_behind(video: str, quick_triton: LocalTriton, tmp_path: Path) -> None:
    """After challenges and pictures nothing is busy; after the gateway's end the port and the thread are gone."""
    async with gateway_with_console(tmp_path, quick_triton, answer_cache_s=0) as (gateway, browser):
        port = browser.base_url.port
        before = Traces.of(gateway)
        await gateway.challenge(video)
        for path in pictures(await browser.get(links(await browser.get("/console"))[0])):
            assert (await browser.get(path)).status_code == 200
        assert await settled(gateway, before) == before
        assert console_threads()
    assert not console_threads()
    with socket.create_server(("127.0.0.1", port)):
        pass


async def test_off_means_off(video: str, quick_triton: LocalTriton, tmp_path: Path) -> None:
    known = alive("Stills", "History", "Drawing")
    async with running_gateway(tmp_path, quick_triton.grpc_url) as gateway:
        await gateway.challenge(video)
        assert not console_threads()
        assert alive("Stills", "History", "Drawing").keys() == known.keys()


def alive(*types: str) -> dict[int, object]:
    """The objects of these types by id. FastAPI's caches keep those of earlier gateways."""
    gc.collect()
    return {id(item): item for item in gc.get_objects() if type(item).__name__ in types}


def console_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("console")]


async def test_a_busy_port(video: str, quick_triton: LocalTriton, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartupError, match=f"CONSOLE_PORT {port} on 127.0.0.1 .*in use.*set a free one, or 0"):
            async with running_gateway(tmp_path, quick_triton.grpc_url, console_port=port):
                pass
    with pytest.raises(StartupError, match="CONSOLE_PORT and PORT are both 7999"):
        async with running_gateway(tmp_path, quick_triton.grpc_url, console_port=7999):
            pass


def test_a_busy_default_port_costs_the_console_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("CONSOLE_PORT", raising=False)
    settings = Settings(_env_file=None)
    with ExitStack() as stack:
        with suppress(OSError):  # whoever has it, it is taken
            stack.enter_context(socket.create_server(("127.0.0.1", settings.console_port)))
        assert open_console(settings, busy=lambda: False) is None
    assert f"no console: CONSOLE_PORT {settings.console_port} on 127.0.0.1" in caplog.text


@pytest.mark.parametrize(
    ("host", "token", "opened"),
    [
        ("127.0.0.1", "", True),
        ("localhost", "", True),
        ("::1", "", True),
        ("0.0.0.0", "", False),
        ("::", "", False),
        ("miner.example", "", False),
        ("0.0.0.0", "secret", True),
    ],
)
def test_others_need_a_token(host: str, token: str, opened: bool) -> None:
    assert Settings(_env_file=None, console_host=host, console_token=token).console_open is opened

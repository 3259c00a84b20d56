"""What a gateway's process survives: told to end, killed, its disk full, its clock and its Triton wrong."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
import tritonclient.grpc as grpcclient

from local.scraped import scraped
from local.stack import Keys, LocalGateway, make_keys
from local.triton import LocalTriton
from local.validator import ChallengeFailed, Outcome, challenge_body, send_challenge, signed_headers
from tests.support.gateway import region_of, running_gateway
from tests.support.quick_models import write_quick_models
from tests.support.videos import make_video

FRAMES = 30
NAMESPACE = ("unshare", "--mount") if os.geteuid() == 0 else ("unshare", "--user", "--map-root-user", "--mount")
"""Where what is mounted is seen by this process and its children alone."""


class SlowHost:
    """Serves one video, the second half of it when it is told to."""

    def __init__(self, content: bytes) -> None:
        self.asked, self.go_on = threading.Event(), threading.Event()
        host = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: len(content) // 2])
                host.asked.set()
                host.go_on.wait(30)
                self.wfile.write(content[len(content) // 2 :])

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v.mp4"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[SlowHost]:
    make_video(tmp_path / "v.mp4", FRAMES)
    made = SlowHost((tmp_path / "v.mp4").read_bytes())
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.go_on.set()
    made.server.shutdown()
    made.server.server_close()
    thread.join(5)


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return make_keys(tmp_path / "keys")


@contextmanager
def serving(
    keys: Keys, triton: LocalTriton, log: Path, *, within: Sequence[str] = (), **settings: str
) -> Iterator[LocalGateway]:
    """A gateway that is ready; one `within` other surroundings is there, ready or not."""
    base = {**keys.environment(), "TRITON_URLS": triton.grpc_url, "DEVICE": "cpu", "IMG_SIZE": "160"}
    gateway = LocalGateway({**base, **settings}, log=log, within=within)
    gateway.start()
    try:
        gateway.wait_ready(listening_is_enough=bool(within))
        yield gateway
    finally:
        gateway.kill()


def asked(gateway: LocalGateway, keys: Keys, url: str) -> tuple[threading.Thread, list[Outcome | str]]:
    """A challenge on its way, and what comes of it."""
    said: list[Outcome | str] = []

    def ask() -> None:
        try:
            said.append(send_challenge(gateway.url, keys.validator, keys.miner.ss58_address, url))
        except ChallengeFailed as error:
            said.append(str(error))

    thread = threading.Thread(target=ask)
    thread.start()
    return thread, said


def until(true: Callable[[], bool], timeout_s: float = 60) -> None:
    end = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_killed_gateway_leaves_the_next_its_nonces_alone_and_one_told_to_end_answers_what_is_under_way(
    host: SlowHost, keys: Keys, quick_triton: LocalTriton, tmp_path: Path
) -> None:
    host.go_on.set()
    body = challenge_body(host.url)
    headers = signed_headers(keys.validator, keys.miner.ss58_address, body)
    videos = tmp_path / "videos"
    videos.mkdir()

    def post(gateway: LocalGateway) -> httpx.Response:
        return httpx.post(f"{gateway.url}/soccer/challenge", content=body, headers=headers, timeout=60, trust_env=False)

    with serving(keys, quick_triton, tmp_path / "log", TMPDIR=str(videos)) as gateway:
        assert post(gateway).status_code == 200
        host.go_on.clear()
        host.asked.clear()
        thread, _ = asked(gateway, keys, f"{host.url}?again")
        assert host.asked.wait(20)
        region = region_of(gateway.pid or 0)
        gateway.kill()
        thread.join(20)
    with serving(keys, quick_triton, tmp_path / "log-of-the-next", TMPDIR=str(videos)) as gateway:
        refused = post(gateway)
        assert refused.status_code == 401
        assert "used before" in refused.json()["detail"]
        assert not region.exists()
        assert (
            region.name
            not in grpcclient.InferenceServerClient(quick_triton.grpc_url).get_system_shared_memory_status().regions
        ), "Triton would hold its memory for ever"
        assert list(videos.iterdir()) == []
        host.asked.clear()
        thread, said = asked(gateway, keys, host.url)
        assert host.asked.wait(20)
        process = gateway._process
        assert process is not None
        os.kill(process.pid, signal.SIGTERM)
        until(lambda: not gateway.listens())
        host.go_on.set()
        thread.join(20)
        (outcome,) = said
        assert isinstance(outcome, Outcome), outcome
        assert len(outcome.response["frames"]) == FRAMES
        assert process.wait(15) == 0
    assert "Traceback" not in (tmp_path / "log-of-the-next").read_text()


@pytest.fixture(scope="module")
def own_triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalTriton, Path]]:
    """One whose models can be taken away and made slower, and its repository."""
    directory = tmp_path_factory.mktemp("own-triton")
    repository = write_quick_models(directory / "models", delay_s=0.01)
    flags = ("--model-control-mode=explicit", "--load-model=*")
    with LocalTriton(repository, flags=flags, log=directory / "triton.log") as triton:
        triton.wait_ready()
        yield triton, repository


def test_models_that_are_unloaded_under_a_challenge_cost_its_time_alone(
    host: SlowHost, keys: Keys, own_triton: tuple[LocalTriton, Path], tmp_path: Path
) -> None:
    triton, _ = own_triton
    client = grpcclient.InferenceServerClient(triton.grpc_url)
    with serving(keys, triton, tmp_path / "log", CHALLENGE_BUDGET_S="60", ANSWER_CACHE_S="0") as gateway:
        thread, said = asked(gateway, keys, host.url)
        assert host.asked.wait(20)
        client.unload_model("player")
        until(lambda: not (gateway.health() or {})["ready"])
        with pytest.raises(ChallengeFailed, match="answered 503"):
            send_challenge(gateway.url, keys.validator, keys.miner.ss58_address, f"{host.url}?meanwhile")
        host.go_on.set()
        until(lambda: counted(gateway, "touchline_frames", kind="decoded") == FRAMES)
        client.load_model("player")
        thread.join(30)
        (outcome,) = said
        assert isinstance(outcome, Outcome), outcome
        assert len(outcome.response["frames"]) == FRAMES
        until(lambda: bool((gateway.health() or {})["ready"]))
        send_challenge(gateway.url, keys.validator, keys.miner.ss58_address, f"{host.url}?after")
        assert counted(gateway, "touchline_slots_free") == counted(gateway, "touchline_slots")
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_a_triton_that_is_ten_times_slower_is_asked_for_fewer_frames(
    keys: Keys, own_triton: tuple[LocalTriton, Path], tmp_path: Path, web: tuple[str, Path]
) -> None:
    make_video(web[1] / "slow.mp4", 300)
    triton, repository = own_triton
    with serving(keys, triton, tmp_path / "log", CHALLENGE_BUDGET_S="4", ANSWER_CACHE_S="0") as gateway:

        def inferred() -> int:
            url = f"{web[0]}/slow.mp4"
            outcome = send_challenge(gateway.url, keys.validator, keys.miner.ss58_address, url)
            assert len(outcome.response["frames"]) == 300
            return int(outcome.notes["inferred"])

        def more_than(frames: int) -> int:
            """Of at most three challenges the first with so many: this machine may be busy for one."""
            return next((most for _ in range(3) if (most := inferred()) > frames), 0)

        quick = more_than(60)
        for model in ("player", "pitch"):
            (repository / model / "slower").write_text("10")
        slow = inferred()
        assert slow < quick
        assert (gateway.health() or {})["ready"]
        for model in ("player", "pitch"):
            (repository / model / "slower").unlink()
        assert more_than(slow), "it is asked for more again"
    assert "stopped answering" not in (tmp_path / "log").read_text()


@pytest.mark.skipif(
    subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode != 0,
    reason="nobody may mount anything here",
)
def test_shared_memory_and_disk_that_have_no_room_serve_as_soon_as_they_have(
    host: SlowHost, keys: Keys, quick_triton: LocalTriton, tmp_path: Path
) -> None:
    host.go_on.set()
    videos = tmp_path / "videos"
    videos.mkdir()
    mounts = f"mount -t tmpfs -o ro,size=256m shm /dev/shm && mount -t tmpfs -o size=4k videos {videos}"
    within = (*NAMESPACE, "sh", "-c", f'{mounts} && exec "$@"', "sh")
    log = tmp_path / "log"
    with serving(keys, quick_triton, log, within=within, TMPDIR=str(videos)) as gateway:
        inside = ["nsenter", f"--target={gateway.pid}", "--mount"]
        inside += [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]

        def remount(place: object, options: str) -> None:
            subprocess.run([*inside, "mount", "-o", f"remount,{options}", str(place)], check=True, timeout=20)

        def said_of_it(reason: str) -> Callable[[], bool]:
            return lambda: reason in str((gateway.health() or {})["reason"])

        def ask() -> Outcome:
            return send_challenge(gateway.url, keys.validator, keys.miner.ss58_address, host.url)

        until(said_of_it("the slots could not be made in /dev/shm"))
        with pytest.raises(ChallengeFailed, match="answered 503"):
            ask()
        time.sleep(1.5)  # it is tried again every second
        assert log.read_text().count("ERROR gateway.inference") == 1
        remount("/dev/shm", "rw,size=64k")
        until(said_of_it("/dev/shm has 0 MiB free"))
        remount("/dev/shm", "rw,size=256m")
        until(lambda: bool((gateway.health() or {})["ready"]))
        with pytest.raises(ChallengeFailed, match="answered 507") as full:
            ask()
        assert str(videos) in str(full.value)
        remount(videos, "size=16m")
        assert len(ask().response["frames"]) == FRAMES
        assert list(Path(f"/proc/{gateway.pid}/root{videos}").iterdir()) == []
    assert "Traceback" not in log.read_text()


async def test_a_clock_that_jumps_costs_no_challenge_under_way(
    host: SlowHost, quick_triton: LocalTriton, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = time.time
    async with running_gateway(tmp_path, quick_triton.grpc_url, challenge_budget_s="auto") as gateway:
        for hours in (-1, 1):
            host.asked.clear()
            host.go_on.clear()
            under_way = asyncio.create_task(gateway.challenge(f"{host.url}?{hours}"))
            assert await asyncio.to_thread(host.asked.wait, 20)

            def jumped_time(hours: int = hours) -> float:
                # gRPC adds its timeouts to this and compares with the system's clock, which did not jump.
                ours = sys._getframe(1).f_globals["__name__"].startswith("gateway.")
                return true() + (hours * 3600 if ours else 0)

            with monkeypatch.context() as jumped:
                jumped.setattr("time.time", jumped_time)
                host.go_on.set()
                answer = await under_way
                assert answer.status_code == 200, answer.text
                assert len(answer.json()["frames"]) == FRAMES
                assert gateway.engine.ready


def counted(gateway: LocalGateway, name: str, **labels: str) -> float:
    samples = scraped(gateway.metrics_url, name)
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())

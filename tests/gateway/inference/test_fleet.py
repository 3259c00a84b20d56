"""One gateway with several real Tritons: who gets what, and a challenge that survives the end of one of them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import InferenceUnavailable
from gateway.inference.fleet import Tritons
from gateway.inference.slots import SlotPool
from gateway.inference.triton import ServedModels, Triton
from gateway.metrics import Metrics
from gateway.settings import Settings
from local.child_process import start_child
from local.scraped import scraped
from local.triton import LocalTriton
from tests.support.gateway import RunningGateway, Traces, error_of, region_of, running_gateway, settled
from tests.support.quick_models import write_quick_models
from tests.support.videos import make_video

FRAMES, INFERRED = 201, 101


@pytest.fixture(scope="module")
def video(web: tuple[str, Path]) -> str:
    make_video(web[1] / "for-tritons.mp4", FRAMES)
    return f"{web[0]}/for-tritons.mp4"


@contextmanager
def a_triton(directory: Path, **models: Any) -> Iterator[LocalTriton]:
    with LocalTriton(write_quick_models(directory / "models", **models), log=directory / "triton.log") as triton:
        triton.wait_ready()
        yield triton


@contextmanager
def two_tritons(directory: Path, delay_s: float = 0.02) -> Iterator[tuple[LocalTriton, LocalTriton]]:
    models = write_quick_models(directory / "models", delay_s=delay_s)
    with (
        LocalTriton(models, log=directory / "a.log") as first,
        LocalTriton(models, log=directory / "b.log") as second,
    ):
        first.wait_ready()
        second.wait_ready()
        yield first, second


def addresses(*tritons: LocalTriton) -> str:
    return ",".join(triton.grpc_url for triton in tritons)


def frames_inferred(triton: LocalTriton) -> int:
    """By the player model, warm-ups included, as Triton itself counts."""
    samples = scraped(triton.metrics_url, "nv_inference_count")
    return int(sum(sample.value for sample in samples if sample.labels["model"] == "player"))


async def counted(triton: LocalTriton) -> int:
    """The same after the warm-up: Triton counts a moment after it has answered."""
    await asyncio.sleep(0.5)
    return frames_inferred(triton)


async def states(gateway: RunningGateway) -> dict[str, str]:
    return dict((await gateway.health()).json()["tritons"])


async def until_all_ready(gateway: RunningGateway) -> None:
    async with asyncio.timeout(20):
        while set((await states(gateway)).values()) != {"ready"}:
            await asyncio.sleep(0.05)


async def under_way(gateway: RunningGateway, triton: LocalTriton) -> None:
    """Until `triton` has requests of the gateway."""
    (host,) = [host for host in gateway.engine.hosts if host.address == triton.grpc_url]
    async with asyncio.timeout(20):
        while not host.requests:
            await asyncio.sleep(0.005)


async def metric(gateway: RunningGateway, series: str) -> float:
    text = await gateway.metrics()
    (line,) = [line for line in text.splitlines() if line.startswith(f"{series} ")]
    return float(line.split()[1])


async def test_what_nobody_waits_for_any_more_is_left_to_its_end(tmp_path: Path) -> None:
    """Triton 2.51 dies of a request that is cancelled as it is answered, once in a few thousand."""
    with a_triton(tmp_path, delay_s=0.5) as triton:
        tritons = Tritons([triton.grpc_url], Metrics(), shared_memory="auto", timeout_s=20)
        (host,) = tritons.hosts
        pool = SlotPool(slots=2, slot_shape=(4, 96, 160, 3))
        await host.triton.attach(pool)
        slot = await pool.acquire()
        asking = asyncio.create_task(tritons.infer("player", slot.part(range(1, 4)), 3))
        async with asyncio.timeout(20):
            while not host.requests:
                await asyncio.sleep(0.005)
            await asyncio.sleep(0.02)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            pool.release(slot)
            assert (pool.free_count, host.frames_in_flight) == (1, 3), "it is read by Triton still"
            while pool.free_count < 2:
                await asyncio.sleep(0.005)
            assert host.frames_in_flight == 0
            assert {(await pool.acquire()).frames.shape for _ in range(2)} == {slot.frames.shape}
            while not frames_inferred(triton):
                await asyncio.sleep(0.05)
        failures = scraped(triton.metrics_url, "nv_inference_request_failure")
        assert failures and not any(sample.value for sample in failures)

        asking = asyncio.create_task(tritons.infer("player", slot, 4))
        async with asyncio.timeout(20):
            while not host.requests:
                await asyncio.sleep(0.005)
            asking.cancel()
            await asyncio.wait([asking])
            (request,) = host.requests
            tritons.lost(host, InferenceUnavailable("it hangs"))
            await asyncio.wait([request])
        assert request.cancelled() and not host.unwanted, "a Triton that is lost holds no slot of who is gone"
        await tritons.close()
        pool.close()


async def test_the_one_with_less_to_do_is_asked(video: str, tmp_path: Path) -> None:
    """A slow and a fast one: both get work, the fast one more, and the answer is that of one alone."""
    with a_triton(tmp_path / "slow", delay_s=0.02) as slow, a_triton(tmp_path / "fast", delay_s=0.002) as fast:
        async with running_gateway(tmp_path, fast.grpc_url, challenge_budget_s=1000) as gateway:
            alone = (await gateway.challenge(video)).json()["frames"]
        async with running_gateway(tmp_path, addresses(slow, fast), challenge_budget_s=1000) as gateway:
            await until_all_ready(gateway)
            warm_up = [await counted(triton) for triton in (slow, fast)]
            together = (await gateway.challenge(video)).json()["frames"]
            async with asyncio.timeout(20):
                while frames_inferred(slow) + frames_inferred(fast) < INFERRED + sum(warm_up):
                    await asyncio.sleep(0.05)
            by_slow, by_fast = (
                frames_inferred(triton) - before for triton, before in zip((slow, fast), warm_up, strict=True)
            )
    assert together == alone
    assert by_slow + by_fast == INFERRED
    assert 0 < by_slow < by_fast


@pytest.mark.parametrize("transport", ["system", "off"])
async def test_one_dies_in_the_middle(transport: str, video: str, tmp_path: Path) -> None:
    """Of a host on this machine and one elsewhere, the challenge is answered by the other, as if nothing had been."""
    with two_tritons(tmp_path) as (dying, staying):
        async with running_gateway(
            tmp_path, addresses(dying, staying), triton_shared_memory=transport, challenge_budget_s=1000
        ) as gateway:
            await until_all_ready(gateway)
            region = region_of(os.getpid())
            unharmed = (await gateway.challenge(video)).json()["frames"]
            before = Traces.of(gateway)
            asking = asyncio.create_task(gateway.challenge(f"{video}?again"))
            await under_way(gateway, dying)
            dying.kill()
            answer = await asking
            assert answer.status_code == 200, answer.text
            assert answer.json()["frames"] == unharmed
            assert await settled(gateway, before) == before

            health = await gateway.health()
            assert health.status_code == 200
            assert health.json()["reason"] == ""
            assert health.json()["tritons"][staying.grpc_url] == "ready"
            assert dying.grpc_url in health.json()["tritons"][dying.grpc_url]
            assert await metric(gateway, f'touchline_triton_ready{{triton="{dying.grpc_url}"}}') == 0
            assert await metric(gateway, f'touchline_triton_ready{{triton="{staying.grpc_url}"}}') == 1
            assert await metric(gateway, f'touchline_triton_retries_total{{triton="{dying.grpc_url}"}}') > 0
            assert await metric(gateway, "touchline_inference_ready") == 1

            dying.start()
            await asyncio.to_thread(dying.wait_ready)
            await until_all_ready(gateway)
            assert (await gateway.challenge(f"{video}?later")).status_code == 200
    assert not region.exists()


async def test_one_hangs_in_the_middle(video: str, tmp_path: Path) -> None:
    """It takes connections and says nothing, as a host that lost its power: what it was asked is taken back."""
    with two_tritons(tmp_path) as (hanging, staying):
        async with running_gateway(
            tmp_path, addresses(hanging, staying), inference_timeout_s=1000, challenge_budget_s=1000
        ) as gateway:
            await until_all_ready(gateway)
            before = Traces.of(gateway)
            asking = asyncio.create_task(gateway.challenge(video))
            await under_way(gateway, hanging)
            assert hanging.pid is not None
            os.killpg(hanging.pid, signal.SIGSTOP)
            try:
                assert (await asking).status_code == 200
                assert "stopped answering" in (await states(gateway))[hanging.grpc_url]
            finally:
                hanging.kill()
            assert await settled(gateway, before) == before


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Once called, the Tritons that are started have a /dev/shm of their own, as on another host."""
    own_memory = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs tmpfs /dev/shm && exec "$@"', "sh"]
    if subprocess.run([*own_memory, "true"], check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount: run as root")

    def start(command: Sequence[str], environment: Mapping[str, str], log: Path | None) -> subprocess.Popen[bytes]:
        return start_child([*own_memory, *command], environment, log)

    return lambda: monkeypatch.setattr("local.triton.start_child", start)


async def test_one_here_and_one_elsewhere(elsewhere: Callable[[], None], video: str, tmp_path: Path) -> None:
    """Frames go through shared memory where it is shared and as bytes elsewhere; the answer is the same."""
    with a_triton(tmp_path / "here", delay_s=0.01) as here:
        elsewhere()
        with a_triton(tmp_path / "there", delay_s=0.01) as there:
            async with running_gateway(tmp_path, here.grpc_url, challenge_budget_s=1000) as gateway:
                alone = (await gateway.challenge(video)).json()["frames"]
            async with running_gateway(tmp_path, addresses(here, there), challenge_budget_s=1000) as gateway:
                await until_all_ready(gateway)
                transports = [host.triton.transport for host in gateway.engine.hosts]
                assert transports == ["shared_memory", "bytes"]
                warm_up = await counted(there)
                together = (await gateway.challenge(video)).json()["frames"]
                async with asyncio.timeout(20):
                    while frames_inferred(there) <= warm_up:
                        await asyncio.sleep(0.05)
            assert together == alone
            async with running_gateway(
                tmp_path, addresses(here, there), triton_shared_memory="system", wait=False
            ) as gateway:
                async with asyncio.timeout(20):
                    while "shared memory" not in (said := (await states(gateway))[there.grpc_url]):
                        await asyncio.sleep(0.05)
                assert there.grpc_url in said


async def test_one_that_was_long_away_is_tried_often() -> None:
    """gRPC's own pause between attempts grows to two minutes."""
    attempts = 0

    async def refuse(_: asyncio.StreamReader, connection: asyncio.StreamWriter) -> None:
        nonlocal attempts
        attempts += 1
        connection.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with Triton(address, shared_memory="off", timeout_s=1) as triton, asyncio.timeout(60):
            # The tenth attempt would come after about 110 s.
            while attempts < 10:
                assert not await triton.is_ready()
                await asyncio.sleep(0.05)


async def test_both_die_in_the_middle(video: str, tmp_path: Path) -> None:
    with two_tritons(tmp_path) as tritons:
        async with running_gateway(tmp_path, addresses(*tritons), challenge_budget_s=1) as gateway:
            await until_all_ready(gateway)
            before = Traces.of(gateway)
            asking = asyncio.create_task(gateway.challenge(video))
            for triton in tritons:
                await under_way(gateway, triton)
            for triton in tritons:
                triton.kill()
            assert error_of(await asking)[:2] == (503, "inference_unavailable")
            assert await settled(gateway, before) == before
            await gateway.until_ready(False)
            reason = (await gateway.health()).json()["reason"]
            assert all(triton.grpc_url in reason for triton in tritons)


async def test_a_model_that_fails_in_one_place_only(video: str, tmp_path: Path) -> None:
    """Its Triton says that it is ready, and is left out until a warm-up succeeds."""
    broken, flag = write_quick_models(tmp_path / "models"), tmp_path / "broken"
    model = broken / "player" / "1" / "model.py"
    lines = model.read_text().replace(
        "    def execute(self, requests):\n",
        "    def execute(self, requests):\n"
        f"        import os\n        if os.path.exists({str(flag)!r}): raise RuntimeError('out of memory')\n",
    )
    model.write_text(lines)
    with LocalTriton(broken, log=tmp_path / "log") as failing, a_triton(tmp_path / "b", delay_s=0.01) as staying:
        failing.wait_ready()
        async with running_gateway(tmp_path, addresses(failing, staying)) as gateway:
            await until_all_ready(gateway)
            flag.touch()
            assert (await gateway.challenge(video)).status_code == 200
            assert "out of memory" in (await states(gateway))[failing.grpc_url]
            flag.unlink()
            await until_all_ready(gateway)


async def test_one_that_serves_something_else_is_left_out(video: str, tmp_path: Path) -> None:
    with (
        a_triton(tmp_path / "a") as first,
        LocalTriton(write_quick_models(tmp_path / "b", width=320), log=tmp_path / "log") as other,
    ):
        async with running_gateway(tmp_path, addresses(first, other), challenge_budget_s=1) as gateway:
            (_, host) = gateway.engine.hosts
            other.wait_ready()
            async with asyncio.timeout(20):
                while "left out" not in str(host.why_not_ready):
                    await asyncio.sleep(0.05)
            said = (await states(gateway))[other.grpc_url]
            assert other.grpc_url in said
            assert "320x96 instead of 160x96" in said
            before = frames_inferred(other)
            assert (await gateway.challenge(video)).status_code == 200
            assert frames_inferred(other) == before
            # It is not asked when the last one ends in the middle, either; then its models are the measure.
            asking = asyncio.create_task(gateway.challenge(f"{video}?again"))
            await under_way(gateway, first)
            first.kill()
            assert error_of(await asking)[:2] == (503, "inference_unavailable")
            assert frames_inferred(other) == before
            await gateway.until_ready()
            assert (await gateway.challenge(f"{video}?later")).status_code == 200


def test_what_differs_is_named() -> None:
    ours = ServedModels(height=96, width=160, max_batch=32, versions={"player": "1", "pitch": "1"})
    assert ours.differences(ours, 32) == []
    larger = ServedModels(height=96, width=160, max_batch=64, versions=ours.versions)
    assert larger.differences(ours, 32) == []
    theirs = ServedModels(height=96, width=320, max_batch=8, versions={"player": "2", "pitch": "1", "ball": "1"})
    assert theirs.differences(ours, 32) == [
        "model ball 1 instead of none",
        "model player 2 instead of 1",
        "frames of 320x96 instead of 160x96",
        "batches of 8 instead of 32, see BATCH_SIZE",
    ]
    assert ours.differences(theirs, 8) == [
        "model ball is missing instead of 1",
        "model player 1 instead of 2",
        "frames of 160x96 instead of 320x96",
    ]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ("127.0.0.1:8001",)),
        ({"TRITON_URL": "a:1"}, ("a:1",)),
        ({"TRITON_URLS": "a:1, b:2,,a:1"}, ("a:1", "b:2")),
        ({"TRITON_URLS": "a:1,b:2", "TRITON_URL": "c:3"}, ("a:1", "b:2")),
        ({"TRITON_URLS": "", "TRITON_URL": "c:3"}, ("c:3",)),
    ],
)
def test_addresses(
    environment: dict[str, str], expected: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("TRITON_URLS", "TRITON_URL"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in environment.items()))
    assert Settings(_env_file=tmp_path / ".env").triton_addresses == expected
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Settings(_env_file=None).triton_addresses == expected


def test_a_list_without_an_address() -> None:
    with pytest.raises(ValueError, match="names no Triton"):
        Settings(_env_file=None, triton_urls=" , ")

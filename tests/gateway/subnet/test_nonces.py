"""Nonces are good for one use and forgotten when they could not be used any more; in memory and in a real Redis."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis

from gateway.errors import Busy, NoncesUnavailable, StartupError, Unauthorized
from gateway.subnet.nonce_journal import NonceJournal
from gateway.subnet.nonces import MOST_A_VALIDATOR, OwnNonces, RedisNonces
from local.triton import LocalTriton
from local.validator import challenge_body, signed_headers
from tests.support.gateway import error_of, running_gateway
from tests.support.redis_server import RedisServer
from tests.support.videos import make_video


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is not a Redis that hangs."""
    monkeypatch.setattr("gateway.subnet.nonces.REDIS_TIMEOUT_S", 20.0)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis") / "log") as server:
        yield server


@asynccontextmanager
async def redis_nonces(url: str, own_hotkey: str = "mine") -> AsyncIterator[RedisNonces]:
    nonces = RedisNonces(url, own_hotkey)
    try:
        yield nonces
    finally:
        await nonces.close()


async def test_a_nonce_is_good_once() -> None:
    nonces = OwnNonces()
    await nonces.use("alice", "1")
    with pytest.raises(Unauthorized, match="used before"):
        await nonces.use("alice", "1")


async def test_validators_do_not_share_nonces() -> None:
    nonces = OwnNonces()
    await nonces.use("alice", "1")
    await nonces.use("bob", "1")


async def test_a_nonce_from_the_future_end_of_the_window_is_remembered_until_it_is_stale() -> None:
    nonces = OwnNonces()
    await nonces.use("alice", "1", now_s=0)
    with pytest.raises(Unauthorized):
        await nonces.use("alice", "1", now_s=239)


async def test_memory_is_bounded_by_time_and_number(monkeypatch: pytest.MonkeyPatch) -> None:
    nonces = OwnNonces()
    for second in range(20_000):
        await nonces.use("alice", str(second), now_s=second)
    assert len(nonces) == MOST_A_VALIDATOR
    await nonces.use("bob", "1", now_s=30_000)
    assert len(nonces) == 1
    monkeypatch.setattr("gateway.subnet.nonces.MOST_A_VALIDATOR", 3)
    for number in range(3):
        await nonces.use("alice", str(number), now_s=40_000)
    with pytest.raises(Busy, match="alice has sent 3 requests in 240 s"):
        await nonces.use("alice", "3", now_s=40_001)
    await nonces.use("bob", "2", now_s=40_001)
    await nonces.use("alice", "3", now_s=40_241)
    with pytest.raises(Unauthorized):
        await nonces.use("alice", "1", now_s=40_242)


def journalled(path: Path) -> OwnNonces:
    nonces = OwnNonces(NonceJournal(path))
    nonces.load()
    return nonces


async def test_nonces_outlive_the_gateway(tmp_path: Path) -> None:
    before = journalled(tmp_path / "nonces")
    await before.use("alice", "1_a")
    # Killed: nothing is closed, but the kernel gives the lock back.
    assert before._journal is not None
    before._journal.close()
    with (tmp_path / "nonces").open("a") as file:
        file.write("\n1790000000.0 alice")  # what a full disk cut off
    after = journalled(tmp_path / "nonces")
    with pytest.raises(Unauthorized, match="used before"):
        await after.use("alice", "1_a")
    await after.use("alice", "2_a")
    await after.close()
    again = journalled(tmp_path / "nonces")
    for nonce in ("1_a", "2_a"):
        with pytest.raises(Unauthorized, match="used before"):
            await again.use("alice", nonce)
    await again.close()


async def test_the_file_is_bounded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.subnet.nonces.MOST_A_VALIDATOR", 10)
    monkeypatch.setattr("gateway.subnet.nonce_journal._SPARE_LINES", 5)
    nonces = journalled(tmp_path / "nonces")
    for number in range(500):
        await nonces.use("alice", str(number), now_s=number * 300)
        assert len((tmp_path / "nonces").read_text().splitlines()) <= 30
    await nonces.close()
    assert [path.name for path in tmp_path.iterdir()] == ["nonces"]


async def test_what_a_gateway_that_still_ends_was_asked_is_read_when_it_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("gateway.subnet.nonce_journal.RETRY_S", 0.0)
    ending = journalled(tmp_path / "nonces")
    starting = journalled(tmp_path / "nonces")
    assert starting.kept_in == "this process"
    assert "another gateway has it open" in caplog.text
    with pytest.raises(Unauthorized, match="older than this gateway"):
        await starting.use("alice", f"{time.time_ns() - 10**9}_a")
    await starting.use("alice", later := f"{time.time_ns() + 10**9}_a")
    await ending.use("alice", f"{time.time_ns()}_b")
    await ending.close()
    await starting.use("alice", "1_c")
    assert starting.kept_in == str(tmp_path / "nonces")
    assert len(starting) == 3
    with pytest.raises(Unauthorized, match="used before"):
        await starting.use("alice", later)
    await starting.close()


async def test_nonces_that_cannot_be_written_are_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    nonces = journalled(tmp_path / "missing" / "nonces")
    for number in range(3):
        await nonces.use("alice", f"{time.time_ns() + 10**9}_{number}")
    assert len(caplog.records) == 1
    assert "NODES_FILE" in caplog.text
    full = journalled(tmp_path / "nonces")
    monkeypatch.setattr(os, "write", lambda _, data: Path("/dev/full").write_bytes(data))
    for number in range(3):
        await full.use("alice", f"{number}_a")
    await full.close()
    assert len(caplog.records) == 2
    assert "no space left" in caplog.text


async def test_a_clock_that_was_an_hour_ahead_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was used an hour ago is new in time again when the clock is set back, and still used."""
    nonces = OwnNonces()
    await nonces.use("alice", "1", now_s=0)
    with pytest.raises(Unauthorized, match="used before"):
        await nonces.use("alice", "1", now_s=3600)


async def test_gateways_of_one_hotkey_share_nonces(redis: RedisServer) -> None:
    async with redis_nonces(redis.url) as here, redis_nonces(redis.url) as there:
        assert "not asked yet" in here.why_not_ready
        await here.use("alice", "1")
        assert here.why_not_ready == ""
        for nonces in (here, there):
            with pytest.raises(Unauthorized, match="used before"):
                await nonces.use("alice", "1")
        await there.use("alice", "2")
        await there.use("bob", "1")


async def test_one_of_many_uses_at_once_is_the_first(redis: RedisServer) -> None:
    async with redis_nonces(redis.url) as here, redis_nonces(redis.url) as there:
        uses = [nonces.use("alice", "at-once") for nonces in (here, there) * 20]
        results = await asyncio.gather(*uses, return_exceptions=True)
    assert results.count(None) == 1
    assert sum(isinstance(result, Unauthorized) for result in results) == 39


async def test_miners_do_not_share_nonces(redis: RedisServer) -> None:
    async with redis_nonces(redis.url) as mine, redis_nonces(redis.url, "anothers") as anothers:
        await mine.use("alice", "for both")
        await anothers.use("alice", "for both")


async def test_redis_forgets_a_nonce_that_is_stale(redis: RedisServer) -> None:
    async with redis_nonces(redis.url) as nonces, Redis.from_url(redis.url) as client:
        await nonces.use("alice", "stale")
        (key,) = [key async for key in client.scan_iter("*stale")]
        assert key == b"touchline:nonce:mine:alice:stale"
        assert 230_000 < await client.pttl(key) <= 240_000


async def test_redis_comes_and_goes(tmp_path: Path) -> None:
    """Refused while it is away, and taken again without a restart of the gateway."""
    redis = RedisServer(tmp_path / "log")
    async with redis_nonces(redis.url) as nonces:
        for attempt in ("never started", "killed"):
            with pytest.raises(NoncesUnavailable, match=str(redis.port)):
                await nonces.use("alice", attempt)
            assert str(redis.port) in nonces.why_not_ready
            with redis:
                await nonces.use("alice", attempt)
                assert nonces.why_not_ready == ""


async def test_the_watch_knows_first(tmp_path: Path) -> None:
    """A connection that broke with Redis is found by the watch, not by a challenge."""
    with RedisServer(tmp_path / "log") as redis:
        async with redis_nonces(redis.url) as nonces:
            watching = asyncio.create_task(nonces.watch_forever())

            async def until(ready: bool) -> None:
                async with asyncio.timeout(20):
                    while (nonces.why_not_ready == "") is not ready:
                        await asyncio.sleep(0.02)

            await until(True)
            redis.kill()
            await until(False)
            redis.start()
            await until(True)
            await nonces.use("alice", "1")
            watching.cancel()


async def test_a_redis_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.subnet.nonces.REDIS_TIMEOUT_S", 1.0)
    with RedisServer(tmp_path / "log") as redis:
        async with redis_nonces(redis.url) as nonces:
            await nonces.use("alice", "1")
            os.kill(redis.pid, signal.SIGSTOP)
            try:
                async with asyncio.timeout(30):
                    with pytest.raises(NoncesUnavailable, match="no answer"):
                        await nonces.use("alice", "2")
            finally:
                os.kill(redis.pid, signal.SIGCONT)
            await nonces.use("alice", "3")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--requirepass", "secret"], "Authentication required"),
        (["--maxmemory", "1", "--maxmemory-policy", "noeviction"], "maxmemory"),
        (["--replicaof", "127.0.0.1 9"], "read only replica"),
    ],
)
async def test_a_redis_that_takes_no_nonce(flags: list[str], said: str, tmp_path: Path) -> None:
    """It is refused, and known before the first challenge."""
    with RedisServer(tmp_path / "log", *flags) as redis:
        async with redis_nonces(redis.url) as nonces:
            watching = asyncio.create_task(nonces.watch_forever())
            async with asyncio.timeout(20):
                while "not asked yet" in nonces.why_not_ready:
                    await asyncio.sleep(0.02)
            assert said in nonces.why_not_ready
            with pytest.raises(NoncesUnavailable, match=said):
                await nonces.use("alice", "1")
            watching.cancel()


async def test_a_password_is_used_and_not_told(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "log", "--requirepass", "secret") as redis:
        async with redis_nonces(redis.url.replace("redis://", "redis://:secret@")) as nonces:
            await nonces.use("alice", "1")
            assert nonces.kept_in == f"Redis at 127.0.0.1:{redis.port}"
        async with redis_nonces(redis.url.replace("redis://", "redis://:wrong@")) as nonces:
            with pytest.raises(NoncesUnavailable) as told:
                await nonces.use("alice", "2")
            assert "wrong@" not in str(told.value)


@pytest.mark.parametrize("url", ["localhost:6379", "http://localhost:6379", "redis://:pa/ss@localhost:port"])
def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(StartupError, match="NONCE_REDIS_URL") as told:
        RedisNonces(url, "mine")
    assert url not in str(told.value)
    assert "pa" not in str(told.value).replace("PASSWORD", "")


async def test_a_gateway_without_its_redis_refuses(
    quick_triton: LocalTriton, web: tuple[str, Path], tmp_path: Path
) -> None:
    """503 and no work, /health and /availability say so; with Redis back the next challenge is answered."""
    make_video(web[1] / "nonces.mp4", 5)
    url = f"{web[0]}/nonces.mp4"
    with RedisServer(tmp_path / "log") as redis:
        async with running_gateway(tmp_path, quick_triton.grpc_url, nonce_redis_url=redis.url) as gateway:

            async def health(ready: bool) -> dict[str, object]:
                async with asyncio.timeout(20):
                    while (answer := await gateway.health()).json()["ready"] is not ready:
                        await asyncio.sleep(0.02)
                assert answer.status_code == (200 if ready else 503)
                available = await gateway.client.get(f"{gateway.url}/availability")
                assert available.json() == {"available": ready}
                return dict(answer.json())

            assert (await health(True))["nonces"] == f"Redis at 127.0.0.1:{redis.port}"
            body = challenge_body(url)
            headers = signed_headers(gateway.keys.validator, gateway.keys.miner.ss58_address, body)
            forged = headers | {"signature": "0x" + "11" * 64}
            assert (await gateway.post(body, forged)).status_code == 401
            assert (await gateway.post(body, headers)).status_code == 200
            assert error_of(await gateway.post(body, headers))[:2] == (401, "unauthorized")

            redis.kill()
            refused = await gateway.challenge(url)
            status, reason, detail = error_of(refused)
            assert (status, reason) == (503, "nonces_unavailable")
            assert f"127.0.0.1:{redis.port}" in detail
            assert refused.headers["retry-after"]
            assert f"127.0.0.1:{redis.port}" in str((await health(False))["reason"])
            assert "touchline_nonces_ready 0.0" in await gateway.metrics()
            # A stranger learns nothing of it.
            assert (await gateway.post(body, forged)).status_code == 401

            redis.start()
            await health(True)
            assert (await gateway.challenge(url)).status_code == 200
            assert "touchline_nonces_ready 1.0" in await gateway.metrics()

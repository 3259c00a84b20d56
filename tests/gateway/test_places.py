"""The queue before the places: who goes first, who is refused at once, and what Retry-After promises."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway import places as module
from gateway.errors import Busy
from gateway.places import Places, expected_wait_s
from local.triton import LocalTriton
from tests.support.faulty_host import Reply, faulty_host
from tests.support.gateway import Traces, error_of, running_gateway, settled
from tests.support.videos import make_video


class Clock:
    """time.perf_counter as a test moves it."""

    now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


def test_the_wait_that_is_expected() -> None:
    assert expected_wait_s([3.0, 1.0], 0, 5.0) == 1.0
    assert expected_wait_s([3.0, 1.0], 1, 5.0) == 3.0
    assert expected_wait_s([3.0, 1.0], 2, 5.0) == 6.0
    assert expected_wait_s([3.0, 1.0], 3, 5.0) == 8.0


async def test_the_most_stake_goes_first_and_of_equals_who_came_first() -> None:
    places = Places(1, queue_s=60, usual_s=1)
    holder = places.enter(0)
    turns = {name: places.enter(stake) for name, stake in (("a", 1), ("b", 5), ("c", 5), ("d", 2))}
    order: list[str] = []

    async def work(name: str) -> None:
        await turns[name].wait()
        order.append(name)
        turns[name].leave(answered=True)

    waiting = [asyncio.create_task(work(name)) for name in turns]
    await asyncio.sleep(0)
    assert (places.in_progress, places.queued, places.free) == (1, 4, False)
    holder.leave(answered=True)
    async with asyncio.timeout(20):
        await asyncio.gather(*waiting)
    assert order == ["b", "c", "d", "a"]
    assert (places.in_progress, places.queued, places.free) == (0, 0, True)


async def test_who_would_wait_too_long_is_refused_at_once_and_told_when(clock: Clock) -> None:
    places = Places(2, queue_s=8, usual_s=30)
    for _ in range(3):  # what is measured counts, not what was expected of the first
        first = places.enter(0)
        clock.now += 4
        first.leave(answered=True)
    early, clock.now = places.enter(0), clock.now + 1
    places.enter(0)
    clock.now += 2  # ends expected after 1 s and 2 s
    assert places.enter(1) and places.enter(1) and places.enter(1) and places.enter(1)  # after 1, 2, 5 and 6 s
    with pytest.raises(Busy, match="QUEUE_S") as refused:
        places.enter(1)
    assert refused.value.retry_after_s == 9
    assert places.enter(2).stake == 2, "before all of the others, so after 1 s"
    early.leave(answered=False)  # a failure tells nothing of how long an answer takes
    with pytest.raises(Busy):
        places.enter(1)


async def test_who_waited_in_vain_leaves_nothing() -> None:
    places = Places(1, queue_s=0.05, usual_s=0.01)
    holder = places.enter(0)
    turn = places.enter(0)
    with pytest.raises(Busy) as refused:
        await turn.wait()
    turn.leave(answered=False)
    assert refused.value.retry_after_s == 1
    assert (places.in_progress, places.queued) == (1, 0)
    holder.leave(answered=True)
    assert places.free


async def test_of_fifty_at_once_each_is_answered_or_told_when_to_come_again(
    quick_triton: LocalTriton, web: tuple[str, Path], tmp_path: Path
) -> None:
    make_video(web[1] / "queued.mp4", 3)
    async with running_gateway(
        tmp_path, quick_triton.grpc_url, max_concurrent_challenges=1, queue_s=60, challenge_budget_s=4
    ) as gateway:
        before = Traces.of(gateway)
        answers = await asyncio.gather(*(gateway.challenge(f"{web[0]}/queued.mp4?{number}") for number in range(50)))
        text = await gateway.metrics()
        assert await settled(gateway, before) == before
    answered = [answer for answer in answers if answer.status_code == 200]
    assert len(answered) >= 2
    assert all(len(answer.json()["frames"]) == 3 for answer in answered)
    for refused in (answer for answer in answers if answer not in answered):
        assert error_of(refused)[:2] == (503, "busy")
        assert int(refused.headers["retry-after"]) >= 1
    assert "touchline_challenges_queued 0.0" in text
    assert f"touchline_queue_seconds_count {len(answered)}.0" in text


async def test_a_caller_that_leaves_the_queue_leaves_nothing(
    quick_triton: LocalTriton, web: tuple[str, Path], tmp_path: Path
) -> None:
    make_video(web[1] / "left.mp4", 3)
    async with (
        faulty_host(b"", Reply(silent=True)) as host,
        running_gateway(
            tmp_path, quick_triton.grpc_url, max_concurrent_challenges=1, queue_s=60, challenge_budget_s=1
        ) as gateway,
        asyncio.timeout(30),
    ):
        before = Traces.of(gateway)
        holder = asyncio.create_task(gateway.challenge(host.url))
        while gateway.challenges.in_progress == 0:
            await asyncio.sleep(0.01)
        leaving = asyncio.create_task(gateway.challenge(f"{web[0]}/left.mp4"))
        while "touchline_challenges_queued 1.0" not in await gateway.metrics():
            await asyncio.sleep(0.01)
        leaving.cancel()
        while "touchline_challenges_queued 0.0" not in await gateway.metrics():
            await asyncio.sleep(0.01)
        holder.cancel()
        assert await settled(gateway, before) == before

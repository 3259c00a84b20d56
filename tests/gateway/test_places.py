"""The queue before the places: who goes first, who is refused at once, and what Retry-After promises."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from gateway import places as module
from gateway.errors import Busy
from gateway.places import Places, Turn
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
    for _ in range(2):  # what is measured counts, not what was expected of the first
        pair = places.enter(0), places.enter(0)
        clock.now += 4
        for turn in pair:
            turn.leave(answered=True)
    early, clock.now = places.enter(0), clock.now + 1
    places.enter(0)
    clock.now += 2  # ends expected after 1 s and 2 s
    assert places.enter(1) and places.enter(1) and places.enter(1) and places.enter(1)  # after 1, 2, 5 and 6 s
    with pytest.raises(Busy, match="QUEUE_S") as refused:
        places.enter(1)
    assert refused.value.retry_after_s == 9
    with pytest.raises(Busy) as refused:
        places.enter(1)
    assert refused.value.retry_after_s == 11, "when a place is free again after the one that was told before"
    assert places.enter(2).stake == 2, "before all of the others, so after 1 s"
    early.leave(answered=False)  # a failure tells nothing of how long an answer takes
    with pytest.raises(Busy):
        places.enter(1)


@pytest.mark.parametrize(("count", "alone_s", "beside_s"), [(2, 0.5, 0.95), (4, 1.0, 3.0), (4, 2.0, 2.2)])
def test_at_four_times_the_load_who_is_let_in_has_a_place_in_time_and_who_is_not_when_told(
    clock: Clock, count: int, alone_s: float, beside_s: float
) -> None:
    """By what challenges take alone and beside `count` - 1 others; all that were answered before were alone."""
    load = Load(Places(count, queue_s=8, usual_s=6), clock, alone_s, beside_s)
    load.run(seconds=15, rate=4 * count / beside_s)
    assert load.let_in > 40
    assert load.in_vain < 0.05 * load.let_in
    assert load.told > 30
    assert load.came_again > 0.7 * load.told
    assert load.places.in_progress == load.places.queued == 0


class Load:
    """Challenges at random moments, who come again once when they are refused; a seeded run on a clock that jumps."""

    def __init__(self, places: Places, clock: Clock, alone_s: float, beside_s: float) -> None:
        self.places, self.let_in, self.in_vain, self.told, self.came_again = places, 0, 0, 0, 0
        self._clock = clock
        self._chance = np.random.default_rng(44)
        self._alone_s, self._beside_s = alone_s, beside_s
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._waiting: dict[Turn, bool] = {}
        for _ in range(5):
            turn = places.enter(0)
            clock.now += alone_s
            turn.leave(answered=True)

    def run(self, seconds: float, rate: float) -> None:
        arrivals = self._clock.now + np.cumsum(self._chance.exponential(1 / rate, size=10_000))
        for at in arrivals[arrivals < self._clock.now + seconds]:
            self._at(at, partial(self._come, again=False))
        while self._events:
            self._clock.now, _, happens = heapq.heappop(self._events)
            happens()

    def _at(self, when: float, happens: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(_numbers), happens))

    def _come(self, again: bool) -> None:
        try:
            turn = self.places.enter(0)
        except Busy as refused:
            self._tell(refused, again)
            return
        self.let_in += 1
        self._waiting[turn] = again
        self._at(self._clock.now + 8, partial(self._give_up, turn))
        self._work()

    def _give_up(self, turn: Turn) -> None:
        if turn in self._waiting:
            self.in_vain += 1
            refused = self.places.busy()
            turn.leave(answered=False)
            self._tell(refused, self._waiting.pop(turn))

    def _tell(self, refused: Busy, again: bool) -> None:
        if not again:
            assert refused.retry_after_s is not None
            self.told += 1
            self._at(self._clock.now + refused.retry_after_s, partial(self._come, again=True))

    def _end(self, turn: Turn) -> None:
        turn.leave(answered=True)
        self._work()

    def _work(self) -> None:
        """Those who have just been given a place work."""
        others = (self.places.in_progress - 1) / (self.places.count - 1)
        for turn in [turn for turn in self._waiting if turn.started is not None]:
            self.came_again += self._waiting.pop(turn)
            seconds = self._alone_s + (self._beside_s - self._alone_s) * others
            self._at(self._clock.now + seconds * self._chance.lognormal(-0.045, 0.3), partial(self._end, turn))


_numbers = itertools.count()


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

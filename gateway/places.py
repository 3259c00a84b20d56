"""Places for challenges, and the short queue before them: who waits, for how long, and who is told to come again."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import time
from collections import deque
from collections.abc import Iterable
from statistics import median
from typing import Final

from gateway.errors import Busy

REMEMBERED: Final = 20
"""Of so many challenges the median says how long one takes."""
OVERDUE: Final = 0.25
"""A challenge that takes longer than usual is expected to take this share of a usual one still."""


class Places:
    """As many challenges at once as there are places; who finds none free waits up to `queue_s`, the most stake first.

    Who could not be taken in that time by what challenges usually take is refused at once. The clock is
    time.perf_counter's.
    """

    def __init__(self, count: int, queue_s: float, usual_s: float) -> None:
        """`usual_s`: how long a challenge is expected to take before the first is answered."""
        self.count = count
        self.in_progress = 0
        self._queue_s = queue_s
        self._took = deque[float]([usual_s], maxlen=REMEMBERED)
        self._seeded = True
        self._numbers = itertools.count()
        self._working: set[Turn] = set()
        self._waiting: list[Turn] = []

    @property
    def queued(self) -> int:
        return len(self._waiting)

    @property
    def free(self) -> bool:
        """The next one would not wait."""
        return self.in_progress < self.count and not self._waiting

    def enter(self, stake: float) -> Turn:
        """A place, or one in the queue, to be left again. Raises Busy when that would take too long."""
        turn = Turn(self, stake, next(self._numbers))
        if self.free:
            self._start(turn)
            return turn
        before = sum(other.goes_before(turn) for other in self._waiting)
        wait_s = self._expected_wait_s(before)
        if wait_s > self._queue_s:
            raise self.busy(wait_s)
        self._waiting.append(turn)
        return turn

    def busy(self, wait_s: float | None = None) -> Busy:
        """With the seconds after which a place is expected to be free for one more."""
        if wait_s is None:
            wait_s = self._expected_wait_s(len(self._waiting))
        error = Busy(
            f"{self.in_progress} challenges are being worked on and {self.queued} wait: MAX_CONCURRENT_CHALLENGES "
            f"allows no more, and QUEUE_S ({self._queue_s:g} s) is over before a place is free"
        )
        error.retry_after_s = max(1, math.ceil(wait_s))
        return error

    def _start(self, turn: Turn) -> None:
        turn.started = time.perf_counter()
        self.in_progress += 1
        self._working.add(turn)

    def _leave(self, turn: Turn, answered: bool) -> None:
        if turn.started is None:
            self._waiting.remove(turn)
            return
        self.in_progress -= 1
        self._working.remove(turn)
        if answered:
            if self._seeded:
                self._took.clear()
                self._seeded = False
            self._took.append(time.perf_counter() - turn.started)
        while self._waiting and self.in_progress < self.count:
            following = max(self._waiting, key=lambda other: (other.stake, -other.number))
            self._waiting.remove(following)
            self._start(following)
            following.called.set()

    def _expected_wait_s(self, before: int) -> float:
        usual_s, now = median(self._took), time.perf_counter()
        ends = [max(usual_s - (now - (turn.started or now)), OVERDUE * usual_s) for turn in self._working]
        return expected_wait_s(ends, before, usual_s)


class Turn:
    """One challenge, from the queue to the end."""

    def __init__(self, places: Places, stake: float, number: int) -> None:
        self._places = places
        self.stake = stake
        self.number = number
        self.called = asyncio.Event()
        self.arrived = time.perf_counter()
        self.started: float | None = None

    def goes_before(self, other: Turn) -> bool:
        return (self.stake, -self.number) > (other.stake, -other.number)

    async def wait(self) -> float:
        """Return when the place is there; the seconds that took. Raises Busy when QUEUE_S is over."""
        left_s = self._places._queue_s - (time.perf_counter() - self.arrived)
        if self.started is None:
            try:
                async with asyncio.timeout(max(0.0, left_s)):
                    await self.called.wait()
            except TimeoutError:
                if self.started is None:
                    raise self._places.busy() from None
        return (self.started or self.arrived) - self.arrived

    def leave(self, *, answered: bool) -> None:
        """Give the place back to the next; `answered`: its time tells how long others will take."""
        self._places._leave(self, answered)


def expected_wait_s(ends: Iterable[float], before: int, usual_s: float) -> float:
    """Seconds until a place is free for one with `before` others before it.

    `ends` are the seconds that those who hold the places still take, each other one takes `usual_s`.
    """
    heap = list(ends)
    heapq.heapify(heap)
    for _ in range(before):
        heapq.heapreplace(heap, heap[0] + usual_s)
    return heap[0] if heap else 0.0

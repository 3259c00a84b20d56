"""Places for challenges, and the short queue before them: who waits, for how long, and who is told to come again."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from statistics import fmean
from typing import Final

from gateway.durations import Durations, foretold_wait_s
from gateway.errors import Busy

LONGEST_RETRY_S: Final = 120.0
"""Nobody is told to come again later."""


class Places:
    """As many challenges at once as there are places; who finds none free waits up to `queue_s`, the most stake first.

    Who might not be taken in that time, by what challenges took, is refused at once. Those who are refused are told
    moments to come again as far apart as places come free. The clock is time.perf_counter's.
    """

    def __init__(self, count: int, queue_s: float, usual_s: float) -> None:
        """`usual_s`: how long a challenge is expected to take before the first is answered."""
        self.count = count
        self.in_progress = 0
        self._queue_s = queue_s
        self._took = Durations(count, usual_s)
        self._company_s = 0.0
        """The integral of `in_progress` over time, up to `_counted`."""
        self._counted = 0.0
        self._next_told = 0.0
        """The next who is refused is told to come no sooner."""
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
        wait_s = self._foretold_s(before)
        if wait_s > self._queue_s:
            raise self.busy(wait_s)
        self._waiting.append(turn)
        return turn

    def busy(self, wait_s: float | None = None) -> Busy:
        """With the seconds after which a place is free for one more, those counted that were told to come again."""
        if wait_s is None:
            wait_s = self._foretold_s(len(self._waiting))
        error = Busy(
            f"{self.in_progress} challenges are being worked on and {self.queued} wait: MAX_CONCURRENT_CHALLENGES "
            f"allows no more, and QUEUE_S ({self._queue_s:g} s) is over before a place is free"
        )
        now = time.perf_counter()
        wait_s = min(max(wait_s, self._next_told - now), LONGEST_RETRY_S)
        self._next_told = now + wait_s + fmean(self._took.known) / self.count
        error.retry_after_s = max(1, math.ceil(wait_s))
        return error

    def _count_company(self) -> float:
        """The integral of `in_progress` over time until now."""
        now = time.perf_counter()
        self._company_s += self.in_progress * (now - self._counted)
        self._counted = now
        return self._company_s

    def _start(self, turn: Turn) -> None:
        turn.company_s = self._count_company()
        turn.started = time.perf_counter()
        self.in_progress += 1
        self._working.add(turn)

    def _leave(self, turn: Turn, answered: bool) -> None:
        if turn.started is None:
            self._waiting.remove(turn)
            return
        company_s = self._count_company() - turn.company_s
        self.in_progress -= 1
        self._working.remove(turn)
        took_s = time.perf_counter() - turn.started
        if answered and took_s > 0:
            self._took.learn(took_s, company_s / took_s)
        while self._waiting and self.in_progress < self.count:
            following = max(self._waiting, key=lambda other: (other.stake, -other.number))
            self._waiting.remove(following)
            self._start(following)
            following.called.set()

    def _foretold_s(self, before: int) -> float:
        now = time.perf_counter()
        elapsed = [now - turn.started for turn in self._working if turn.started is not None]
        return foretold_wait_s(elapsed, before, self._took.known)


class Turn:
    """One challenge, from the queue to the end."""

    def __init__(self, places: Places, stake: float, number: int) -> None:
        self._places = places
        self.stake = stake
        self.number = number
        self.called = asyncio.Event()
        self.arrived = time.perf_counter()
        self.started: float | None = None
        self.company_s = 0.0
        """What `Places._company_s` was then."""

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

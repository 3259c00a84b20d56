"""How long challenges take while all places are taken, learned as they end, and the wait that this foretells."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterable, Sequence
from statistics import fmean, median, pstdev
from typing import Final

REMEMBERED: Final = 20
"""Of so many challenges is known how long they took."""
OVERDUE: Final = 0.25
"""A challenge that takes longer than usual is expected to take this share of a usual one still."""
LONGEST: Final = 3.0
"""A challenge counts as so many usual ones at most: one whose host was slow says little of the next."""
CAUTION: Final = 1.64
"""Standard deviations above the expected wait that are foretold: of a normal distribution 95 % are below."""


class Durations:
    """What challenges took that were answered while all places were taken.

    Those that had less company count as if all had shared one engine, until the first have ended that had all of it:
    three at once take 0.93 times as long as three in a row (benchmarks.concurrency).
    """

    def __init__(self, places: int, usual_s: float) -> None:
        """`usual_s`: what is expected before the first challenge is answered."""
        self._places = places
        self._full = deque[float](maxlen=REMEMBERED)
        self._fewer = deque[float](maxlen=REMEMBERED)
        self._expected_s = usual_s

    def learn(self, seconds: float, company: float) -> None:
        """One more; `company`: how many places were taken meanwhile on average, its own included."""
        if company > self._places - 0.5:
            self._full.append(seconds)
        else:
            self._fewer.append(seconds * self._places / max(1.0, company))

    @property
    def known(self) -> Sequence[float]:
        """Seconds of each that counts, none longer than LONGEST times the median."""
        known = self._full or self._fewer or [self._expected_s]
        longest = LONGEST * median(known)
        return [min(seconds, longest) for seconds in known]


def foretold_wait_s(elapsed: Iterable[float], before: int, known: Sequence[float]) -> float:
    """Seconds after which a place is free for one with `before` others before it, in 95 of 100 cases.

    `elapsed` are the seconds that those in the places have had, `known` what others took. The spread of a sum of
    k = `before` + 1 times over c places is s / c * sqrt(k + k^2 / n): that of the times, and that of a mean of n.
    """
    usual_s = fmean(known)
    ends = [max(usual_s - seconds, OVERDUE * usual_s) for seconds in elapsed]
    if not ends:
        return 0.0
    ended = before + 1
    doubt_s = pstdev(known) / len(ends) * math.sqrt(ended + ended**2 / len(known))
    return expected_wait_s(ends, before, usual_s) + CAUTION * doubt_s


def expected_wait_s(ends: Iterable[float], before: int, usual_s: float) -> float:
    """Seconds until a place is free for one with `before` others before it, on average.

    `ends` are the seconds that those who hold the places still take, each other one takes `usual_s`.
    """
    heap = list(ends)
    heapq.heapify(heap)
    for _ in range(before):
        heapq.heapreplace(heap, heap[0] + usual_s)
    return heap[0] if heap else 0.0

"""Whether a challenge can be taken now: places, one computation a video, and the answers that are kept for a while."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial

from gateway.errors import InferenceUnavailable
from gateway.inference.engine import Engine
from gateway.metrics import Metrics
from gateway.pace import Aim
from gateway.pipeline import Answer, Pipeline
from gateway.places import Places, Turn
from gateway.settings import Settings


@dataclass(slots=True)
class _Shared:
    """An answer that is being computed or was, and how many wait for it."""

    task: asyncio.Task[Answer]
    turn: Turn
    waiting: int = 0


class Challenges:
    """Admits challenges, as many at once as there are places."""

    def __init__(self, settings: Settings, metrics: Metrics, engine: Engine, pipeline: Pipeline) -> None:
        self._metrics = metrics
        self._engine = engine
        self._pipeline = pipeline
        self._places = Places(settings.concurrent_challenges, settings.queue_s, Aim.of(settings).budget_s)
        self._keep_s = settings.answer_cache_s
        self._shared: dict[str, _Shared] = {}
        metrics.limit.set(self._places.count)
        metrics.queued.set_function(lambda: float(self._places.queued))
        metrics.in_progress.set_function(lambda: float(self.in_progress))

    @property
    def in_progress(self) -> int:
        return self._places.in_progress

    @property
    def available(self) -> bool:
        """The next challenge would be worked on at once."""
        return self._engine.ready and self._places.free

    async def answer(self, video_url: str, stake: float = 0.0) -> Answer:
        """Answer a video. Raises InferenceUnavailable or Busy when not taken, else what the pipeline raises.

        Where no place is free, it waits for one up to QUEUE_S; the most `stake` goes first.

        A video that is being answered, or was within ANSWER_CACHE_S, is not computed again.
        """
        shared = self._shared.get(video_url)
        if shared is None:
            if not self._engine.ready:
                raise InferenceUnavailable(self._engine.why_not_ready)
            turn = self._places.enter(stake)
            shared = self._shared[video_url] = _Shared(asyncio.create_task(self._work(video_url, turn)), turn)
            # Not in a finally inside the task: one that is cancelled before its first step never gets there.
            shared.task.add_done_callback(partial(self._finished, video_url, turn))
        else:
            self._metrics.reused.inc()
            shared.turn.stake = max(shared.turn.stake, stake)
        shared.waiting += 1
        try:
            return await asyncio.shield(shared.task)
        finally:
            shared.waiting -= 1
            if not shared.waiting and not shared.task.done():
                # Nobody is left to read it. The next one who asks starts anew.
                del self._shared[video_url]
                shared.task.cancel()

    async def close(self) -> None:
        """Give up what is under way."""
        under_way = [shared.task for shared in self._shared.values() if not shared.task.done()]
        for task in under_way:
            task.cancel()
        if under_way:
            await asyncio.wait(under_way)

    async def _work(self, video_url: str, turn: Turn) -> Answer:
        waited_s = await turn.wait()
        self._metrics.queue_seconds.observe(waited_s)
        return await self._pipeline.answer(video_url, waited_s)

    def _finished(self, video_url: str, turn: Turn, task: asyncio.Task[Answer]) -> None:
        """Give the place back, forget a failed answer at once and a good one later."""
        failed = task.cancelled() or task.exception() is not None
        turn.leave(answered=not failed)
        wait_s = 0.0 if failed else self._keep_s

        def forget() -> None:
            shared = self._shared.get(video_url)
            if shared is not None and shared.task is task:
                del self._shared[video_url]

        if wait_s:
            asyncio.get_running_loop().call_later(wait_s, forget)
        else:
            forget()

"""Whether a challenge can be taken now: places, one computation a video, and the answers that are kept for a while."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial

from gateway.errors import Busy, InferenceUnavailable
from gateway.inference.engine import Engine
from gateway.metrics import Metrics
from gateway.pace import Aim
from gateway.pipeline import Answer, Pipeline
from gateway.settings import Settings

_Asked = tuple[str, Aim | None]


@dataclass(slots=True)
class _Shared:
    """An answer that is being computed or was, and how many wait for it."""

    task: asyncio.Task[Answer]
    waiting: int = 0


class Challenges:
    """Admits challenges, as many at once as there are places."""

    def __init__(self, settings: Settings, metrics: Metrics, engine: Engine, pipeline: Pipeline) -> None:
        self._metrics = metrics
        self._engine = engine
        self._pipeline = pipeline
        self._places = settings.concurrent_challenges
        self._keep_s = settings.answer_cache_s
        self._shared: dict[_Asked, _Shared] = {}
        self.in_progress = 0
        metrics.limit.set(self._places)
        metrics.in_progress.set_function(lambda: float(self.in_progress))

    @property
    def available(self) -> bool:
        """The next challenge would be taken."""
        return self._engine.ready and self.in_progress < self._places

    async def answer(self, video_url: str, aim: Aim | None = None) -> Answer:
        """Answer a video, in the time that `aim` or else the settings say.

        Raises InferenceUnavailable or Busy when not taken, else what the pipeline raises. A video that is being
        answered, or was within ANSWER_CACHE_S, is not computed again.
        """
        asked = video_url, aim
        shared = self._shared.get(asked)
        if shared is None:
            self._take_place()
            shared = self._shared[asked] = _Shared(asyncio.create_task(self._pipeline.answer(video_url, aim)))
            shared.task.add_done_callback(partial(self._finished, asked))
        else:
            self._metrics.reused.inc()
        shared.waiting += 1
        try:
            return await asyncio.shield(shared.task)
        finally:
            shared.waiting -= 1
            if not shared.waiting and not shared.task.done():
                # Nobody is left to read it. The next one who asks starts anew.
                del self._shared[asked]
                shared.task.cancel()

    async def close(self) -> None:
        """Give up what is under way."""
        under_way = [shared.task for shared in self._shared.values() if not shared.task.done()]
        for task in under_way:
            task.cancel()
        if under_way:
            await asyncio.wait(under_way)

    def _take_place(self) -> None:
        """One more challenge in progress; `_finished` gives the place back."""
        if not self._engine.ready:
            raise InferenceUnavailable(self._engine.why_not_ready)
        if self.in_progress >= self._places:
            raise Busy(f"{self.in_progress} challenges are being worked on, MAX_CONCURRENT_CHALLENGES allows no more")
        self.in_progress += 1

    def _finished(self, asked: _Asked, task: asyncio.Task[Answer]) -> None:
        """Give the place back, forget a failed answer at once and a good one later."""
        self.in_progress -= 1
        failed = task.cancelled() or task.exception() is not None
        wait_s = 0.0 if failed else self._keep_s

        def forget() -> None:
            shared = self._shared.get(asked)
            if shared is not None and shared.task is task:
                del self._shared[asked]

        if wait_s:
            asyncio.get_running_loop().call_later(wait_s, forget)
        else:
            forget()

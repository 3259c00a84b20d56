"""Whether a challenge can be taken now: the connection to Triton and the places for challenges."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from functools import partial

import httpx

from gateway.errors import Busy, GatewayError, InferenceUnavailable
from gateway.inference.slots import SlotPool
from gateway.inference.triton import ServedModels, Triton
from gateway.metrics import Metrics
from gateway.pipeline import Answer, Pipeline
from gateway.settings import Settings

WATCH_INTERVAL_S = 1.0

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Shared:
    """An answer that is being computed or was, and how many wait for it."""

    task: asyncio.Task[Answer]
    waiting: int = 0


class Service:
    """Owns the pipeline while Triton serves the models, and admits challenges to it."""

    def __init__(self, settings: Settings, metrics: Metrics, client: httpx.AsyncClient, *, nvdec: bool) -> None:
        self._settings = settings
        self._metrics = metrics
        self._client = client
        self._triton = Triton(
            settings.triton_url, shared_memory=settings.triton_shared_memory, timeout_s=settings.inference_timeout_s
        )
        self._pipeline: Pipeline | None = None
        self._models: ServedModels | None = None
        self._why_not_ready: GatewayError = InferenceUnavailable(f"Triton at {settings.triton_url} was not asked yet")
        self._ready = False
        self._in_progress = 0
        self._shared: dict[str, _Shared] = {}
        self._nvdec = nvdec
        metrics.inference_ready.set_function(lambda: float(self._ready))
        metrics.in_progress.set_function(lambda: float(self._in_progress))
        metrics.slots.set_function(lambda: float(self._pipeline.pool.slot_count if self._pipeline else 0))
        metrics.slots_free.set_function(lambda: float(self._pipeline.pool.free_count if self._pipeline else 0))

    @property
    def ready(self) -> bool:
        """Triton and the models are there."""
        return self._ready

    @property
    def available(self) -> bool:
        """The next challenge would be taken."""
        return self._ready and self._in_progress < self._settings.concurrent_challenges

    @property
    def models(self) -> ServedModels | None:
        return self._models

    @property
    def why_not_ready(self) -> str:
        return "" if self._ready else str(self._why_not_ready)

    async def answer(self, video_url: str) -> Answer:
        """Answer a video. Raises InferenceUnavailable or Busy when not taken, else what the pipeline raises.

        A video that is being answered, or was within ANSWER_CACHE_S, is not computed again.
        """
        shared = self._shared.get(video_url)
        if shared is None:
            place = self._take_place()
            shared = self._shared[video_url] = _Shared(asyncio.create_task(self._compute(place, video_url)))
            shared.task.add_done_callback(partial(self._finished, video_url))
        else:
            self._metrics.reused.inc()
        shared.waiting += 1
        try:
            return await asyncio.shield(shared.task)
        finally:
            shared.waiting -= 1
            if not shared.waiting and not shared.task.done():
                # Nobody is left to read it. The next one who asks starts anew.
                del self._shared[video_url]
                shared.task.cancel()

    async def _compute(self, pipeline: Pipeline, video_url: str) -> Answer:
        try:
            return await pipeline.answer(video_url)
        except InferenceUnavailable as error:
            self._lost(error)
            raise

    def _finished(self, video_url: str, task: asyncio.Task[Answer]) -> None:
        """Give the place back, forget a failed answer at once and a good one later."""
        self._in_progress -= 1
        failed = task.cancelled() or task.exception() is not None
        wait_s = 0.0 if failed else self._settings.answer_cache_s

        def forget() -> None:
            shared = self._shared.get(video_url)
            if shared is not None and shared.task is task:
                del self._shared[video_url]

        if wait_s:
            asyncio.get_running_loop().call_later(wait_s, forget)
        else:
            forget()

    async def watch_forever(self) -> None:
        """Connect to Triton, and again whenever it was away."""
        while True:
            if self._ready and not await self._triton.is_ready():
                self._lost(
                    InferenceUnavailable(f"Triton at {self._settings.triton_url} stopped answering; is it running?")
                )
            if not self._ready:
                try:
                    await self._connect()
                except GatewayError as error:
                    self._why_not_ready = error
                except Exception as error:  # whatever it is, the next try may do better, and /health says it meanwhile
                    _log.exception("the connection to Triton could not be made")
                    self._why_not_ready = InferenceUnavailable(f"the connection to Triton failed: {error!r}")
            await asyncio.sleep(WATCH_INTERVAL_S)

    async def close(self) -> None:
        self._ready = False
        under_way = [shared.task for shared in self._shared.values() if not shared.task.done()]
        for task in under_way:
            task.cancel()
        if under_way:
            await asyncio.wait(under_way)
        await self._triton.close()
        self._drop_pipeline()

    def _take_place(self) -> Pipeline:
        """The pipeline, with one more challenge in progress; `_finished` gives the place back."""
        if not self._ready or self._pipeline is None:
            raise InferenceUnavailable(self.why_not_ready)
        if self._in_progress >= self._settings.concurrent_challenges:
            raise Busy(f"{self._in_progress} challenges are being worked on, MAX_CONCURRENT_CHALLENGES allows no more")
        self._in_progress += 1
        return self._pipeline

    async def _connect(self) -> None:
        models = await self._triton.discover()
        if self._pipeline is not None and models != self._models:
            if self._in_progress:
                return
            await self._triton.detach()
            self._drop_pipeline()
        if self._pipeline is None:
            batch = min(self._settings.slot_frames, models.max_batch or 1)
            pool = SlotPool(
                slots=self._settings.concurrent_challenges * self._settings.slots_per_challenge,
                slot_shape=(batch, models.height, models.width, 3),
            )
            self._pipeline = Pipeline(
                self._settings,
                self._metrics,
                client=self._client,
                triton=self._triton,
                models=models,
                pool=pool,
                nvdec=self._nvdec,
            )
            self._models = models
        await self._triton.attach(self._pipeline.pool)
        for count in {1, self._pipeline.pool.slot_shape[0]}:
            await self._pipeline.warm_up(count)
        if "img_size" in self._settings.model_fields_set and models.width != self._settings.img_size:
            _log.warning(
                "IMG_SIZE is %d, the served models want %d: the models decide", self._settings.img_size, models.width
            )
        for name, version in models.versions.items():
            self._metrics.models.labels(name, version).set(1)
        self._ready = True
        _log.info(
            "Triton at %s is ready: %s, input %dx%d, batches of %d, frames through %s",
            self._settings.triton_url,
            ", ".join(f"{name} {version}" for name, version in models.versions.items()),
            models.width,
            models.height,
            self._pipeline.pool.slot_shape[0],
            self._triton.transport.replace("_", " "),
        )

    def _lost(self, error: GatewayError) -> None:
        if self._ready:
            _log.error("%s", error)
        self._ready = False
        self._why_not_ready = error

    def _drop_pipeline(self) -> None:
        if self._pipeline is not None:
            self._pipeline.close()
            self._pipeline.pool.close()
            self._pipeline = None

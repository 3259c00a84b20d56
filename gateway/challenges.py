"""Whether a challenge can be taken now: the connections to the Tritons and the places for challenges."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from functools import partial

import httpx

from gateway.errors import Busy, GatewayError, InferenceFailed, InferenceUnavailable
from gateway.inference.fleet import Host, Tritons
from gateway.inference.slots import SlotPool
from gateway.inference.triton import ServedModels
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
    """Owns the pipeline, keeps the Tritons connected to it and admits challenges."""

    def __init__(self, settings: Settings, metrics: Metrics, client: httpx.AsyncClient, *, nvdec: bool) -> None:
        self._settings = settings
        self._metrics = metrics
        self._client = client
        self._tritons = Tritons(
            settings.triton_addresses,
            metrics,
            shared_memory=settings.triton_shared_memory,
            timeout_s=settings.inference_timeout_s,
        )
        self._connecting = asyncio.Lock()
        self._pipeline: Pipeline | None = None
        self._models: ServedModels | None = None
        self._in_progress = 0
        self._shared: dict[str, _Shared] = {}
        self._nvdec = nvdec
        metrics.inference_ready.set_function(lambda: float(self.ready))
        metrics.in_progress.set_function(lambda: float(self._in_progress))
        metrics.slots.set_function(lambda: float(self._pipeline.pool.slot_count if self._pipeline else 0))
        metrics.slots_free.set_function(lambda: float(self._pipeline.pool.free_count if self._pipeline else 0))

    @property
    def ready(self) -> bool:
        """A Triton and the models are there."""
        return self._pipeline is not None and self._tritons.ready

    @property
    def available(self) -> bool:
        """The next challenge would be taken."""
        return self.ready and self._in_progress < self._settings.concurrent_challenges

    @property
    def models(self) -> ServedModels | None:
        return self._models

    @property
    def why_not_ready(self) -> str:
        return self._tritons.why_not_ready

    @property
    def tritons(self) -> dict[str, str]:
        """State of each Triton by address: "ready", or why it is asked nothing."""
        return self._tritons.states

    async def answer(self, video_url: str) -> Answer:
        """Answer a video. Raises InferenceUnavailable or Busy when not taken, else what the pipeline raises.

        A video that is being answered, or was within ANSWER_CACHE_S, is not computed again.
        """
        shared = self._shared.get(video_url)
        if shared is None:
            pipeline = self._take_place()
            shared = self._shared[video_url] = _Shared(asyncio.create_task(pipeline.answer(video_url)))
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
        """Connect to every Triton, and again whenever it was away."""
        await asyncio.gather(*(self._watch(host) for host in self._tritons.hosts))

    async def _watch(self, host: Host) -> None:
        while True:
            if host.ready and not await host.triton.is_ready():
                self._tritons.lost(
                    host, InferenceUnavailable(f"Triton at {host.address} stopped answering; is it running?")
                )
            if not host.ready:
                try:
                    await self._connect(host)
                except GatewayError as error:
                    host.why_not_ready = error
                except Exception as error:  # whatever it is, the next try may do better, and /health says it meanwhile
                    _log.exception("the connection to Triton at %s could not be made", host.address)
                    host.why_not_ready = InferenceUnavailable(
                        f"the connection to Triton at {host.address} failed: {error!r}"
                    )
            await asyncio.sleep(WATCH_INTERVAL_S)

    async def close(self) -> None:
        under_way = [shared.task for shared in self._shared.values() if not shared.task.done()]
        for task in under_way:
            task.cancel()
        if under_way:
            await asyncio.wait(under_way)
        await self._tritons.close()
        self._drop_pipeline()

    def _take_place(self) -> Pipeline:
        """The pipeline, with one more challenge in progress; `_finished` gives the place back."""
        if not self._tritons.ready or self._pipeline is None:
            raise InferenceUnavailable(self.why_not_ready)
        if self._in_progress >= self._settings.concurrent_challenges:
            raise Busy(f"{self._in_progress} challenges are being worked on, MAX_CONCURRENT_CHALLENGES allows no more")
        self._in_progress += 1
        return self._pipeline

    async def _connect(self, host: Host) -> None:
        """Take a Triton in. Raises a GatewayError that says why not."""
        models = await host.triton.discover()
        async with self._connecting:
            if not await self._fits(host, models):
                return
            pipeline = self._pipeline or self._build_pipeline(models)
            await host.triton.attach(pipeline.pool)
            for count in {1, pipeline.pool.slot_shape[0]}:
                await pipeline.warm_up(count, [host])
            host.why_not_ready = None
        if "img_size" in self._settings.model_fields_set and models.width != self._settings.img_size:
            _log.warning(
                "IMG_SIZE is %d, the served models want %d: the models decide", self._settings.img_size, models.width
            )
        _log.info(
            "Triton at %s is ready: %s, input %dx%d, batches of %d, frames through %s",
            host.address,
            ", ".join(f"{name} {version}" for name, version in models.versions.items()),
            models.width,
            models.height,
            pipeline.pool.slot_shape[0],
            host.triton.transport.replace("_", " "),
        )

    async def _fits(self, host: Host, models: ServedModels) -> bool:
        """Whether `host` can serve the slots there are; False: not before the challenges in progress have ended.

        While another Triton is ready, its models are the measure: raises InferenceFailed for what differs. When none
        is, the pipeline is dropped, to be built for these models.
        """
        if self._pipeline is None or self._models is None or models == self._models:
            return True
        differences = models.differences(self._models, self._pipeline.pool.slot_shape[0])
        if self._tritons.ready:
            if differences:
                await host.triton.detach()
                raise InferenceFailed(
                    f"Triton at {host.address} is left out, it does not serve what the others do: "
                    f"{', '.join(differences)}; export the same models for all"
                )
        elif self._in_progress:
            return not differences
        else:
            await self._tritons.detach()
            self._drop_pipeline()
        return True

    def _build_pipeline(self, models: ServedModels) -> Pipeline:
        batch = min(self._settings.slot_frames, models.max_batch or 1)
        pool = SlotPool(
            slots=self._settings.concurrent_challenges * self._settings.slots_per_challenge,
            slot_shape=(batch, models.height, models.width, 3),
        )
        self._pipeline = Pipeline(
            self._settings,
            self._metrics,
            client=self._client,
            tritons=self._tritons,
            models=models,
            pool=pool,
            nvdec=self._nvdec,
        )
        self._models = models
        for name, version in models.versions.items():
            self._metrics.models.labels(name, version).set(1)
        return self._pipeline

    def _drop_pipeline(self) -> None:
        if self._pipeline is not None:
            self._pipeline.close()
            self._pipeline.pool.close()
            self._pipeline = None

"""All models as one engine: the Tritons kept ready, the slots their users share, and a look at the frames of a slot."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from types import TracebackType

import numpy as np

from gateway.errors import GatewayError, InferenceFailed, InferenceUnavailable
from gateway.inference.fleet import Host, Tritons
from gateway.inference.outputs import Sight, nobody, spread
from gateway.inference.slots import Slot, SlotPool
from gateway.inference.triton import ServedModels
from gateway.metrics import Metrics
from gateway.settings import Settings
from touchline.contract import BALL_MODEL, LETTERBOX_GREY, PITCH_MODEL, PLAYER_MODEL

WATCH_INTERVAL_S = 1.0
COLD_AFTER_S = 10.0
"""After so long without a request the models are warmed up again."""
MEASURE_S = 4.0
"""About so long each model is measured at most when a Triton is taken in; a quick one is measured with whole slots."""
QUICK_S = 0.5
"""A measurement that took less is made again: the first batch of a size may cost an engine more than all others."""

_log = logging.getLogger(__name__)


class Engine:
    """Takes frames through every model, wherever they are served. Knows frames and slots, no clips and no cameras.

    The slots are made for the models that the first ready Triton serves, and made anew when all of them are back with
    others while nobody holds a share.
    """

    def __init__(self, settings: Settings, metrics: Metrics, *, slots: int) -> None:
        """`slots` is the sum of all shares that are ever held at once."""
        self._settings = settings
        self._metrics = metrics
        self._slots = slots
        self._tritons = Tritons(
            settings.triton_addresses,
            metrics,
            shared_memory=settings.triton_shared_memory,
            timeout_s=settings.inference_timeout_s,
        )
        self._connecting = asyncio.Lock()
        self._pool: SlotPool | None = None
        self._models: ServedModels | None = None
        self._shares = 0
        self._costs: dict[Host, dict[str, float]] = {}
        self._last_reply = 0.0
        """On time.monotonic's clock."""
        metrics.inference_ready.set_function(lambda: float(self.ready))
        metrics.slots.set_function(lambda: float(self._pool.slot_count if self._pool else 0))
        metrics.slots_free.set_function(lambda: float(self._pool.free_count if self._pool else 0))

    @property
    def ready(self) -> bool:
        """A Triton and the models are there."""
        return self._pool is not None and self._tritons.ready

    @property
    def why_not_ready(self) -> str:
        """Empty while a Triton is ready."""
        return self._tritons.why_not_ready

    @property
    def hosts(self) -> list[Host]:
        return self._tritons.hosts

    @property
    def states(self) -> dict[str, str]:
        """Of each Triton by address: "ready", or why it is asked nothing."""
        return self._tritons.states

    @property
    def models(self) -> ServedModels | None:
        """What is served, or was last."""
        return self._models

    @property
    def costs(self) -> dict[str, float]:
        """Seconds a frame of each model by name, as the Tritons that are ready now have done it together at warm-up."""
        hosts = [self._costs[host] for host in self._tritons.ready_hosts if host in self._costs]
        names = hosts[0] if hosts else ()
        return {name: 1 / sum(1 / costs[name] for costs in hosts) for name in names}

    @property
    def free_slots(self) -> int:
        return self._pool.free_count if self._pool else 0

    def share(self, slots: int) -> Share:
        """A share of the slots, to be closed after use. Raises InferenceUnavailable while the engine is not ready."""
        if not self._tritons.ready or self._pool is None or self._models is None:
            raise InferenceUnavailable(self.why_not_ready)
        return Share(self, self._pool, self._models, slots)

    async def look(self, slot: Slot, count: int, pitch_count: int, *, until: float = 0.0) -> Sight:
        """Let every model see the first `count` frames of `slot` at the same time, the pitch model `pitch_count`.

        When no Triton is left, one may come back until `until` on time.perf_counter's clock.
        Raises InferenceUnavailable or InferenceFailed.
        """
        every = range(count)
        places = {PLAYER_MODEL: every, PITCH_MODEL: range(pitch_count), BALL_MODEL: every}
        return await self.look_at(slot, count, places, until=until)

    async def look_at(self, slot: Slot, count: int, places: Mapping[str, range], *, until: float = 0.0) -> Sight:
        """Let each model see its own places among the first `count` of `slot`, the pitch model's from 0 on; see `look`.

        One that is not named, or named with no places, is not asked, and sees nothing.
        """
        async with asyncio.TaskGroup() as requests:
            asked = {
                name: requests.create_task(self._tritons.infer(name, slot.part(own), len(own), until=until))
                for name, own in places.items()
                if own and (self._models is None or name in self._models.names)
            }
        if asked:
            self._last_reply = time.monotonic()
        seen = {
            name: spread(request.result(), places[name], count) if name != PITCH_MODEL else request.result()
            for name, request in asked.items()
        }
        return Sight(
            seen.get(PLAYER_MODEL, nobody(count)),
            seen.get(PITCH_MODEL, np.empty((0,), np.float32)),
            seen.get(BALL_MODEL, nobody(count)) if self._models and self._models.has_ball_model else None,
        )

    async def wake(self) -> None:
        """Warm the models up again if they rested: an idle GPU has lowered its clocks.

        Raises InferenceUnavailable or InferenceFailed.
        """
        if time.monotonic() - self._last_reply > COLD_AFTER_S and self._pool is not None:
            await self._warm_up(self._pool, 1, self._tritons.ready_hosts)

    async def watch_forever(self) -> None:
        """Connect to every Triton, and again whenever it was away."""
        await asyncio.gather(*(self._watch(host) for host in self._tritons.hosts))

    async def close(self) -> None:
        """To be called when no share is open."""
        await self._tritons.close()
        self._drop_pool()

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
                    self._tritons.not_taken_in(host, error)
                except Exception as error:  # whatever it is, the next try may do better, and /health says it meanwhile
                    failed = InferenceUnavailable(f"the connection to Triton at {host.address} failed: {error!r}")
                    self._tritons.not_taken_in(host, failed, error)
            await asyncio.sleep(WATCH_INTERVAL_S)

    async def _connect(self, host: Host) -> None:
        """Take a Triton in. Raises a GatewayError that says why not."""
        models = await host.triton.discover()
        async with self._connecting:
            if not await self._fits(host, models):
                return
            pool = self._pool or self._build_pool(models)
            await host.triton.attach(pool)
            self._costs[host] = await self._measure(pool, host, models.names)
            self._tritons.taken_in(host)
        if "img_size" in self._settings.model_fields_set and models.width != self._settings.img_size:
            _log.warning(
                "IMG_SIZE is %d, the served models want %d: the models decide", self._settings.img_size, models.width
            )
        _log.info(
            "Triton at %s is ready: %s, input %dx%d, batches of %d, frames through %s, ms a frame: %s",
            host.address,
            ", ".join(f"{name} {version}" for name, version in models.versions.items()),
            models.width,
            models.height,
            pool.slot_shape[0],
            host.triton.transport.replace("_", " "),
            ", ".join(f"{name} {1000 * cost:.2f}" for name, cost in self._costs[host].items()),
        )

    async def _fits(self, host: Host, models: ServedModels) -> bool:
        """Whether `host` can serve the slots there are; False: not before the shares that are held are closed.

        While another Triton is ready, its models are the measure: raises InferenceFailed for what differs. When none
        is, the slots are dropped, to be made for these models.
        """
        if self._pool is None or self._models is None or models == self._models:
            return True
        differences = models.differences(self._models, self._pool.slot_shape[0])
        if self._tritons.ready:
            if differences:
                await host.triton.detach()
                raise InferenceFailed(
                    f"Triton at {host.address} is left out, it does not serve what the others do: "
                    f"{', '.join(differences)}; export the same models for all"
                )
        elif self._shares:
            return not differences
        else:
            await self._tritons.detach()
            self._drop_pool()
        return True

    def _build_pool(self, models: ServedModels) -> SlotPool:
        batch = min(self._settings.slot_frames, models.max_batch or 1)
        self._pool = SlotPool(slots=self._slots, slot_shape=(batch, models.height, models.width, 3))
        self._models = models
        for name, version in models.versions.items():
            self._metrics.models.labels(name, version).set(1)
        return self._pool

    def _drop_pool(self) -> None:
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    async def _measure(self, pool: SlotPool, host: Host, models: tuple[str, ...]) -> dict[str, float]:
        """Warm every model of `host` up; seconds a frame of each, alone, in batches as large as slot and time allow."""
        slot, largest, costs = await pool.acquire(), pool.slot_shape[0], {}
        slot.frames[:] = LETTERBOX_GREY

        async def seconds(model: str, count: int) -> float:
            begun = time.perf_counter()
            await self._tritons.wake([host], [model], slot, count)
            return max(time.perf_counter() - begun, 1e-6)

        try:
            for model in models:
                await seconds(model, 1)
                one_s = await seconds(model, 1)
                count = max(1, min(largest, int(MEASURE_S / one_s)))
                first_s = await seconds(model, count)
                again_s = await seconds(model, count) if first_s < QUICK_S else first_s
                costs[model] = min(first_s, again_s) / count
        finally:
            pool.release(slot)
        self._last_reply = time.monotonic()
        return costs

    async def _warm_up(self, pool: SlotPool, count: int, hosts: list[Host]) -> None:
        """Let every model of `hosts` infer `count` blank frames, so that nobody waits for an engine's first time."""
        slot = await pool.acquire()
        try:
            slot.frames[:count] = LETTERBOX_GREY
            await self._tritons.wake(hosts, self._models.names if self._models else (), slot, count)
        finally:
            pool.release(slot)
        self._last_reply = time.monotonic()


class Share:
    """Slots of one user of the engine, so that none takes another's. While it is open, the slots stay as they are.

    What Triton still reads for a user who is gone, the next one waits for.
    """

    def __init__(self, engine: Engine, pool: SlotPool, models: ServedModels, slots: int) -> None:
        self._engine = engine
        self._pool = pool
        self._left = asyncio.Semaphore(slots)
        self.input_size = models.width, models.height
        """Width and height of a slot's frames."""
        self.slot_frames = pool.slot_shape[0]
        self._engine._shares += 1
        self._open = True

    async def acquire(self) -> Slot:
        """A slot, as soon as the share and the pool have one free."""
        await self._left.acquire()
        try:
            return await self._pool.acquire()
        except BaseException:
            self._left.release()
            raise

    def release(self, slot: Slot) -> None:
        self._pool.release(slot)
        self._left.release()

    def close(self) -> None:
        """Slots that are still out may be released later."""
        if self._open:
            self._open = False
            self._engine._shares -= 1

    def __enter__(self) -> Share:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

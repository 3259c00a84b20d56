"""Rounds: the newest frame of every camera that has one, one slot, one request a model, rows handed out.

While a round is with the engine each camera keeps its newest frame alone, so whatever is slow makes rounds rarer and
never older. The next one is prepared just before the engine is free for it, and tracked beside the one after it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Final, TypeVar

from gateway.detections import Detections, Floats
from gateway.errors import GatewayError
from gateway.inference.engine import Engine
from gateway.inference.outputs import Sight
from gateway.inference.slots import Slot
from gateway.live.camera import Camera
from gateway.metrics import Metrics
from gateway.settings import Settings
from gateway.tracking.live import Placed
from gateway.video.stream import Captured
from touchline.contract import BALL_MODEL, PITCH_MODEL, PLAYER_MODEL, Letterbox

SLOTS: Final = 2
"""The cameras' share of the slots: one is with the engine while the next is prepared."""
LOW_SCORE: Final = 0.1
"""Boxes from here up to CONFIDENCE may continue a track but not begin one (ByteTrack's second association)."""
_QUIET_S: Final = 0.002
"""So long after the last frame no other is waited for."""
_THREADS: Final = 4
_AGAIN_S: Final = 0.25
EARLY: Final = 0.85
"""Of the time that a round is going to take, the part after which its end is looked for."""
_REMEMBERED: Final = 8
"""Rounds by which the next one's time is foretold."""

_Result = TypeVar("_Result")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Row:
    """A frame of a round."""

    camera: Camera
    frame: Captured
    models: frozenset[str]
    """Those that look at it."""

    @property
    def pitch(self) -> bool:
        return PITCH_MODEL in self.models


@dataclass(slots=True)
class _Round:
    """What there is of a round, from its frames to what was seen in them."""

    rows: list[Row]
    letterboxes: Mapping[int, Letterbox]
    """By the places of the rows in the slot."""
    begun: float
    """Its frames were taken; this and the following on time.monotonic's clock."""
    asked: float
    work_s: float
    """About what the engine alone needs for it."""
    ended: float = 0.0
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """It is no longer with the engine."""
    sight: Sight | None = None
    """None until then, and if it failed."""


def models_for(wanted: Iterable[str], *, pitch: bool, has_ball_model: bool) -> frozenset[str]:
    """The models that look at a frame of a camera that wants `wanted`; `pitch`: it is the pitch's turn."""
    ball = BALL_MODEL if has_ball_model else PLAYER_MODEL
    chosen = {ball if one == BALL_MODEL else one for one in wanted if one != PITCH_MODEL}
    return frozenset(chosen | {PITCH_MODEL} if pitch else chosen)


def in_order(rows: Iterable[Row]) -> list[Row]:
    """As they lie in a slot: those that the pitch model looks at first, those of every other model side by side."""

    def key(row: Row) -> tuple[bool, int, bool]:
        others = len(row.models - {PITCH_MODEL})
        return not row.pitch, others if row.pitch else -others, (PLAYER_MODEL in row.models) is not row.pitch

    return sorted(rows, key=key)


def places_of(rows: Sequence[Row]) -> dict[str, range]:
    """From where to where in the slot each model that anyone wants looks."""
    seen: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        for model in row.models:
            seen.setdefault(model, []).append(index)
    return {model: range(indices[0], indices[-1] + 1) for model, indices in seen.items()}


def patience_s(rates: Sequence[float], longest_s: float) -> float:
    """Seconds a round waits for further frames: half of the fastest camera's period, `longest_s` at most."""
    fastest = max(rates, default=0.0)
    return min(longest_s, 0.5 / fastest) if fastest > 0 else longest_s


def rest_s(work_s: float, took_s: float, share: float) -> float:
    """Seconds to leave the engine to challenges after a round of `work_s` engine time that took `took_s` in all."""
    return max(0.0, work_s / share - took_s)


def busy_for_s(work_s: float, lately: Sequence[tuple[float, float]], preparing_s: Sequence[float]) -> float:
    """Seconds from a round's start at the engine until the next one is to be prepared: just in time, rather too early.

    `lately`: of the last rounds, how long each kept the engine busy and how long it was to (as `work_s` is this one's),
    `preparing_s`: of the last ones. An engine that waits is lost time; frames that wait are only so much older.
    """
    took_s, expected_s = (sum(one) for one in zip(*lately, strict=True)) if lately else (0.0, 0.0)
    # Of all together: rounds that the engine took as one batch ended at once, and say something only as a pair.
    likely = EARLY * took_s / expected_s if expected_s else 0.0
    return max(0.0, work_s * likely - max(preparing_s, default=0.0))


class Rounds:
    """Takes the frames of all cameras through the engine, round after round."""

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        engine: Engine,
        *,
        cameras: Callable[[], Sequence[Camera]],
        busy: Callable[[], bool],
    ) -> None:
        """`busy` says whether a challenge is in progress."""
        self._settings, self._metrics, self._engine = settings, metrics, engine
        self._cameras, self._busy = cameras, busy
        self._fresh = asyncio.Event()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="live")
        # Tracking holds the interpreter's lock: more threads would take it from each other.
        self._tracking = ThreadPoolExecutor(1, thread_name_prefix="live-tracking")
        self._newest: _Round | None = None
        self._under_way = deque[asyncio.Task[None]]()
        self._lately = deque[tuple[float, float]](maxlen=_REMEMBERED)
        self._preparing_s = deque[float](maxlen=_REMEMBERED)
        self._free_at = 0.0
        """When the engine was done with the last round that it is done with."""
        self._complaint = ""
        self._count = 0

    def frame_came(self) -> None:
        self._fresh.set()

    def close(self) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._tracking.shutdown(wait=True, cancel_futures=True)

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                await self._until_due()
                try:
                    await self._begin()
                except Exception as error:
                    self._failed(error)
                    await asyncio.sleep(_AGAIN_S)
        finally:
            for task in self._under_way:
                task.cancel()
            if self._under_way:
                await asyncio.wait(self._under_way)

    async def _until_due(self) -> None:
        """Until the next round is to be prepared."""
        newest = self._newest
        if newest is None:
            return
        while len(self._under_way) > 1:  # nobody is more than a round behind
            await asyncio.wait([self._under_way[0]])
            self._under_way.popleft()
        if self._busy():
            await newest.over.wait()
            work_s = min(newest.work_s, newest.ended - newest.asked)
            await asyncio.sleep(rest_s(work_s, time.monotonic() - newest.begun, self._settings.live_share))
        else:
            due = max(newest.asked, self._free_at) + busy_for_s(newest.work_s, self._lately, self._preparing_s)
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, due - time.monotonic())):
                    await newest.over.wait()
        if newest.over.is_set() and newest.sight is None:
            self._newest = None
            await asyncio.sleep(_AGAIN_S)

    async def _begin(self) -> None:
        """Prepare a round as soon as there is a frame, and let it go."""
        while not any(camera.waiting for camera in self._cameras()):
            self._fresh.clear()
            await self._fresh.wait()
        begun = time.monotonic()
        await self._gathered()
        with ExitStack() as held:
            share = held.enter_context(self._engine.share(1))
            slot = await share.acquire()
            held.callback(share.release, slot)
            rows = self._chosen(share.slot_frames)
            if not rows:
                return
            taken = time.monotonic()
            try:
                size = share.input_size
                work = [partial(_scaled, one, size, slot) for one in _by_camera(rows)]
                scaled = await _in_threads(self._threads, work)
            except BaseException:
                _lost(rows)
                raise
            places, costs = places_of(rows), self._engine.costs
            work_s = sum(costs.get(model, 0.0) * len(seen) for model, seen in places.items())
            now = time.monotonic()
            self._preparing_s.append(now - begun)
            one = self._newest = _Round(rows, dict(chain.from_iterable(scaled)), taken, now, work_s)
            before, mine = self._under_way[-1] if self._under_way else None, held.pop_all()
            task = asyncio.create_task(self._go(one, slot, places, mine, before))
            # Not in the task alone: one that is cancelled before its first step never gets there.
            task.add_done_callback(lambda _: mine.close())
            self._under_way.append(task)

    async def _gathered(self) -> None:
        """Wait for the frames that come with the first one."""
        live = [camera for camera in self._cameras() if camera.state == "live"]
        longest_s = self._settings.live_batch_wait_ms / 1000
        until = time.monotonic() + patience_s([camera.fps for camera in live], longest_s)
        while (left_s := until - time.monotonic()) > 0 and not all(camera.waiting for camera in live):
            self._fresh.clear()
            try:
                async with asyncio.timeout(min(left_s, _QUIET_S)):
                    await self._fresh.wait()
            except TimeoutError:
                return

    def _chosen(self, most: int) -> list[Row]:
        """Frames of the cameras that waited longest, at most so many."""
        models = self._engine.models
        has_ball_model = models is not None and models.has_ball_model
        rows: list[Row] = []
        for camera in sorted(self._cameras(), key=lambda camera: camera.taken_at):
            if rows and len(rows) + camera.waiting > most:
                break
            taken = [
                Row(camera, frame, models_for(camera.config.models, pitch=pitch, has_ball_model=has_ball_model))
                for frame, pitch in camera.take()
            ]
            if len(rows) + len(taken) > most:
                camera.lost(len(rows) + len(taken) - most)
                taken = taken[len(rows) - most :]
            rows += taken
        return in_order(rows)

    async def _go(
        self,
        one: _Round,
        slot: Slot,
        places: Mapping[str, range],
        held: ExitStack,
        before: asyncio.Task[None] | None,
    ) -> None:
        """Let the engine look, and the trackers when those of the round `before` are done."""
        try:
            with held:
                one.sight = await self._engine.look_at(slot, len(one.rows), places)
        except Exception as error:
            _lost(one.rows)
            self._failed(error)
            return
        finally:
            one.ended = time.monotonic()
            if one.sight is not None and one.work_s:
                self._lately.append((one.ended - max(one.asked, self._free_at), one.work_s))
            self._free_at = one.ended
            one.over.set()
        self._complaint = ""
        self._count += 1
        self._metrics.live_batch.observe(len(one.rows))
        if before is not None:
            await asyncio.wait([before])
        try:
            await self._hand_out(one, one.sight)
        except Exception as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        """A Triton that is away is the engine's to tell and to find again."""
        first = _first(error)
        if not isinstance(first, GatewayError):
            _log.error("the cameras' round failed in a way that was not foreseen", exc_info=error)
        elif str(first) != self._complaint:
            self._complaint = str(first)
            _log.warning("the cameras' round failed, and is tried again: %s", first)

    async def _hand_out(self, one: _Round, sight: Sight) -> None:
        """Let each camera's tracker have its rows, and viewers what comes of it."""
        begun = time.monotonic()
        for rows in _by_camera(one.rows):
            (tracked,) = await _in_threads(self._tracking, [partial(self._tracked, rows, one, sight)])
            for row, placed, seconds in tracked:
                times = {
                    "decode": row.frame.decode_s,
                    "wait": max(0.0, one.begun - row.frame.at),
                    "scale": one.asked - one.begun,
                    "infer": one.ended - one.asked,
                    "track": seconds,
                }
                for stage, took_s in times.items():
                    self._metrics.live_stage_seconds.labels(stage).observe(took_s)
                row.camera.publish(row.frame, placed, times)
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug(
                "round %d: %d frames, pitch %d; ms: oldest %.1f, decode %.1f, scale %.1f, infer %.1f, track %.1f",
                self._count,
                len(one.rows),
                sum(row.pitch for row in one.rows),
                1000 * max(one.begun - row.frame.at for row in one.rows),
                1000 * sum(row.frame.decode_s for row in one.rows),
                1000 * (one.asked - one.begun),
                1000 * (one.ended - one.asked),
                1000 * (time.monotonic() - begun),
            )

    def _tracked(self, rows: list[tuple[int, Row]], one: _Round, sight: Sight) -> list[tuple[Row, Placed, float]]:
        """The rows of one camera in order of frames, with where who is and the seconds that took. For a thread."""
        tracked = []
        for index, row in sorted(rows, key=lambda one: one[1].frame.number):
            begun = time.perf_counter()
            try:
                found = self._found(index, row, one.letterboxes[index], sight)
                tracked.append((row, row.camera.track(row.frame, *found), time.perf_counter() - begun))
            except Exception:
                _log.exception("tracking camera %s failed in a way that was not foreseen", row.camera.config.id)
        return tracked

    def _found(self, index: int, row: Row, letterbox: Letterbox, sight: Sight) -> tuple[Detections, Floats | None]:
        """Boxes and keypoints of a row, in pixels of its picture."""
        here = slice(index, index + 1)
        (boxes,) = sight.detections(letterbox, min_score=min(LOW_SCORE, self._settings.confidence), rows=here)
        if not row.pitch:
            return boxes, None
        least = self._settings.keypoint_confidence
        (points,) = sight.keypoints(letterbox, min_confidence=least, rows=here)
        return boxes, points


async def _in_threads(threads: Executor, work: Sequence[Callable[[], _Result]]) -> list[_Result]:
    """What each returns. When cancelled, wait until all have ended: they write into a slot."""
    loop = asyncio.get_running_loop()
    futures = [loop.run_in_executor(threads, one) for one in work]
    try:
        return list(await asyncio.shield(asyncio.gather(*futures)))
    except BaseException:
        while not all(future.done() for future in futures):
            with suppress(asyncio.CancelledError):
                await asyncio.wait(futures)
        raise


def _lost(rows: Sequence[Row]) -> None:
    for row in rows:
        row.camera.lost(1)


def _by_camera(rows: list[Row]) -> list[list[tuple[int, Row]]]:
    """The rows of each camera, with their places in the slot."""
    found: dict[Camera, list[tuple[int, Row]]] = {}
    for index, row in enumerate(rows):
        found.setdefault(row.camera, []).append((index, row))
    return list(found.values())


def _scaled(rows: list[tuple[int, Row]], size: tuple[int, int], slot: Slot) -> list[tuple[int, Letterbox]]:
    """Write the rows of one camera into their places in the slot."""
    return [(index, row.camera.scale(row.frame, size, slot.frames[index])) for index, row in rows]


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error

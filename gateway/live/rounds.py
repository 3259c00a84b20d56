"""Rounds: the newest frame of every camera that has one, one slot, one request a model, rows handed out.

While a round is with the engine each camera keeps its newest frame alone, so whatever is slow makes rounds rarer and
never older. Tracking runs beside the next round.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
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
from gateway.video.stream import Captured
from touchline.contract import BALL_MODEL, PITCH_MODEL, PLAYER_MODEL, Letterbox

SLOTS: Final = 1
"""The cameras' share of the slots."""
LOW_SCORE: Final = 0.1
"""Boxes from here up to CONFIDENCE may continue a track but not begin one (ByteTrack's second association)."""
_QUIET_S: Final = 0.002
"""So long after the last frame no other is waited for."""
_THREADS: Final = 4
_AGAIN_S: Final = 0.25

_Result = TypeVar("_Result")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Row:
    """A frame of a round."""

    camera: Camera
    frame: Captured
    pitch: bool
    """The pitch model looks at it."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a round brought, by the places of its rows in the slot."""

    letterboxes: dict[int, Letterbox]
    sight: Sight
    taken_at: float
    scale_s: float
    infer_s: float


def in_order(rows: Iterable[Row]) -> list[Row]:
    """As they lie in a slot: those that the pitch model looks at first."""
    return sorted(rows, key=lambda row: not row.pitch)


def patience_s(rates: Sequence[float], longest_s: float) -> float:
    """Seconds a round waits for further frames: half of the fastest camera's period, `longest_s` at most."""
    fastest = max(rates, default=0.0)
    return min(longest_s, 0.5 / fastest) if fastest > 0 else longest_s


def rest_s(work_s: float, took_s: float, share: float) -> float:
    """Seconds to leave the engine to challenges after a round of `work_s` engine time that took `took_s` in all."""
    return max(0.0, work_s / share - took_s)


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
        self._handing: asyncio.Task[None] | None = None
        self.count = 0

    def frame_came(self) -> None:
        self._fresh.set()

    def close(self) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)

    async def run(self) -> None:
        """Until cancelled."""
        complaint = ""
        try:
            while True:
                begun = time.monotonic()
                try:
                    work_s = await self._round()
                    complaint = ""
                except (GatewayError, ExceptionGroup) as error:
                    # A Triton that is away is the engine's to tell and to find again.
                    if str(error) != complaint:
                        complaint = str(error)
                        _log.warning("the cameras' round failed, and is tried again: %s", _first(error))
                    await asyncio.sleep(_AGAIN_S)
                    continue
                except Exception:
                    _log.exception("the cameras' round failed in a way that was not foreseen")
                    await asyncio.sleep(1)
                    continue
                if self._busy():
                    await asyncio.sleep(rest_s(work_s, time.monotonic() - begun, self._settings.live_share))
        finally:
            if self._handing is not None:
                self._handing.cancel()
                with suppress(asyncio.CancelledError):
                    await self._handing

    async def _round(self) -> float:
        """One round, as soon as there is a frame. Returns about how long the engine alone needs for it."""
        await self._gathered()
        with self._engine.share(SLOTS) as share:
            slot = await share.acquire()
            try:
                rows = self._chosen(share.slot_frames)
                if not rows:
                    return 0.0
                return await self._through(rows, slot, share.input_size)
            finally:
                share.release(slot)

    async def _gathered(self) -> None:
        """Wait for a frame, then for those that come with it."""
        while not any(camera.waiting for camera in self._cameras()):
            self._fresh.clear()
            await self._fresh.wait()
        live = [camera for camera in self._cameras() if camera.state == "live"]
        longest_s = self._settings.live_batch_wait_ms / 1000
        until = time.monotonic() + patience_s([camera.fps for camera in live], longest_s)
        while (left_s := until - time.monotonic()) > 0 and not all(camera.waiting for camera in live):
            self._fresh.clear()
            try:
                await asyncio.wait_for(self._fresh.wait(), min(left_s, _QUIET_S))
            except TimeoutError:
                return

    def _chosen(self, most: int) -> list[Row]:
        """Frames of the cameras that waited longest, at most so many."""
        rows: list[Row] = []
        for camera in sorted(self._cameras(), key=lambda camera: camera.taken_at):
            if rows and len(rows) + camera.waiting > most:
                break
            taken = [Row(camera, *one) for one in camera.take()]
            if len(rows) + len(taken) > most:
                camera.lost(len(rows) + len(taken) - most)
                taken = taken[len(rows) - most :]
            rows += taken
        return in_order(rows)

    async def _through(self, rows: list[Row], slot: Slot, size: tuple[int, int]) -> float:
        begun = time.perf_counter()
        taken_at = time.monotonic()
        pitch_count = sum(row.pitch for row in rows)
        try:
            places = await self._in_threads([partial(_scaled, one, size, slot) for one in _by_camera(rows)])
            letterboxes = dict(chain.from_iterable(places))
            asked = time.perf_counter()
            sight = await self._engine.look(slot, len(rows), pitch_count)
        except BaseException:
            for row in rows:
                row.camera.lost(1)
            raise
        done = time.perf_counter()
        self.count += 1
        self._metrics.live_batch.observe(len(rows))
        if self._handing is not None:
            await self._handing
        seen = _Seen(letterboxes, sight, taken_at, asked - begun, done - asked)
        self._handing = asyncio.create_task(self._hand_out(rows, seen))
        costs = self._engine.costs
        each_s = costs.get(PLAYER_MODEL, 0.0) + costs.get(BALL_MODEL, 0.0)
        work_s = each_s * len(rows) + costs.get(PITCH_MODEL, 0.0) * pitch_count
        return min(work_s, done - asked)

    async def _hand_out(self, rows: list[Row], seen: _Seen) -> None:
        """Let each camera's tracker have its rows, and viewers what comes of it."""
        begun = time.perf_counter()
        await asyncio.gather(*(self._track(one, seen) for one in _by_camera(rows)))
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug(
                "round %d: %d frames, pitch %d; ms: oldest %.1f, decode %.1f, scale %.1f, infer %.1f, track %.1f",
                self.count,
                len(rows),
                sum(row.pitch for row in rows),
                1000 * max(seen.taken_at - row.frame.at for row in rows),
                1000 * sum(row.frame.decode_s for row in rows),
                1000 * seen.scale_s,
                1000 * seen.infer_s,
                1000 * (time.perf_counter() - begun),
            )

    async def _track(self, rows: list[tuple[int, Row]], seen: _Seen) -> None:
        """The rows of one camera, in order of their frames."""
        for index, row in sorted(rows, key=lambda one: one[1].frame.number):
            begun = time.perf_counter()
            try:
                found = self._found(index, row, seen)
                (placed,) = await self._in_threads([partial(row.camera.track, row.frame, *found)])
            except Exception:
                _log.exception("tracking camera %s failed in a way that was not foreseen", row.camera.config.id)
                continue
            times = {
                "decode": row.frame.decode_s,
                "wait": max(0.0, seen.taken_at - row.frame.at),
                "scale": seen.scale_s,
                "infer": seen.infer_s,
                "track": time.perf_counter() - begun,
            }
            for stage, seconds in times.items():
                self._metrics.live_stage_seconds.labels(stage).observe(seconds)
            row.camera.publish(row.frame, placed, times)

    def _found(self, index: int, row: Row, seen: _Seen) -> tuple[Detections, Floats | None]:
        """Boxes and keypoints of a row, in pixels of its picture."""
        letterbox, here = seen.letterboxes[index], slice(index, index + 1)
        (boxes,) = seen.sight.detections(letterbox, min_score=min(LOW_SCORE, self._settings.confidence), rows=here)
        if not row.pitch:
            return boxes, None
        least = self._settings.keypoint_confidence
        (points,) = seen.sight.keypoints(letterbox, min_confidence=least, rows=here)
        return boxes, points

    async def _in_threads(self, work: Sequence[Callable[[], _Result]]) -> list[_Result]:
        """What each returns. When cancelled, wait until all have ended: they write into a slot."""
        loop = asyncio.get_running_loop()
        futures = [loop.run_in_executor(self._threads, one) for one in work]
        try:
            return list(await asyncio.shield(asyncio.gather(*futures)))
        except BaseException:
            while not all(future.done() for future in futures):
                with suppress(asyncio.CancelledError):
                    await asyncio.wait(futures)
            raise


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

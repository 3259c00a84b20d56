"""Single pictures through the models: fetched, decoded into slots, looked at in batches, each on its own."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

import httpx
import numpy as np

from gateway.detections import Detections, Floats
from gateway.errors import BadPicture, Busy, ChallengeTimedOut, GatewayError, InferenceUnavailable
from gateway.inference.engine import Engine, Share
from gateway.inference.slots import Slot
from gateway.metrics import Metrics
from gateway.settings import Settings
from gateway.tracking.people import best_of_duplicates
from gateway.video.download import download
from gateway.video.growing_file import GrowingFile
from gateway.video.pictures import from_base64, into_slot
from gateway.video.shirts import shirt_colours
from touchline.contract import BALL, PLAYER, Frame, Letterbox

SLOTS: Final = 2
"""Of a request: one is filled while the other is in Triton."""
FIRST_BATCH: Final = 2
"""Pictures in the first slot of a request; every next one has twice as many, up to a slot."""
MOST_WAITING: Final = 64
"""Requests that wait for a place with their bodies unread."""
READY_WAIT_S: Final = 20.0
"""A Triton that is away may come back for so long before a request is given up: callers do not ask again."""
_FETCHED_AT_ONCE: Final = 8
_MOST_THREADS: Final = 4
"""Each may hold a picture of MOST_PIXELS."""
_POLL_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Picture:
    """What is to be looked at: base64 of a PNG or JPEG, or where there is one."""

    name: str
    """For messages."""
    data: str | None
    url: str | None


@dataclass(frozen=True, slots=True)
class Seen:
    """What the models say of a picture, in its own pixels."""

    size: tuple[int, int]
    """Width and height."""
    detections: Detections
    keypoints: Floats
    """float32 [32, 2], (0, 0) where not seen."""
    shirts: Floats
    """float32 [n, 3]: the colour of each box's shirt in CIE Lab, NaN of who is no player."""


class Predictions:
    """Looks at pictures, for as many requests at once as there are places."""

    def __init__(self, settings: Settings, metrics: Metrics, engine: Engine, client: httpx.AsyncClient) -> None:
        self._settings = settings
        self.metrics = metrics
        self.engine = engine
        self._client = client
        self._places = asyncio.Semaphore(settings.concurrent_predictions)
        self._waiting = 0
        threads = min(_MOST_THREADS, len(os.sched_getaffinity(0)))
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="picture")

    def close(self) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A place, in which a body may be read and its pictures looked at.

        Raises Busy when too many wait already, ChallengeTimedOut when all this takes too long.
        """
        if self._waiting >= MOST_WAITING:
            raise Busy(f"{self._waiting} requests wait already; ask again later")
        limit_s = self._settings.challenge_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                self._waiting += 1
                try:
                    await self._places.acquire()
                finally:
                    self._waiting -= 1
                try:
                    yield
                finally:
                    self._places.release()
        except TimeoutError as error:
            raise ChallengeTimedOut(f"the request took longer than CHALLENGE_TIMEOUT_S ({limit_s:g} s)") from error

    async def look(self, pictures: Sequence[Picture], min_score: float | None = None) -> list[Seen]:
        """What the models see in `pictures`, in their order: boxes of `min_score`, else CONFIDENCE, and more.

        Raises a GatewayError that names the picture. However it ends, no slot, file, task or busy thread is left.
        """
        least = self._settings.confidence if min_score is None else min_score
        await self.until_ready()
        with self.engine.share(SLOTS) as share:
            under_way: list[asyncio.Task[list[Seen]]] = []
            try:
                for few in batches(len(pictures), share.slot_frames):
                    chosen = pictures[few]
                    slot = await share.acquire()
                    try:
                        letterboxes = await self._filled(slot, chosen)
                    except BaseException:
                        share.release(slot)
                        raise
                    under_way.append(asyncio.create_task(self._seen(share, slot, letterboxes, least)))
                    for task in under_way:
                        if task.done():
                            task.result()  # an engine that failed fails the request now
                return [seen for task in under_way for seen in await task]
            finally:
                await _ended(under_way)

    async def until_ready(self) -> None:
        """Raises InferenceUnavailable where no Triton comes back in time."""
        until = time.monotonic() + READY_WAIT_S
        while not self.engine.ready:
            if time.monotonic() > until:
                raise InferenceUnavailable(self.engine.why_not_ready)
            await asyncio.sleep(_POLL_S)

    async def _filled(self, slot: Slot, pictures: Sequence[Picture]) -> list[Letterbox]:
        """Put the pictures into the slot; how each lies there. All threads have left it, however this ends."""
        fetching = asyncio.Semaphore(_FETCHED_AT_ONCE)
        decoding: list[asyncio.Future[Letterbox]] = []

        async def one(picture: Picture, target: Frame) -> Letterbox:
            try:
                data: str | bytes = picture.data or ""
                if picture.data is None:
                    async with fetching:
                        data = await self._fetched(picture.url or "")
                work = asyncio.get_running_loop().run_in_executor(self._threads, _decoded_into, data, target)
                decoding.append(work)
                return await asyncio.shield(work)
            except GatewayError as error:
                raise _about(picture, error) from error

        work = [asyncio.create_task(one(*pair)) for pair in zip(pictures, slot.frames, strict=False)]
        try:
            return list(await asyncio.gather(*work))
        finally:
            await _ended(work)
            for future in decoding:
                future.cancel()  # those that no thread has begun
            while not all(future.done() for future in decoding):
                with suppress(asyncio.CancelledError):
                    await asyncio.wait(decoding)

    async def _fetched(self, url: str) -> bytes:
        limit = self._settings.max_picture_mb * 2**20
        with GrowingFile() as file:
            silence_s = self._settings.download_timeout_s
            await download(self._client, url, file, max_bytes=limit, silence_s=silence_s, limited_by="MAX_PICTURE_MB")
            return file.read()

    async def _seen(self, share: Share, slot: Slot, letterboxes: list[Letterbox], min_score: float) -> list[Seen]:
        count = len(letterboxes)
        try:
            sight = await self.engine.look(slot, count, count, until=time.perf_counter() + READY_WAIT_S)
            seen = []
            for index, letterbox in enumerate(letterboxes):
                rows = slice(index, index + 1)
                (found,) = sight.detections(letterbox, min_score=min_score, rows=rows)
                found = without_duplicates(found)
                shirts = shirts_of(slot.frames[index], found, letterbox)
                points = sight.keypoints(letterbox, min_confidence=self._settings.keypoint_confidence, rows=rows)
                seen.append(Seen(letterbox.source_size, found, points[0], shirts))
        finally:
            share.release(slot)
        self.metrics.frames.labels("inferred").inc(count)
        return seen


def batches(count: int, largest: int) -> Iterator[slice]:
    """Slices of `count` pictures in slots: small ones first, so that an engine works while the others are decoded."""
    first, size = 0, FIRST_BATCH
    while first < count:
        size = min(size, largest)
        # What is left goes along where it fits: a batch of a few more is done sooner than two.
        stop = count if count - first <= size else first + size
        yield slice(first, stop)
        first, size = stop, 2 * size


def shirts_of(frame: Frame, found: Detections, letterbox: Letterbox) -> Floats:
    """float32 [n, 3]: the colours of the players' shirts in a slot's frame, NaN for all others."""
    colours = np.full((len(found), 3), np.nan, np.float32)
    players = np.flatnonzero(found.classes == PLAYER)
    colours[players] = shirt_colours(frame, found.xyxy[players], letterbox)
    return colours


def without_duplicates(detections: Detections) -> Detections:
    """Without the lesser of two persons' boxes that lie on one person, as the tracker of a clip has it."""
    keep = detections.classes == BALL
    persons = np.flatnonzero(~keep)
    keep[persons[best_of_duplicates(np.ascontiguousarray(detections.xyxy[persons].T, np.float64))]] = True
    return detections.only(keep)


def _decoded_into(data: str | bytes, target: Frame) -> Letterbox:
    """In a thread: a PNG or JPEG, as bytes or in base64, as uint8 [H, W, 3] RGB."""
    return into_slot(from_base64(data) if isinstance(data, str) else data, target)


def _about(picture: Picture, error: GatewayError) -> GatewayError:
    """The same error, naming the picture."""
    named = f"{picture.name} {error}" if isinstance(error, BadPicture) else f"{picture.name}: {error}"
    return type(error)(named)


async def _ended(tasks: Sequence[asyncio.Task[object]] | Sequence[asyncio.Task[list[Seen]]]) -> None:
    """Cancel what runs and wait until it has ended, whatever it ends with."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

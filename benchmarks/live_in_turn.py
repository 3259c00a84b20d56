"""The usual way to watch cameras, to compare with: gather some frames of each, then infer, track, encode, send in turn.

After public descriptions of such backends: FRAME_SKIP 3, 4 frames of each of 4 cameras in one batch, one loop that does
one thing after the other, pictures as base64 in JSON. It uses this project's own engine client, tracker and drawing,
so that what differs is the scheme alone.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
import queue
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Final

import av
import cv2
import numpy as np

from gateway.detections import Floats
from gateway.inference.outputs import detections_from_rows
from gateway.inference.slots import SlotPool
from gateway.inference.triton import Triton
from gateway.settings import Settings
from gateway.tracking.live import LiveTracker
from gateway.video.scale import Scaler
from touchline.answer import FrameAnswer
from touchline.contract import KEYPOINT_COUNT, PITCH_MODEL, PLAYER_MODEL, Letterbox
from touchline.drawing import draw_objects
from touchline.video_live import StreamFailed, open_stream

FRAME_SKIP: Final = 3
FRAMES_OF_EACH: Final = 4
_QUALITY: Final = 75
_WIDTH: Final = 640


def watch_in_turn(
    to: Connection, grpc_url: str, urls: Sequence[str], seconds: float, pitch_share: float, *, annotated: bool
) -> None:
    """Send (camera, time.monotonic(), JPEG) of every frame, for so long after the first ones; then close.

    `pitch_share` of the frames is seen by the pitch model too; `annotated`: boxes are drawn into the JPEG.
    """
    asyncio.run(_watch(to, grpc_url, urls, seconds, pitch_share, annotated=annotated))
    to.close()


class _Reader(threading.Thread):
    """Every FRAME_SKIP-th frame of a camera; the oldest goes when nobody takes them."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.frames = queue.Queue[av.VideoFrame](FRAMES_OF_EACH)
        self._url = url
        self.stopped = False

    def run(self) -> None:
        while not self.stopped:
            with (
                suppress(StreamFailed, av.FFmpegError),
                open_stream(self._url, transport="tcp", timeout_s=5) as source,
            ):
                for number, frame in enumerate(source.decode(video=0)):
                    if self.stopped:
                        return
                    if number % FRAME_SKIP == 0:
                        if self.frames.full():
                            self.frames.get()
                        self.frames.put(frame)


class Looker:
    """A slot and both models, one batch after the other."""

    def __init__(self, grpc_url: str, batch: int) -> None:
        self._triton = Triton(grpc_url, shared_memory="system", timeout_s=60)
        self._batch = batch
        self._owed = 0.0

    async def look(self, count: int, pitch_share: float) -> Floats:
        """Player rows float32 [count, K, 6] of the slot's first frames, of which the pitch model sees a share too.

        What is less than a frame of its share is seen later.
        """
        self._owed += count * pitch_share
        pitch_count = min(count, int(self._owed))
        self._owed -= pitch_count
        asked = (PLAYER_MODEL, count), (PITCH_MODEL, pitch_count)
        rows, _ = await asyncio.gather(*(self._triton.infer(model, self.slot, seen) for model, seen in asked))
        return rows

    async def __aenter__(self) -> Looker:
        models = await self._triton.discover()
        self.size = models.width, models.height
        self._pool = SlotPool(slots=1, slot_shape=(self._batch, models.height, models.width, 3))
        self.slot = await self._pool.acquire()
        await self._triton.attach(self._pool)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._triton.close()
        self._pool.close()


async def _watch(
    to: Connection, grpc_url: str, urls: Sequence[str], seconds: float, pitch_share: float, *, annotated: bool
) -> None:
    least = Settings(_env_file=None).confidence
    readers = [_Reader(url) for url in urls]
    trackers = [LiveTracker(track_buffer=30, confidence=least) for _ in urls]
    try:
        async with Looker(grpc_url, FRAMES_OF_EACH * len(urls)) as looker:
            for reader in readers:
                reader.start()
            until = math.inf
            while time.monotonic() < until:
                frames = [[reader.frames.get(timeout=20) for _ in range(FRAMES_OF_EACH)] for reader in readers]
                every = [frame for one in frames for frame in one]
                letterbox = Letterbox(every[0].width, every[0].height, *looker.size)
                scaler = Scaler(*letterbox.content_size)
                for index, frame in enumerate(every):
                    scaler.scale(frame, letterbox.content_of(looker.slot.frames[index]))
                rows = await looker.look(len(every), pitch_share)
                found = detections_from_rows(rows, letterbox, min_score=0.1)
                for index, (frame, boxes) in enumerate(zip(every, found, strict=True)):
                    camera = index // FRAMES_OF_EACH
                    tracked = trackers[camera].update(float(frame.time or 0), boxes, None).tracks
                    small = frame.to_ndarray(format="bgr24", width=_WIDTH, height=_WIDTH * frame.height // frame.width)
                    seen = tracked.detections
                    if annotated:
                        answer = FrameAnswer(0, np.zeros((KEYPOINT_COUNT, 2)), seen.xyxy, seen.classes, tracked.ids)
                        draw_objects(small, answer, _WIDTH / frame.width)
                    jpeg = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
                    json.dumps(
                        {"camera": camera, "frame": base64.b64encode(jpeg).decode(), "boxes": seen.xyxy.tolist()}
                    )
                    to.send((camera, time.monotonic(), jpeg))
                if until == math.inf:
                    until = time.monotonic() + seconds
    finally:
        for reader in readers:
            reader.stopped = True

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
from typing import Final

import av
import cv2
import numpy as np

from gateway.inference.engine import Engine
from gateway.metrics import Metrics
from gateway.settings import Settings
from gateway.tracking.live import LiveTracker
from gateway.video.scale import Scaler
from touchline.answer import FrameAnswer
from touchline.contract import KEYPOINT_COUNT, Letterbox
from touchline.drawing import draw_objects
from touchline.video_live import StreamFailed, open_stream

FRAME_SKIP: Final = 3
FRAMES_OF_EACH: Final = 4
_QUALITY: Final = 75
_WIDTH: Final = 640


def watch_in_turn(to: Connection, grpc_url: str, urls: Sequence[str], seconds: float) -> None:
    """Send (camera, time.monotonic(), JPEG) of every frame, for so long after the first ones; then close."""
    asyncio.run(_watch(to, grpc_url, urls, seconds))
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


async def _watch(to: Connection, grpc_url: str, urls: Sequence[str], seconds: float) -> None:
    settings = Settings(_env_file=None, triton_urls=grpc_url, device="cpu", batch_size=FRAMES_OF_EACH * len(urls))
    engine = Engine(settings, Metrics(), slots=1)
    watching = asyncio.create_task(engine.watch_forever())
    readers = [_Reader(url) for url in urls]
    trackers = [LiveTracker(track_buffer=30, confidence=settings.confidence) for _ in urls]
    try:
        while not engine.ready:  # noqa: ASYNC110  it tells nobody
            await asyncio.sleep(0.05)
        for reader in readers:
            reader.start()
        with engine.share(1) as share:
            slot = await share.acquire()
            until = math.inf
            while time.monotonic() < until:
                frames = [[reader.frames.get(timeout=20) for _ in range(FRAMES_OF_EACH)] for reader in readers]
                every = [frame for one in frames for frame in one]
                width, height = share.input_size
                letterbox = Letterbox(every[0].width, every[0].height, width, height)
                scaler = Scaler(*letterbox.content_size)
                for index, frame in enumerate(every):
                    scaler.scale(frame, letterbox.content_of(slot.frames[index]))
                # The pitch model sees one frame of each camera: about every 10th of those that come, as in the gateway.
                sight = await engine.look(slot, len(every), len(urls))
                found = sight.detections(letterbox, min_score=0.1)
                for index, (frame, boxes) in enumerate(zip(every, found, strict=True)):
                    camera = index // FRAMES_OF_EACH
                    tracked = trackers[camera].update(float(frame.time or 0), boxes, None).tracks
                    small = frame.to_ndarray(format="bgr24", width=_WIDTH, height=_WIDTH * frame.height // frame.width)
                    seen = tracked.detections
                    answer = FrameAnswer(0, np.zeros((KEYPOINT_COUNT, 2)), seen.xyxy, seen.classes, tracked.ids)
                    draw_objects(small, answer, _WIDTH / frame.width)
                    jpeg = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
                    json.dumps(
                        {"camera": camera, "frame": base64.b64encode(jpeg).decode(), "boxes": seen.xyxy.tolist()}
                    )
                    to.send((camera, time.monotonic(), jpeg))
                if until == math.inf:
                    until = time.monotonic() + seconds
            share.release(slot)
    finally:
        for reader in readers:
            reader.stopped = True
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await engine.close()

"""Pictures of views as JPEG: each made once however many watch, none while nobody does."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from gateway.live.views import View
from gateway.metrics import Metrics
from gateway.video.scale import Scaler
from touchline.answer import FrameAnswer
from touchline.contract import KEYPOINT_COUNT
from touchline.drawing import Picture, draw_objects, write

_KEPT_S: Final = 10.0
"""Of a size that nobody asks for any more."""
_MOST_CANVASES: Final = 8
_SMALLEST: Final = 16
_DARK: Final = 0.3


@dataclass(frozen=True, slots=True)
class Look:
    """How a viewer wants pictures."""

    width: int
    quality: int
    """Of JPEG, 1 to 100."""
    annotated: bool
    """With boxes and ids drawn into them."""
    no_signal: str = ""
    """What is written over a picture that is not what the camera sees now; such a one is darkened."""


def shared_width(source: int, largest: int, wanted: int | None) -> int:
    """The width in pixels that a viewer gets: the largest, a half or a quarter of it, so that viewers share encodings.

    It is the smallest that is not below `wanted`; `largest` where nothing is wanted. Even, and never above `source`.
    """
    largest = min(largest, source)
    chosen = min((width for width in (largest // 4, largest // 2) if wanted and width >= wanted), default=largest)
    return max(_SMALLEST, chosen - chosen % 2)


class Encodings:
    """The newest JPEG of each camera and look, made in threads beside the rounds."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        # Drawing holds the interpreter's lock, and the next round is to run beside it.
        self._threads = ThreadPoolExecutor(max(1, min(4, (os.cpu_count() or 1) // 2)), thread_name_prefix="live-jpeg")
        self._own = threading.local()
        self._made: dict[tuple[int, Look], tuple[int, float, asyncio.Future[bytes]]] = {}

    async def jpeg(self, view: View, look: Look) -> bytes:
        """The view's picture. Who asks for the same waits for the same."""
        key = view.number, look
        sequence, _, encoding = self._made.get(key, (-1, 0.0, None))
        if encoding is None or sequence != view.sequence:
            now = time.monotonic()
            self._made = {key: kept for key, kept in self._made.items() if now - kept[1] < _KEPT_S}
            encoding = asyncio.get_running_loop().run_in_executor(self._threads, self._encode, view, look)
            self._made[key] = view.sequence, now, encoding
        return await asyncio.shield(encoding)  # a viewer that leaves takes it from nobody

    def forget(self) -> None:
        """Keep nothing: nobody watches."""
        self._made.clear()
        self._own = threading.local()

    def close(self) -> None:
        self.forget()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _encode(self, view: View, look: Look) -> bytes:
        started = time.perf_counter()
        width = look.width
        height = max(2, round(view.picture.height * width / view.picture.width / 2) * 2)
        scaler, picture = self._canvas(width, height)
        scaler.scale(view.picture, picture)
        if look.annotated:
            draw_objects(picture, as_answer(view), width / view.picture.width)
        if look.no_signal:
            tell_no_signal(picture, look.no_signal)
        drawn = time.perf_counter()
        jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, look.quality])[1].tobytes()
        self._metrics.viewers.encodes.inc()
        self._metrics.live_stage_seconds.labels("draw").observe(drawn - started)
        self._metrics.live_stage_seconds.labels("encode").observe(time.perf_counter() - drawn)
        return jpeg

    def _canvas(self, width: int, height: int) -> tuple[Scaler, Picture]:
        """This thread's own for a size. New memory for each picture would take as long as compressing it."""
        canvases: dict[tuple[int, int], tuple[Scaler, Picture]] = self._own.__dict__.setdefault("canvases", {})
        if (width, height) not in canvases:
            if len(canvases) >= _MOST_CANVASES:
                canvases.clear()
            canvases[width, height] = Scaler(width, height, bgr=True), np.empty((height, width, 3), np.uint8)
        return canvases[width, height]


def tell_no_signal(picture: Picture, text: str) -> None:
    """Darken a picture and write over it, so that nobody takes it for now."""
    cv2.convertScaleAbs(picture, picture, _DARK)
    size = max(10, picture.shape[1] // 28)
    write(picture, text, (size, picture.shape[0] // 2), size)


def blank(text: str, quality: int) -> bytes:
    """JPEG of a camera that has shown nothing so far."""
    picture: Picture = np.zeros((360, 640, 3), np.uint8)
    tell_no_signal(picture, text)
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def as_answer(view: View) -> FrameAnswer:
    """The view's boxes as what is drawn."""
    detections = view.tracks.detections
    return FrameAnswer(
        view.frame,
        np.zeros((KEYPOINT_COUNT, 2)),
        detections.xyxy,
        detections.classes.astype(np.intp),
        view.tracks.ids.astype(np.intp),
    )

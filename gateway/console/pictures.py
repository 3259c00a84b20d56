"""Draws what was answered about a kept frame: the frame itself and the pitch from above."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from gateway.history import Scene
from gateway.video.stills import Stills
from touchline.contract import Letterbox
from touchline.drawing import FrameView, Picture, draw_answer
from touchline.pitch_map import Paths, draw_map

MAP_WIDTH = 460
_QUALITY = 85
_LONGEST_WAIT_S = 15.0
_LOOK_AGAIN_S = 0.1


def annotated_frame(jpeg: bytes, scene: Scene, letterbox: Letterbox) -> bytes:
    """The kept frame with boxes, ids, keypoints and the pitch lines they imply, JPEG."""
    picture: Picture = np.asarray(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR), np.uint8)
    draw_answer(picture, FrameView.of(scene.answer(scene.number)), picture.shape[1] / letterbox.source_width)
    return bytes(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1])


def pitch_map(scene: Scene, letterbox: Letterbox) -> bytes:
    """The pitch from above with the objects of the frame and their trails of the second before it, PNG."""
    views = {number: FrameView.of(scene.answer(number)) for number in range(scene.first, scene.number + 1)}
    view = views[scene.number]
    trails = Paths(views).trails(view, len(views))
    return bytes(cv2.imencode(".png", draw_map(MAP_WIDTH, view, trails, letterbox.source_size))[1])


class Drawing:
    """The one thread that makes pictures, one at a time, while the gateway has nothing better to do.

    `busy` says whether a challenge is in progress.
    """

    def __init__(self, busy: Callable[[], bool]) -> None:
        self._busy = busy
        # Not at a lower priority: a thread that is kept waiting with the interpreter's lock keeps all others waiting.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="console")
        self._turn = asyncio.Lock()

    def compress(self, stills: Stills) -> None:
        """Soon, whatever goes on: the copies are large."""
        self._thread.submit(stills.compress)

    async def draw(self, work: Callable[[], bytes]) -> bytes:
        """What `work` draws, as soon as no challenge is in progress, after 15 s in any case."""
        loop = asyncio.get_running_loop()
        patience = loop.time() + _LONGEST_WAIT_S
        async with self._turn:
            while True:
                if not self._busy() or loop.time() > patience:
                    break
                await asyncio.sleep(_LOOK_AGAIN_S)
            return await loop.run_in_executor(self._thread, work)

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

"""Views as rounds publish them, of pictures and boxes that a test knows."""

from __future__ import annotations

import time
from typing import Any

import av
import cv2
import numpy as np

from gateway.detections import Detections
from gateway.live.info import CameraInfo, Source
from gateway.live.views import View
from gateway.tracking.live import Tracked

WIDTH, HEIGHT = 320, 180


def made_picture(level: int) -> av.VideoFrame:
    """Grey of one level, but for a dark corner."""
    picture = np.full((HEIGHT, WIDTH, 3), level, np.uint8)
    picture[:20, :20] = 0
    return av.VideoFrame.from_ndarray(picture, format="bgr24").reformat(format="yuv420p")


def made_view(camera: str = "north", number: int = 1, sequence: int = 0, level: int = 100, **others: Any) -> View:
    boxes = np.array([[10, 20, 30, 80], [200, 50, 220.5, 110]], np.float32)
    values: dict[str, Any] = {
        "generation": 1,
        "frame": sequence * 2,
        "captured_at": time.monotonic(),
        "captured_wall": time.time(),
        "picture": made_picture(level),
        "tracks": Tracked(
            Detections(boxes, np.array([1, 0.25], np.float32), np.array([2, 0])), np.array([7, 0], np.int64)
        ),
        "homography": None,
        "positions": np.full((2, 2), np.nan, np.float32),
        "stages": {"decode": 0.001, "wait": 0.001, "infer": 0.01, "track": 0.001},
    }
    return View(camera, number, sequence=sequence, **values | others)


def made_info(camera: str = "north", number: int = 1, **others: Any) -> CameraInfo:
    values: dict[str, Any] = {
        "name": camera.title(),
        "url": "rtsp://127.0.0.1/",
        "has_credentials": False,
        "transport": "tcp",
        "verify": True,
        "enabled": True,
        "loop": False,
        "skip": 1,
        "max_fps": None,
        "quality": None,
        "width": None,
        "models": ("player",),
        "state": "live",
        "since": 1.0,
        "error": None,
        "attempts": 0,
        "retry_in_s": None,
        "generation": 1,
        "source": Source("h264", WIDTH, HEIGHT, 25.0),
        "received": 0,
        "inferred": 0,
        "shown": 0,
    }
    return CameraInfo(number, camera, **values | others)


def decoded(jpeg: bytes) -> np.ndarray:
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return np.asarray(picture)

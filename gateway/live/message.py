"""What a viewer is sent of an inferred frame: a binary message, or boxes alone as JSON. docs/live.md has the layout."""

from __future__ import annotations

import math
import struct
from typing import Any, Final

import numpy as np

from gateway.live.views import View
from touchline.contract import CLASS_NAMES

PROTOCOL: Final = "touchline.live.v1"
"""The WebSocket's subprotocol. What a reader of v1 would misread is another version."""

FRAME: Final = 1
PICTURE, DRAWN, FIRST, STILL, PITCH = 1, 4, 8, 16, 64
"""Flags: a picture follows; the boxes are drawn into it; first of a connection of the camera; the picture does not
change; the header ends with a homography and every box with a place on the pitch."""

_HEADER: Final = struct.Struct("<BBHIIIQQHHHHII")
_HOMOGRAPHY: Final = struct.Struct("<9f")
_BOX: Final = [("id", "<u4"), ("class", "u1"), ("free", "u1"), ("score", "<u2"), ("xyxy", "<f4", 4)]
_BOX_IN_PICTURE: Final = np.dtype(_BOX)
_BOX_ON_PITCH: Final = np.dtype([*_BOX, ("position", "<f4", 2)])
_SURE: Final = 65535
_MOST: Final = 0xFFFFFFFF


def frame_message(view: View, jpeg: bytes, *, drawn: bool, first: bool, still: bool, now: float) -> bytes:
    """The binary message. `now` is time.monotonic() of the sending; `jpeg` is empty for boxes alone."""
    detections = view.tracks.detections
    on_pitch = view.homography is not None
    boxes = np.zeros(len(detections), _BOX_ON_PITCH if on_pitch else _BOX_IN_PICTURE)
    boxes["id"] = view.tracks.ids
    boxes["class"] = detections.classes
    boxes["score"] = np.round(np.clip(detections.scores, 0, 1) * _SURE)
    boxes["xyxy"] = detections.xyxy
    if on_pitch:
        boxes["position"] = view.positions
    flags = (bool(jpeg) * PICTURE) | (drawn * DRAWN) | (first * FIRST) | (still * STILL) | (on_pitch * PITCH)
    header = _HEADER.pack(
        FRAME,
        flags,
        _HEADER.size + (_HOMOGRAPHY.size if on_pitch else 0),
        view.number,
        view.sequence,
        view.generation,
        round(view.captured_wall * 1e6),
        round(view.captured_at * 1e6),
        view.picture.width,
        view.picture.height,
        len(boxes),
        boxes.itemsize,
        len(jpeg),
        age_us(view, now),
    )
    homography = b"" if view.homography is None else _HOMOGRAPHY.pack(*view.homography.ravel())
    return b"".join((header, homography, boxes.tobytes(), jpeg))


def frame_json(view: View, *, first: bool, still: bool, now: float) -> dict[str, Any]:
    """The same without a picture."""
    detections = view.tracks.detections
    rows = zip(
        view.tracks.ids.tolist(),
        detections.classes.tolist(),
        detections.scores.tolist(),
        detections.xyxy.round(1).tolist(),
        view.positions.tolist(),
        strict=True,
    )
    return {
        "type": "frame",
        "camera": view.number,
        "id": view.camera,
        "sequence": view.sequence,
        "generation": view.generation,
        "first": first,
        "still": still,
        "captured_us": round(view.captured_wall * 1e6),
        "clock_us": round(view.captured_at * 1e6),
        "age_us": age_us(view, now),
        "width": view.picture.width,
        "height": view.picture.height,
        "homography": None if view.homography is None else view.homography.tolist(),
        "boxes": [
            {
                "id": track,
                "class": CLASS_NAMES[kind],
                "score": round(score, 4),
                "box": [round(value, 1) for value in box],
                "position_cm": None if math.isnan(position[0]) else [round(value) for value in position],
            }
            for track, kind, score, box, position in rows
        ],
    }


def age_us(view: View, now: float) -> int:
    """Microseconds since the frame arrived, by the monotonic clock."""
    return min(_MOST, max(0, round((now - view.captured_at) * 1e6)))

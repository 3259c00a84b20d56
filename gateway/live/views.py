"""The newest view of every camera: what rounds write and viewers read. For the event loop alone."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import av
import numpy as np
import numpy.typing as npt

from gateway.tracking.live import Tracked


@dataclass(frozen=True, slots=True)
class View:
    """One inferred frame of a camera."""

    camera: str
    """Its id."""
    number: int
    """Of the camera, small, for messages; never used again in this process."""
    generation: int
    """Connections of the camera that came to live so far."""
    sequence: int
    """Views of the camera so far: rises by one."""
    frame: int
    """Frames received of the camera so far."""
    captured_at: float
    """time.monotonic() when the frame arrived."""
    captured_wall: float
    """time.time() of the same moment."""
    picture: av.VideoFrame
    """As decoded, in its own size and format."""
    tracks: Tracked
    homography: npt.NDArray[np.float64] | None
    """float64 [3, 3]: picture to pitch, cm; None where the pitch is not seen."""
    positions: npt.NDArray[np.float32]
    """float32 [n, 2]: where the feet of each box stand on the pitch, cm; NaN where it is not known."""
    stages: Mapping[str, float]
    """Seconds of decode, wait, infer and track."""


class Views:
    """The newest view of each camera. Nothing is kept beside it, so who is slow sees fewer and later is nobody."""

    def __init__(self) -> None:
        self.version = 0
        """Rises with everything that changes."""
        self._newest: dict[str, View] = {}
        self._change = asyncio.Event()

    def publish(self, view: View) -> None:
        self._newest[view.camera] = view
        self.touch()

    def latest(self, camera: str) -> View | None:
        """The newest view of the camera with this id, which may be old: the camera's state says whether it is live."""
        return self._newest.get(camera)

    def remove(self, camera: str) -> None:
        """Of a camera that is taken away."""
        self._newest.pop(camera, None)
        self.touch()

    async def changed(self, seen: int) -> int:
        """The version, as soon as it is higher than `seen`."""
        while self.version <= seen:
            await self._change.wait()
        return self.version

    def touch(self) -> None:
        """The state of a camera changed."""
        self.version += 1
        # Who waits holds the event that is set now; who comes next waits for another.
        self._change.set()
        self._change = asyncio.Event()

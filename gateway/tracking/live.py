"""One camera along time, looking back only: who is who now, of which class, and where on the pitch; bounded memory."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.detections import Detections
from gateway.tracking.byte_track import Ids


@dataclass(frozen=True, slots=True)
class Tracked:
    """The boxes of one frame and who they are."""

    detections: Detections
    """In pixels of the picture, best first."""
    ids: Ids
    """int64 [n]: from 1 on; 0 for a box without a track: the ball, and who is seen for the first time."""

"""What is told of a camera: its configuration without secrets, its state and its counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

State = Literal["connecting", "live", "stalled", "waiting", "failed", "ended", "disabled"]


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a camera is not live."""

    code: str
    """One of gateway.video.stream.CODES."""
    detail: str


@dataclass(frozen=True, slots=True)
class Source:
    """What a camera sends."""

    codec: str
    width: int
    height: int
    fps: float
    """As counted over the last seconds; 0 before it can be."""


@dataclass(frozen=True, slots=True)
class CameraInfo:
    """A camera as GET /live/cameras gives it."""

    number: int
    id: str
    name: str
    url: str
    """Without user, password and whatever a query says."""
    has_credentials: bool
    transport: str
    verify: bool
    """The certificate is looked at, where TLS is spoken."""
    enabled: bool
    loop: bool
    skip: int
    max_fps: float | None
    quality: int | None
    """JPEG quality for its viewers; None: FRAME_JPEG_QUALITY."""
    width: int | None
    """Width of its pictures for viewers; None: by MAX_STREAM_WIDTH and STREAM_RESIZE_FACTOR."""
    models: tuple[str, ...]
    state: State
    since: float
    """time.time() of when the state was entered."""
    error: Trouble | None
    attempts: int
    """Connections that failed since it was last live."""
    retry_in_s: float | None
    generation: int
    source: Source | None
    received: int
    inferred: int
    shown: int
    """Pictures of it that were sent to viewers."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    last_frame_age_s: float | None = None
    still_s: float = 0.0
    """For so long the picture has not changed; 0 while it does."""
    behind: bool = False
    """The engine cannot infer all that it should."""
    delay_ms: Mapping[str, float] = field(default_factory=dict)
    """From arrival of a frame until its view is published: p50 and p95 of the last views."""
    stages_ms: Mapping[str, float] = field(default_factory=dict)
    """Medians of the last views."""

    def as_json(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "id": self.id,
            "name": self.name,
            "url": self.url,
            "has_credentials": self.has_credentials,
            "transport": self.transport,
            "verify": self.verify,
            "enabled": self.enabled,
            "loop": self.loop,
            "skip": self.skip,
            "max_fps": self.max_fps,
            "quality": self.quality,
            "width": self.width,
            "models": list(self.models),
            "state": self.state,
            "since": datetime.fromtimestamp(self.since, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "error": {"code": self.error.code, "detail": self.error.detail} if self.error else None,
            "attempts": self.attempts,
            "retry_in_s": self.retry_in_s,
            "generation": self.generation,
            "source": {
                "codec": self.source.codec,
                "width": self.source.width,
                "height": self.source.height,
                "fps": self.source.fps,
            }
            if self.source
            else None,
            "frames": {
                "received": self.received,
                "inferred": self.inferred,
                "shown": self.shown,
                "dropped": dict(self.dropped),
            },
            "last_frame_age_s": self.last_frame_age_s,
            "still_s": self.still_s,
            "behind": self.behind,
            "delay_ms": dict(self.delay_ms),
            "stages_ms": dict(self.stages_ms),
        }

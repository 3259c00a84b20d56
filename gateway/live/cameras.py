"""All cameras: added, changed and removed at any time, in any state; at start from a file."""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from gateway.errors import BadCamera, CameraExists, SourceNotAllowed, StartupError, TooManyCameras, UnknownCamera
from gateway.inference.engine import Engine
from gateway.live.camera import Camera
from gateway.live.config import RECONNECTING, CameraConfig, camera_config, patched
from gateway.live.info import CameraInfo
from gateway.live.rounds import Rounds
from gateway.live.views import Views
from gateway.metrics import Metrics
from gateway.settings import Settings
from gateway.video.addresses import CameraPlaces
from gateway.video.certificate import trusted_cas
from gateway.video.stream import THREAD

STATES: Final = ("connecting", "live", "stalled", "waiting", "failed", "ended", "disabled")
_GOODBYE_S: Final = 2.0
_LEAVING: Final = 16
"""Connections that are still ending, beside as many as there may be cameras, before no camera is added."""

_log = logging.getLogger(__name__)


class Cameras:
    """The cameras and their rounds. For the event loop alone."""

    def __init__(self, settings: Settings, metrics: Metrics, engine: Engine, *, busy: Callable[[], bool]) -> None:
        """`busy()` says whether a challenge is in progress. Raises StartupError for LIVE_ALLOWED or LIVE_CA_FILE."""
        self.views = Views()
        self._settings, self._metrics = settings, metrics
        self._places, self._cas = camera_places(settings), camera_cas(settings)
        self._numbers = itertools.count(1)
        self._of: dict[str, tuple[Camera, asyncio.Task[None]]] = {}
        self._gone = set[asyncio.Task[None]]()
        self._rounds = Rounds(settings, metrics, engine, cameras=lambda: self.all, busy=busy)
        for state in STATES:
            metrics.live_cameras.labels(state).set_function(partial(self._counted, state))

    @property
    def all(self) -> list[Camera]:
        return [camera for camera, _ in self._of.values()]

    @property
    def counts(self) -> dict[str, int]:
        """How many there are, and how many of them are live."""
        return {"cameras": len(self._of), "live": int(self._counted("live"))}

    def describe(self) -> list[CameraInfo]:
        return [camera.describe() for camera in self.all]

    def get(self, name: str) -> Camera:
        """The camera with this id. Raises UnknownCamera."""
        if name not in self._of:
            raise UnknownCamera(f"there is no camera {name[:40]}")
        return self._of[name][0]

    def add(self, config: CameraConfig) -> Camera:
        """Watch one more camera; it is connected to later. Raises CameraError."""
        if config.id in self._of:
            raise CameraExists(f"there is a camera {config.id} already; PATCH changes it")
        most = self._settings.live_max_cameras
        if len(self._of) >= most:
            raise TooManyCameras(f"there are {most} cameras, LIVE_MAX_CAMERAS allows no more")
        if sum(thread.name == THREAD for thread in threading.enumerate()) > 2 * most + _LEAVING:
            raise TooManyCameras("too many connections to former cameras are still ending; try again in a few seconds")
        self._check(config)
        camera = Camera(
            next(self._numbers),
            config,
            self._settings,
            self._metrics,
            self.views,
            places=self._places,
            cas=self._cas,
            on_frame=self._rounds.frame_came,
        )
        task = asyncio.create_task(camera.run())
        task.add_done_callback(_report)
        self._of[config.id] = camera, task
        self.views.touch()
        return camera

    def change(self, name: str, patch: Any) -> Camera:
        """Change a camera by a merge patch (RFC 7396). Raises CameraError."""
        camera = self.get(name)
        before, config = camera.config, patched(camera.config, patch)
        self._check(config)
        camera.change(config, reconnect=any(getattr(before, one) != getattr(config, one) for one in RECONNECTING))
        return camera

    def remove(self, name: str) -> None:
        """Watch a camera no longer, whatever it is doing. Raises UnknownCamera."""
        camera = self.get(name)
        _, task = self._of.pop(name)
        camera.removed = True
        task.cancel()
        for series in (
            self._metrics.live_frames,
            self._metrics.live_connections,
            self._metrics.live_last_frame,
            self._metrics.live_still,
            self._metrics.live_behind,
            self._metrics.live_delay,
        ):
            series.remove_by_labels({"camera": name})
        self.views.remove(name)

    async def run(self) -> None:
        """Rounds, until cancelled; then every camera is let go."""
        try:
            await self._rounds.run()
        finally:
            cameras, tasks = self.all, [task for _, task in self._of.values()]
            self._of.clear()
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)
            with suppress(TimeoutError):
                async with asyncio.timeout(_GOODBYE_S):
                    await asyncio.gather(*(camera.gone() for camera in cameras))
            self._rounds.close()

    def _counted(self, state: str) -> float:
        return float(sum(camera.state == state for camera in self.all))

    def _check(self, config: CameraConfig) -> None:
        """Raises SourceNotAllowed where it is known without asking a name server."""
        if config.scheme == "file":
            config.file_in(self._settings.live_files_dir)
            return
        host, _ = config.host
        try:
            address = ip_address(host)
        except ValueError:
            return
        if not self._places.allows(host, address):
            raise SourceNotAllowed(f"cameras may not be at {host}; LIVE_ALLOWED says where they may be")


def camera_places(settings: Settings) -> CameraPlaces:
    """Raises StartupError when LIVE_ALLOWED cannot be read."""
    try:
        return CameraPlaces(settings.live_allowed)
    except ValueError as error:
        raise StartupError(f"LIVE_ALLOWED: {error}") from error


def camera_cas(settings: Settings) -> Path:
    """File of the CAs that cameras' certificates are to be of. Raises StartupError for LIVE_CA_FILE."""
    try:
        return trusted_cas(settings.live_ca_file)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise StartupError(f"LIVE_CA_FILE {settings.live_ca_file} cannot be used: {why}") from error


def cameras_of(file: Path | None) -> Sequence[CameraConfig]:
    """The cameras of CAMERAS_FILE. Raises StartupError that names what is wrong, and no secret."""
    if file is None:
        return []
    import yaml  # noqa: PLC0415  for cameras alone

    try:
        said = yaml.safe_load(file.read_text())
    except (OSError, UnicodeError) as error:
        raise StartupError(f"CAMERAS_FILE {file} cannot be read: {getattr(error, 'strerror', error)}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise StartupError(f"CAMERAS_FILE {file} is not YAML{where}") from None
    given = said.get("cameras") if isinstance(said, dict) else said
    if not isinstance(given, list):
        raise StartupError(f"CAMERAS_FILE {file} has no list `cameras`")
    configs = []
    for number, one in enumerate(given, 1):
        try:
            configs.append(camera_config(one))
        except BadCamera as error:
            raise StartupError(f"CAMERAS_FILE {file}, camera {number}: {error}") from None
    return configs


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("a camera ended in a way that was not foreseen: %s", type(error).__name__, exc_info=error)

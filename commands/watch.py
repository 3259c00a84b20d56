"""`touchline watch`: cameras or video files through local servers, to be looked at in a browser."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Final
from urllib.parse import quote

import httpx
import typer

from commands.terminal import CommandError, read_settings, screen
from gateway.doctor.host import owner_of
from gateway.doctor.probes import Host
from gateway.errors import CameraError, StartupError
from gateway.listening import bind
from gateway.live.cameras import camera_cas, camera_places
from gateway.live.config import camera_config
from gateway.settings import Settings, is_loopback
from local.ports import free_ports
from local.progress import spinner
from local.stack import LocalStackError, local_stack
from local.triton import DEFAULT_REPOSITORY, LocalTritonError

_LOOK_EVERY_S: Final = 1.0
_OR: Final = "name a video file, or a camera as rtsp://HOST/PATH"


def command(
    urls: Annotated[
        list[str], typer.Argument(metavar="URL...", help="rtsp://, rtsps://, http(s):// of cameras, or video files.")
    ],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page on this machine. 0: any.")] = 7998,
    repository: Annotated[Path, typer.Option(help="Folder of model directories.")] = DEFAULT_REPOSITORY,
    any_certificate: Annotated[
        bool, typer.Option("--any-certificate", help="Take any certificate of rtsps:// and https:// cameras.")
    ] = False,
) -> None:
    """Watch cameras or video files: start Triton and the gateway for them, and say where to look."""
    settings = read_settings()
    cameras, files = cameras_of(urls, any_certificate=any_certificate)
    if len(cameras) > settings.live_max_cameras:
        raise CommandError(
            f"{len(cameras)} cameras are more than LIVE_MAX_CAMERAS={settings.live_max_cameras}; raise it or name fewer"
        )
    try:
        camera_places(settings)
    except StartupError as error:
        raise CommandError(f"{error}; write it as 10.0.5.0/24,cams.example") from error
    try:
        camera_cas(settings)
    except StartupError as error:
        raise CommandError(str(error)) from error
    port = _free(port)
    try:
        with TemporaryDirectory(prefix="touchline-") as directory:  # only its owner reads it: passwords
            file = Path(directory) / "cameras.yaml"
            file.write_text(json.dumps({"cameras": cameras}))  # JSON is YAML
            started = settings_for(cameras, files, settings) | {"CAMERAS_FILE": str(file), "CONSOLE_PORT": str(port)}
            _watch(started, repository, f"http://127.0.0.1:{port}", settings.console_token)
    except KeyboardInterrupt:
        screen.print("stopped; everything that was started is ended")
        raise
    except (LocalStackError, LocalTritonError) as error:
        raise CommandError(str(error)) from error


def cameras_of(urls: Sequence[str], *, any_certificate: bool = False) -> tuple[list[dict[str, Any]], Path | None]:
    """What CAMERAS_FILE says of cameras and of files, which begin again at their end, and the folder of the files.

    Raises CommandError.
    """
    paths = {url: Path(url) for url in urls if "://" not in url}
    for url, path in paths.items():
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "is no file here"
            raise CommandError(f"{url} {what}; {_OR}")
    files = Path(os.path.commonpath([path.resolve().parent for path in paths.values()])) if paths else None
    cameras = []
    for number, url in enumerate(urls, 1):
        camera: dict[str, Any] = {"id": f"camera-{number}", "url": url, "verify": not any_certificate}
        if url in paths and files is not None:
            name = quote(str(paths[url].resolve().relative_to(files)))
            camera |= {"url": f"file:{name}", "name": paths[url].name[:64], "loop": True}
        try:
            config = camera_config(camera)
        except CameraError as error:
            raise CommandError(f"camera {number}, {error}; {_OR}") from error
        cameras.append({"name": config.shown_url.partition("://")[2][:64], **camera})
    return cameras, files


def settings_for(cameras: Sequence[Mapping[str, Any]], files: Path | None, settings: Settings) -> dict[str, str]:
    """The gateway's settings: these cameras may be where they are, also on this machine."""
    chosen = {"LIVE": "true", "CONSOLE_HOST": "127.0.0.1"}
    if files is not None:
        chosen["LIVE_FILES_DIR"] = str(files)
    hosts = {camera_config(camera).host[0] for camera in cameras} - {""}
    if not settings.live_allowed and any(map(is_loopback, hosts)):
        chosen["LIVE_ALLOWED"] = ",".join(sorted(hosts | {"127.0.0.0/8", "::1"}))
    return chosen


def _watch(settings: Mapping[str, str], repository: Path, url: str, token: str) -> None:
    """Until it is interrupted."""
    with ExitStack() as stack:
        with spinner(screen, "starting Triton, gateway"):
            stack.enter_context(local_stack(repository=repository, settings=settings))
        screen.print(f"look at {url}/live; Ctrl-C ends it", highlight=False)
        browser = stack.enter_context(httpx.Client(base_url=url, auth=("watch", token), trust_env=False))
        told: dict[str, str] = {}
        while True:
            try:
                cameras = browser.get("/live/cameras").raise_for_status().json()["cameras"]
            except httpx.HTTPError as error:
                raise CommandError(f"the gateway ended ({error}); start `touchline watch` again") from error
            for camera in cameras:
                line = _line(camera)
                if told.get(camera["id"]) != line:
                    screen.print(line, highlight=False, markup=False, soft_wrap=True)
                told[camera["id"]] = line
            time.sleep(_LOOK_EVERY_S)


def _line(camera: Mapping[str, Any]) -> str:
    """A camera's name and state, and what it sends or why it does not."""
    name, state, source, error = (camera[what] for what in ("name", "state", "source", "error"))
    if error:
        return f"{name}: {state}: {error['detail']}"
    sends = f": {source['codec']} {source['width']}x{source['height']}" if state == "live" and source else ""
    return f"{name}: {state}{sends}"


def _free(port: int) -> int:
    """The port, or any for 0. Raises CommandError."""
    if port == 0:
        return free_ports(1)[0]
    try:
        for taken in bind("127.0.0.1", port):
            taken.close()
    except StartupError as error:
        owner = owner_of(Host(), port)
        raise CommandError(f"--port {port} is taken{f' by {owner}' if owner else ''}; name a free one, or 0") from error
    return port

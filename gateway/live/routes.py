"""/live/cameras on the operator's port: cameras listed, added, changed, removed, restarted."""

from __future__ import annotations

import json
from typing import Any, Final
from urllib.parse import urlsplit

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from gateway.errors import BadCamera, BadRequest, Forbidden, GatewayError
from gateway.live.camera import Camera
from gateway.live.cameras import Cameras
from gateway.live.config import camera_config

MOST_BYTES: Final = 64 * 1024
_NOW: Final = {"Cache-Control": "no-store"}
_TYPES: Final = ("application/json", "application/merge-patch+json")


def cameras_router(cameras: Cameras) -> APIRouter:
    """The routes, for the console's port and behind its guard."""
    router = APIRouter(prefix="/live/cameras")

    @router.get("")
    async def every() -> Response:
        return JSONResponse({"cameras": [camera.as_json() for camera in cameras.describe()]}, headers=_NOW)

    @router.post("")
    async def add(request: Request) -> Response:
        camera = cameras.add(camera_config(await _said(request)))
        return _told(camera, 201, {"Location": f"/live/cameras/{camera.config.id}"})

    @router.get("/{name}")
    async def one(name: str) -> Response:
        return _told(cameras.get(name))

    @router.patch("/{name}")
    async def change(name: str, request: Request) -> Response:
        cameras.get(name)
        return _told(cameras.change(name, await _said(request)))

    @router.delete("/{name}")
    async def remove(name: str, request: Request) -> Response:
        _check_origin(request)
        cameras.remove(name)
        return Response(status_code=204)

    @router.post("/{name}/restart")
    async def restart(name: str, request: Request) -> Response:
        _check_origin(request)
        camera = cameras.get(name)
        camera.restart()
        return _told(camera, 202)

    return router


async def answer_error(_: Request, error: Exception) -> Response:
    """A GatewayError as JSON, as validators get it too."""
    assert isinstance(error, GatewayError)
    headers = {"Retry-After": str(error.retry_after_s)} if error.retry_after_s else {}
    return JSONResponse({"error": error.reason, "detail": str(error)}, error.status, {**_NOW, **headers})


def _told(camera: Camera, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse(camera.describe().as_json(), status, {**_NOW, **(headers or {})})


async def _said(request: Request) -> Any:
    """The body's JSON. Raises GatewayError for what a page of another origin could send, and for what is none."""
    _check_origin(request)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in _TYPES:
        raise BadRequest(f"the body has to be {_TYPES[0]}, and say so in Content-Type")
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MOST_BYTES:
            raise BadCamera(f"the body is larger than {MOST_BYTES} bytes")
    try:
        said = json.loads(body)
    except ValueError:
        raise BadRequest("the body is not JSON") from None
    if not isinstance(said, dict):
        raise BadCamera("the body has to be a JSON object")
    return said


def _check_origin(request: Request) -> None:
    """Raises Forbidden for a page of another origin: browsers send the console's password along for it."""
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != request.headers.get("host", "").lower():
        raise Forbidden("this is for the console's own pages")

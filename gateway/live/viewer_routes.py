"""The viewers' routes, for the operator's port: a WebSocket for many cameras, MJPEG and one JPEG of each."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response
from starlette.websockets import WebSocket

from gateway.live.message import PROTOCOL
from gateway.live.pictures import NO_STORE, Stream, Wish, about, problem
from gateway.live.session import Session
from gateway.live.viewers import FRESH_S, TooManyViewers, Viewers

_TRY_AGAIN_LATER = 1013

Width = Annotated[int | None, Query(ge=1, le=8192)]
Fps = Annotated[float | None, Query(gt=0, le=1000)]


def viewer_router(viewers: Viewers) -> APIRouter:
    """The routes, behind whatever guard the application has."""
    router = APIRouter()

    @router.websocket("/live/stream")
    async def stream(websocket: WebSocket) -> None:
        if PROTOCOL not in websocket.scope["subprotocols"]:
            detail = f"offer the subprotocol {PROTOCOL}: docs/live.md has the messages"
            await websocket.send_denial_response(problem(400, "bad_protocol", detail))
            return
        try:
            with viewers.place("websocket") as viewer:
                await Session(websocket, viewer, viewers).run()
        except TooManyViewers as error:
            await websocket.accept(PROTOCOL)  # a page is told the reason of a close, not of a refusal
            await websocket.close(_TRY_AGAIN_LATER, str(error))

    @router.get("/live/cameras/{name}/stream.mjpeg")
    async def mjpeg(name: str, width: Width = None, fps: Fps = None, annotated: bool = True) -> Response:
        camera = viewers.camera(name)
        return Stream(viewers, camera, Wish(width, fps, annotated)) if camera else _unknown(name)

    @router.get("/live/cameras/{name}/picture.jpg")
    async def picture(name: str, width: Width = None, annotated: bool = True) -> Response:
        camera = viewers.camera(name)
        if camera is None:
            return _unknown(name)
        view = viewers.fresh(name)
        if view is None:
            detail = f"the camera is {camera.state}: no picture in the last {FRESH_S:.0f} s; see /live/cameras/{name}"
            return problem(503, "no_picture", detail)
        jpeg = await viewers.encodings.jpeg(view, viewers.look(camera, view, width, annotated=annotated))
        viewers.count("picture", view, len(jpeg))
        return Response(jpeg, media_type="image/jpeg", headers={**NO_STORE, **about(view)})

    return router


def _unknown(name: str) -> Response:
    return problem(404, "unknown_camera", f"there is no camera {name[:64]}; GET /live/cameras lists them")

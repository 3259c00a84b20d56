"""The viewers' routes, for the operator's port: a WebSocket for many cameras, MJPEG and one JPEG of each."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse, Response
from starlette.websockets import WebSocket

from gateway.errors import NoPicture, TooManyViewers
from gateway.live.message import PROTOCOL
from gateway.live.pictures import NO_STORE, Stream, Wish, about
from gateway.live.session import Session
from gateway.live.viewers import FRESH_S, Viewers

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
            await websocket.send_denial_response(JSONResponse({"error": "bad_protocol", "detail": detail}, 400))
            return
        try:
            with viewers.place("websocket") as viewer:
                await Session(websocket, viewer, viewers).run()
        except TooManyViewers as error:
            await websocket.accept(PROTOCOL)  # a page is told the reason of a close, not of a refusal
            await websocket.close(_TRY_AGAIN_LATER, str(error))

    @router.get("/live/cameras/{name}/stream.mjpeg")
    async def mjpeg(name: str, width: Width = None, fps: Fps = None, annotated: bool = True) -> Response:
        return Stream(viewers, viewers.camera(name), Wish(width, fps, annotated))

    @router.get("/live/cameras/{name}/picture.jpg")
    async def picture(name: str, width: Width = None, annotated: bool = True) -> Response:
        camera = viewers.camera(name)
        view = viewers.fresh(name)
        if view is None:
            raise NoPicture(
                f"the camera is {camera.state}: no picture in the last {FRESH_S:.0f} s; see /live/cameras/{name}"
            )
        jpeg = await viewers.encodings.jpeg(view, viewers.look(camera, view, width, annotated=annotated))
        viewers.count("picture", view, len(jpeg))
        return Response(jpeg, media_type="image/jpeg", headers={**NO_STORE, **about(view)})

    return router

"""The console's routes: the front page, a page for each challenge, and its pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from fastapi import APIRouter, FastAPI, HTTPException
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from gateway.afterwards import Marks
from gateway.console.guard import Guard
from gateway.console.overview import Overview
from gateway.console.pictures import MAP_WIDTH, Drawing, annotated_frame, pitch_map
from gateway.history import Entry, History, Scene, Work
from touchline.contract import CLASS_NAMES
from touchline.pitch_map import map_size
from touchline.stages import STAGES

MAP_SIZE: Final = map_size(MAP_WIDTH)
"""Width and height of the pitch seen from above, in pixels."""
_HERE = Path(__file__).parent
_FOREVER = {"Cache-Control": "private, max-age=86400, immutable"}
_NOW = {"Cache-Control": "no-store"}

Shown = Literal["all", "answered", "refused"]


def build_pages(
    history: History, drawing: Drawing, look: Callable[[], Overview], token: str, cameras: Sequence[APIRouter] = ()
) -> FastAPI:
    """The console, an application of its own. `cameras` are their routes, where there are cameras."""
    app = FastAPI(title="Touchline console", docs_url=None, redoc_url=None, openapi_url=None)
    app.mount("/console/static", StaticFiles(directory=_HERE / "static"), name="static")
    templates = Environment(
        loader=FileSystemLoader(_HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    templates.filters |= {"clock": _clock, "age": _age, "short": _short, "marks": _marks}

    def page(template: str, status: int = 200, **values: Any) -> HTMLResponse:
        return HTMLResponse(templates.get_template(template).render(values), status, _NOW)

    app.add_middleware(Guard, token=token)

    @app.get("/")
    async def root() -> Response:
        return RedirectResponse("/console")

    @app.get("/console")
    async def front(show: Shown = "all") -> Response:
        entries = [entry for entry in history if show == "all" or (entry.work is None) == (show == "refused")]
        longest = max((max(entry.work.stages.values()) for entry in entries if entry.work), default=0.0)
        told: dict[str, Any] = {"entries": entries, "show": show, "longest_s": longest, "cameras": bool(cameras)}
        return page("front.html", now=look(), stages=STAGES, **told)

    @app.get("/console/challenges/{key}")
    async def challenge(key: int) -> Response:
        entry = history.find(key)
        if entry is None:
            return page("gone.html", 404)
        scenes = [_facts(scene, entry.work) for scene in entry.work.scenes.values()] if entry.work else []
        return page("challenge.html", entry=entry, now=look(), stages=STAGES, scenes=scenes, map_size=MAP_SIZE)

    @app.get("/console/challenges/{key}/frame-{number}.jpg")
    async def frame(key: int, number: int) -> Response:
        work = kept(key, number)
        jpeg = await drawing.draw(
            lambda: annotated_frame(work.stills.pictures[number], work.scenes[number], work.stills.letterbox)
        )
        return Response(jpeg, media_type="image/jpeg", headers=_FOREVER)

    @app.get("/console/challenges/{key}/map-{number}.png")
    async def seen_from_above(key: int, number: int) -> Response:
        work = kept(key, number)
        png = await drawing.draw(lambda: pitch_map(work.scenes[number], work.stills.letterbox))
        return Response(png, media_type="image/png", headers=_FOREVER)

    if cameras:

        @app.get("/live")
        async def live() -> Response:
            return page("live.html", classes=CLASS_NAMES)

    for router in cameras:
        app.include_router(router)

    def kept(key: int, number: int) -> Work:
        entry = history.find(key)
        if entry is None or entry.work is None or number not in entry.work.scenes:
            raise HTTPException(404, "this picture is not kept, or not any more")
        return entry.work

    return app


def _marks(entry: Entry, fastest_s: float) -> Marks | None:
    """What the answer is worth, None while it is not known."""
    return Marks.of(entry.work.aftermath, entry.seconds, fastest_s) if entry.work else None


def _facts(scene: Scene, work: Work) -> dict[str, Any]:
    """What stands under a picture."""
    answer = scene.answer(scene.number)
    counts = np.bincount(answer.classes, minlength=len(CLASS_NAMES)).tolist()
    width, height = work.stills.letterbox.source_size
    return {
        "number": scene.number,
        "second": scene.number / work.stills.fps,
        "objects": [(name, count) for name, count in zip(CLASS_NAMES, counts, strict=True) if count],
        "keypoints": int(answer.seen.sum()),
        "size": (width, height),
    }


def _clock(seconds: float) -> str:
    """Seconds since 1970 as day and time, UTC."""
    return f"{datetime.fromtimestamp(seconds, UTC):%d %b %H:%M:%S}"


def _age(seconds: float) -> str:
    """A length of time in its largest unit."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _short(hotkey: str) -> str:
    return hotkey if len(hotkey) <= 13 else f"{hotkey[:6]}…{hotkey[-6:]}"

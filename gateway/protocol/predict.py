"""POST /predict and /health of the subnet's public contract: pictures or a video in, boxes and keypoints out."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.requests import ClientDisconnect

from gateway.challenges import Challenges
from gateway.errors import GatewayError, StartupError, Unauthorized
from gateway.history import History
from gateway.logs import STRANGERS
from gateway.metrics import Metrics
from gateway.pipeline import Answer
from gateway.predictions import Predictions, Seen
from gateway.protocol.door import Door, admitted
from gateway.protocol.frames import DISCARDED_BYTES, LONGEST_URL, Frame, pictures_of, read_form, read_pictures
from gateway.protocol.http import (
    CLIENT_CLOSED_REQUEST,
    ClientGone,
    count_answered,
    discard_body,
    remember,
    stages_of,
    until_disconnect,
)
from gateway.protocol.status import healthy
from gateway.scene import NO_TEAM, team_by_id, teams_in
from gateway.settings import Settings
from touchline.contract import CLASS_NAMES

PATH: Final = "/predict"
MOST_PICTURES: Final = 256
FRAMES_A_PIECE: Final = 250
"""So many frames of a video's answer are in memory at once."""
_UNKNOWN: Final = "the gateway failed; its log says why"

_log = logging.getLogger(__name__)


class PredictInput(BaseModel):
    """What is asked: frames, or one video. `meta` is taken as it comes, unknown fields may appear."""

    model_config = ConfigDict(extra="ignore")

    url: str | None = Field(None, max_length=LONGEST_URL)
    frames: list[Frame] | None = Field(None, max_length=MOST_PICTURES)
    meta: Any = None

    @model_validator(mode="after")
    def _asks_something(self) -> PredictInput:
        if not (self.frames or self.url):
            raise ValueError("neither frames nor a url; send one of them")
        return self


class TokenHolders:
    """Lets in who sends PREDICT_TOKEN; where none is set, everybody."""

    def __init__(self, settings: Settings) -> None:
        self._token = settings.predict_token.get_secret_value().encode()

    async def __call__(self, request: Request) -> bool:
        """Raises Unauthorized; a stranger's body is thrown away unread."""
        try:
            check_token(request.headers.get("authorization", ""), self._token)
        except GatewayError:
            await discard_body(request, DISCARDED_BYTES)
            raise
        return True


class Refused:
    """How this contract says that something is not answered: with status 200 and success false, or 401."""

    def __init__(self, metrics: Metrics, history: History | None) -> None:
        self._metrics = metrics
        self._history = history

    def __call__(self, request: Request, error: GatewayError) -> Response:
        self._metrics.predictions.labels(error.reason).inc()
        remember(self._history, request, error.reason, str(error))
        stranger = isinstance(error, Unauthorized)
        log = STRANGERS if stranger else _log
        log.warning("POST %s not answered (%s): %s", request.scope["path"], error.reason, error)
        body = orjson.dumps({"success": False, "predictions": None, "error": str(error)})
        return Response(body, error.status if stranger else 200, media_type="application/json")


def predict_router(
    settings: Settings,
    predictions: Predictions,
    challenges: Challenges,
    door: Door,
    *,
    history: History | None = None,
) -> APIRouter:
    """The two routes, over what the lifespan built; only TokenHolders come through `door` to the second."""
    router = APIRouter()
    engine, metrics = predictions.engine, predictions.metrics
    refused = Refused(metrics, history)
    door.guard("POST", PATH, TokenHolders(settings), refused)
    order = object_order(settings.predict_object_names)
    limit = settings.max_predict_mb * 2**20

    @router.post("/health")
    async def health() -> Response:
        return Response(orjson.dumps(healthy(engine)), media_type="application/json")

    @router.post(PATH)
    async def predict(request: Request) -> Response:
        admitted(request)
        started = request.state.started
        try:
            async with predictions.place():
                wanted = read_form(await read_pictures(request, limit), PredictInput, "request")
                request.state.challenge_id = task_of(wanted.meta)
                if wanted.frames:
                    response = await _of_frames(request, wanted.frames)
                else:
                    response = await _of_video(request, wanted.url or "")
        except (ClientGone, ClientDisconnect):
            metrics.predictions.labels("client_gone").inc()
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        except GatewayError as error:
            return refused(request, error)
        except Exception:  # a defect of ours: the contract has a form for it, the log the rest
            _log.exception("POST /predict failed")
            return refused(request, GatewayError(_UNKNOWN))
        metrics.predictions.labels("answered").inc()
        metrics.prediction_seconds.observe(time.perf_counter() - started)
        return response

    async def _of_frames(request: Request, frames: Sequence[Frame]) -> Response:
        begun = time.perf_counter()
        seen = await until_disconnect(request, predictions.look(pictures_of(frames)))
        metrics.prediction_pictures.observe(len(seen))
        _log.info("%d pictures answered in %.2f s", len(seen), time.perf_counter() - begun)
        teams = teams_in([(one.shirts, one.detections.classes) for one in seen])
        answered = [
            entry(frame.frame_id, one, order, sides) for frame, one, sides in zip(frames, seen, teams, strict=True)
        ]
        return Response(b"".join(answer_json(iter([orjson.dumps(answered)[1:-1]]))), media_type="application/json")

    async def _of_video(request: Request, url: str) -> Response:
        answer = await until_disconnect(request, challenges.answer(url))
        stages = stages_of(answer.times, 0.0)
        count_answered(metrics, request.state.challenge_id, answer, stages)
        remember(history, request, "answered", answer=answer, stages=stages)
        return StreamingResponse(_sent(answer), media_type="application/json")

    async def _sent(answer: Answer) -> AsyncIterator[bytes]:
        """A video's answer as the caller takes it; each piece is made when the one before has left."""
        pieces = answer_json(video_json(answer, order))
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            yield piece

    return router


def check_startable(settings: Settings) -> None:
    """Raises StartupError where everybody could have pictures looked at."""
    wanted = "predict" in settings.protocol_names
    if wanted and not (settings.predict_token.get_secret_value() or settings.on_loopback):
        raise StartupError(
            "PROTOCOLS has predict, PREDICT_TOKEN is empty: callers of POST /predict sign nothing, so set a token that "
            "they send as `Authorization: Bearer ...` (or HOST=127.0.0.1, where only this host can ask)"
        )


def check_token(header: str, token: bytes) -> None:
    """Raises Unauthorized unless the Authorization header carries the token; none is asked for where there is none."""
    kind, _, given = header.partition(" ")
    if token and not (kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token)):
        raise Unauthorized("send PREDICT_TOKEN of this gateway as `Authorization: Bearer ...`")


def task_of(meta: Any) -> str:
    """The task that the caller names, for the log and the console."""
    task = meta.get("task_id") if isinstance(meta, dict) else None
    return str(task)[:256] if isinstance(task, str | int) else ""


def object_order(names: Sequence[str]) -> npt.NDArray[np.int64]:
    """The element's cls_id of each class of the models, int64 [4]; -1 for those it does not ask for."""
    return np.array([names.index(name) if name in names else -1 for name in CLASS_NAMES], np.int64)


def entry(
    frame_id: int, seen: Seen, order: npt.NDArray[np.int64], teams: npt.NDArray[np.int64] | None = None
) -> dict[str, Any]:
    """A frame of the answer: whole pixels, best boxes first."""
    found = seen.detections
    boxes = boxes_json(found.xyxy, found.scores, order[found.classes], seen.size, teams)
    return {"frame_id": frame_id, "boxes": boxes, "keypoints": points_json(seen.keypoints)}


def boxes_json(
    xyxy: npt.NDArray[Any],
    scores: npt.NDArray[Any],
    cls_ids: npt.NDArray[np.int64],
    size: tuple[int, int],
    teams: npt.NDArray[np.int64] | None = None,
) -> list[dict[str, Any]]:
    """Boxes [n, 4] in a picture of `size` (width, height) as the contract has them; those of cls_id -1 are left out.

    `teams` int64 [n], 0 or 1, are its 1 and 2; a box of another number has no team_id.
    """
    whole = np.clip(np.rint(xyxy), 0, np.tile(size, 2)).astype(np.int64)
    chosen = np.flatnonzero((cls_ids >= 0) & (whole[:, 2] > whole[:, 0]) & (whole[:, 3] > whole[:, 1]))
    boxes = [
        {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "cls_id": cls_id, "conf": conf}
        for (x1, y1, x2, y2), cls_id, conf in zip(
            whole[chosen].tolist(),
            cls_ids[chosen].tolist(),
            np.round(scores[chosen].astype(float), 4).tolist(),
            strict=True,
        )
    ]
    if teams is not None:
        for box, team in zip(boxes, teams[chosen].tolist(), strict=True):
            if team >= 0:
                box["team_id"] = team + 1
    return boxes


def points_json(points: npt.NDArray[Any]) -> list[list[int]]:
    """Keypoints [32, 2] as whole pixels; (0, 0) is missing, and stays the only point that says so."""
    return [[x, y] for x, y in np.rint(points).astype(np.int64).tolist()]


def answer_json(frames: Iterator[bytes]) -> Iterator[bytes]:
    """The whole answer around pieces of its frames, each without brackets around it."""
    opening = b'{"success":true,"predictions":{"frames":['
    for piece in frames:
        yield opening + piece
        opening = b","
    yield (b"" if opening == b"," else opening) + b']},"error":null}'


def video_json(answer: Answer, order: npt.NDArray[np.int64]) -> Iterator[bytes]:
    """All frames of a video under their numbers, FRAMES_A_PIECE a piece, no brackets around them."""
    size = answer.keypoints.size
    sides = team_by_id(answer.tracks, answer.shirts.seen) if answer.shirts is not None else {}
    for first in range(0, answer.frame_count, FRAMES_A_PIECE):
        numbers = np.arange(first, min(answer.frame_count, first + FRAMES_A_PIECE))
        points = answer.keypoints.at(numbers)
        rows = answer.tracks.rows(first, first + len(numbers))
        teams = np.array([sides.get(number, NO_TEAM) for number in rows.ids.tolist()], np.int64)
        ends = np.searchsorted(rows.frame_numbers, np.append(numbers, first + len(numbers))).tolist()
        frames = [
            {
                "frame_id": number,
                "boxes": boxes_json(rows.xyxy[a:b], rows.scores[a:b], order[rows.classes[a:b]], size, teams[a:b]),
                "keypoints": points_json(points[index]),
            }
            for index, (number, a, b) in enumerate(zip(numbers.tolist(), ends, ends[1:], strict=False))
        ]
        yield orjson.dumps(frames)[1:-1]

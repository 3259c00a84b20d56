"""POST /soccer/challenge: the subnet's challenge and its answer, as JSON."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Final

import numpy as np
import orjson
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from gateway.afterwards import Afterwards
from gateway.challenges import Challenges
from gateway.errors import BadPicture, CameraError, GatewayError, every_kind
from gateway.history import History
from gateway.metrics import Metrics
from gateway.pipeline import Answer
from gateway.protocol.admission import SIGNED, Admitted
from gateway.protocol.door import admitted
from gateway.protocol.http import (
    ClientGone,
    count_answered,
    count_client_gone,
    read_challenge,
    refusals,
    remember,
    server_timing,
    stages_of,
    until_disconnect,
)
from gateway.subnet.signing import VALIDATOR_HOTKEY
from touchline import __version__

PATH: Final = "/soccer/challenge"
FRAMES_A_PIECE = 250
"""So many frames of the answer are in memory at once."""


def soccer_router(
    challenges: Challenges,
    metrics: Metrics,
    afterwards: Afterwards,
    *,
    history: History | None = None,
) -> APIRouter:
    """The route, over what the lifespan built; Admission.body guards it."""
    router = APIRouter()

    @router.post(
        PATH,
        response_class=JSONResponse,
        responses={**refusals(*_ERRORS), 200: {"description": "The answer", "content": _ANSWER}},
        openapi_extra={"parameters": SIGNED, "requestBody": {"required": True, "content": _ASKED}},
    )
    async def challenge(request: Request) -> Response:
        asked: Admitted = admitted(request)
        started = request.state.started
        wanted = read_challenge(asked.body, Challenge)
        request.state.challenge_id = wanted.challenge_id
        try:
            answer = await until_disconnect(request, challenges.answer(wanted.video_url, asked.stake))
        except ClientGone:
            return count_client_gone(metrics, history, request, "before the answer was ready")
        begun = time.perf_counter()
        pieces = response_json(wanted.challenge_id, answer, begun - started)
        first = await asyncio.to_thread(next, pieces)
        respond_s = time.perf_counter() - begun
        headers = {"Server-Timing": server_timing(stages_of(answer.times, respond_s), answer)}
        content = _send(request, first, pieces, respond_s, answer)
        return StreamingResponse(content, media_type="application/json", headers=headers)

    async def _send(
        request: Request, first: bytes, pieces: Iterator[bytes], respond_s: float, answer: Answer
    ) -> AsyncIterator[bytes]:
        """The body as the caller takes it; each piece is made when the one before has left."""
        try:
            yield first
            begun = time.perf_counter()
            while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
                respond_s += time.perf_counter() - begun
                yield piece
                begun = time.perf_counter()
        except (asyncio.CancelledError, GeneratorExit):
            count_client_gone(metrics, history, request, "while the answer was sent")
            raise
        stages = stages_of(answer.times, respond_s)
        count_answered(metrics, request.state.challenge_id, answer, stages)
        remember(history, request, "answered", answer=answer, stages=stages)
        _follow_up(afterwards, request, answer)

    return router


class Challenge(BaseModel):
    """What a validator asks; unknown fields may appear."""

    model_config = ConfigDict(extra="ignore")

    challenge_id: int | Annotated[str, Field(min_length=1, max_length=256)]
    """Echoed as it came."""
    type: str = "gsr"
    video_url: str = Field(pattern=r"^[Hh][Tt][Tt][Pp][Ss]?://", max_length=16 * 1024)
    """Presigned URLs carry whole policies and tokens."""


_ERRORS = [kind for kind in every_kind(GatewayError) if not issubclass(kind, (CameraError, BadPicture))]
_ASKED = {
    "application/json": {"schema": Challenge.model_json_schema()},
    "application/octet-stream": {
        "schema": {"type": "string", "description": "A Fernet token of the same JSON with a nonce in it"}
    },
}
_POINT = {"type": "array", "items": {"type": "number"}}
_ANSWER = {
    "application/json": {
        "schema": {
            "type": "object",
            "required": ["challenge_id", "processing_time", "frames"],
            "properties": {
                "challenge_id": {"type": ["integer", "string"]},
                "processing_time": {"type": "number"},
                "frames": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["frame_number", "keypoints", "objects"],
                        "properties": {
                            "frame_number": {"type": "integer"},
                            "keypoints": {"type": "array", "items": _POINT, "minItems": 32, "maxItems": 32},
                            "objects": {
                                "type": "array",
                                "items": {
                                    "type": "object",
                                    "required": ["id", "bbox", "class_id"],
                                    "properties": {
                                        "id": {"type": "integer"},
                                        "bbox": _POINT,
                                        "class_id": {"type": "integer"},
                                    },
                                },
                            },
                        },
                    },
                },
            },
        }
    }
}


def _follow_up(afterwards: Afterwards, request: Request, answer: Answer) -> None:
    """Hand over an answer that has left."""
    seconds = time.perf_counter() - request.state.started
    challenge_id = request.state.challenge_id
    validator = request.headers.get(VALIDATOR_HOTKEY, "")
    afterwards.take(
        answer,
        partial(response_json, challenge_id, answer, seconds),
        challenge_id=challenge_id,
        seconds=seconds,
        about=about(challenge_id, validator, answer, seconds),
    )


def about(challenge_id: int | str, validator: str, answer: Answer, seconds: float) -> dict[str, Any]:
    """What is kept beside an answer. Not the video's URL: whoever has it may have the video."""
    return {
        "challenge_id": challenge_id,
        "validator": validator,
        "answered": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
        "frames": answer.frame_count,
        "inferred": answer.inferred_count,
        "stride": round(answer.stride, 1),
        "version": __version__,
    }


def response_json(challenge_id: int | str, answer: Answer, processing_s: float) -> Iterator[bytes]:
    """The subnet's answer, piece by piece: every frame under its number, source pixels with two decimals."""
    opening = orjson.dumps({"challenge_id": challenge_id, "processing_time": round(processing_s, 3), "frames": []})[:-2]
    for first in range(0, answer.frame_count, FRAMES_A_PIECE):
        yield opening + _frames_json(answer, first, min(answer.frame_count, first + FRAMES_A_PIECE))
        opening = b","
    yield b"]}"


def _frames_json(answer: Answer, first: int, stop: int) -> bytes:
    """The entries of the frames `first` to `stop` - 1, with commas between."""
    keypoints = np.round(answer.keypoints.answered(np.arange(first, stop)), 2)
    rows = answer.tracks.rows(first, stop)
    boxes = np.round(rows.xyxy, 2).tolist()
    objects = [
        {"id": number, "bbox": box, "class_id": class_id}
        for number, box, class_id in zip(rows.ids.tolist(), boxes, rows.classes.tolist(), strict=True)
    ]
    starts = np.searchsorted(rows.frame_numbers, np.arange(first, stop + 1)).tolist()
    frames = [
        {"frame_number": first + index, "keypoints": points, "objects": objects[starts[index] : starts[index + 1]]}
        for index, points in enumerate(keypoints)
    ]
    return orjson.dumps(frames, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]

"""What all routes of the public port share: bodies, callers that hang up, errors as JSON, stage times, the history."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final, TypeVar

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from gateway.errors import BadChallenge, BadRequest, GatewayError, RequestTimedOut
from gateway.history import History
from gateway.logs import STRANGERS
from gateway.metrics import Metrics
from gateway.pipeline import Answer, StageTimes
from gateway.subnet.signing import VALIDATOR_HOTKEY

CLIENT_CLOSED_REQUEST = 499
STRANGERS_STATUSES: Final = (400, 401, 403, 408)
BODY_TIMEOUT_S: Final = 10.0
"""So long a body may take: a challenge is one packet."""
DISCARD_S: Final = 0.5

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")
_Form = TypeVar("_Form", bound=BaseModel)


class ClientGone(Exception):
    """The caller hung up before the answer was ready."""


def add_error_answers(app: FastAPI, metrics: Metrics, history: History | None = None) -> None:
    """The one place where errors become HTTP answers."""

    @app.exception_handler(GatewayError)
    async def told(request: Request, error: Exception) -> Response:
        assert isinstance(error, GatewayError)
        return refusal(request, error, metrics, history)

    @app.exception_handler(HTTPException)
    async def elsewhere(_: Request, error: Exception) -> JSONResponse:
        """No such route, or not with this method."""
        assert isinstance(error, HTTPException)
        reason = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
        return JSONResponse({"error": reason, "detail": error.detail}, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> JSONResponse:
        return defect(request, metrics, history)


def refusal(request: Request, error: GatewayError, metrics: Metrics, history: History | None) -> Response:
    """The answer to who is refused, which is counted, remembered and logged."""
    metrics.challenges.labels(error.reason).inc()
    remember(history, request, error.reason, str(error))
    log = STRANGERS if error.status in STRANGERS_STATUSES else _log
    log.warning("%s %s refused (%s): %s", request.method, request.scope["path"], error.reason, error)
    headers = {"Retry-After": str(error.retry_after_s)} if error.retry_after_s else None
    return JSONResponse({"error": error.reason, "detail": str(error)}, error.status, headers)


def defect(request: Request, metrics: Metrics, history: History | None) -> JSONResponse:
    """The answer where we have failed: the caller learns no more than that; the log has the rest."""
    metrics.challenges.labels(GatewayError.reason).inc()
    detail = "the gateway failed; its log says why"
    remember(history, request, GatewayError.reason, detail)
    return JSONResponse({"error": GatewayError.reason, "detail": detail}, GatewayError.status)


class Refusal(BaseModel):
    """Every answer that is none: docs/errors.md has the codes."""

    error: str
    detail: str


def refusals(*kinds: type[GatewayError]) -> dict[int | str, dict[str, Any]]:
    """Of a route that may answer with these errors, for its OpenAPI document."""
    by_status: dict[int | str, dict[str, Any]] = {}
    for kind in sorted(kinds, key=lambda kind: (kind.status, kind.reason)):
        known = by_status.setdefault(kind.status, {"model": Refusal, "description": ""})
        known["description"] = ", ".join(filter(None, (known["description"], kind.reason)))
    return by_status


def header(name: str, meaning: str, *, required: bool = True) -> dict[str, Any]:
    """A header of a request, for the OpenAPI document: they are read where admission reads them."""
    return {"name": name, "in": "header", "required": required, "description": meaning, "schema": {"type": "string"}}


async def read_body(request: Request, limit: int) -> bytes:
    """The body, of at most `limit` bytes. Raises BadRequest when there are more, RequestTimedOut when it is slow."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        await discard_body(request, limit)
        raise _too_large(limit)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise _too_large(limit)
    except TimeoutError as error:
        raise RequestTimedOut(f"the body did not come within {BODY_TIMEOUT_S:g} s") from error
    return bytes(body)


def read_challenge(body: bytes, form: type[_Form]) -> _Form:
    """Raises BadRequest for what is no JSON, BadChallenge for JSON that is no challenge of this `form`."""
    try:
        payload = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the body is not JSON: {error}") from error
    return validated(payload, form, "challenge")


def validated(payload: Any, form: type[_Form], what: str) -> _Form:
    """Parsed JSON as a request of this `form`, called `what` in messages. Raises BadChallenge where it is none."""
    try:
        return form.model_validate(payload)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise BadChallenge(f"the {what} is not valid: {where}: {first['msg']}") from error


async def discard_body(request: Request, limit: int) -> None:
    """Read and forget the body of one who is refused, at most `limit` bytes and for a moment.

    An answer that leaves while the body is still coming is lost to most clients, with the connection. Who waits to be
    told to send it is not told.
    """
    if "expect" in request.headers:
        return
    left = limit
    with suppress(TimeoutError, ClientDisconnect):
        async with asyncio.timeout(DISCARD_S):
            async for chunk in request.stream():
                left -= len(chunk)
                if left < 0:
                    return


def _too_large(limit: int) -> BadRequest:
    return BadRequest(f"the body is larger than {limit} bytes; a challenge is one small JSON object")


async def until_disconnect(request: Request, work: Awaitable[_Result]) -> _Result:
    """What `work` gives, or ClientGone as soon as the caller hangs up: nobody else would read it."""

    async def disconnect() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working = asyncio.ensure_future(work)
    leaving = asyncio.create_task(disconnect())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.wait({working, leaving})


def count_client_gone(metrics: Metrics, history: History | None, request: Request, when: str) -> Response:
    """Count a challenge whose caller hung up, and remember when; an answer that nobody reads."""
    metrics.challenges.labels("client_gone").inc()
    remember(history, request, "client_gone", f"the caller hung up {when}")
    return Response(status_code=CLIENT_CLOSED_REQUEST)


def count_reply(metrics: Metrics) -> None:
    """One more challenge is answered, be it of a video or of pictures."""
    metrics.challenges.labels("answered").inc()
    metrics.last_answer.set_to_current_time()


def count_answered(metrics: Metrics, challenge_id: int | str, answer: Answer, stages: Mapping[str, float]) -> None:
    """The same of a video, with what its answer took and how many frames were inferred."""
    count_reply(metrics)
    for stage, seconds in stages.items():
        metrics.stage_seconds.labels(stage).observe(seconds)
    metrics.stride.labels("planned").observe(answer.planned_stride)
    metrics.stride.labels("actual").observe(answer.stride)
    _log.info(
        "challenge %s answered in %.2f s: %d frames, %d inferred, stride %d planned, %.1f came of it, up to %d, "
        "%.0f frames/s",
        challenge_id,
        answer.times.total_s,
        answer.frame_count,
        answer.inferred_count,
        answer.planned_stride,
        answer.stride,
        answer.largest_stride,
        answer.frame_count / answer.times.total_s,
    )


def remember(
    history: History | None,
    request: Request,
    outcome: str,
    detail: str = "",
    *,
    answer: Answer | None = None,
    stages: Mapping[str, float] | None = None,
) -> None:
    """Write the challenge into the history, if there is one."""
    started = getattr(request.state, "started", None)
    if history is None or started is None:
        return
    history.add(
        challenge_id=getattr(request.state, "challenge_id", ""),
        validator=request.headers.get(VALIDATOR_HOTKEY, ""),
        outcome=outcome,
        detail=detail,
        seconds=time.perf_counter() - started,
        answer=answer,
        stages=stages or {},
    )


def stages_of(times: StageTimes, respond_s: float) -> dict[str, float]:
    return {
        "download": times.download_s,
        "decode": times.decode_s,
        "infer": times.infer_s,
        "track": times.track_s,
        "respond": respond_s,
        "first_frame": times.first_frame_s,
        "total": times.total_s + respond_s,
    }


def server_timing(stages: Mapping[str, float], answer: Answer) -> str:
    """The stage times as the Server-Timing header writes them, in milliseconds, and the strides (W3C Server Timing).

    The header leaves before the body: of responding it counts the first piece.
    """
    times = (f"{stage};dur={seconds * 1000:.1f}" for stage, seconds in stages.items())
    facts = {
        "planned-stride": answer.planned_stride,
        "stride": f"{answer.stride:.1f}",
        "inferred": answer.inferred_count,
        "expected-people": f"{answer.expected_quality:.3f}",
    }
    return ", ".join((*times, *(f'{name};desc="{value}"' for name, value in facts.items())))

"""The routes a validator calls, and those an operator watches."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator, Mapping

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from gateway.challenges import Service
from gateway.console.server import Console
from gateway.errors import BadRequest, GatewayError, Unauthorized
from gateway.metrics import Metrics
from gateway.pipeline import Answer, StageTimes
from gateway.protocol.models import read_challenge, response_json
from gateway.subnet.metagraph import Metagraph
from gateway.subnet.nonces import NonceStore
from gateway.subnet.signing import (
    VALIDATOR_HOTKEY,
    check_nonce_time,
    check_signature,
    read_credentials,
    signed_messages,
)

MAX_BODY_BYTES = 64 * 1024

_log = logging.getLogger(__name__)
_CLIENT_CLOSED_REQUEST = 499


class ClientGone(Exception):
    """The caller hung up before the answer was ready."""


def build_router(
    service: Service,
    metagraph: Metagraph,
    nonces: NonceStore,
    metrics: Metrics,
    own_hotkey: str,
    *,
    console: Console | None = None,
) -> APIRouter:
    """All routes, over what the lifespan built."""
    router = APIRouter()

    @router.post("/soccer/challenge")
    async def challenge(request: Request) -> Response:
        started = request.state.started = time.perf_counter()
        body = await _read_body(request)
        await _admit(request, body)
        wanted = read_challenge(body)
        request.state.challenge_id = wanted.challenge_id
        try:
            answer = await _until_disconnect(request, service, wanted.video_url)
        except ClientGone:
            metrics.challenges.labels("client_gone").inc()
            _remember(console, request, "client_gone", "the caller hung up before the answer was ready")
            return Response(status_code=_CLIENT_CLOSED_REQUEST)
        begun = time.perf_counter()
        pieces = response_json(wanted.challenge_id, answer, begun - started)
        first = await asyncio.to_thread(next, pieces)
        respond_s = time.perf_counter() - begun
        headers = {"Server-Timing": _server_timing(_stages(answer.times, respond_s))}
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
            metrics.challenges.labels("client_gone").inc()
            _remember(console, request, "client_gone", "the caller hung up while the answer was sent")
            raise
        stages = _stages(answer.times, respond_s)
        _count(metrics, request.state.challenge_id, answer, stages)
        _remember(console, request, "answered", answer=answer, stages=stages)

    async def _admit(request: Request, body: bytes) -> None:
        """No work is done for a stranger: whom it is for, when, who, with what stake, and only then the signature."""
        credentials = read_credentials(request.headers)
        if credentials.miner_hotkey != own_hotkey:
            raise Unauthorized(f"the request is signed for miner {credentials.miner_hotkey}, this is {own_hotkey}")
        check_nonce_time(credentials.nonce)
        metagraph.check_stake(credentials.validator_hotkey)
        messages = signed_messages(credentials.nonce, credentials.miner_hotkey, body)
        check_signature(credentials.validator_hotkey, credentials.signature, messages)
        await nonces.use(credentials.validator_hotkey, credentials.nonce)

    @router.get("/availability")
    async def availability() -> dict[str, bool]:
        return {"available": service.available and not nonces.why_not_ready}

    @router.get("/health")
    async def health() -> JSONResponse:
        return _health(service, metagraph, nonces)

    @router.get("/metrics")
    async def prometheus() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return router


def _health(service: Service, metagraph: Metagraph, nonces: NonceStore) -> JSONResponse:
    models = service.models
    why_not_ready = "; ".join(filter(None, (service.why_not_ready, nonces.why_not_ready)))
    health = {
        "ready": not why_not_ready,
        "reason": why_not_ready,
        "models": models.versions if models and service.ready else {},
        "tritons": service.tritons,
        "nonces": nonces.kept_in,
        "nodes": len(metagraph),
    }
    return JSONResponse(health, status_code=503 if why_not_ready else 200)


def add_error_answers(app: FastAPI, metrics: Metrics, console: Console | None = None) -> None:
    """The one place where errors become HTTP answers."""

    @app.exception_handler(GatewayError)
    async def told(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, GatewayError)
        metrics.challenges.labels(error.reason).inc()
        _remember(console, request, error.reason, str(error))
        _log.warning("%s %s refused (%s): %s", request.method, request.url.path, error.reason, error)
        headers = {"Retry-After": str(error.retry_after_s)} if error.retry_after_s else None
        return JSONResponse({"error": error.reason, "detail": str(error)}, error.status, headers)

    @app.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> JSONResponse:
        """A defect of ours: the caller learns no more than that; the log has the rest."""
        metrics.challenges.labels(GatewayError.reason).inc()
        detail = "the gateway failed; its log says why"
        _remember(console, request, GatewayError.reason, detail)
        return JSONResponse({"error": GatewayError.reason, "detail": detail}, GatewayError.status)


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise BadRequest(f"the body is larger than {MAX_BODY_BYTES} bytes; a challenge is one small JSON object")
    return bytes(body)


async def _until_disconnect(request: Request, service: Service, video_url: str) -> Answer:
    """The answer, or ClientGone as soon as the caller hangs up: nobody else would read it."""

    async def disconnect() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    answering = asyncio.create_task(service.answer(video_url))
    leaving = asyncio.create_task(disconnect())
    try:
        await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            raise ClientGone
        return answering.result()
    finally:
        for task in (answering, leaving):
            task.cancel()
        await asyncio.wait({answering, leaving})


def _count(metrics: Metrics, challenge_id: int | str, answer: Answer, stages: Mapping[str, float]) -> None:
    metrics.challenges.labels("answered").inc()
    metrics.last_answer.set_to_current_time()
    for stage, seconds in stages.items():
        metrics.stage_seconds.labels(stage).observe(seconds)
    _log.info(
        "challenge %s answered in %.2f s: %d frames, %d inferred, stride up to %d, %.0f frames/s",
        challenge_id,
        answer.times.total_s,
        answer.frame_count,
        answer.inferred_count,
        answer.largest_stride,
        answer.frame_count / answer.times.total_s,
    )


def _remember(
    console: Console | None,
    request: Request,
    outcome: str,
    detail: str = "",
    *,
    answer: Answer | None = None,
    stages: Mapping[str, float] | None = None,
) -> None:
    """Show the challenge on the console, if there is one."""
    started = getattr(request.state, "started", None)
    if console is None or started is None:
        return
    console.add(
        challenge_id=getattr(request.state, "challenge_id", ""),
        validator=request.headers.get(VALIDATOR_HOTKEY, ""),
        outcome=outcome,
        detail=detail,
        seconds=time.perf_counter() - started,
        answer=answer,
        stages=stages,
    )


def _stages(times: StageTimes, respond_s: float) -> dict[str, float]:
    return {
        "download": times.download_s,
        "decode": times.decode_s,
        "infer": times.infer_s,
        "track": times.track_s,
        "respond": respond_s,
        "first_frame": times.first_frame_s,
        "total": times.total_s + respond_s,
    }


def _server_timing(stages: Mapping[str, float]) -> str:
    """The stage times as the Server-Timing header writes them, in milliseconds (W3C Server Timing).

    The header leaves before the body: of responding it counts the first piece.
    """
    return ", ".join(f"{stage};dur={seconds * 1000:.1f}" for stage, seconds in stages.items())

"""GET /health, /availability and /metrics: what validators, balancers and Prometheus ask."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from gateway.challenges import Challenges
from gateway.inference.engine import Engine
from gateway.metrics import Metrics
from gateway.subnet.metagraph import Metagraph
from gateway.subnet.nonces import NonceStore


def status_router(
    engine: Engine, challenges: Challenges, metagraph: Metagraph, nonces: NonceStore, metrics: Metrics
) -> APIRouter:
    """The three routes, over what the lifespan built."""
    router = APIRouter()

    @router.get("/availability")
    async def availability() -> dict[str, bool]:
        return {"available": challenges.available and not nonces.why_not_ready}

    @router.get("/health")
    async def health() -> JSONResponse:
        reason = why_not_ready(engine, nonces)
        models = engine.models
        said = {
            "ready": not reason,
            "reason": reason,
            "models": models.versions if models and engine.ready else {},
            "tritons": engine.states,
            "nonces": nonces.kept_in,
            "nodes": len(metagraph),
        }
        return JSONResponse(said, status_code=503 if reason else 200)

    @router.get("/metrics")
    async def prometheus() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return router


def why_not_ready(engine: Engine, nonces: NonceStore) -> str:
    """Empty when the next challenge could be answered, else what is missing."""
    return "; ".join(filter(None, (engine.why_not_ready, nonces.why_not_ready)))

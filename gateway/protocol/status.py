"""GET /health, /availability and /metrics: what validators, balancers and Prometheus ask."""

from __future__ import annotations

from resource import RUSAGE_SELF, getrusage

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from gateway.challenges import Challenges
from gateway.inference.engine import Engine
from gateway.metrics import Metrics
from gateway.subnet.metagraph import Metagraph
from gateway.subnet.nonces import NonceStore
from touchline import __version__


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
            **healthy(engine),
        }
        return JSONResponse(said, status_code=503 if reason else 200)

    @router.get("/metrics")
    async def prometheus() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return router


def healthy(engine: Engine) -> dict[str, str | float]:
    """The models' health as the subnet's public contract has it, for POST /health and beside ours in GET /health.

    The memory is the gateway's own at its largest, in GiB; CUDA is Triton's affair.
    """
    models = engine.models if engine.ready else None
    served = ", ".join(f"{name} {version}" for name, version in models.versions.items()) if models else "nothing"
    return {
        "status": "healthy" if engine.ready else f"\N{CROSS MARK} Failed to load miner: {engine.why_not_ready}",
        "model_loaded": f"Touchline {__version__}: {served}",
        "memory_gb": round(getrusage(RUSAGE_SELF).ru_maxrss / 2**20, 3),
        "cuda": "in Triton",
    }


def why_not_ready(engine: Engine, nonces: NonceStore) -> str:
    """Empty when the next challenge could be answered, else what is missing."""
    return "; ".join(filter(None, (engine.why_not_ready, nonces.why_not_ready)))

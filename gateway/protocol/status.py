"""GET /health and /availability: what validators and balancers ask."""

from __future__ import annotations

from resource import RUSAGE_SELF, getrusage

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from gateway.challenges import Challenges
from gateway.inference.engine import Engine
from gateway.subnet.nonces import NonceStore
from touchline import __version__


def status_router(engine: Engine, challenges: Challenges, nonces: NonceStore, *, as_contract: bool) -> APIRouter:
    """The two routes, over what the lifespan built; /health says also what the public contract asks of it."""
    router = APIRouter()

    @router.get("/availability")
    async def availability() -> dict[str, bool]:
        return {"available": challenges.available and not nonces.why_not_ready}

    @router.get("/health", responses={503: {"description": "Not ready"}})
    async def health() -> JSONResponse:
        """What is wrong is told on the operator's port: strangers ask here too."""
        ready = not why_not_ready(engine, nonces)
        said = {"ready": ready, **(healthy(engine) if as_contract else {})}
        return JSONResponse(said, status_code=200 if ready else 503)

    return router


def healthy(engine: Engine) -> dict[str, str | float]:
    """The models' health as the subnet's public contract has it, for POST /health and the operator's port.

    The memory is the gateway's own at its largest, in GiB; CUDA is Triton's affair.
    """
    models = engine.models if engine.ready else None
    served = ", ".join(f"{name} {version}" for name, version in models.versions.items()) if models else "nothing"
    return {
        "status": "healthy" if engine.ready else "\N{CROSS MARK} Failed to load miner: the models are not ready",
        "model_loaded": f"Touchline {__version__}: {served}",
        "memory_gb": round(getrusage(RUSAGE_SELF).ru_maxrss / 2**20, 3),
        "cuda": "in Triton",
    }


def why_not_ready(engine: Engine, nonces: NonceStore) -> str:
    """Empty when the next challenge could be answered, else what is missing."""
    return "; ".join(filter(None, (engine.why_not_ready, nonces.why_not_ready)))

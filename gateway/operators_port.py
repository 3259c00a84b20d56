"""The operator's port: GET /metrics, /health with what is wrong and where, and the public port's OpenAPI document."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.middleware.trustedhost import TrustedHostMiddleware

from gateway.errors import StartupError
from gateway.inference.engine import Engine
from gateway.listening import beside, bind
from gateway.live.cameras import Cameras
from gateway.metrics import Metrics
from gateway.protocol.status import healthy, why_not_ready
from gateway.settings import Settings, is_loopback
from gateway.subnet.metagraph import Metagraph
from gateway.subnet.nonces import NonceStore

_log = logging.getLogger(__name__)


def build_operators_app(
    public: FastAPI,
    engine: Engine,
    metagraph: Metagraph,
    nonces: NonceStore,
    metrics: Metrics,
    *,
    host: str,
    cameras: Sequence[Cameras] = (),
) -> FastAPI:
    """The three routes. On a loopback `host` they answer under its own names alone: no web page reaches them."""
    app = FastAPI(title="Touchline, inside", docs_url=None, redoc_url=None, openapi_url=None)
    if is_loopback(host):
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["localhost", "127.0.0.1", "::1", host])

    @app.get("/health")
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
            # One that is away is no fault of the gateway's.
            **({"live": cameras[0].counts} if cameras else {}),
        }
        return JSONResponse(said, status_code=503 if reason else 200)

    @app.get("/metrics")
    async def prometheus() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/openapi.json")
    async def openapi() -> dict[str, Any]:
        return public.openapi()

    return app


def listen(settings: Settings) -> socket.socket | None:
    """The port, taken; None where METRICS_PORT is 0 or nobody has set it and it cannot be had.

    Raises StartupError when one that was set cannot be had.
    """
    host, port = settings.metrics_host, settings.metrics_port
    if not port:
        return None
    try:
        for name, other in (("PORT", settings.port), ("CONSOLE_PORT", settings.console_port)):
            if port == other:
                raise StartupError(
                    f"METRICS_PORT and {name} are both {port}; set another for the metrics, or 0 for none"
                )
        first, *others = bind(host, port, prefix="METRICS_", none_allowed=True)
        for one in others:  # localhost is two addresses
            one.close()
        return first
    except StartupError as error:
        if settings.model_fields_set & {"metrics_port", "metrics_host"}:
            raise
        _log.warning("no metrics: %s", error)
        return None


@asynccontextmanager
async def serving(app: FastAPI, listener: socket.socket | None) -> AsyncIterator[None]:
    """Serve the operator's app during the block, if it has a port."""
    if listener is None:
        yield
        return
    host, port = listener.getsockname()[:2]
    _log.info("metrics at http://%s:%d/metrics", f"[{host}]" if ":" in host else host, port)
    async with beside(app, listener):
        yield

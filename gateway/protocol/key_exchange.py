"""GET /public-encryption-key and POST /exchange-symmetric-key: how a validator and this miner agree on a key."""

from __future__ import annotations

import time

from fastapi import APIRouter, Request

from gateway.errors import BadRequest, Busy, Forbidden, NoncesUnavailable, RequestTimedOut, Unauthorized
from gateway.protocol.admission import SIGNED, Admission
from gateway.protocol.http import refusals
from gateway.subnet.encryption import SharedKeys


def key_exchange_router(admission: Admission, keys: SharedKeys) -> APIRouter:
    """The two routes, over what the lifespan built."""
    router = APIRouter()

    @router.get("/public-encryption-key")
    async def public_encryption_key() -> dict[str, str | float]:
        return {"public_key": await keys.public_key(), "timestamp": time.time()}

    @router.post(
        "/exchange-symmetric-key",
        responses=refusals(BadRequest, RequestTimedOut, Unauthorized, Forbidden, NoncesUnavailable, Busy),
        openapi_extra={
            "parameters": [{**one, "required": True} for one in SIGNED],
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": {
                            "type": "object",
                            "required": ["encrypted_symmetric_key"],
                            "properties": {"encrypted_symmetric_key": {"type": "string"}},
                        }
                    }
                },
            },
        },
    )
    async def exchange_symmetric_key(request: Request) -> dict[str, str]:
        await admission.exchange(request)
        return {"status": "Symmetric key exchanged successfully"}

    return router

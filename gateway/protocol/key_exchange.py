"""GET /public-encryption-key and POST /exchange-symmetric-key: how a validator and this miner agree on a key."""

from __future__ import annotations

import time
from typing import Final

from fastapi import APIRouter, Request

from gateway.errors import BadRequest, Busy, Forbidden, NoncesUnavailable, RequestTimedOut, Unauthorized
from gateway.protocol.admission import SIGNED
from gateway.protocol.door import admitted
from gateway.protocol.http import refusals
from gateway.subnet.encryption import SharedKeys

EXCHANGE_PATH: Final = "/exchange-symmetric-key"


def key_exchange_router(keys: SharedKeys) -> APIRouter:
    """The two routes, over what the lifespan built; Admission.exchange guards the second and keeps the key."""
    router = APIRouter()

    @router.get("/public-encryption-key")
    async def public_encryption_key() -> dict[str, str | float]:
        return {"public_key": await keys.public_key(), "timestamp": time.time()}

    @router.post(
        EXCHANGE_PATH,
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
        admitted(request)
        return {"status": "Symmetric key exchanged successfully"}

    return router

"""GET /public-encryption-key and POST /exchange-symmetric-key: how a validator and this miner agree on a key."""

from __future__ import annotations

import time

from fastapi import APIRouter, Request

from gateway.protocol.admission import Admission
from gateway.subnet.encryption import SharedKeys


def key_exchange_router(admission: Admission, keys: SharedKeys) -> APIRouter:
    """The two routes, over what the lifespan built."""
    router = APIRouter()

    @router.get("/public-encryption-key")
    async def public_encryption_key() -> dict[str, str | float]:
        return {"public_key": await keys.public_key(), "timestamp": time.time()}

    @router.post("/exchange-symmetric-key")
    async def exchange_symmetric_key(request: Request) -> dict[str, str]:
        await admission.exchange(request)
        return {"status": "Symmetric key exchanged successfully"}

    return router

"""Who is let in to POST /challenge: a validator by its signature, in any of its forms, before a route is reached."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from fastapi import Request

from gateway.errors import Busy, GatewayError, RequestTimedOut, Unauthorized
from gateway.protocol.admission import MAX_BODY_BYTES
from gateway.protocol.frames import DISCARDED_BYTES, announced_bytes, read_pictures
from gateway.protocol.http import BODY_TIMEOUT_S, discard_body, read_body
from gateway.settings import Settings
from gateway.subnet.metagraph import Metagraph
from gateway.subnet.nonces import NonceStore
from gateway.subnet.private_signing import check_private_nonce, read_private_credentials, signed_form
from gateway.subnet.signing import VALIDATOR_HOTKEY, Credentials

ROOM_WAIT_S: Final = 25.0
MOST_WAITING: Final = 64
"""Requests with large bodies, unread."""
REST: Final = 20.0
"""So many times as long as it took to find a large body forged no other is read: that costs a twentieth of a core."""
LONGEST_REST_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that may be answered."""

    body: bytearray
    room: AsyncExitStack
    """Held by a large body until it has a place or is not needed: close it then. Another one is read no sooner."""
    validator: str
    """Empty where nobody has to say."""
    form: str
    """How it is signed, for the log."""
    stake: float
    """By which requests that wait for a place are ordered; 0 for who may be anybody."""


class PrivateAdmission:
    """Who may ask, as VERIFY_ENABLED and BLACKLIST_ENABLED say."""

    def __init__(self, settings: Settings, metagraph: Metagraph, nonces: NonceStore, own_hotkey: str) -> None:
        self.settings = settings
        self.nonces = nonces
        self._metagraph = metagraph
        self._own_hotkey = own_hotkey
        self._reading = asyncio.Lock()
        self._waiting = 0

    async def body(self, request: Request) -> Asked:
        """The body as its validator wrote it. The cheap questions come first; a stranger's body is thrown away unread.

        Raises Unauthorized, Forbidden, BadRequest, RequestTimedOut, Busy or NoncesUnavailable.
        """
        try:
            named = self._named(request)
        except GatewayError:
            await discard_body(request, DISCARDED_BYTES)
            raise
        room = await request.state.held.enter_async_context(AsyncExitStack())
        # A larger one brings pictures. One that says nothing of its length may have any.
        if large := (announced_bytes(request) > MAX_BODY_BYTES or "transfer-encoding" in request.headers):
            await room.enter_async_context(self._alone())
            body = await self._large(request)
        else:
            body = bytearray(await read_body(request, MAX_BODY_BYTES))
        form = await self._proven(named, body, large) if named else "not verified"
        validator = asker(request)
        node = self._metagraph.find(validator) if named else None
        return Asked(body, room, validator, form, node.stake if node else 0.0)

    def _named(self, request: Request) -> tuple[Credentials, str] | None:
        """Who says to be asking, and under which names; None where nobody has to sign. Needs no body.

        Looks for whom it is, when, who and with what stake. Raises Unauthorized or Forbidden.
        """
        if not self.settings.verify_enabled:
            if self.settings.blacklist_enabled:
                self._metagraph.check_stake(asker(request))
            return None
        credentials, names = read_private_credentials(request.headers)
        if credentials.miner_hotkey not in ("", self._own_hotkey):
            raise Unauthorized(f"the request is for miner {credentials.miner_hotkey[:64]}, this is {self._own_hotkey}")
        check_private_nonce(credentials.nonce)
        if self.settings.blacklist_enabled:
            self._metagraph.check_stake(credentials.validator_hotkey)
        return credentials, names

    async def _proven(self, named: tuple[Credentials, str], body: bytearray, large: bool) -> str:
        """How the request is signed, for the log. Raises Unauthorized or NoncesUnavailable."""
        credentials, names = named
        began = time.perf_counter()
        try:
            if large:
                form = await asyncio.to_thread(signed_form, credentials, body, self._own_hotkey)
            else:
                form = signed_form(credentials, body, self._own_hotkey)
        except Unauthorized:
            body.clear()
            if large:
                await asyncio.sleep(min(LONGEST_REST_S, REST * (time.perf_counter() - began)))
            raise
        await self.nonces.use(credentials.validator_hotkey, credentials.nonce)
        return f"signed as {form} in {names}"

    async def _large(self, request: Request) -> bytearray:
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                return await read_pictures(request, self.settings.max_predict_mb * 2**20)
        except TimeoutError as error:
            raise RequestTimedOut(f"the body did not come within {BODY_TIMEOUT_S:g} s; send URLs") from error

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """Nobody else's large body is read meanwhile: whose it is is known when all of it is here. Raises Busy."""
        busy = Busy("other large bodies are being read; send URLs, or ask again later")
        if self._waiting >= MOST_WAITING:
            raise busy
        self._waiting += 1
        try:
            async with asyncio.timeout(ROOM_WAIT_S):
                await self._reading.acquire()
        except TimeoutError:
            raise busy from None
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._reading.release()


def asker(request: Request) -> str:
    """Who says to be asking, proven or not."""
    return request.headers.get(VALIDATOR_HOTKEY) or request.headers.get(f"x-{VALIDATOR_HOTKEY}") or ""

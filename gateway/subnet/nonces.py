"""Nonces that were used, remembered as long as they could be used again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from contextlib import suppress
from typing import Protocol

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from gateway.errors import NoncesUnavailable, StartupError, Unauthorized
from gateway.subnet.signing import NONCE_WINDOW_S

REMEMBERED_S = 2 * NONCE_WINDOW_S
"""A nonce from the future end of the window stays valid for twice the window."""
REDIS_TIMEOUT_S = 1.0
WATCH_INTERVAL_S = 1.0

_log = logging.getLogger(__name__)


class NonceStore(Protocol):
    """Where used nonces are. A nonce is stored after its signature was found good, so nobody can burn another's."""

    @property
    def kept_in(self) -> str: ...

    @property
    def why_not_ready(self) -> str:
        """Empty while `use` works."""

    async def use(self, validator_hotkey: str, nonce: str) -> None:
        """Raises Unauthorized when this validator used `nonce` before, NoncesUnavailable when that is not known."""


class MemoryNonces:
    """Nonces of this process."""

    kept_in = "this process"
    why_not_ready = ""

    def __init__(self) -> None:
        self._used: set[tuple[str, str]] = set()
        self._by_time: deque[tuple[float, tuple[str, str]]] = deque()

    def __len__(self) -> int:
        return len(self._used)

    async def use(self, validator_hotkey: str, nonce: str, now_s: float | None = None) -> None:
        now = time.monotonic() if now_s is None else now_s
        while self._by_time and self._by_time[0][0] < now - REMEMBERED_S:
            self._used.discard(self._by_time.popleft()[1])
        key = (validator_hotkey, nonce)
        if key in self._used:
            raise _used_before()
        self._used.add(key)
        self._by_time.append((now, key))


class RedisNonces:
    """Nonces of all gateways that serve one hotkey, in the Redis they share. It decides which of two uses was first.

    Raises StartupError for a URL that is none. The URL may hold a password, so no message quotes it.
    """

    def __init__(self, url: str, own_hotkey: str) -> None:
        try:
            # No retries: a second try of a SET whose reply was lost would find the nonce used, by itself.
            # Protocol 2: where a password is missing, its error says so.
            self._redis = Redis.from_url(url, retry=Retry(NoBackoff(), 0), protocol=2)
        except ValueError:
            raise StartupError(
                "NONCE_REDIS_URL is no address of a Redis; write redis://:PASSWORD@HOST:PORT, rediss:// for TLS"
            ) from None
        where = self._redis.connection_pool.connection_kwargs
        self._address = where.get("path") or f"{where.get('host', 'localhost')}:{where.get('port', 6379)}"
        self._own_hotkey = own_hotkey
        self.kept_in = f"Redis at {self._address}"
        self.why_not_ready = f"{self.kept_in} was not asked yet"

    async def use(self, validator_hotkey: str, nonce: str) -> None:
        if not await self._set_new(f"{validator_hotkey}:{nonce}", REMEMBERED_S):
            raise _used_before()

    async def watch_forever(self) -> None:
        """Know whether Redis takes what a challenge would write, beside the challenges."""
        while True:
            with suppress(NoncesUnavailable):  # `why_not_ready` says it
                await self.check()
            await asyncio.sleep(WATCH_INTERVAL_S)

    async def check(self) -> None:
        """Write what a challenge would. Raises NoncesUnavailable."""
        await self._set_new("watch", WATCH_INTERVAL_S / 2)

    async def close(self) -> None:
        await self._redis.aclose()

    async def _set_new(self, name: str, remembered_s: float) -> bool:
        """Whether `name` was not there; it is now."""
        try:
            async with asyncio.timeout(REDIS_TIMEOUT_S):
                was_new = await self._redis.set(
                    f"touchline:nonce:{self._own_hotkey}:{name}", 1, nx=True, px=round(remembered_s * 1000)
                )
        except (RedisError, OSError) as error:
            why = f"{self.kept_in} cannot be asked whether a nonce is new ({str(error) or 'no answer'}); is it running?"
            if why != self.why_not_ready:
                _log.error("%s", why)
            self.why_not_ready = why
            raise NoncesUnavailable(why) from error
        if self.why_not_ready:
            _log.info("nonces are kept in %s", self.kept_in)
            self.why_not_ready = ""
        return bool(was_new)


def _used_before() -> Unauthorized:
    return Unauthorized("the nonce was used before; every request needs a new one")

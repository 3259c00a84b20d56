"""Nonces that were used, remembered as long as they could be used again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Protocol

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from gateway.errors import Busy, NoncesUnavailable, StartupError, Unauthorized
from gateway.settings import Settings
from gateway.subnet.nonce_journal import RETRY_S, NonceJournal, Use
from gateway.subnet.signing import NONCE_WINDOW_S

REMEMBERED_S = 2 * NONCE_WINDOW_S
"""A nonce from the future end of the window stays valid for twice the window."""
FORGOTTEN_S = 2 * 3600.0
"""So long nonces of one gateway are remembered in truth, for clocks that jump."""
MOST_A_VALIDATOR = 5000
"""Within REMEMBERED_S; older ones make room. About a megabyte."""
SWEEP_S = 60.0
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

    async def watch_forever(self) -> None:
        """Know beside the challenges whether `use` works."""

    async def close(self) -> None: ...


def nonces_of(settings: Settings, own_hotkey: str) -> NonceStore:
    """Those of NONCE_REDIS_URL, or a gateway's own beside NODES_FILE. Raises StartupError for a URL that is none."""
    if url := settings.nonce_redis_url.get_secret_value():
        return RedisNonces(url, own_hotkey)
    return OwnNonces(NonceJournal(settings.nodes_file.with_name(f"nonces-{own_hotkey[:12]}.log")))


class OwnNonces:
    """Nonces of one gateway: in its memory, and in a journal from which the next one to start reads them.

    They are remembered for longer than they could be used again, so that a clock that is set back opens nothing.
    """

    why_not_ready = ""

    def __init__(self, journal: NonceJournal | None = None) -> None:
        self._journal = journal
        self._started = time.time()
        self._used: dict[str, dict[str, float]] = {}
        """By validator, oldest first: nonces, and when they were used on time.monotonic's clock."""
        self._swept = float("-inf")

    def __len__(self) -> int:
        return sum(map(len, self._used.values()))

    @property
    def kept_in(self) -> str:
        return str(self._journal.path) if self._journal and self._journal.is_open else "this process"

    async def use(self, validator_hotkey: str, nonce: str, now_s: float | None = None) -> None:
        now = time.monotonic() if now_s is None else now_s
        self._forget(now)
        self.load()
        if self._journal and not self._journal.is_open and int(nonce.partition("_")[0]) / 1e9 < self._started:
            raise Unauthorized(
                "the nonce is older than this gateway, which cannot read what the one before it was asked; sign again"
            )
        used = self._used.setdefault(validator_hotkey, {})
        if nonce in used:
            raise _used_before()
        if len(used) >= MOST_A_VALIDATOR:
            oldest, when = next(iter(used.items()))
            if when > now - REMEMBERED_S:
                raise Busy(f"{validator_hotkey} has sent {MOST_A_VALIDATOR} requests in {REMEMBERED_S:.0f} s")
            del used[oldest]
        used[nonce] = now
        if self._journal and not self._journal.add(Use(validator_hotkey, nonce, time.time()), len(self)):
            self._journal.rewrite(self._uses(now))

    async def watch_forever(self) -> None:
        while True:
            self.load()
            await asyncio.sleep(RETRY_S)

    def load(self) -> None:
        """Take in what is in the journal, if it is not open yet and can be had."""
        if self._journal is None or self._journal.is_open or (uses := self._journal.open()) is None:
            return
        now, wall = time.monotonic(), time.time()
        meanwhile = list(self._uses(now))
        self._used = {}
        for use in sorted((*uses, *meanwhile), key=lambda use: use.when):
            self._used.setdefault(use.validator_hotkey, {})[use.nonce] = now - max(0.0, wall - use.when)
        self._swept = float("-inf")
        self._forget(now)
        self._journal.rewrite(self._uses(now))

    async def close(self) -> None:
        if self._journal is not None:
            self._journal.close()

    def _uses(self, now: float) -> Iterator[Use]:
        wall = time.time()
        for validator_hotkey, used in self._used.items():
            for nonce, when in used.items():
                yield Use(validator_hotkey, nonce, wall - (now - when))

    def _forget(self, now: float) -> None:
        """From time to time: what a clock that is two hours off could not bring back."""
        if now - self._swept < SWEEP_S:
            return
        self._swept = now
        for used in self._used.values():
            while used and next(iter(used.values())) < now - FORGOTTEN_S:
                del used[next(iter(used))]
        self._used = {validator: used for validator, used in self._used.items() if used}


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

"""Nonces that were used, remembered as long as they could be used again."""

from __future__ import annotations

import time
from collections import deque

from gateway.errors import Unauthorized
from gateway.protocol.signing import NONCE_WINDOW_S


class NonceStore:
    """Nonces of this process. A nonce is stored after its signature was found good, so nobody can burn another's."""

    def __init__(self) -> None:
        self._used: set[tuple[str, str]] = set()
        self._by_time: deque[tuple[float, tuple[str, str]]] = deque()

    def __len__(self) -> int:
        return len(self._used)

    def use(self, validator_hotkey: str, nonce: str, now_s: float | None = None) -> None:
        """Raises Unauthorized when this validator used `nonce` before."""
        now = time.monotonic() if now_s is None else now_s
        # A nonce from the future end of the window stays valid for twice the window.
        while self._by_time and self._by_time[0][0] < now - 2 * NONCE_WINDOW_S:
            self._used.discard(self._by_time.popleft()[1])
        key = (validator_hotkey, nonce)
        if key in self._used:
            raise Unauthorized("the nonce was used before; every request needs a new one")
        self._used.add(key)
        self._by_time.append((now, key))

"""Nonces are good for one use and forgotten when they could not be used any more."""

from __future__ import annotations

import pytest

from gateway.errors import Unauthorized
from gateway.protocol.nonces import NonceStore


def test_a_nonce_is_good_once() -> None:
    nonces = NonceStore()
    nonces.use("alice", "1")
    with pytest.raises(Unauthorized, match="used before"):
        nonces.use("alice", "1")


def test_validators_do_not_share_nonces() -> None:
    nonces = NonceStore()
    nonces.use("alice", "1")
    nonces.use("bob", "1")


def test_a_nonce_from_the_future_end_of_the_window_is_remembered_until_it_is_stale() -> None:
    nonces = NonceStore()
    nonces.use("alice", "1", now_s=0)
    with pytest.raises(Unauthorized):
        nonces.use("alice", "1", now_s=239)


def test_memory_is_bounded_by_time() -> None:
    nonces = NonceStore()
    for second in range(10_000):
        nonces.use("alice", str(second), now_s=second)
    assert len(nonces) <= 242

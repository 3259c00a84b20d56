"""Keys from seeds that tests know."""

from __future__ import annotations

from typing import Any

from bittensor_wallet import Keypair


def key_of(seed: Any, crypto_type: int = 1) -> Keypair:
    """The pair of `seed`, hex with 0x in front: the library takes such text, and hints at bytes."""
    return Keypair.create_from_seed(seed, crypto_type)

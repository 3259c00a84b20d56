"""The miner's own hotkey, from its wallet file."""

from __future__ import annotations

import json
from pathlib import Path

from bittensor_wallet import Keypair

from gateway.errors import StartupError


def load_hotkey(path: Path) -> Keypair:
    """The key pair in a hotkey file (JSON with `secretSeed`). Raises StartupError naming the file and the remedy."""
    remedy = "set WALLET_PATH, WALLET_NAME and HOTKEY_NAME"
    try:
        seed = json.loads(path.read_text())["secretSeed"]
        return Keypair.create_from_seed(seed)
    except OSError as error:
        raise StartupError(f"hotkey file {path} cannot be read: {error.strerror}; {remedy}") from error
    except Exception as error:  # the key library raises its own types for a malformed seed
        raise StartupError(
            f"hotkey file {path} holds no usable secretSeed ({type(error).__name__}); {remedy}"
        ) from error

"""Keys that validators exchange for the encrypted variant: who asked for one, and for how long it is good."""

from __future__ import annotations

import asyncio
import base64
import binascii
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from gateway.errors import BadRequest, Unauthorized, UnknownKey

SYMMETRIC_KEY_UUID: Final = "symmetric-key-uuid"
KEY_LIFE_S: Final = 5 * 3600.0
"""So long a key is good, as with the subnet's own miner. Its validators exchange new ones more often."""
KEYS_A_VALIDATOR: Final = 8
"""The newest stay; one more than the processes of any validator."""
KEYS_IN_ALL: Final = 2048
"""A subnet has 256 nodes, all of which with a stake may hold KEYS_A_VALIDATOR."""
LONGEST_UUID: Final = 128
_RSA_BITS = 2048
_SYMMETRIC_BYTES = 32
_OAEP = padding.OAEP(mgf=padding.MGF1(algorithm=hashes.SHA256()), algorithm=hashes.SHA256(), label=None)


@dataclass(frozen=True, slots=True)
class _Key:
    fernet: Fernet
    expires: float
    """On time.monotonic's clock."""


class SharedKeys:
    """The keys that validators have exchanged, and the RSA pair they were sent under, both of this process.

    Who may exchange one is the caller's to check first: unsealing one costs about a millisecond.
    """

    def __init__(self) -> None:
        self._pair: asyncio.Task[tuple[rsa.RSAPrivateKey, str]] | None = None
        self._keys: OrderedDict[tuple[str, str], _Key] = OrderedDict()

    def __len__(self) -> int:
        return len(self._keys)

    async def public_key(self) -> str:
        """The public key as PEM. Made by the first who asks, once for the process: 0.1 s in a thread of its own."""
        if self._pair is None:
            self._pair = asyncio.create_task(asyncio.to_thread(_make_pair))
        return (await asyncio.shield(self._pair))[1]

    def take(self, validator_hotkey: str, uuid: str, sealed: str, now_s: float | None = None) -> None:
        """Keep the key in `sealed`, base64 of RSA-OAEP (SHA-256, MGF1 of it) of 32 bytes. Raises BadRequest."""
        if self._pair is None or not self._pair.done():
            raise BadRequest("this gateway has told nobody its public key yet; GET /public-encryption-key first")
        try:
            raw = self._pair.result()[0].decrypt(base64.b64decode(sealed, validate=True), _OAEP)
        except (ValueError, binascii.Error) as error:
            raise BadRequest(
                "the symmetric key cannot be unsealed: it is for another public key, perhaps of before a restart; "
                "GET /public-encryption-key again"
            ) from error
        if len(raw) != _SYMMETRIC_BYTES:
            raise BadRequest(f"the symmetric key has {len(raw)} bytes, not {_SYMMETRIC_BYTES}")
        now = time.monotonic() if now_s is None else now_s
        self._forget(validator_hotkey, now)
        self._keys[validator_hotkey, uuid] = _Key(Fernet(base64.urlsafe_b64encode(raw)), now + KEY_LIFE_S)
        self._keys.move_to_end((validator_hotkey, uuid))

    def check_known(self, validator_hotkey: str, uuid: str, now_s: float | None = None) -> None:
        """Raises UnknownKey unless this validator has exchanged a key of this name that is still good."""
        key = self._keys.get((validator_hotkey, uuid))
        if key is None or key.expires < (time.monotonic() if now_s is None else now_s):
            raise UnknownKey(
                f"no key of this {SYMMETRIC_KEY_UUID} and validator-hotkey is known here: it is older than "
                f"{KEY_LIFE_S / 3600:.0f} h, or of before a restart; POST /exchange-symmetric-key"
            )

    def opened(self, validator_hotkey: str, uuid: str, token: bytes) -> bytes:
        """What a Fernet token says. Raises UnknownKey, or Unauthorized for what was not made with that key."""
        self.check_known(validator_hotkey, uuid)
        try:
            return self._keys[validator_hotkey, uuid].fernet.decrypt(token)
        except InvalidToken as error:
            raise Unauthorized(f"the body is no Fernet token of the key that {SYMMETRIC_KEY_UUID} names") from error

    def _forget(self, validator_hotkey: str, now: float) -> None:
        """What expired, and so much that there is room for one more."""
        for name in [name for name, key in self._keys.items() if key.expires < now]:
            del self._keys[name]
        own = [name for name in self._keys if name[0] == validator_hotkey]
        for name in own[: max(0, len(own) - KEYS_A_VALIDATOR + 1)]:
            del self._keys[name]
        while len(self._keys) >= KEYS_IN_ALL:
            self._keys.popitem(last=False)


def _make_pair() -> tuple[rsa.RSAPrivateKey, str]:
    pair = rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS)
    pem = pair.public_key().public_bytes(
        encoding=serialization.Encoding.PEM, format=serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return pair, pem.decode()

"""Keys that validators exchange: unsealed as the stock client seals them, good for a while, and few."""

from __future__ import annotations

import base64
import os

import pytest
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from gateway.errors import BadRequest, Unauthorized, UnknownKey
from gateway.subnet import encryption
from gateway.subnet.encryption import KEY_LIFE_S, KEYS_A_VALIDATOR, SharedKeys

KEY = bytes(range(32))


def sealed(pem: str, key: bytes = KEY) -> str:
    public = serialization.load_pem_public_key(pem.encode())
    assert isinstance(public, rsa.RSAPublicKey)
    oaep = padding.OAEP(mgf=padding.MGF1(algorithm=hashes.SHA256()), algorithm=hashes.SHA256(), label=None)
    return base64.b64encode(public.encrypt(key, oaep)).decode()


def token(text: bytes, key: bytes = KEY) -> bytes:
    return Fernet(base64.urlsafe_b64encode(key)).encrypt(text)


async def test_a_key_opens_what_was_made_with_it_and_nothing_else() -> None:
    keys = SharedKeys()
    keys.take("alice", "1", sealed(await keys.public_key()))
    assert keys.opened("alice", "1", token(b"hello")) == b"hello"
    for forged in (b"", b"hello", token(b"hello", os.urandom(32)), token(b"hello")[:-4] + b"AAAA"):
        with pytest.raises(Unauthorized, match="no Fernet token"):
            keys.opened("alice", "1", forged)
    for validator, uuid in (("bob", "1"), ("alice", "2")):
        with pytest.raises(UnknownKey, match="POST /exchange-symmetric-key"):
            keys.opened(validator, uuid, token(b"hello"))


async def test_a_key_expires() -> None:
    keys = SharedKeys()
    keys.take("alice", "1", sealed(await keys.public_key()), now_s=0)
    keys.check_known("alice", "1", now_s=KEY_LIFE_S - 1)
    with pytest.raises(UnknownKey, match="older than 5 h"):
        keys.check_known("alice", "1", now_s=KEY_LIFE_S + 1)
    keys.take("bob", "1", sealed(await keys.public_key()), now_s=KEY_LIFE_S + 2)
    assert len(keys) == 1


async def test_a_validator_holds_its_newest_keys_alone_and_pushes_out_nobody_elses() -> None:
    keys = SharedKeys()
    seal = sealed(await keys.public_key())
    keys.take("bob", "1", seal)
    for number in range(KEYS_A_VALIDATOR + 3):
        keys.take("alice", str(number), seal)
    assert len(keys) == KEYS_A_VALIDATOR + 1
    keys.check_known("bob", "1")
    keys.check_known("alice", "3")
    with pytest.raises(UnknownKey):
        keys.check_known("alice", "2")


async def test_all_keys_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encryption, "KEYS_IN_ALL", 5)
    keys = SharedKeys()
    seal = sealed(await keys.public_key())
    for number in range(9):
        keys.take(str(number), "1", seal)
    assert len(keys) == 5
    keys.check_known("8", "1")


async def test_what_is_no_sealed_key_is_told() -> None:
    keys = SharedKeys()
    other = SharedKeys()
    with pytest.raises(BadRequest, match="GET /public-encryption-key"):
        keys.take("alice", "1", sealed(await other.public_key()))
    pem = await keys.public_key()
    assert await keys.public_key() == pem
    for wrong in ("", "not base64", "AAAA", sealed(await other.public_key())):
        with pytest.raises(BadRequest, match="cannot be unsealed"):
            keys.take("alice", "1", wrong)
    with pytest.raises(BadRequest, match="16 bytes, not 32"):
        keys.take("alice", "1", sealed(pem, KEY[:16]))
    assert len(keys) == 0

"""The encrypted variant over HTTP, spoken as the stock client speaks it."""

from __future__ import annotations

import base64
import json
import os
import secrets
import string
import time
import uuid
from typing import Any

import httpx
import pytest
from bittensor_wallet import Keypair
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from gateway.subnet.encryption import SharedKeys
from tests.support.gateway import RunningGateway, error_of


class StockClient:
    """Handshake and calls of a validator, written after the subnet's own client."""

    def __init__(self, gateway: RunningGateway, keypair: Keypair | None = None) -> None:
        self.gateway = gateway
        self.keypair = keypair or gateway.keys.validator
        self.miner = gateway.keys.miner.ss58_address
        self.key = os.urandom(32)
        self.uuid = str(uuid.uuid4())
        self.fernet = Fernet(base64.b64encode(self.key))

    def nonce(self) -> str:
        letters = "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(10))
        return f"{time.time_ns()}_{letters}"

    async def exchange_headers(self) -> dict[str, str]:
        nonce = self.nonce()
        signature = self.keypair.sign(f"{nonce}:{self.miner}:{self.uuid}".encode()).hex()
        return {
            "validator-hotkey": self.keypair.ss58_address,
            "miner-hotkey": self.miner,
            "nonce": nonce,
            "signature": f"0x{signature}",
            "symmetric-key-uuid": self.uuid,
        }

    async def handshake(self, headers: dict[str, str] | None = None) -> httpx.Response:
        told = (await self.gateway.client.get(f"{self.gateway.url}/public-encryption-key")).json()
        assert abs(told["timestamp"] - time.time()) < 60
        public = serialization.load_pem_public_key(told["public_key"].encode())
        assert isinstance(public, rsa.RSAPublicKey) and public.key_size == 2048
        oaep = padding.OAEP(mgf=padding.MGF1(algorithm=hashes.SHA256()), algorithm=hashes.SHA256(), label=None)
        payload = {"encrypted_symmetric_key": base64.b64encode(public.encrypt(self.key, oaep)).decode()}
        return await self.gateway.client.post(
            f"{self.gateway.url}/exchange-symmetric-key", json=payload, headers=headers or await self.exchange_headers()
        )

    async def challenge(self, url: str, nonce: str | None = None, **besides: Any) -> httpx.Response:
        payload = {"challenge_id": "e", "type": "gsr", "video_url": url, "nonce": nonce or self.nonce(), **besides}
        return await self.post(self.fernet.encrypt(json.dumps(payload).encode()))

    async def post(self, token: bytes) -> httpx.Response:
        headers = {
            "Content-Type": "application/octet-stream",
            "symmetric-key-uuid": self.uuid,
            "validator-hotkey": self.keypair.ss58_address,
        }
        return await self.gateway.client.post(
            f"{self.gateway.url}/soccer/challenge", content=token, headers=headers, timeout=60
        )


async def test_an_encrypted_challenge_is_answered_as_a_plain_one(gateway: RunningGateway, url: str) -> None:
    client = StockClient(gateway)
    assert (await client.handshake()).status_code == 200
    for _ in range(2):  # one key for many challenges
        answer = await client.challenge(url)
        assert answer.status_code == 200
        assert len(answer.json()["frames"]) == 5


async def test_a_nonce_inside_counts_once_and_in_its_window(gateway: RunningGateway, url: str) -> None:
    client = StockClient(gateway)
    await client.handshake()
    nonce = client.nonce()
    assert (await client.challenge(url, nonce)).status_code == 200
    assert "used before" in error_of(await client.challenge(url, nonce))[2]
    stale = f"{time.time_ns() - 10**12}_abcdefghij"
    assert "1000 s old" in error_of(await client.challenge(url, stale))[2]
    assert error_of(await client.challenge(url, nonce=7))[:2] == (400, "bad_request")  # type: ignore[arg-type]


async def test_what_is_not_of_the_exchanged_key_is_refused(gateway: RunningGateway, url: str) -> None:
    client = StockClient(gateway)
    assert error_of(await client.challenge(url))[:2] == (400, "unknown_key")
    await client.handshake()
    assert error_of(await client.post(Fernet(Fernet.generate_key()).encrypt(b"{}")))[:2] == (401, "unauthorized")
    assert error_of(await client.post(client.fernet.encrypt(b"no json")))[:2] == (400, "bad_request")
    client.uuid = "x" * 129
    assert error_of(await client.challenge(url))[:2] == (400, "bad_request")


async def test_nobody_uses_anothers_key(gateway: RunningGateway, url: str) -> None:
    client = StockClient(gateway)
    await client.handshake()
    client.keypair = Keypair.create_from_uri("//Stranger")
    assert error_of(await client.challenge(url))[:2] == (400, "unknown_key")


async def test_a_stranger_costs_no_unsealing(
    gateway: RunningGateway, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    unsealed: list[str] = []
    monkeypatch.setattr(SharedKeys, "take", lambda *given: unsealed.append(given[1]))
    stranger = StockClient(gateway, Keypair.create_from_uri("//Stranger"))
    assert error_of(await stranger.handshake())[:2] == (403, "forbidden")
    client = StockClient(gateway)
    forged = await client.exchange_headers() | {"signature": "0x" + "11" * 64}
    assert error_of(await client.handshake(forged))[:2] == (401, "unauthorized")
    other = await client.exchange_headers() | {"miner-hotkey": stranger.keypair.ss58_address}
    assert error_of(await client.handshake(other))[:2] == (401, "unauthorized")
    good = await client.exchange_headers()
    assert (await client.handshake(good)).status_code == 200
    assert "used before" in error_of(await client.handshake(good))[2]
    assert unsealed == [client.keypair.ss58_address]

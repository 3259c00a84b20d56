"""Hooks for schemathesis: requests whose headers are not wrong on purpose are a validator's, signed or encrypted."""

from __future__ import annotations

import base64
import itertools
import json
import os
import secrets
from pathlib import Path
from typing import Any

import httpx
import schemathesis
from bittensor_wallet import Keypair
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from requests import PreparedRequest
from requests.auth import AuthBase
from schemathesis.core.parameters import ParameterLocation

from local.validator import signed_headers

GATEWAY, VIDEO, MINER = (os.environ[f"SIGNED_CALLS_{name}"] for name in ("GATEWAY", "VIDEO", "MINER"))
VALIDATOR = Keypair.create_from_seed(json.loads(Path(os.environ["SIGNED_CALLS_HOTKEY"]).read_text())["secretSeed"])
EXCHANGE = "/exchange-symmetric-key"
KEY, KEY_UUID = os.urandom(32), "signed-calls"
_numbers = itertools.count()


def sealed(key: bytes) -> str:
    """A symmetric key as only the gateway can read it."""
    told = httpx.get(f"{GATEWAY}/public-encryption-key", trust_env=False).json()
    public = serialization.load_pem_public_key(told["public_key"].encode())
    assert isinstance(public, rsa.RSAPublicKey)
    oaep = padding.OAEP(mgf=padding.MGF1(algorithm=hashes.SHA256()), algorithm=hashes.SHA256(), label=None)
    return base64.b64encode(public.encrypt(key, oaep)).decode()


def exchange_headers(uuid: str) -> dict[str, str]:
    headers = signed_headers(VALIDATOR, MINER, b"")
    signature = VALIDATOR.sign(f"{headers['nonce']}:{MINER}:{uuid}".encode()).hex()
    return headers | {"signature": f"0x{signature}", "symmetric-key-uuid": uuid}


class Signature(AuthBase):
    """Headers over what is really sent."""

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        body = request.body or b""
        body = body.encode() if isinstance(body, str) else body
        assert isinstance(body, bytes)
        if request.path_url == EXCHANGE:
            said = exchange_headers(secrets.token_hex(8))
        elif request.headers.get("content-type") == "application/octet-stream":
            said = {"validator-hotkey": VALIDATOR.ss58_address, "symmetric-key-uuid": KEY_UUID}
        else:
            said = signed_headers(VALIDATOR, MINER, body)
        said.pop("content-type", None)
        for name in ("validator-hotkey", "miner-hotkey", "nonce", "signature", "symmetric-key-uuid"):
            request.headers.pop(name, None)
        request.headers.update(said)
        return request


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    modes = {place: part.mode for place, part in case.meta.components.items()}
    if case.method.upper() != "POST" or _is_wrong(modes, ParameterLocation.HEADER):
        return
    kwargs["auth"] = Signature()
    if _is_wrong(modes, ParameterLocation.BODY) or ParameterLocation.BODY not in modes:
        return
    # What a schema cannot say: a video that is there, a key that can be read.
    video = f"{VIDEO}?{next(_numbers)}"
    if case.path == EXCHANGE:
        case.body = {**case.body, "encrypted_symmetric_key": sealed(KEY)}
    elif case.media_type == "application/octet-stream":
        nonce = signed_headers(VALIDATOR, MINER, b"")["nonce"]
        challenge = {"challenge_id": "encrypted", "video_url": video, "nonce": nonce}
        case.body = Fernet(base64.b64encode(KEY)).encrypt(json.dumps(challenge).encode()).decode()
    else:
        case.body = {**case.body, "video_url": video}


def _is_wrong(modes: dict[ParameterLocation, Any], place: ParameterLocation) -> bool:
    return place in modes and bool(modes[place].is_negative)


httpx.post(
    f"{GATEWAY}{EXCHANGE}",
    json={"encrypted_symmetric_key": sealed(KEY)},
    headers=exchange_headers(KEY_UUID),
    trust_env=False,
).raise_for_status()

"""Who is let in: a validator of the subnet by its signature or by the key it has exchanged, before its body is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import orjson
from fastapi import Request

from gateway.errors import BadRequest, GatewayError, Unauthorized
from gateway.protocol.http import discard_body, read_body
from gateway.subnet.encryption import LONGEST_UUID, SYMMETRIC_KEY_UUID, SharedKeys
from gateway.subnet.metagraph import Metagraph
from gateway.subnet.nonces import NonceStore
from gateway.subnet.signing import (
    MINER_HOTKEY,
    NONCE,
    VALIDATOR_HOTKEY,
    Credentials,
    check_nonce_time,
    check_signature,
    key_message,
    read_credentials,
    signed_messages,
)

MAX_BODY_BYTES: Final = 64 * 1024
_TOKEN_BYTES: Final = MAX_BODY_BYTES * 4 // 3 + 256
"""A Fernet token is base64 of the body and 57 to 73 bytes more."""
_EXCHANGE_BYTES: Final = 4 * 1024


@dataclass(frozen=True, slots=True)
class Admitted:
    """What a validator has sent."""

    body: bytes
    stake: float
    """Its own."""


class Admission:
    """What is asked of every validator: whom the request is for, when, who, with what stake, and then the proof.

    The cheap questions come first and need no body; a stranger's is thrown away unread.
    """

    def __init__(self, own_hotkey: str, metagraph: Metagraph, nonces: NonceStore, keys: SharedKeys) -> None:
        self._own_hotkey = own_hotkey
        self._metagraph = metagraph
        self._nonces = nonces
        self._keys = keys

    async def body(self, request: Request) -> Admitted:
        """The body as its validator wrote it: signed, or encrypted with an exchanged key.

        Raises Unauthorized, Forbidden, UnknownKey, BadRequest or NoncesUnavailable.
        """
        if SYMMETRIC_KEY_UUID in request.headers:
            return await self._encrypted(request)
        try:
            credentials = self._named(request)
        except GatewayError:
            await discard_body(request, MAX_BODY_BYTES)
            raise
        body = await read_body(request, MAX_BODY_BYTES)
        check_signature(
            credentials.validator_hotkey,
            credentials.signature,
            signed_messages(credentials.nonce, credentials.miner_hotkey, body),
        )
        await self._nonces.use(credentials.validator_hotkey, credentials.nonce)
        return self._admitted(credentials.validator_hotkey, body)

    async def exchange(self, request: Request) -> None:
        """Keep the key that a validator sends. Only who has signed for it may cost the unsealing."""
        try:
            credentials = self._named(request)
            uuid = _uuid(request)
            check_signature(
                credentials.validator_hotkey,
                credentials.signature,
                [key_message(credentials.nonce, credentials.miner_hotkey, uuid)],
            )
        except GatewayError:
            await discard_body(request, _EXCHANGE_BYTES)
            raise
        body = await read_body(request, _EXCHANGE_BYTES)
        await self._nonces.use(credentials.validator_hotkey, credentials.nonce)
        self._keys.take(credentials.validator_hotkey, uuid, _text_field(body, "encrypted_symmetric_key"))

    async def _encrypted(self, request: Request) -> Admitted:
        validator = request.headers.get(VALIDATOR_HOTKEY, "")
        try:
            if not validator:
                raise Unauthorized(f"header {VALIDATOR_HOTKEY} is missing; say whose key it is")
            uuid = _uuid(request)
            if MINER_HOTKEY in request.headers:
                self._check_for_us(request.headers[MINER_HOTKEY])
            self._keys.check_known(validator, uuid)
            self._metagraph.check_stake(validator)
        except GatewayError:
            await discard_body(request, _TOKEN_BYTES)
            raise
        body = self._keys.opened(validator, uuid, await read_body(request, _TOKEN_BYTES))
        nonce = _text_field(body, NONCE)
        check_nonce_time(nonce)
        await self._nonces.use(validator, nonce)
        return self._admitted(validator, body)

    def _named(self, request: Request) -> Credentials:
        """Who says to be asking, if that one may ask now and here. Needs no body and no cryptography."""
        credentials = read_credentials(request.headers)
        self._check_for_us(credentials.miner_hotkey)
        check_nonce_time(credentials.nonce)
        self._metagraph.check_stake(credentials.validator_hotkey)
        return credentials

    def _admitted(self, validator_hotkey: str, body: bytes) -> Admitted:
        node = self._metagraph.find(validator_hotkey)
        return Admitted(body, node.stake if node else 0.0)

    def _check_for_us(self, miner_hotkey: str) -> None:
        if miner_hotkey != self._own_hotkey:
            raise Unauthorized(f"the request is signed for miner {miner_hotkey[:64]}, this is {self._own_hotkey}")


def _uuid(request: Request) -> str:
    uuid = request.headers.get(SYMMETRIC_KEY_UUID, "")
    if not 0 < len(uuid) <= LONGEST_UUID:
        raise BadRequest(f"header {SYMMETRIC_KEY_UUID} has to name the key, in at most {LONGEST_UUID} characters")
    return uuid


def _text_field(body: bytes, name: str) -> str:
    """Raises BadRequest unless `body` is a JSON object with this text in it."""
    try:
        value = orjson.loads(body)[name]
    except (orjson.JSONDecodeError, KeyError, TypeError, IndexError) as error:
        raise BadRequest(f"the body is no JSON object with {name}") from error
    if not isinstance(value, str):
        raise BadRequest(f"{name} is no text")
    return value

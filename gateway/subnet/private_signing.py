"""Who signed a request of the private track: two forms are in use, and which one is known by the signature alone."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Final

import orjson

from gateway.errors import Unauthorized
from gateway.subnet.signing import (
    MINER_HOTKEY,
    NONCE,
    SIGNATURE,
    VALIDATOR_HOTKEY,
    Credentials,
    check_age,
    check_signature,
    few_values,
    signed_message,
    signed_messages,
)

SPELLED_BYTES: Final = 1024 * 1024
"""Larger bodies are not spelled as Python's json does it, which is slow."""
_NONCE: Final = re.compile(r"(\d{15,20})(_[A-Za-z0-9]{10})?")


def read_private_credentials(headers: Mapping[str, str]) -> tuple[Credentials, str]:
    """The credentials under the plain names or else those with X-, and which of both they were.

    Validators do not all name the miner: then it is "". Raises Unauthorized naming the header that is missing.
    """
    missing = ""
    for prefix in ("", "x-"):
        values = {name: headers.get(prefix + name, "") for name in (VALIDATOR_HOTKEY, NONCE, SIGNATURE, MINER_HOTKEY)}
        absent = [name for name in (VALIDATOR_HOTKEY, NONCE, SIGNATURE) if not values[name]]
        if not absent:
            credentials = Credentials(values[VALIDATOR_HOTKEY], values[MINER_HOTKEY], values[NONCE], values[SIGNATURE])
            return credentials, f"{prefix}{VALIDATOR_HOTKEY}".title()
        missing = missing or absent[0]
    raise Unauthorized(f"header {missing} is missing, and so is x-{missing}; sign the request")


def check_private_nonce(nonce: str, now_s: float | None = None) -> None:
    """Raises Unauthorized when `nonce` is not <time_ns> or <time_ns>_<10 letters or digits>, or over 120 s from now."""
    match = _NONCE.fullmatch(nonce)
    if match is None:
        raise Unauthorized("the nonce must be <time in ns>, or <time in ns>_<10 letters or digits>")
    check_age(int(match[1]), now_s)


def signed_forms(credentials: Credentials, body: bytes | bytearray, own_hotkey: str) -> Iterator[tuple[str, bytes]]:
    """What may have been signed, with the name of its form, the usual first.

    blake2b, which the subnet's validator signs: <nonce><blake2b-256 of the body>, nothing between and no miner; its
    nonce is a time alone. Its client may put blanks into the JSON after it was signed: the compact spelling counts too.
    fiber, which the subnet's miner expects: <nonce>:<miner>:<sha256 of the body>; its nonce ends with letters. What its
    client signs in the spelling of json.dumps counts, too.
    """
    miner = credentials.miner_hotkey or own_hotkey
    if "_" in credentials.nonce:
        yield from (("fiber", message) for message in signed_messages(credentials.nonce, miner, body))
        yield "blake2b", _blake2b(credentials.nonce, body)
        return
    yield "blake2b", _blake2b(credentials.nonce, body)
    yield "fiber", signed_message(credentials.nonce, miner, body)
    # Whoever sends very many values or bytes has proven nothing yet, and it costs time to spell them anew.
    if not few_values(body):
        return
    with suppress(ValueError, RecursionError):
        compact = orjson.dumps(parsed := orjson.loads(body))
        if compact != body:
            yield "blake2b", _blake2b(credentials.nonce, compact)
        if not compact.isascii() and len(body) <= SPELLED_BYTES:  # else Python spells it the same
            spelled = json.dumps(parsed, separators=(",", ":")).encode()
            if spelled != body:
                yield "blake2b", _blake2b(credentials.nonce, spelled)


def signed_form(credentials: Credentials, body: bytes | bytearray, own_hotkey: str) -> str:
    """The name of the form in which the request is signed. Raises Unauthorized where it is signed in none."""
    form = ""

    def messages() -> Iterator[bytes]:
        nonlocal form
        for form, message in signed_forms(credentials, body, own_hotkey):  # noqa: B007  that of the last one asked for
            yield message

    check_signature(credentials.validator_hotkey, credentials.signature, messages())
    return form


def _blake2b(nonce: str, body: bytes | bytearray) -> bytes:
    return f"{nonce}{hashlib.blake2b(body, digest_size=32).hexdigest()}".encode()

"""Who signed a request of the private track: two forms are in use, and which one is known by the signature alone."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Final

from gateway.errors import Unauthorized
from gateway.subnet.signing import (
    MINER_HOTKEY,
    NONCE,
    SIGNATURE,
    VALIDATOR_HOTKEY,
    Credentials,
    check_age,
    check_signature,
    parsed_again,
    signed_messages,
)

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


def signed_forms(credentials: Credentials, body: bytes, own_hotkey: str) -> dict[str, Iterable[bytes]]:
    """What may have been signed, by the name of the form.

    blake2b, which the subnet's validator signs: <nonce><blake2b-256 of the body>, nothing between and no miner. Its
    client may put blanks into the JSON after it was signed: the body in its compact spelling counts too.
    fiber, which the subnet's miner expects: <nonce>:<miner>:<sha256 of the body>.
    """
    spellings = [body]
    if (parsed := parsed_again(body)) is not None:
        for ascii_only in (False, True):
            spellings.append(json.dumps(parsed, separators=(",", ":"), ensure_ascii=ascii_only).encode())
    digests = (hashlib.blake2b(spelling, digest_size=32).hexdigest() for spelling in dict.fromkeys(spellings))
    return {
        "blake2b": [f"{credentials.nonce}{digest}".encode() for digest in digests],
        "fiber": signed_messages(credentials.nonce, credentials.miner_hotkey or own_hotkey, body),
    }


def signed_form(credentials: Credentials, body: bytes, own_hotkey: str) -> str:
    """The name of the form in which the request is signed. Raises Unauthorized where it is signed in none."""
    failed: Unauthorized | None = None
    for form, messages in signed_forms(credentials, body, own_hotkey).items():
        try:
            check_signature(credentials.validator_hotkey, credentials.signature, messages)
        except Unauthorized as error:
            failed = error
        else:
            return form
    raise failed or Unauthorized("the request is not signed")

"""Who signed a request: headers in, the validator's hotkey out."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from bittensor_wallet import Keypair

from gateway.errors import Unauthorized

VALIDATOR_HOTKEY: Final = "validator-hotkey"
MINER_HOTKEY: Final = "miner-hotkey"
NONCE: Final = "nonce"
SIGNATURE: Final = "signature"
NONCE_WINDOW_S: Final = 120.0

LONGEST_RESPELLED: Final = 20 * 1024
MOST_VALUES: Final = 1000
"""More bytes than this in a body, or separators between its values, and it counts as it came and in no other spelling.

A challenge is one URL of at most 16 KiB and a few texts; whoever sends more has proven nothing yet.
"""

_SEPARATORS: Final = b",[{"
_NONCE_FORM = re.compile(r"(\d{15,20})_[A-Za-z0-9]{10}")


@dataclass(frozen=True, slots=True)
class Credentials:
    """The four headers of a signed request."""

    validator_hotkey: str
    miner_hotkey: str
    nonce: str
    signature: str


def read_credentials(headers: Mapping[str, str]) -> Credentials:
    """Raises Unauthorized naming the header that is missing."""
    missing = [name for name in (VALIDATOR_HOTKEY, MINER_HOTKEY, NONCE, SIGNATURE) if not headers.get(name)]
    if missing:
        raise Unauthorized(f"header {missing[0]} is missing; sign the request")
    return Credentials(headers[VALIDATOR_HOTKEY], headers[MINER_HOTKEY], headers[NONCE], headers[SIGNATURE])


def check_nonce_time(nonce: str, now_s: float | None = None) -> None:
    """Raises Unauthorized when `nonce` is not <time_ns>_<10 letters or digits> or lies over 120 s from now."""
    match = _NONCE_FORM.fullmatch(nonce)
    if match is None:
        raise Unauthorized("the nonce must be <time in ns>_<10 letters or digits>")
    check_age(int(match[1]), now_s)


def check_age(time_ns: int, now_s: float | None = None) -> None:
    """Raises Unauthorized when a nonce of this time lies over 120 s from now."""
    age = (time.time() if now_s is None else now_s) - time_ns / 1e9
    if abs(age) > NONCE_WINDOW_S:
        raise Unauthorized(
            f"the nonce is {age:.0f} s old, {NONCE_WINDOW_S:.0f} s are allowed either way; check the clocks"
        )


def signed_messages(nonce: str, miner_hotkey: str, body: bytes | bytearray) -> Iterator[bytes]:
    """What may have been signed: `<nonce>:<miner-hotkey>:<sha256 of the body>`.

    The stock client signs `json.dumps(payload)` and httpx >= 0.28 posts the same JSON with compact separators, so the
    hash of the parsed body in the spelling of json.dumps counts too. It is made when the body as it came is not it.
    """
    yield signed_message(nonce, miner_hotkey, body)
    parsed = _parsed_again(body)
    if parsed is not None and (spelling := json.dumps(parsed).encode()) != body:
        yield signed_message(nonce, miner_hotkey, spelling)


def _parsed_again(body: bytes | bytearray) -> Any | None:
    """A body to be spelled anew, parsed; None where it is too large for that, or no JSON."""
    if len(body) > LONGEST_RESPELLED or not few_values(body):
        return None
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def few_values(body: bytes | bytearray) -> bool:
    if len(body) > LONGEST_RESPELLED:
        return sum(body.count(separator) for separator in _SEPARATORS) <= MOST_VALUES  # needs no copy
    return len(body) - len(body.translate(None, _SEPARATORS)) <= MOST_VALUES


def key_message(nonce: str, miner_hotkey: str, uuid: str) -> bytes:
    """What is signed when a symmetric key is exchanged: its name stands where the hash of the body stands otherwise."""
    return f"{nonce}:{miner_hotkey}:{uuid}".encode()


def check_signature(validator_hotkey: str, signature: str, messages: Iterable[bytes]) -> None:
    """Raises Unauthorized unless `signature` (0x and hex, sr25519) by `validator_hotkey` (ss58) covers a message."""
    try:
        raw = bytes.fromhex(signature.removeprefix("0x"))
        keypair = Keypair(ss58_address=validator_hotkey)
        valid = len(raw) == 64 and any(keypair.verify(message, raw) for message in messages)
    except Exception as error:  # the key library raises its own types for a malformed address or signature
        raise Unauthorized("the signature or the hotkey is malformed") from error
    if not valid:
        raise Unauthorized("the signature does not fit the nonce, the hotkeys and the body")


def signed_message(nonce: str, miner_hotkey: str, spelling: bytes | bytearray) -> bytes:
    """`<nonce>:<miner-hotkey>:<sha256 of a body>`."""
    return f"{nonce}:{miner_hotkey}:{hashlib.sha256(spelling).hexdigest()}".encode()

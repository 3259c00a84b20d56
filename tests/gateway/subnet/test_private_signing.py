"""The two forms in which requests of the private track are signed, by real keys."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import replace

import pytest
from bittensor_wallet import Keypair

from gateway.errors import Unauthorized
from gateway.subnet.private_signing import check_private_nonce, read_private_credentials, signed_form, signed_forms
from local.validator import signed_headers

VALIDATOR, MINER = Keypair.create_from_uri("//Validator"), Keypair.create_from_uri("//Miner").ss58_address
CHALLENGE = {"challenge_id": "7", "video_url": "https://example.org/Zürich.mp4", "frames": None}
COMPACT = json.dumps(CHALLENGE, separators=(",", ":"), ensure_ascii=False).encode()


def blake2b_headers(
    body: bytes, *, prefix: str = "", miner: str | None = MINER, key: Keypair = VALIDATOR
) -> dict[str, str]:
    """As the subnet's validator signs."""
    nonce = str(time.time_ns())
    digest = hashlib.blake2b(body, digest_size=32).hexdigest()
    said = {
        "validator-hotkey": key.ss58_address,
        "nonce": nonce,
        "signature": "0x" + key.sign(f"{nonce}{digest}".encode()).hex(),
    }
    return {prefix + name: value for name, value in (said | ({"miner-hotkey": miner} if miner else {})).items()}


def form_of(headers: dict[str, str], body: bytes) -> tuple[str, str]:
    credentials, names = read_private_credentials(headers)
    return signed_form(credentials, body, MINER), names


def test_the_validators_form_with_plain_names_with_x_names_and_with_both() -> None:
    plain = blake2b_headers(COMPACT)
    crossed = blake2b_headers(COMPACT, prefix="x-", miner=None)
    assert form_of(plain, COMPACT) == ("blake2b", "Validator-Hotkey")
    assert form_of(crossed, COMPACT) == ("blake2b", "X-Validator-Hotkey")
    assert form_of(plain | crossed, COMPACT) == ("blake2b", "Validator-Hotkey")


@pytest.mark.parametrize("ascii_only", [False, True])
def test_a_body_that_was_spelled_anew_after_it_was_signed(ascii_only: bool) -> None:
    assert form_of(blake2b_headers(COMPACT), json.dumps(CHALLENGE, ensure_ascii=ascii_only).encode())[0] == "blake2b"


def test_a_signed_body_in_ascii_alone() -> None:
    signed = json.dumps(CHALLENGE, separators=(",", ":")).encode()
    assert form_of(blake2b_headers(signed), json.dumps(CHALLENGE).encode())[0] == "blake2b"


@pytest.mark.parametrize("letters", ["", "_abcdefghij"])
@pytest.mark.parametrize("body", [COMPACT, json.dumps(CHALLENGE).encode(), b"no JSON", b"[" + b"1," * 2000 + b"1]"])
def test_nothing_is_asked_of_a_signature_twice(body: bytes, letters: str) -> None:
    """Each question is most of what a forged request costs."""
    credentials, _ = read_private_credentials(blake2b_headers(body))
    credentials = replace(credentials, nonce=credentials.nonce + letters)
    forms = [message for _, message in signed_forms(credentials, body, MINER)]
    assert 2 <= len(forms) == len(set(forms)) <= 4


@pytest.mark.parametrize("sent", [COMPACT, json.dumps(CHALLENGE).encode()])
def test_fibers_form(sent: bytes) -> None:
    """Its client signs json.dumps, and may send it in compact spelling."""
    signed = json.dumps(CHALLENGE).encode()
    assert form_of(signed_headers(VALIDATOR, MINER, signed), sent) == ("fiber", "Validator-Hotkey")


def test_a_signature_of_another_body_key_or_miner_is_refused() -> None:
    other = COMPACT.replace(b"7", b"8")
    with pytest.raises(Unauthorized, match="does not fit"):
        form_of(blake2b_headers(COMPACT), other)
    stranger = Keypair.create_from_uri("//Stranger").ss58_address
    with pytest.raises(Unauthorized, match="does not fit"):
        form_of(blake2b_headers(COMPACT) | {"validator-hotkey": stranger}, COMPACT)
    with pytest.raises(Unauthorized, match="does not fit"):
        form_of(signed_headers(VALIDATOR, stranger, COMPACT) | {"miner-hotkey": MINER}, COMPACT)
    with pytest.raises(Unauthorized, match="malformed"):
        form_of(blake2b_headers(COMPACT) | {"signature": "0xnothing"}, COMPACT)


@pytest.mark.parametrize("missing", ["validator-hotkey", "nonce", "signature"])
def test_the_header_that_is_missing_is_named(missing: str) -> None:
    headers = blake2b_headers(COMPACT)
    del headers[missing]
    with pytest.raises(Unauthorized, match=f"header {missing} is missing"):
        read_private_credentials(headers)


def test_nonces_of_both_forms_and_of_none() -> None:
    now = 1_790_000_000.0
    for letters in ("", "_abcdefgh12"):
        check_private_nonce(f"{int((now - 100) * 1e9)}{letters}", now)
        with pytest.raises(Unauthorized, match="check the clocks"):
            check_private_nonce(f"{int((now - 130) * 1e9)}{letters}", now)
    for nonce in ("", "now", "-1790000000000000000", "1790000000000000000_", "1" * 40):
        with pytest.raises(Unauthorized, match="nonce must be"):
            check_private_nonce(nonce, now)

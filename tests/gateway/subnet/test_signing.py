"""Signatures with real sr25519 keys."""

from __future__ import annotations

import json
import time

import pytest
from bittensor_wallet import Keypair

from gateway.errors import Unauthorized
from gateway.subnet.signing import (
    LONGEST_RESPELLED,
    check_nonce_time,
    check_signature,
    read_credentials,
    signed_messages,
)
from local.validator import challenge_body, signed_headers

VALIDATOR = Keypair.create_from_uri("//Validator")
MINER = Keypair.create_from_uri("//Miner").ss58_address
BODY = challenge_body("http://example.org/video.mp4")


def check(headers: dict[str, str], body: bytes) -> None:
    credentials = read_credentials(headers)
    messages = signed_messages(credentials.nonce, credentials.miner_hotkey, body)
    check_signature(credentials.validator_hotkey, credentials.signature, messages)


def test_the_raw_body_is_accepted() -> None:
    check(signed_headers(VALIDATOR, MINER, BODY), BODY)


def test_a_body_signed_with_spaces_and_sent_compact_is_accepted() -> None:
    payload = json.loads(BODY) | {"name": "Süd"}
    signed = json.dumps(payload).encode()
    sent = json.dumps(payload, separators=(",", ":"), ensure_ascii=False).encode()
    assert signed != sent
    check(signed_headers(VALIDATOR, MINER, signed), sent)


def test_what_is_larger_than_a_challenge_is_not_spelled_anew() -> None:
    payload = {"video_url": "x" * LONGEST_RESPELLED, "more": 1}
    signed = json.dumps(payload).encode()
    check(signed_headers(VALIDATOR, MINER, signed), signed)
    with pytest.raises(Unauthorized, match="does not fit"):
        check(signed_headers(VALIDATOR, MINER, signed), json.dumps(payload, separators=(",", ":")).encode())


def test_a_changed_body_is_refused() -> None:
    with pytest.raises(Unauthorized, match="does not fit"):
        check(signed_headers(VALIDATOR, MINER, BODY), BODY.replace(b"example", b"elsewhere"))


def test_a_signature_for_another_miner_is_refused() -> None:
    headers = signed_headers(VALIDATOR, MINER, BODY) | {"miner-hotkey": VALIDATOR.ss58_address}
    with pytest.raises(Unauthorized, match="does not fit"):
        check(headers, BODY)


def test_a_signature_of_another_key_is_refused() -> None:
    headers = signed_headers(VALIDATOR, MINER, BODY) | {"validator-hotkey": MINER}
    with pytest.raises(Unauthorized, match="does not fit"):
        check(headers, BODY)


@pytest.mark.parametrize("signature", ["0x", "0x1234", "nothex", "0x" + "00" * 64, "0x" + "ff" * 64])
def test_malformed_signatures_are_refused(signature: str) -> None:
    with pytest.raises(Unauthorized):
        check(signed_headers(VALIDATOR, MINER, BODY) | {"signature": signature}, BODY)


@pytest.mark.parametrize("hotkey", ["x", "5GrwvaEF", "0x1234"])
def test_malformed_hotkeys_are_refused(hotkey: str) -> None:
    with pytest.raises(Unauthorized, match="malformed"):
        check(signed_headers(VALIDATOR, MINER, BODY) | {"validator-hotkey": hotkey}, BODY)


@pytest.mark.parametrize("name", ["validator-hotkey", "miner-hotkey", "nonce", "signature"])
def test_a_missing_header_is_named(name: str) -> None:
    headers = signed_headers(VALIDATOR, MINER, BODY)
    del headers[name]
    with pytest.raises(Unauthorized, match=name):
        read_credentials(headers)


@pytest.mark.parametrize("age_s", [-119, 0, 119])
def test_a_nonce_within_two_minutes_of_now_is_accepted(age_s: int) -> None:
    now = time.time()
    check_nonce_time(f"{int((now - age_s) * 1e9)}_abcDEF1234", now)


@pytest.mark.parametrize("age_s", [-121, 121, 10_000])
def test_a_nonce_from_another_time_is_refused(age_s: int) -> None:
    now = time.time()
    with pytest.raises(Unauthorized, match="old"):
        check_nonce_time(f"{int((now - age_s) * 1e9)}_abcDEF1234", now)


@pytest.mark.parametrize(
    "nonce", ["", "abc", "123_abcdefghij", "1795294059066304826", "1795294059066304826_short", "x" * 10_000]
)
def test_a_nonce_of_another_form_is_refused(nonce: str) -> None:
    with pytest.raises(Unauthorized, match="must be"):
        check_nonce_time(nonce)

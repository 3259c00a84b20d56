"""What strangers, replays and malformed challenges are told, over HTTP with real signatures."""

from __future__ import annotations

import json
import time

import pytest
from bittensor_wallet import Keypair

from gateway.protocol.admission import MAX_BODY_BYTES
from local.triton import LocalTriton
from local.validator import challenge_body, signed_headers
from tests.support.gateway import RunningGateway, error_of


async def test_a_nonce_cannot_be_replayed(gateway: RunningGateway, url: str) -> None:
    body = challenge_body(url)
    headers = signed_headers(gateway.keys.validator, gateway.keys.miner.ss58_address, body)
    assert (await gateway.post(body, headers)).status_code == 200
    status, reason, detail = error_of(await gateway.post(body, headers))
    assert (status, reason) == (401, "unauthorized")
    assert "used before" in detail


async def test_nobody_can_burn_anothers_nonce(gateway: RunningGateway, url: str) -> None:
    body = challenge_body(url)
    headers = signed_headers(gateway.keys.validator, gateway.keys.miner.ss58_address, body)
    forged = headers | {"signature": "0x" + "11" * 64}
    assert (await gateway.post(body, forged)).status_code == 401
    assert (await gateway.post(body, headers)).status_code == 200


async def test_a_request_for_another_miner_is_refused(gateway: RunningGateway, url: str) -> None:
    body = challenge_body(url)
    other = Keypair.create_from_uri("//Other").ss58_address
    status, _, detail = error_of(await gateway.post(body, signed_headers(gateway.keys.validator, other, body)))
    assert status == 401
    assert other in detail
    assert gateway.keys.miner.ss58_address in detail


async def test_a_stranger_is_refused(gateway: RunningGateway, url: str) -> None:
    body = challenge_body(url)
    stranger = Keypair.create_from_uri("//Stranger")
    status, reason, detail = error_of(
        await gateway.post(body, signed_headers(stranger, gateway.keys.miner.ss58_address, body))
    )
    assert (status, reason) == (403, "forbidden")
    assert stranger.ss58_address in detail


async def test_no_headers(gateway: RunningGateway, url: str) -> None:
    answer = await gateway.client.post(f"{gateway.url}/soccer/challenge", content=challenge_body(url))
    assert error_of(answer)[:2] == (401, "unauthorized")


@pytest.mark.parametrize("body", [b"", b"{", b"not json", b"\xff\xfe", b"[" * 5000])
async def test_a_body_that_is_no_json(body: bytes, gateway: RunningGateway) -> None:
    status, reason, detail = error_of(await gateway.post(body))
    assert (status, reason) == (400, "bad_request")
    assert "not JSON" in detail


@pytest.mark.parametrize(
    ("payload", "named"),
    [
        ([], "body"),
        ({"video_url": "http://a/b.mp4"}, "challenge_id"),
        ({"challenge_id": "1"}, "video_url"),
        ({"challenge_id": "1", "video_url": "file:///etc/passwd"}, "video_url"),
        ({"challenge_id": "1", "video_url": 7}, "video_url"),
        ({"challenge_id": "1", "video_url": f"http://a/{'x' * 16_384}"}, "video_url"),
        ({"challenge_id": "1", "video_url": "https:///b.mp4"}, "the URL is not"),
        ({"challenge_id": "", "video_url": "http://a/b.mp4"}, "challenge_id"),
    ],
)
async def test_json_that_is_no_challenge(payload: object, named: str, gateway: RunningGateway) -> None:
    status, reason, detail = error_of(await gateway.post(json.dumps(payload).encode()))
    assert (status, reason) == (422, "bad_challenge")
    assert named in detail


async def test_a_huge_body_is_not_read_to_the_end(gateway: RunningGateway) -> None:
    status, _, detail = error_of(await gateway.post(b" " * (MAX_BODY_BYTES + 1)))
    assert status == 400
    assert str(MAX_BODY_BYTES) in detail


async def test_unknown_fields_are_taken_and_ids_echoed(gateway: RunningGateway, url: str) -> None:
    body = json.dumps({"challenge_id": 17, "video_url": url, "type": "gsr", "of_a_later_version": {}}).encode()
    answer = await gateway.post(body)
    assert answer.status_code == 200
    assert answer.json()["challenge_id"] == 17


async def test_a_presigned_url_may_be_long(gateway: RunningGateway, url: str) -> None:
    long = f"{url.replace('http', 'HTTP')}?X-Amz-Security-Token={'x' * 16_000}"
    assert (await gateway.challenge(long)).status_code == 200


async def test_the_public_port_tells_nothing_of_the_inside(gateway: RunningGateway, quick_triton: LocalTriton) -> None:
    health = await gateway.client.get(f"{gateway.url}/health")
    assert (health.status_code, health.json()) == (200, {"ready": True})
    assert (await gateway.client.get(f"{gateway.url}/availability")).json() == {"available": True}
    for path in ("/metrics", "/openapi.json", "/docs", "/redoc", "/console"):
        assert (await gateway.client.get(f"{gateway.url}{path}")).json() == {
            "error": "not_found",
            "detail": "Not Found",
        }
    wrong = await gateway.client.put(f"{gateway.url}/health")
    assert error_of(wrong)[:2] == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "GET"
    inside = (await gateway.health()).json()
    assert {name: inside[name] for name in ("ready", "reason", "models", "tritons", "nonces", "nodes")} == {
        "ready": True,
        "reason": "",
        "models": {"player": "1", "pitch": "1"},
        "tritons": {quick_triton.grpc_url: "ready"},
        "nonces": str(next((gateway.keys.directory).glob("nonces-*.log"))),
        "nodes": 2,
    }


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_clock_that_jumps_refuses_until_it_is_back(
    hours: int, gateway: RunningGateway, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = challenge_body(url)
    used = signed_headers(gateway.keys.validator, gateway.keys.miner.ss58_address, body)
    assert (await gateway.post(body, used)).status_code == 200
    with monkeypatch.context() as jumped:
        jumped.setattr("time.time", lambda true=time.time: true() + hours * 3600)
        status, _, detail = error_of(await gateway.challenge(url))
        assert (status, "check the clocks" in detail) == (401, True)
    assert (await gateway.challenge(url)).status_code == 200
    assert "used before" in error_of(await gateway.post(body, used))[2]

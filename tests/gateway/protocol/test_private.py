"""POST /challenge over HTTP, with real signatures, a real Triton and real H.264."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import BadChallenge
from gateway.predictor import checked
from gateway.protocol.http import read_challenge
from gateway.protocol.private import PrivateChallenge, actions_json, private_aim, video_of
from gateway.settings import Settings
from local.triton import LocalTriton
from local.validator import signed_headers
from tests.gateway.subnet.test_private_signing import blake2b_headers
from tests.support.gateway import RunningGateway, Traces, error_of, running_gateway, settled
from tests.support.videos import make_video
from touchline.actions import Action


@pytest.fixture
def url(web: tuple[str, Path]) -> str:
    make_video(web[1] / "private.mp4", 12)
    return f"{web[0]}/private.mp4"


def body_of(video_url: str | None, **more: object) -> bytes:
    """As the validator's pydantic writes it."""
    return json.dumps(
        {"challenge_id": "c-1", "video_url": video_url, "frames": None, **more}, separators=(",", ":")
    ).encode()


async def posted(gateway: RunningGateway, body: bytes, headers: dict[str, str]) -> tuple[int, dict[str, object]]:
    answer = await gateway.client.post(f"{gateway.url}/challenge", content=body, headers=headers, timeout=60)
    return answer.status_code, answer.json()


async def test_signed_in_either_form_it_is_answered_and_the_log_says_which(
    quick_triton: LocalTriton, tmp_path: Path, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with running_gateway(tmp_path, quick_triton.grpc_url, protocols="private") as gateway:
        body, miner = body_of(url), gateway.keys.miner.ss58_address
        keys = gateway.keys.validator
        before = Traces.of(gateway)
        for headers, form in (
            (blake2b_headers(body, miner=miner, key=keys), "blake2b in Validator-Hotkey"),
            (blake2b_headers(body, miner=None, key=keys, prefix="x-"), "blake2b in X-Validator-Hotkey"),
            (signed_headers(keys, miner, body), "fiber in Validator-Hotkey"),
        ):
            status, answer = await posted(gateway, body, headers)
            assert status == 200, answer
            assert answer["challenge_id"] == "c-1"
            assert answer["prediction"] == {"type": "soccer_action", "items": []}
            assert isinstance(answer["processing_time"], float)
            assert f"signed as {form}" in caplog.text
            # Neither form can be replayed.
            replayed = await gateway.client.post(f"{gateway.url}/challenge", content=body, headers=headers)
            assert error_of(replayed)[0] == 401 and "used before" in error_of(replayed)[2]
        unsigned = await gateway.client.post(f"{gateway.url}/challenge", content=body)
        assert error_of(unsigned)[:2] == (401, "unauthorized")
        picture = body_of(None, image_url="http://example.org/card.png")
        status, refused = await posted(gateway, picture, blake2b_headers(picture, miner=miner, key=keys))
        assert status == 422 and "image_url" in str(refused["detail"])
        docs = await gateway.client.get(f"{gateway.url}/docs")
        assert docs.status_code == 200 and "ready" in docs.text
        assert (await gateway.client.post(f"{gateway.url}/soccer/challenge", content=body)).status_code == 404
        assert await settled(gateway, before) == before


async def test_a_spot_check_asks_without_a_signature_and_waits_for_docs(tmp_path: Path, url: str) -> None:
    """As the subnet's runner of spot-checks sets the container up; here Triton is not there yet."""
    async with running_gateway(
        tmp_path, "127.0.0.1:9", wait=False, protocols="private", verify_enabled=False, blacklist_enabled=False
    ) as gateway:
        docs = await gateway.client.get(f"{gateway.url}/docs")
        assert docs.status_code == 503 and "not ready" in docs.text
        status, answer = await posted(gateway, body_of(url), {"x-miner-hotkey": "anybody"})
        assert (status, answer["error"]) == (503, "inference_unavailable")


async def test_stake_is_asked_for_without_signatures(tmp_path: Path, url: str) -> None:
    async with running_gateway(
        tmp_path, "127.0.0.1:9", wait=False, protocols="private", verify_enabled=False
    ) as gateway:
        status, answer = await posted(gateway, body_of(url), {})
        assert (status, answer["error"]) == (403, "forbidden")
        validator = gateway.keys.validator.ss58_address
        status, answer = await posted(gateway, body_of(url), {"x-validator-hotkey": validator})
        assert status == 503, answer


async def test_a_predictor_of_the_operators_own_and_one_that_fails(
    quick_triton: LocalTriton, tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_spotter.py").write_text(
        "def good(scene):\n"
        "    assert scene.ball.shape == (12, 2) and scene.feet.shape[0] == 12\n"
        "    return [(9, 'shot', 0.5), (3, 'pass')]\n"
        "def bad(scene):\n"
        "    return [(99, 'pass')]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, status in (("good", 200), ("bad", 500)):
        (tmp_path / name).mkdir()
        async with running_gateway(
            tmp_path / name,
            quick_triton.grpc_url,
            protocols="private",
            verify_enabled=False,
            blacklist_enabled=False,
            actions_predictor=f"my_spotter:{name}",
        ) as gateway:
            told, answer = await posted(gateway, body_of(url), {})
        assert told == status, answer
        if name == "good":
            assert answer["prediction"] == {
                "type": "soccer_action",
                "items": [
                    {"frame": 3, "action": "pass", "confidence": 1.0},
                    {"frame": 9, "action": "shot", "confidence": 0.5},
                ],
            }
        else:
            assert answer["error"] == "predictor_failed" and "0 to 11" in str(answer["detail"])


async def test_it_gives_up_before_the_validator_does(
    quick_triton: LocalTriton, tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.protocol.private.LIMIT_S", 0.3)
    (tmp_path / "slow_spotter.py").write_text("import time\ndef slow(scene):\n    time.sleep(1.0)\n    return []\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    async with running_gateway(
        tmp_path,
        quick_triton.grpc_url,
        protocols="private",
        verify_enabled=False,
        blacklist_enabled=False,
        actions_predictor="slow_spotter:slow",
    ) as gateway:
        before = Traces.of(gateway)
        status, answer = await posted(gateway, body_of(url), {})
        assert (status, answer["error"]) == (504, "challenge_timed_out")
        await asyncio.sleep(1.0)
        assert (await settled(gateway, before)).in_progress == 0


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        (b"[]", "body"),
        (b'{"video_url": "https://a/b.mp4"}', "challenge_id"),
        (b'{"challenge_id": "1", "video_url": "file:///etc/passwd"}', "video_url"),
        (b'{"challenge_id": "1", "frames": [{"frame_id": 0, "data": "aGk="}]}', "frames"),
        (b'{"challenge_id": "1"}', "nothing"),
    ],
)
def test_what_is_no_challenge_of_football_is_told_by_name(asked: bytes, named: str) -> None:
    with pytest.raises(BadChallenge, match=named):
        video_of(read_challenge(asked, PrivateChallenge))


def test_speed_earns_nothing_here() -> None:
    def aim(**values: Any) -> tuple[float, bool]:
        made = private_aim(Settings(_env_file=None, device="cpu", **values))
        return made.budget_s, made.by_score

    assert aim() == (20.0, False)
    assert aim(challenge_budget_s=8) == (8.0, False)
    assert aim(challenge_budget_s=60) == (20.0, False)


def test_an_id_that_is_a_number_is_answered_as_text() -> None:
    """The private track's schema has text only."""
    answer = json.loads(actions_json(17, [Action(3, "pass")], 1.23456))
    assert answer == {
        "challenge_id": "17",
        "prediction": {"type": "soccer_action", "items": [{"frame": 3, "action": "pass", "confidence": 1.0}]},
        "processing_time": 1.235,
    }


def test_answers_are_in_the_order_of_time() -> None:
    assert [action.frame for action in checked([(5, "pass"), (2, "shot", 1)], 6)] == [2, 5]

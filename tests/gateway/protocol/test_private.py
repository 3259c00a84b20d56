"""POST /challenge over HTTP, with real signatures, a real Triton and real H.264."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from bittensor_wallet import Keypair

from gateway.errors import BadChallenge
from gateway.picture_clip import evenly
from gateway.predictor import checked
from gateway.protocol.frames import read_form
from gateway.protocol.private import PrivateChallenge, actions_json, private_aim
from gateway.settings import Settings
from local.triton import LocalTriton
from local.validator import signed_headers
from tests.gateway.subnet.test_private_signing import blake2b_headers
from tests.support.gateway import RunningGateway, Traces, error_of, running_gateway, settled
from tests.support.pictures import picture, png_of
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
        assert "127.0.0.1" not in docs.text, "strangers ask here too"
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


def spotter(directory: Path, monkeypatch: pytest.MonkeyPatch, name: str = "seen_spotter") -> dict[str, Any]:
    """Settings of a gateway that asks nobody's leave and answers in which frames it saw anybody."""
    (directory / f"{name}.py").write_text(
        "import numpy as np\n"
        "def seen(scene):\n"
        "    assert scene.fps == 25\n"
        "    return [(0, 'pass', len(scene.ball) / 1000)]\n"
    )
    monkeypatch.syspath_prepend(str(directory))
    return {
        "protocols": "private", "verify_enabled": False, "blacklist_enabled": False, "batch_size": 4,
        "actions_predictor": f"{name}:seen",
    }  # fmt: skip


async def test_frames_and_an_image_are_a_clip_of_pictures(
    quick_triton: LocalTriton, tmp_path: Path, web: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (web[1] / "one.png").write_bytes(base64.b64decode(picture(90)))
    frames: list[dict[str, object]] = [{"frame_id": 3 * n, "url": None, "data": picture(20 * n)} for n in range(9)]
    frames[4] = {"frame_id": 12, "url": f"{web[0]}/one.png", "data": None}
    async with running_gateway(tmp_path, quick_triton.grpc_url, **spotter(tmp_path, monkeypatch)) as gateway:
        before = Traces.of(gateway)
        for fields, length in (
            ({"frames": frames}, 25),
            ({"frames": frames[::-1]}, 25),
            ({"frames": [{"frame_id": n, "url": f"{web[0]}/one.png"} for n in range(40, 43)]}, 43),
            ({"image_url": f"{web[0]}/one.png"}, 1),
        ):
            status, answer = await posted(gateway, body_of(None, **fields), {})
            assert status == 200, answer
            assert answer["prediction"] == {
                "type": "soccer_action", "items": [{"frame": 0, "action": "pass", "confidence": length / 1000}]
            }  # fmt: skip
        assert await settled(gateway, before) == before


WRONG_PICTURES: dict[str, tuple[dict[str, Any], int, str]] = {
    "a private host": ({"image_url": "http://127.0.0.1:9/x.png"}, 422, "not on the public internet"),
    "another size": (
        {"frames": [{"frame_id": n, "data": picture(9, (320, 180 + n))} for n in range(2)]}, 422, "one size",
    ),
    "the same twice": ({"frames": [{"frame_id": 5, "data": picture(9)}] * 2}, 422, "frame 5 comes twice"),
    "far off": ({"frames": [{"frame_id": 10**9, "data": picture(9)}]}, 422, "MAX_VIDEO_FRAMES"),
    "before the clip": ({"frames": [{"frame_id": -1, "data": picture(9)}]}, 422, "frame -1"),
    "a bomb": (
        {"frames": [{"frame_id": 0, "data": base64.b64encode(png_of(30_000, 1300)).decode()}]}, 422, "30000x1300",
    ),
    "no picture": ({"frames": [{"frame_id": 7, "data": "aGVsbG8="}]}, 422, "frame 7 is neither PNG nor JPEG"),
    "an empty frame": ({"frames": [{"frame_id": 7}]}, 422, "frames.0"),
    "too many": ({"frames": [{"frame_id": n, "data": "x"} for n in range(1001)]}, 422, "frames"),
    "nothing": ({"frames": []}, 422, "neither video_url nor frames nor image_url"),
    "a large body that is too large": ({"padding": "x" * (9 << 20)}, 400, "MAX_PREDICT_MB"),
    "many values": ({"padding": [0] * 200_000}, 400, "more than 100000 values"),
}  # fmt: skip


async def test_pictures_that_are_no_clip_are_refused_by_name_and_leave_nothing(
    quick_triton: LocalTriton, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = spotter(tmp_path, monkeypatch) | {"allow_private_video_hosts": False, "max_predict_mb": 8}
    async with running_gateway(tmp_path, quick_triton.grpc_url, **settings) as gateway:
        before = Traces.of(gateway)
        for kind, (fields, status, said) in WRONG_PICTURES.items():
            told, answer = await posted(gateway, body_of(None, **fields), {})
            assert told == status and said in str(answer["detail"]), (kind, answer)
        # What is large is read one after the other, and waits for the place, of which there is one.
        large = body_of(None, frames=[{"frame_id": n, "data": picture(n)} for n in range(3)], padding="x" * (2 << 20))
        answers = await asyncio.gather(*(posted(gateway, large, {}) for _ in range(3)))
        assert [status for status, _ in answers] == [200] * 3
        assert await settled(gateway, before) == before


async def test_a_large_body_is_signed_as_a_small_one_and_a_strangers_is_not_read(
    quick_triton: LocalTriton, tmp_path: Path
) -> None:
    async with running_gateway(tmp_path, quick_triton.grpc_url, protocols="private") as gateway:
        body = body_of(None, frames=[{"frame_id": 0, "data": picture(9)}], padding="x" * (1 << 21))
        for sent in (body, json.dumps(json.loads(body)).encode()):
            headers = blake2b_headers(body, miner=gateway.keys.miner.ss58_address, key=gateway.keys.validator)
            status, answer = await posted(gateway, sent, headers)
            assert status == 200, answer
        stranger = blake2b_headers(
            body, miner=gateway.keys.miner.ss58_address, key=Keypair.create_from_uri("//Stranger")
        )
        assert (await posted(gateway, body, stranger))[0] == 403


async def test_a_large_body_that_does_not_come_gives_its_place_back(
    quick_triton: LocalTriton, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.protocol.private_admission.BODY_TIMEOUT_S", 0.3)
    async with running_gateway(tmp_path, quick_triton.grpc_url, **spotter(tmp_path, monkeypatch)) as gateway:
        before = Traces.of(gateway)
        host, port = gateway.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /challenge HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\n" + bytes(100))
        async with asyncio.timeout(30):
            assert b" 408 " in await reader.readline()
        writer.close()
        picture_of_it = body_of(None, frames=[{"frame_id": 0, "data": picture(9)}])
        assert (await posted(gateway, picture_of_it, {}))[0] == 200
        assert await settled(gateway, before) == before


async def test_no_route_is_reached_without_a_signature(
    quick_triton: LocalTriton, tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By strangers of every kind, with small bodies and with large ones; what is refused leaves nothing behind."""
    monkeypatch.setattr("gateway.protocol.private_admission.LONGEST_REST_S", 0.01)
    async with running_gateway(tmp_path, quick_triton.grpc_url, protocols="private") as gateway:
        miner, validator = gateway.keys.miner.ss58_address, gateway.keys.validator
        with monkeypatch.context() as watched:
            watched.setattr("gateway.protocol.private.admitted", lambda _: pytest.fail("a route was reached"))
            before = Traces.of(gateway)
            for body in (body_of(url), body_of(url, padding="x" * 70_000)):
                good = blake2b_headers(body, miner=miner, key=validator)
                for headers, status in (
                    ({}, 401),
                    ({**good, "signature": "0x00"}, 401),
                    (blake2b_headers(b"{}", miner=miner, key=validator), 401),
                    (blake2b_headers(body, miner=validator.ss58_address, key=validator), 401),
                    ({**good, "nonce": "17"}, 401),
                    (blake2b_headers(body, miner=miner, key=Keypair.create_from_uri("//Stranger")), 403),
                ):
                    told, _ = await posted(gateway, body, headers)
                    assert told == status, headers
            assert await settled(gateway, before) == before
        assert (await posted(gateway, body, good))[0] == 200, "a validator's still is"


async def test_a_strangers_body_is_thrown_away_and_its_connection_ended(
    quick_triton: LocalTriton, tmp_path: Path
) -> None:
    head = b"POST /challenge HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000000\r\n\r\n"
    async with running_gateway(tmp_path, quick_triton.grpc_url, protocols="private") as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]))
        writer.write(head + b"x" * 1000)
        async with asyncio.timeout(20):
            answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 401 ") and b"connection: close" in answer.lower()


async def test_a_large_body_that_is_not_signed_waits_for_no_place_and_costs_none(
    quick_triton: LocalTriton, tmp_path: Path
) -> None:
    """Who has a validator's name alone is read one at a time, apart from those who are worked for."""
    async with running_gateway(tmp_path, quick_triton.grpc_url, protocols="private") as gateway:
        miner, validator = gateway.keys.miner.ss58_address, gateway.keys.validator
        headers = blake2b_headers(b"{}", miner=miner, key=validator)
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()
        head = b"POST /challenge HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n" + lines + b"\r\n"
        before, port = Traces.of(gateway), int(gateway.url.rpartition(":")[2])
        strangers = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        for _, writer in strangers:
            writer.write(head + bytes(100))
        await asyncio.sleep(0.2)
        asked = body_of(None, frames=[{"frame_id": 0, "data": picture(9)}])
        assert (await posted(gateway, asked, blake2b_headers(asked, miner=miner, key=validator)))[0] == 200
        for _, writer in strangers:
            writer.close()
        large = body_of(None, frames=[{"frame_id": 0, "data": picture(9)}], padding="x" * (1 << 20))
        assert (await posted(gateway, large, blake2b_headers(large, miner=miner, key=validator)))[0] == 200
        assert await settled(gateway, before) == before


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        (b"[]", "body"),
        (b'{"video_url": "https://a/b.mp4"}', "challenge_id"),
        (b'{"challenge_id": "1", "video_url": "file:///etc/passwd"}', "video_url"),
        (b'{"challenge_id": "1", "image_url": "file:///etc/passwd"}', "image_url"),
        (b'{"challenge_id": "1", "frames": [7]}', "frames.0"),
        (b'{"challenge_id": "1"}', "neither video_url"),
    ],
)
def test_what_is_no_challenge_is_told_by_name(asked: bytes, named: str) -> None:
    with pytest.raises(BadChallenge, match=named):
        read_form(bytearray(asked), PrivateChallenge, "challenge")


def test_of_more_pictures_than_time_allows_some_are_looked_at_from_first_to_last() -> None:
    assert evenly([0, 3, 9], 3) == [0, 3, 9]
    assert evenly(list(range(0, 750, 5)), 4) == [0, 250, 495, 745]
    assert evenly([4, 8], 1) == [4]


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

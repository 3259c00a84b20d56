"""What the subnet's public contract asks and is answered, over HTTP: pictures of every kind, videos, what is wrong."""

from __future__ import annotations

import asyncio
import base64
import json
import resource
import socket
import struct
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import pytest_asyncio
from pydantic import SecretStr

from gateway.errors import StartupError
from gateway.logs import STRANGERS
from gateway.protocol.predict import check_startable
from gateway.settings import Settings
from local.triton import LocalTriton
from tests.support.gateway import RunningGateway, Traces, running_gateway, settled
from tests.support.pictures import encoded, picture, png_of
from tests.support.videos import make_video

TOKEN = "a-secret"
META = {
    "version": 1, "width": 320, "height": 180, "fps": 30, "task_id": "93", "challenge_type_id": 0, "seed": None,
    "n_frames_total": 2, "batch_size": 64, "n_keypoints": 32, "min_frames_required": 2, "frames_source": "payload",
}  # fmt: skip


@pytest_asyncio.fixture
async def gateway(quick_triton: LocalTriton, tmp_path: Path) -> AsyncIterator[RunningGateway]:
    async with running_gateway(
        tmp_path, quick_triton.grpc_url, protocols="predict", predict_token=TOKEN, batch_size=4, max_predict_mb=16
    ) as running:
        yield running


async def ask(gateway: RunningGateway, body: Any, token: str = TOKEN) -> httpx.Response:
    """Post a body as the subnet's client does."""
    headers = {"Authorization": f"Bearer {token}".strip(), "Content-Type": "application/json"}
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await gateway.client.post(f"{gateway.url}/predict", content=content, headers=headers, timeout=60)


async def asked(gateway: RunningGateway, **fields: Any) -> dict[str, Any]:
    response = await ask(gateway, {"url": None, "frames": None, "meta": META, **fields})
    assert response.status_code == 200
    return dict(response.json())


def frames_of(answer: dict[str, Any]) -> list[dict[str, Any]]:
    assert answer["success"] is True and answer["error"] is None
    return list(answer["predictions"]["frames"])


async def refusal(gateway: RunningGateway, **fields: Any) -> str:
    answer = await asked(gateway, **fields)
    assert answer["success"] is False and answer["predictions"] is None
    return str(answer["error"])


async def test_every_picture_gets_whole_pixels_in_its_own_size_under_its_own_id(gateway: RunningGateway) -> None:
    sizes = [(320, 180), (640, 360), (160, 96), (1280, 720), (97, 211)]
    frames = [
        {"frame_id": 7 * index, "data": picture(40 * index, size, ".jpg" if index % 2 else ".png"), "url": "http://x/y"}
        for index, size in enumerate(sizes)
    ]
    answered = frames_of(await asked(gateway, frames=frames))
    assert [frame["frame_id"] for frame in answered] == [0, 7, 14, 21, 28]
    for (width, height), frame in zip(sizes, answered, strict=True):
        assert len(frame["keypoints"]) == 32
        for box in frame["boxes"]:
            assert box.keys() == {"x1", "y1", "x2", "y2", "cls_id", "conf"}
            assert all(type(box[name]) is int for name in ("x1", "y1", "x2", "y2", "cls_id"))
            assert 0 <= box["x1"] < box["x2"] <= width and 0 <= box["y1"] < box["y2"] <= height
        assert all(type(x) is int and type(y) is int for x, y in frame["keypoints"])
        assert [0, 0] in frame["keypoints"]
    assert {box["cls_id"]: box["conf"] for box in answered[0]["boxes"]} == pytest.approx(
        {2: 0.52, 1: 0.6, 0: 0.5}, abs=0.03
    )
    scores = [next(box["conf"] for box in frame["boxes"] if box["cls_id"] == 2) for frame in answered[:4]]
    assert scores == sorted(scores) and scores[3] - scores[0] > 0.1, "each box is of its own picture"


async def test_a_box_lies_where_the_model_saw_it_in_a_picture_of_another_shape(gateway: RunningGateway) -> None:
    """The models answer 20 20 30 44 in 160x96: of 1600x800, 0.1 of its size, 8 rows are padding above."""
    (frame,) = frames_of(await asked(gateway, frames=[{"frame_id": 0, "data": picture(0, (1600, 800))}]))
    player = next(box for box in frame["boxes"] if box["cls_id"] == 2)
    assert [player[side] for side in ("x1", "y1", "x2", "y2")] == [200, 120, 300, 360]


async def test_players_are_told_apart_by_their_shirts_over_all_pictures_of_a_request(
    gateway: RunningGateway, web: tuple[str, Path]
) -> None:
    red, blue = (np.full((180, 320, 3), bgr, np.uint8) for bgr in ((20, 20, 220), (200, 30, 20)))
    frames = [{"frame_id": n, "data": encoded(blue if n % 3 else red)} for n in range(10)]
    answered = frames_of(await asked(gateway, frames=frames))
    teams = [{box["cls_id"]: box.get("team_id") for box in frame["boxes"]} for frame in answered]
    assert [found[2] for found in teams] == [2 if n % 3 else 1 for n in range(10)]
    assert all(found[0] is found[1] is None for found in teams), "neither the ball nor a keeper"
    for few in (frames[:1], frames[:5]):
        answered = frames_of(await asked(gateway, frames=few))
        assert not any("team_id" in box for frame in answered for box in frame["boxes"]), "too few to tell"


async def test_classes_have_the_order_of_the_element(quick_triton: LocalTriton, tmp_path: Path) -> None:
    async with running_gateway(
        tmp_path, quick_triton.grpc_url, protocols="predict", predict_token=TOKEN, predict_objects="Player, ball"
    ) as gateway:
        (frame,) = frames_of(await asked(gateway, frames=[{"frame_id": 0, "data": picture(0)}]))
    assert {box["cls_id"]: box["y2"] - box["y1"] for box in frame["boxes"]} == {0: 48, 1: 8}, "no goalkeeper"


async def test_frames_of_one_request_travel_in_batches(gateway: RunningGateway) -> None:
    before = await requests_to_triton(gateway)
    frames = [{"frame_id": index, "data": picture(index)} for index in range(64)]
    assert len(frames_of(await asked(gateway, frames=frames))) == 64
    assert await requests_to_triton(gateway) - before == 64


async def requests_to_triton(gateway: RunningGateway) -> float:
    text = await gateway.metrics()
    return float(
        next(
            line.split()[1] for line in text.splitlines() if line.startswith('touchline_frames_total{kind="inferred"}')
        )
    )


async def test_a_picture_behind_a_url(gateway: RunningGateway, web: tuple[str, Path]) -> None:
    (web[1] / "grey.jpg").write_bytes(base64.b64decode(picture(90, kind=".jpg")))
    (frame,) = frames_of(await asked(gateway, frames=[{"frame_id": 3, "url": f"{web[0]}/grey.jpg"}]))
    assert frame["frame_id"] == 3 and frame["boxes"]
    assert "frame 4:" in await refusal(gateway, frames=[{"frame_id": 4, "url": f"{web[0]}/none.jpg"}])


async def test_pictures_of_private_hosts_are_refused(quick_triton: LocalTriton, tmp_path: Path) -> None:
    async with running_gateway(
        tmp_path, quick_triton.grpc_url, protocols="predict", predict_token=TOKEN, allow_private_video_hosts=False
    ) as gateway:
        for fields in (
            {"frames": [{"frame_id": 0, "url": "http://127.0.0.1:9/x.png"}]},
            {"url": "http://127.0.0.1:9/"},
        ):
            assert "not on the public internet" in await refusal(gateway, **fields)


async def test_every_frame_of_a_video_is_answered_with_scores(gateway: RunningGateway, web: tuple[str, Path]) -> None:
    make_video(web[1] / "asked.mp4", 12)
    answered = frames_of(await asked(gateway, url=f"{web[0]}/asked.mp4"))
    assert [frame["frame_id"] for frame in answered] == list(range(12))
    for frame in answered:
        assert len(frame["keypoints"]) == 32
        assert {box["cls_id"] for box in frame["boxes"]} == {0, 1, 2}
        assert all(0.45 < box["conf"] < 1 and type(box["x1"]) is int for box in frame["boxes"])


async def test_health_has_the_contracts_form_and_ours(gateway: RunningGateway) -> None:
    asked = await gateway.client.post(f"{gateway.url}/health", json={})
    assert asked.status_code == 200
    assert asked.json().keys() == {"status", "model_loaded", "memory_gb", "cuda"}
    assert asked.json()["status"] == "healthy"
    ours = (await gateway.client.get(f"{gateway.url}/health")).json()
    assert asked.json().keys() < ours.keys() and ours["ready"] is True and ours["status"] == "healthy"


async def test_who_has_no_token_is_refused_before_the_body_is_read(gateway: RunningGateway) -> None:
    for token in ("", "wrong", f"{TOKEN}-and-more"):
        response = await ask(gateway, b"{" * 1000, token)
        assert response.status_code == 401
        assert response.json()["success"] is False and "PREDICT_TOKEN" in response.json()["error"]


async def test_no_route_is_reached_without_the_token(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("gateway.protocol.predict.admitted", lambda _: pytest.fail("a route was reached"))
    assert (await ask(gateway, {"url": "http://x/y.mp4"}, "wrong")).status_code == 401
    assert [record.name for record in caplog.records if "PREDICT_TOKEN" in record.message] == [STRANGERS.name]


async def test_a_body_that_stops_coming_gives_its_place_back(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.protocol.frames.BODY_TIMEOUT_S", 1.0)
    before = Traces.of(gateway)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]))
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 1000\r\n\r\n"
    writer.write(head.encode())
    sent_at = time.monotonic()
    for _ in range(5):
        await asyncio.sleep(0.25)
        try:
            writer.write(b" ")
        except RuntimeError:  # uvloop's, of a connection that is closed
            assert time.monotonic() - sent_at > 1.0, "slow is not silent"
            break
        sent_at = time.monotonic()
    async with asyncio.timeout(30):
        assert b"nothing more of the body came" in await reader.read()
    writer.close()
    assert await settled(gateway, before) == before


async def test_only_the_protocols_that_are_on_are_there(gateway: RunningGateway) -> None:
    assert (await gateway.challenge("http://x/y.mp4")).status_code == 404


def test_without_a_token_only_this_host_may_be_listened_to() -> None:
    with pytest.raises(StartupError, match="PREDICT_TOKEN"):
        check_startable(Settings(_env_file=None, protocols="predict"))
    check_startable(Settings(_env_file=None, protocols="predict", host="127.0.0.1"))
    check_startable(Settings(_env_file=None, protocols="predict", predict_token=SecretStr("x")))
    check_startable(Settings(_env_file=None, protocols="soccer"))


WRONG = {
    "no JSON": (b"{", "not JSON"),
    "deep JSON": (b"[" * 100_000, "not JSON"),
    "many values": (b'{"frames":[' + b"{}," * 100_001 + b"{}]}", "more than 100000 values"),
    "nothing asked": ({"meta": META}, "neither frames nor a url"),
    "no frames": ({"frames": [], "url": None}, "neither frames nor a url"),
    "an empty frame": ({"frames": [{"frame_id": 1}]}, "frames.0: "),
    "a frame without a number": ({"frames": [{"data": "x"}]}, "frames.0.frame_id"),
    "too many frames": ({"frames": [{"frame_id": n, "data": "x"} for n in range(257)]}, "frames"),
    "a number that no frame has": ({"frames": [{"frame_id": 10**18 * 10, "data": "x"}]}, "frames.0.frame_id"),
    "one that no integer holds": (b'{"frames":[{"frame_id":1e300,"data":"x"}]}', "frames.0.frame_id"),
    "no base64": ({"frames": [{"frame_id": 5, "data": "ü"}]}, "frame 5 has data that is not base64"),
    "no picture": ({"frames": [{"frame_id": 5, "data": "aGVsbG8="}]}, "frame 5 is neither PNG nor JPEG"),
    "a GIF": ({"frames": [{"frame_id": 5, "data": base64.b64encode(b"GIF89a" + bytes(99)).decode()}]}, "neither PNG"),
    "half a header": ({"frames": [{"frame_id": 5, "data": picture(9)[:24]}]}, "frame 5 has a header"),
    "half a picture": ({"frames": [{"frame_id": 5, "data": picture(9, (640, 360), ".jpg")[:200]}]}, "frame 5 "),
    "a URL that is none": ({"url": "file:///etc/passwd"}, "not http(s)"),
    "one wrong picture of many": (
        {"frames": [{"frame_id": n, "data": "aGVsbG8=" if n == 9 else picture(n)} for n in range(12)]}, "frame 9 ",
    ),
}  # fmt: skip


async def test_what_is_wrong_is_said_with_status_200_and_leaves_nothing(gateway: RunningGateway) -> None:
    before = Traces.of(gateway)
    for kind, (body, said) in WRONG.items():
        response = await ask(gateway, body)
        assert response.status_code == 200, kind
        assert response.json()["success"] is False and response.json()["predictions"] is None, kind
        assert said in response.json()["error"], kind
    assert await settled(gateway, before) == before


async def test_a_caller_who_hangs_up_leaves_nothing(gateway: RunningGateway) -> None:
    before = Traces.of(gateway)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x.png"
        frames = [{"frame_id": n, "data": picture(n)} for n in range(6)] + [{"frame_id": 9, "url": url}]
        body = json.dumps({"frames": frames}).encode()
        with pytest.raises(httpx.ReadTimeout):
            await gateway.client.post(
                f"{gateway.url}/predict", content=body, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=0.5
            )
        assert await settled(gateway, before) == before


def jpeg_header(width: int, height: int) -> bytes:
    frame = struct.pack(">BHHB", 8, height, width, 3) + bytes([1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0])
    return (
        b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00\xff\xc2" + struct.pack(">H", 17) + frame
    )


async def test_a_small_file_of_very_many_pixels_is_refused_unseen(gateway: RunningGateway) -> None:
    before, traces = peak_kib(), Traces.of(gateway)
    for data in (png_of(30_000, 1300), jpeg_header(30_000, 30_000)):
        said = await refusal(gateway, frames=[{"frame_id": 0, "data": base64.b64encode(data).decode()}])
        assert "30000x" in said and "million" in said
    assert peak_kib() - before < 64 * 1024
    assert await settled(gateway, traces) == traces


def peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


async def test_a_body_of_100_mb_is_not_kept(gateway: RunningGateway) -> None:
    async def pieces(count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield bytes(2**20)

    before, traces = peak_kib(), Traces.of(gateway)
    for count, more in ((17, {}), (100, {}), (100, {"Content-Length": str(100 * 2**20)})):
        headers = {"Authorization": f"Bearer {TOKEN}", **more}
        try:
            response = await gateway.client.post(f"{gateway.url}/predict", content=pieces(count), headers=headers)
        except (httpx.WriteError, httpx.ReadError):  # the gateway has answered and closed while the rest was sent
            assert count == 100
            continue
        assert response.json()["success"] is False and "MAX_PREDICT_MB" in response.json()["error"]
    assert peak_kib() - before < 64 * 1024
    assert await settled(gateway, traces) == traces

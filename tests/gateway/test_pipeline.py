"""Whole challenges through the gateway and a real Triton with a quick model; what they answer and what they leave."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import tritonclient.grpc as grpcclient

from gateway.protocol.soccer import FRAMES_A_PIECE
from local.triton import LocalTriton
from local.validator import challenge_body, check_response, signed_headers
from tests.support.faulty_host import Reply, faulty_host
from tests.support.gateway import Traces, error_of, region_of, running_gateway, settled
from tests.support.quick_models import write_quick_models
from tests.support.videos import make_audio, make_video


@pytest.fixture(scope="module")
def videos(web: tuple[str, Path]) -> dict[str, str]:
    url, directory = web
    make_video(directory / "fine.mp4", 61)
    make_video(directory / "slow_start.mp4", 61, faststart=False)
    make_video(directory / "one_frame.mp4", 1)
    make_video(directory / "long.mp4", 600)
    make_video(directory / "very_long.mp4", 4000)
    make_audio(directory / "audio.mp4")
    (directory / "empty.mp4").write_bytes(b"")
    (directory / "text.mp4").write_text("this is not a video\n" * 100)
    whole = (directory / "fine.mp4").read_bytes()
    (directory / "header_only.mp4").write_bytes(whole[:200])
    return {path.stem: f"{url}/{path.name}" for path in directory.glob("*.mp4")} | {"missing": f"{url}/missing.mp4"}


@pytest.mark.parametrize("name", ["fine", "slow_start"])
async def test_every_frame_is_answered_under_its_number(
    name: str, videos: dict[str, str], quick_triton: LocalTriton, tmp_path: Path
) -> None:
    async with running_gateway(tmp_path, quick_triton.grpc_url) as gateway:
        before = Traces.of(gateway)
        body = challenge_body(videos[name], "c-1")
        answer = await gateway.post(body)
        assert answer.status_code == 200, answer.text
        response = check_response(answer.content, "c-1")
        assert len(response["frames"]) == 61
        for frame in response["frames"]:
            assert [item["class_id"] for item in frame["objects"]] == [0, 2, 1]
            assert sum(point != [0.0, 0.0] for point in frame["keypoints"]) == 16
        # The quick model's player box, 20 20 30 44 of a 160x96 input with 3 px of padding, in pixels of the source.
        assert response["frames"][7]["objects"][1]["bbox"] == pytest.approx([40, 34, 60, 82], abs=0.01)
        assert {"download", "decode", "infer", "track", "respond", "first_frame", "total"} <= {
            part.split(";")[0] for part in answer.headers["server-timing"].split(", ")
        }
        assert await settled(gateway, before) == before


async def test_a_video_of_one_frame(videos: dict[str, str], quick_triton: LocalTriton, tmp_path: Path) -> None:
    async with running_gateway(tmp_path, quick_triton.grpc_url) as gateway:
        response = (await gateway.challenge(videos["one_frame"])).json()
        assert [frame["frame_number"] for frame in response["frames"]] == [0]


@pytest.mark.parametrize("stride", [1, 2, 3, 7])
async def test_bytes_and_shared_memory_give_the_same_answer(
    stride: int, videos: dict[str, str], quick_triton: LocalTriton, tmp_path: Path
) -> None:
    frames = {}
    for transport in ("system", "off"):
        async with running_gateway(
            tmp_path, quick_triton.grpc_url, triton_shared_memory=transport, frame_stride=stride
        ) as gateway:
            assert gateway.engine.hosts[0].triton.transport == {"system": "shared_memory", "off": "bytes"}[transport]
            frames[transport] = (await gateway.challenge(videos["fine"])).json()["frames"]
    assert len(frames["system"]) == 61
    assert frames["system"] == frames["off"]


@pytest.mark.parametrize(
    ("name", "status", "reason", "said"),
    [
        ("missing", 502, "download_failed", "answered 404"),
        ("empty", 422, "bad_video", "empty"),
        ("text", 422, "bad_video", "is text, not a video"),
        ("header_only", 422, "bad_video", "cut off inside its index"),
        ("audio", 422, "bad_video", "no video stream"),
    ],
)
async def test_bad_videos(
    name: str, status: int, reason: str, said: str, videos: dict[str, str], quick_triton: LocalTriton, tmp_path: Path
) -> None:
    async with running_gateway(tmp_path, quick_triton.grpc_url) as gateway:
        before = Traces.of(gateway)
        got_status, got_reason, detail = error_of(await gateway.challenge(videos[name]))
        assert (got_status, got_reason) == (status, reason)
        assert said in detail
        assert await settled(gateway, before) == before
        assert (await gateway.challenge(videos["fine"])).status_code == 200


@pytest.fixture
def silent_host() -> Iterator[str]:
    """A host that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/video.mp4"


@pytest.fixture
def stalling_host(web: tuple[str, Path], videos: dict[str, str]) -> Iterator[str]:
    """A host that sends the first half of a video and then nothing."""
    content = (web[1] / "long.mp4").read_bytes()
    server = socket.create_server(("127.0.0.1", 0))
    connections: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            connections.append(connection)
            connection.recv(65536)
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(content)}\r\n\r\n".encode()
            connection.sendall(head + content[: len(content) // 2])

    threading.Thread(target=serve, daemon=True).start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}/video.mp4"
    server.close()
    for connection in connections:
        connection.close()


async def test_a_host_that_never_answers(silent_host: str, quick_triton: LocalTriton, tmp_path: Path) -> None:
    async with running_gateway(tmp_path, quick_triton.grpc_url, download_timeout_s=0.3) as gateway:
        before = Traces.of(gateway)
        status, reason, detail = error_of(await gateway.challenge(silent_host))
        assert (status, reason) == (504, "download_timed_out")
        assert silent_host in detail
        assert await settled(gateway, before) == before


async def test_a_host_that_stalls(stalling_host: str, quick_triton: LocalTriton, tmp_path: Path) -> None:
    async with running_gateway(tmp_path, quick_triton.grpc_url, download_timeout_s=0.5) as gateway:
        before = Traces.of(gateway)
        status, reason, _ = error_of(await gateway.challenge(stalling_host))
        assert (status, reason) == (504, "download_timed_out")
        assert await settled(gateway, before) == before


async def test_a_download_that_breaks_off_is_taken_up_again(
    web: tuple[str, Path], videos: dict[str, str], quick_triton: LocalTriton, tmp_path: Path
) -> None:
    """In every part of a file whose header comes first or last: the answer is as if nothing had been."""
    async with running_gateway(tmp_path, quick_triton.grpc_url) as gateway:
        before = Traces.of(gateway)
        for name in ("fine", "slow_start"):
            unharmed = (await gateway.challenge(videos[name])).json()["frames"]
            content = (web[1] / f"{name}.mp4").read_bytes()
            faults = [
                Reply(cut=count * len(content) // 9, reset=count == 2, ranges=count != 3) for count in range(1, 4)
            ]
            async with faulty_host(content, *faults, Reply("503 Busy")) as host:
                answer = await gateway.challenge(host.url)
                assert answer.status_code == 200, answer.text
                assert answer.json()["frames"] == unharmed
                assert len(host.requests) == 5
        assert await settled(gateway, before) == before


@pytest.mark.parametrize("name", ["fine", "slow_start"])
async def test_a_failed_download_is_one_line_in_the_log(
    name: str,
    web: tuple[str, Path],
    videos: dict[str, str],
    quick_triton: LocalTriton,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    content = (web[1] / f"{name}.mp4").read_bytes()
    async with running_gateway(tmp_path, quick_triton.grpc_url) as gateway:
        before = Traces.of(gateway)
        caplog.clear()
        for cut in (20, len(content) // 2, len(content) - 20):
            async with faulty_host(content, Reply(cut=cut), Reply("403 Forbidden")) as host:
                _, reason, detail = error_of(await gateway.challenge(f"{host.url}?Signature=secret"))
            assert reason == "download_failed"
            assert "answered 403 Forbidden" in detail
            assert "secret" not in detail
        assert await settled(gateway, before) == before
    lines = [record.getMessage() for record in caplog.records if record.name.startswith(("gateway", "libav"))]
    assert len(lines) == 3
    assert "secret" not in caplog.text
    assert "Traceback" not in capfd.readouterr().err


async def test_a_host_on_a_private_network_is_refused(
    videos: dict[str, str], quick_triton: LocalTriton, tmp_path: Path
) -> None:
    async with (
        faulty_host(b"inner") as inner,
        running_gateway(tmp_path, quick_triton.grpc_url, allow_private_video_hosts=False) as gateway,
    ):
        before = Traces.of(gateway)
        status, reason, detail = error_of(await gateway.challenge(inner.url))
        assert (status, reason) == (422, "host_refused")
        assert "ALLOW_PRIVATE_VIDEO_HOSTS" in detail
        assert inner.connections == 0
        assert await settled(gateway, before) == before


async def test_a_full_disk_is_not_the_callers_fault(
    videos: dict[str, str], quick_triton: LocalTriton, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that takes 2,000 bytes; then a folder that is not there."""
    real = os.pwrite

    def pwrite(descriptor: int, data: bytes, offset: int) -> int:
        if offset + len(data) > 2000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data, offset)

    async with running_gateway(tmp_path, quick_triton.grpc_url) as gateway:
        before = Traces.of(gateway)
        for name, value in (("pwrite", pwrite), ("pwrite", real)):
            monkeypatch.setattr(os, name, value)
            refused = await gateway.challenge(videos["fine"])
            assert error_of(refused)[:2] == (507, "storage_full")
            assert "MiB free" in refused.json()["detail"] or "TMPDIR" in refused.json()["detail"]
            assert refused.headers["retry-after"]
            assert await settled(gateway, before) == before
            monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
        monkeypatch.setattr(tempfile, "tempdir", None)
        assert (await gateway.challenge(videos["fine"])).status_code == 200


async def test_a_challenge_that_takes_too_long(stalling_host: str, quick_triton: LocalTriton, tmp_path: Path) -> None:
    async with running_gateway(tmp_path, quick_triton.grpc_url, challenge_timeout_s=0.5) as gateway:
        before = Traces.of(gateway)
        status, reason, detail = error_of(await gateway.challenge(stalling_host))
        assert (status, reason) == (504, "challenge_timed_out")
        assert "CHALLENGE_TIMEOUT_S" in detail
        assert await settled(gateway, before) == before


async def test_a_caller_that_hangs_up(stalling_host: str, quick_triton: LocalTriton, tmp_path: Path) -> None:
    async with running_gateway(tmp_path, quick_triton.grpc_url) as gateway:
        before = Traces.of(gateway)
        async with httpx.AsyncClient(timeout=0.5) as impatient:
            body = challenge_body(stalling_host)
            headers = signed_headers(gateway.keys.validator, gateway.keys.miner.ss58_address, body)
            with pytest.raises(httpx.TimeoutException):
                await impatient.post(f"{gateway.url}/soccer/challenge", content=body, headers=headers)
        assert await settled(gateway, before) == before


async def test_a_long_answer_comes_in_pieces(
    videos: dict[str, str], quick_triton: LocalTriton, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_gateway(tmp_path, quick_triton.grpc_url) as gateway:
        whole = (await gateway.challenge(videos["long"])).json()["frames"]
        assert len(whole) == 600 > FRAMES_A_PIECE
        monkeypatch.setattr("gateway.protocol.soccer.FRAMES_A_PIECE", 7)
        assert (await gateway.challenge(videos["long"])).json()["frames"] == whole


async def test_a_caller_that_hangs_up_while_the_answer_comes(
    videos: dict[str, str], quick_triton: LocalTriton, tmp_path: Path
) -> None:
    async with running_gateway(tmp_path, quick_triton.grpc_url) as gateway:
        before = Traces.of(gateway)
        body = challenge_body(videos["very_long"])
        headers = signed_headers(gateway.keys.validator, gateway.keys.miner.ss58_address, body)
        lines = ["POST /soccer/challenge HTTP/1.1", "host: here", f"content-length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        with socket.socket() as caller:
            # So small a window that most of the answer is not even sent.
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            caller.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(caller, ("127.0.0.1", int(gateway.url.rpartition(":")[2])))
            await loop.sock_sendall(caller, "\r\n".join([*lines, "", ""]).encode() + body)
            assert (await loop.sock_recv(caller, 1000)).startswith(b"HTTP/1.1 200")
        # The slots were free before the answer began, so the traces alone do not tell when it has ended.
        async with asyncio.timeout(30):
            while 'touchline_challenges_total{outcome="client_gone"} 1.0' not in (counted := await gateway.metrics()):
                await asyncio.sleep(0.05)
        assert 'touchline_challenges_total{outcome="answered"} 0.0' in counted
        assert await settled(gateway, before) == before


async def test_too_large_and_too_long(videos: dict[str, str], quick_triton: LocalTriton, tmp_path: Path) -> None:
    async with running_gateway(tmp_path, quick_triton.grpc_url, max_video_frames=100) as gateway:
        before = Traces.of(gateway)
        status, reason, detail = error_of(await gateway.challenge(videos["long"]))
        assert (status, reason) == (422, "bad_video")
        assert "MAX_VIDEO_FRAMES" in detail
        assert await settled(gateway, before) == before


async def test_triton_down_at_start(videos: dict[str, str], tmp_path: Path) -> None:
    triton = LocalTriton(write_quick_models(tmp_path / "models"), log=tmp_path / "triton.log")
    async with running_gateway(tmp_path, triton.grpc_url, wait=False) as gateway:
        health = await gateway.health()
        assert health.status_code == 503
        assert triton.grpc_url in health.json()["reason"]
        assert (await gateway.client.get(f"{gateway.url}/availability")).json() == {"available": False}
        refused = await gateway.challenge(videos["fine"])
        status, reason, detail = error_of(refused)
        assert (status, reason) == (503, "inference_unavailable")
        assert refused.headers["retry-after"]
        assert triton.grpc_url in detail
        with triton:
            await gateway.until_ready()
            assert (await gateway.challenge(videos["fine"])).status_code == 200


async def test_triton_restarted_in_the_middle(videos: dict[str, str], tmp_path: Path) -> None:
    """All slots are in flight when it is killed, and none is left to warm it up with: they are asked again."""
    models = write_quick_models(tmp_path / "models", delay_s=0.005)
    with LocalTriton(models, log=tmp_path / "triton.log") as triton:
        triton.wait_ready()
        limits: dict[str, Any] = {"max_concurrent_challenges": 1, "prefetch_frames": 1, "challenge_budget_s": 1000}
        async with running_gateway(tmp_path, triton.grpc_url, **limits) as gateway:
            unharmed = (await gateway.challenge(videos["long"])).json()["frames"]
            before = Traces.of(gateway)
            asking = asyncio.create_task(gateway.challenge(f"{videos['long']}?again"))
            async with asyncio.timeout(20):
                while gateway.challenges.in_progress == 0 or gateway.engine.free_slots:
                    await asyncio.sleep(0.001)
            triton.kill()
            await gateway.until_ready(False)
            availability = await gateway.client.get(f"{gateway.url}/availability")
            assert availability.json() == {"available": False}
            assert not asking.done()
            triton.start()
            await asyncio.to_thread(triton.wait_ready)
            answer = await asking
            assert answer.status_code == 200, answer.text
            assert answer.json()["frames"] == unharmed
            await gateway.until_ready()
            assert await settled(gateway, before) == before


async def test_triton_dying_in_the_middle(videos: dict[str, str], tmp_path: Path) -> None:
    models = write_quick_models(tmp_path / "models", delay_s=0.02)
    with LocalTriton(models, log=tmp_path / "triton.log") as triton:
        triton.wait_ready()
        async with running_gateway(tmp_path, triton.grpc_url, challenge_budget_s=1) as gateway:
            region = region_of(os.getpid())
            before = Traces.of(gateway)
            asking = asyncio.create_task(gateway.challenge(videos["long"]))
            while gateway.challenges.in_progress == 0 or gateway.engine.free_slots == before.free_slots:
                await asyncio.sleep(0.01)
            triton.kill()
            status, reason, detail = error_of(await asking)
            assert (status, reason) == (503, "inference_unavailable")
            assert triton.grpc_url in detail
            assert await settled(gateway, before) == before
            await gateway.until_ready(False)
            # It comes back on the same ports: the region is registered anew.
            triton.start()
            await asyncio.to_thread(triton.wait_ready)
            await gateway.until_ready()
            assert (await gateway.challenge(videos["fine"])).status_code == 200
        assert not region.exists()


async def test_the_stride_is_planned_for_what_the_engine_can_do(videos: dict[str, str], tmp_path: Path) -> None:
    """600 frames at 20 ms an inference do not fit into the budget: fewer are inferred, evenly, all are answered."""
    with LocalTriton(write_quick_models(tmp_path / "models", delay_s=0.02), log=tmp_path / "log") as triton:
        triton.wait_ready()
        async with running_gateway(tmp_path, triton.grpc_url, challenge_budget_s=2.5) as gateway:
            answer = await gateway.challenge(videos["long"])
            frames = answer.json()["frames"]
            metrics = await gateway.metrics()
    assert [frame["frame_number"] for frame in frames] == list(range(600))
    assert all([item["class_id"] for item in frame["objects"]] == [0, 2, 1] for frame in frames)
    value = dict(line.rsplit(" ", 1) for line in metrics.splitlines())
    inferred = float(value['touchline_frames_total{kind="inferred"}'])
    assert 13 <= inferred < 150
    assert float(value['touchline_stride_bucket{kind="planned",le="3.0"}']) == 0
    assert float(value['touchline_stride_count{kind="actual"}']) == 1
    assert float(value['touchline_model_frame_seconds{model="player"}']) > 0
    timing = dict(part.split(";", 1) for part in answer.headers["server-timing"].split(", "))
    assert 4 <= int(timing["planned-stride"].split('"')[1]) <= 50
    assert timing["inferred"] == f'desc="{inferred:.0f}"'


async def test_the_same_video_is_computed_once(
    videos: dict[str, str], quick_triton: LocalTriton, tmp_path: Path
) -> None:
    async with running_gateway(tmp_path, quick_triton.grpc_url, max_concurrent_challenges=1) as gateway:
        before = Traces.of(gateway)
        bodies = [challenge_body(videos["fine"], f"c-{index}") for index in range(3)]
        answers = await asyncio.gather(*(gateway.post(body) for body in bodies))
        answers.append(await gateway.post(challenge_body(videos["fine"], "c-3")))
        assert [answer.status_code for answer in answers] == [200] * 4
        assert [answer.json()["challenge_id"] for answer in answers] == ["c-0", "c-1", "c-2", "c-3"]
        assert len({json.dumps(answer.json()["frames"]) for answer in answers}) == 1
        metrics = await gateway.metrics()
        assert 'touchline_frames_total{kind="decoded"} 61.0' in metrics
        assert "touchline_answers_reused_total 3.0" in metrics
        assert await settled(gateway, before) == before


async def test_a_failed_answer_is_not_kept(
    videos: dict[str, str], quick_triton: LocalTriton, tmp_path: Path, web: tuple[str, Path]
) -> None:
    async with running_gateway(tmp_path, quick_triton.grpc_url) as gateway:
        url = f"{web[0]}/late.mp4"
        assert (await gateway.challenge(url)).status_code == 502
        make_video(web[1] / "late.mp4", 5)
        assert (await gateway.challenge(url)).status_code == 200


async def test_one_who_leaves_does_not_take_the_answer_from_another(videos: dict[str, str], tmp_path: Path) -> None:
    with LocalTriton(write_quick_models(tmp_path / "models", delay_s=0.01), log=tmp_path / "log") as triton:
        triton.wait_ready()
        async with running_gateway(tmp_path, triton.grpc_url) as gateway:
            leaving = asyncio.create_task(gateway.challenge(videos["fine"]))
            while gateway.challenges.in_progress == 0:
                await asyncio.sleep(0.01)
            staying = asyncio.create_task(gateway.challenge(videos["fine"]))
            await asyncio.sleep(0.05)
            leaving.cancel()
            assert (await staying).status_code == 200


async def test_one_too_many(
    videos: dict[str, str], stalling_host: str, quick_triton: LocalTriton, tmp_path: Path
) -> None:
    async with running_gateway(tmp_path, quick_triton.grpc_url, max_concurrent_challenges=1) as gateway:
        first = asyncio.create_task(gateway.challenge(stalling_host))
        while gateway.challenges.in_progress == 0:
            await asyncio.sleep(0.01)
        assert (await gateway.client.get(f"{gateway.url}/availability")).json() == {"available": False}
        refused = await gateway.challenge(videos["fine"])
        assert error_of(refused)[:2] == (503, "busy")
        assert refused.headers["retry-after"]
        first.cancel()


async def test_the_region_is_unlinked_and_unregistered_when_the_gateway_ends(
    videos: dict[str, str], quick_triton: LocalTriton, tmp_path: Path
) -> None:
    client = grpcclient.InferenceServerClient(quick_triton.grpc_url)
    known_to_triton = set(client.get_system_shared_memory_status().regions)
    async with running_gateway(tmp_path, quick_triton.grpc_url) as gateway:
        region = region_of(os.getpid())
        assert len(set(client.get_system_shared_memory_status().regions) - known_to_triton) == 1
        await gateway.challenge(videos["fine"])
    assert not region.exists()
    assert set(client.get_system_shared_memory_status().regions) <= known_to_triton


async def test_metrics_tell_outcomes_and_stages(
    videos: dict[str, str], quick_triton: LocalTriton, tmp_path: Path
) -> None:
    async with running_gateway(tmp_path, quick_triton.grpc_url) as gateway:
        await gateway.challenge(videos["fine"])
        await gateway.challenge(videos["missing"])
        text = await gateway.metrics()
        assert 'touchline_challenges_total{outcome="answered"} 1.0' in text
        assert 'touchline_challenges_total{outcome="download_failed"} 1.0' in text
        assert 'touchline_frames_total{kind="decoded"} 61.0' in text
        assert 'touchline_frames_total{kind="inferred"} 31.0' in text
        assert 'touchline_stage_seconds_count{stage="decode"} 1.0' in text
        assert "touchline_inference_ready 1.0" in text
        assert "touchline_challenges_in_progress 0.0" in text


async def test_the_answer_is_json_of_the_subnets_form(
    videos: dict[str, str], quick_triton: LocalTriton, tmp_path: Path
) -> None:
    async with running_gateway(tmp_path, quick_triton.grpc_url) as gateway:
        started = time.time()
        response = json.loads((await gateway.challenge(videos["fine"])).content)
        assert set(response) == {"challenge_id", "processing_time", "frames"}
        assert 0 < response["processing_time"] <= time.time() - started
        assert set(response["frames"][0]) == {"frame_number", "keypoints", "objects"}
        assert set(response["frames"][0]["objects"][0]) == {"id", "bbox", "class_id"}

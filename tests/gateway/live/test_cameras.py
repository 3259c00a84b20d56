"""Cameras of a running gateway: real RTSP streams, a real Triton, and everything that happens to cameras."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest

from gateway.live import camera as camera_module
from gateway.live.camera import LADDER_S, retry_delay_s, state_of
from gateway.live.rounds import patience_s, rest_s
from gateway.settings import Settings
from local.triton import LocalTriton
from tests.support.certificates import CertificateAuthority
from tests.support.gateway import code_of
from tests.support.live import Held, until, watching
from tests.support.quick_models import write_quick_models
from tests.support.rtsp_camera import RtspCamera, numbered_film
from tests.support.videos import make_video

SECRET = "s3cret-canary"


@pytest.fixture(autouse=True)
def quick_ladder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera_module, "LADDER_S", (0.2, 0.4, 0.8, 1.6))


@pytest.fixture
def cameras() -> Iterator[list[RtspCamera]]:
    """Three of them."""
    with ExitStack() as stack:
        yield [stack.enter_context(RtspCamera(numbered_film())) for _ in range(3)]


async def test_a_camera_is_added_watched_changed_and_removed(
    cameras: list[RtspCamera], quick_triton: LocalTriton, tmp_path: Path
) -> None:
    async with watching(tmp_path, quick_triton.grpc_url) as live:
        body = {"url": cameras[0].url, "id": "north", "name": "North <b>stand</b>", "skip": 2}
        added = await live.ask("POST", "", json=body)
        assert (added.status_code, added.headers["location"]) == (201, "/live/cameras/north")
        assert (added.json()["state"], added.json()["name"]) == ("connecting", "North <b>stand</b>")
        camera = await live.until("north", lambda one: one["frames"]["inferred"] > 10)
        assert (camera["state"], camera["generation"], camera["error"]) == ("live", 1, None)
        assert camera["source"]["codec"] == "h264" and camera["source"]["width"] == 320
        assert camera["frames"]["received"] >= 2 * camera["frames"]["inferred"] - 2
        assert set(camera["stages_ms"]) == {"decode", "wait", "scale", "infer", "track"}
        view = live.view("north")
        assert (view.picture.width, view.picture.height) == (320, 180)
        # The quick model's goalkeeper and its ball, in pixels of the source.
        assert view.tracks.detections.xyxy.max() <= 320
        assert sorted(view.tracks.detections.classes.tolist()) == [0, 1, 2]
        changed = await live.ask("PATCH", "/north", json={"name": "N", "models": ["player"]})
        assert (changed.status_code, changed.json()["generation"]) == (200, 1)
        await until(lambda: 0 not in live.view("north").tracks.detections.classes)
        assert (await live.ask("PATCH", "/north", json={"enabled": False})).status_code == 200
        await live.until("north", lambda one: one["state"] == "disabled")
        await live.ask("PATCH", "/north", json={"enabled": True})
        await live.until("north", lambda one: one["state"] == "live" and one["generation"] == 2)
        assert (await live.ask("POST", "/north/restart")).status_code == 202
        await live.until("north", lambda one: one["state"] == "live" and one["generation"] == 3)
        assert 'camera="north"' in await live.gateway.metrics()
        assert (await live.ask("DELETE", "/north")).status_code == 204
        assert (await live.ask("GET", "/north")).json()["error"] == "unknown_camera"
        assert 'camera="north"' not in await live.gateway.metrics()
        assert live.gateway.cameras.views.latest("north") is None


async def test_what_is_asked_wrongly_is_refused_with_a_reason(quick_triton: LocalTriton, tmp_path: Path) -> None:
    async with watching(tmp_path, quick_triton.grpc_url, live_max_cameras=1) as live:
        for body, status, error in (
            ({"url": "ftp://h/"}, 422, "bad_camera"),
            ({"url": "rtsp://192.168.0.9/"}, 403, "source_not_allowed"),
            ({"url": "file:clip.mp4"}, 403, "source_not_allowed"),
        ):
            answer = await live.ask("POST", "", json=body)
            assert (answer.status_code, answer.json()["error"]) == (status, error), answer.text
        await live.add("a", "rtsp://127.0.0.1:1/")
        for name, error in (("a", "camera_exists"), ("b", "too_many_cameras")):
            answer = await live.ask("POST", "", json={"id": name, "url": "rtsp://127.0.0.1:1/"})
            assert answer.json()["error"] == error
        for content, kind in ((b"{}", "text/plain"), (b"{", "application/json"), (b"", "application/json")):
            answer = await live.ask("POST", "", content=content, headers={"content-type": kind})
            assert (answer.status_code, answer.json()["error"]) == (400, "bad_request")
        for method, path in (("POST", ""), ("PATCH", "/a"), ("DELETE", "/a"), ("POST", "/a/restart")):
            answer = await live.ask(method, path, json={}, headers={"origin": "http://evil.example"})
            assert answer.status_code == 403 and "Origin" in answer.text
        for method in ("GET", "PATCH", "DELETE"):
            assert (await live.ask(method, "/none", json={})).status_code == 404
        assert (await live.gateway.client.get(f"{live.gateway.url}/live/cameras")).status_code == 404
        assert (await live.camera("a"))["id"] == "a"


async def test_one_that_is_away_and_one_that_dies_disturb_no_other(
    cameras: list[RtspCamera], quick_triton: LocalTriton, tmp_path: Path
) -> None:
    async with watching(tmp_path, quick_triton.grpc_url) as live:
        await live.add("away", "rtsp://127.0.0.1:1/")
        await live.add("dying", cameras[0].url)
        await live.add("fine", cameras[1].url)
        cameras[2].stalled = True
        await live.add("mute", cameras[2].url)
        await live.until("dying", lambda one: one["state"] == "live")
        before = await live.until("fine", lambda one: one["state"] == "live")
        health = await live.gateway.health()
        assert (health.status_code, health.json()["live"]) == (200, {"cameras": 4, "live": 2})
        cameras[0].kill()
        dead = await live.until("dying", lambda one: one["state"] == "waiting")
        assert dead["error"]["code"] in ("closed", "refused") and dead["retry_in_s"] is not None
        mute = await live.until("mute", lambda one: one["error"])
        assert mute["error"]["code"] == "timeout"
        away = await live.until("away", lambda one: one["attempts"] >= 3)
        assert away["error"]["code"] == "refused"
        fine = await live.until("fine", lambda one: one["frames"]["inferred"] > before["frames"]["inferred"] + 20)
        assert (fine["state"], fine["generation"]) == ("live", 1)
        cameras[0].start()
        cameras[2].stalled = False
        await live.until("dying", lambda one: one["state"] == "live" and one["generation"] == 2)
        await live.until("mute", lambda one: one["state"] == "live")


async def test_a_network_that_is_cut_stalls_then_waits_and_comes_back(
    cameras: list[RtspCamera], quick_triton: LocalTriton, tmp_path: Path
) -> None:
    async with watching(tmp_path, quick_triton.grpc_url) as live:
        await live.add("a", cameras[0].url)
        await live.until("a", lambda one: one["state"] == "live")
        cameras[0].stalled = True
        await live.until("a", lambda one: one["state"] == "stalled")
        cut = await live.until("a", lambda one: one["state"] == "waiting")
        assert cut["error"]["code"] == "timeout"
        cameras[0].stalled = False
        await live.until("a", lambda one: one["state"] == "live" and one["generation"] == 2)


async def test_garbage_is_left_alone_for_longer_and_longer(
    cameras: list[RtspCamera], quick_triton: LocalTriton, tmp_path: Path
) -> None:
    async with watching(tmp_path, quick_triton.grpc_url) as live:
        await live.add("a", cameras[0].url)
        await live.add("b", cameras[1].url)
        await live.until("a", lambda one: one["state"] == "live")
        cameras[0].garbage = True
        await live.until("a", lambda one: one["state"] in ("waiting", "connecting") and one["error"])
        fine = await live.camera("b")
        await live.until("b", lambda one: one["frames"]["inferred"] > fine["frames"]["inferred"] + 10)
        cameras[0].garbage = False
        await live.until("a", lambda one: one["state"] == "live" and one["generation"] == 2)


async def test_another_picture_size_after_a_reconnect_and_ids_of_their_own(
    cameras: list[RtspCamera], quick_triton: LocalTriton, tmp_path: Path
) -> None:
    async with watching(tmp_path, quick_triton.grpc_url) as live:
        for name, camera in zip("ab", cameras, strict=False):
            await live.add(name, camera.url)
            await live.until(name, lambda one: one["frames"]["inferred"] > 5)
        for name in "ab":
            ids = live.view(name).tracks.ids
            assert set(ids.tolist()) <= {0, 1, 2}, "each camera counts from 1"
        cameras[0].film = numbered_film(width=640, height=360)
        cameras[0].drop()
        await until(lambda: live.view("a").picture.width == 640)
        await until(lambda: live.view("a").tracks.ids.max() > 0)
        view = live.view("a")
        assert view.generation == 2 and view.tracks.detections.xyxy.max() > 320
        assert not set(view.tracks.ids.tolist()) & {1, 2}, "ids are not used again"
        assert set(live.view("b").tracks.ids.tolist()) <= {0, 1, 2}


async def test_a_frozen_picture_is_told_and_connected_anew_if_wanted(
    cameras: list[RtspCamera], quick_triton: LocalTriton, tmp_path: Path
) -> None:
    async with watching(tmp_path, quick_triton.grpc_url, live_still_s=0.5, live_reconnect_still_s=1.5) as live:
        await live.add("a", cameras[0].url)
        await live.until("a", lambda one: one["state"] == "live")
        cameras[0].frozen = True
        still = await live.until("a", lambda one: one["still_s"] >= 0.5)
        assert still["state"] == "live"
        await live.until("a", lambda one: one["error"] and one["error"]["code"] == "still")
        cameras[0].frozen = False
        await live.until("a", lambda one: one["generation"] >= 2 and not one["still_s"])


async def test_a_password_is_in_no_log_answer_or_metric(
    quick_triton: LocalTriton, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    said = ""
    with RtspCamera(user="bob", password="another") as camera:
        async with watching(tmp_path, quick_triton.grpc_url) as live:
            where = f"127.0.0.1:{camera.port}"
            for name, url in (
                ("wrong", f"rtsp://bob:{SECRET}@{where}/stream"),
                ("closed", f"rtsp://bob:{SECRET}@127.0.0.1:1/"),
                ("query", f"rtsp://{where}/stream?password={SECRET}"),
                ("web", f"http://bob:{SECRET}@{where}/"),
            ):
                await live.add(name, url)
                told = await live.until(name, lambda one: one["error"])
                assert told["has_credentials"] is (name != "query")
            for patch in ({"transport": "udp"}, {"url": f"gopher://{SECRET}@h/"}, {"password": SECRET, "x": 1}):
                said += (await live.ask("PATCH", "/wrong", json=patch)).text
            said += (await live.ask("POST", "", content=f'{{"url": "{SECRET}')).text
            said += (await live.ask("GET", "")).text + await live.gateway.metrics()
            said += (await live.gateway.client.get(f"{live.url}/console")).text
    assert SECRET not in said + caplog.text
    assert "another" not in caplog.text


async def test_a_certificate_that_nobody_knows_fails_a_camera_until_any_will_do(
    quick_triton: LocalTriton, tmp_path: Path
) -> None:
    (tmp_path / "known").mkdir()
    authority, unknown = CertificateAuthority(tmp_path / "known"), CertificateAuthority(tmp_path)
    unknown_tls = unknown.server("127.0.0.1")
    with (
        RtspCamera(tls=authority.server("127.0.0.1")) as fine,
        RtspCamera(tls=unknown_tls, user="bob", password=SECRET) as strange,
    ):
        async with watching(tmp_path, quick_triton.grpc_url, live_ca_file=authority.file) as live:
            await live.add("fine", fine.url)
            await live.add("strange", strange.url, username="bob", password=SECRET)
            await live.until("fine", lambda one: one["state"] == "live")
            failed = await live.until("strange", lambda one: one["state"] == "failed")
            assert failed["error"]["code"] == "certificate" and failed["verify"]
            assert not strange.asked, "the password was not shown to it"
            await live.ask("PATCH", "/strange", json={"verify": False})
            await live.until("strange", lambda one: one["state"] == "live" and not one["verify"])
            assert strange.asked


async def test_files_are_cameras_and_cameras_come_from_a_file(quick_triton: LocalTriton, tmp_path: Path) -> None:
    make_video(tmp_path / "clip.mp4", 25)
    file = tmp_path / "cameras.yaml"
    file.write_text("- {id: once, url: 'file:clip.mp4'}\n- {id: ever, url: 'file:clip.mp4', loop: true}\n")
    async with watching(tmp_path, quick_triton.grpc_url, live_files_dir=tmp_path, cameras_file=file) as live:
        once = await live.until("once", lambda one: one["state"] == "ended")
        assert once["frames"]["received"] == 25 and once["error"] is None
        await live.until("ever", lambda one: one["state"] == "live" and one["frames"]["received"] > 30)
        await live.add("none", "file:none.mp4")
        none = await live.until("none", lambda one: one["error"])
        assert (none["state"], none["error"]["code"]) == ("failed", "not_found")


async def test_a_triton_that_restarts_costs_its_time_alone(cameras: list[RtspCamera], tmp_path: Path) -> None:
    models = write_quick_models(tmp_path / "models")
    with LocalTriton(models, log=tmp_path / "triton.log") as triton:
        triton.wait_ready()
        async with watching(tmp_path, triton.grpc_url, inference_timeout_s=2) as live:
            await live.add("a", cameras[0].url)
            await live.until("a", lambda one: one["frames"]["inferred"] > 5)
            triton.kill()
            await live.gateway.until_ready(False)
            triton.start()
            await asyncio.to_thread(triton.wait_ready)
            await live.gateway.until_ready()
            away = await live.camera("a")
            back = await live.until("a", lambda one: one["frames"]["inferred"] > away["frames"]["inferred"] + 5, 60)
            assert (back["state"], back["generation"]) == ("live", 1)


async def test_a_hundred_cameras_come_and_go_and_nothing_is_left(
    cameras: list[RtspCamera], quick_triton: LocalTriton, tmp_path: Path
) -> None:
    async with watching(tmp_path, quick_triton.grpc_url, live_max_cameras=32) as live:
        await live.add("stays", cameras[0].url)
        await live.until("stays", lambda one: one["state"] == "live")
        cameras[2].stalled = True
        places = (cameras[1].url, "rtsp://127.0.0.1:1/", cameras[2].url)
        before, tasks = Held.now(), len(asyncio.all_tasks())
        for number in range(100):
            await live.add("guest", places[number % 3])
            if number % 5 == 0:
                await asyncio.sleep(0.05)
            assert (await live.ask("DELETE", "/guest")).status_code == 204
        await until(lambda: Held.now().threads <= before.threads, "threads ended")
        cameras[2].stalled = False
        await until(lambda: not (cameras[1].open_connections or cameras[2].open_connections), "hung up")
        await until(lambda: Held.now().descriptors <= before.descriptors + 2, "files closed")
        # Two rounds under way have some of their own, which a moment without any did not show.
        await until(lambda: len(asyncio.all_tasks()) <= tasks + 12, "tasks ended")
        for _ in range(10):
            await live.ask("POST", "/stays/restart")
            await asyncio.sleep(0.02)
        stays = await live.until("stays", lambda one: one["state"] == "live")
        await live.until("stays", lambda one: one["frames"]["inferred"] > stays["frames"]["inferred"] + 5)
        await until(lambda: Held.now().threads <= before.threads, "threads ended")
    await until(lambda: Held.now().threads == 0, "the last thread ended")


async def test_a_camera_that_is_removed_just_as_it_wakes_up_ends(quick_triton: LocalTriton, tmp_path: Path) -> None:
    def running() -> int:
        return sum(code_of(task).endswith(": Camera.run") for task in asyncio.all_tasks())

    async with watching(tmp_path, quick_triton.grpc_url) as live:
        for turns in range(6):
            await live.add("guest", "rtsp://127.0.0.1:1/")
            await live.until("guest", lambda one: one["state"] == "waiting")
            live.gateway.cameras.get("guest").restart()
            for _ in range(turns):
                await asyncio.sleep(0)
            live.gateway.cameras.remove("guest")
        await until(lambda: running() == 0, "cameras ended", 10)


async def test_challenges_and_cameras_are_answered_beside_each_other(
    cameras: list[RtspCamera], quick_triton: LocalTriton, web: tuple[str, Path], tmp_path: Path
) -> None:
    url, directory = web
    make_video(directory / "beside.mp4", 200)
    async with watching(tmp_path, quick_triton.grpc_url, allow_private_video_hosts=True, frame_stride=1) as live:
        for name, camera in zip("abc", cameras, strict=True):
            await live.add(name, camera.url)
            await live.until(name, lambda one: one["frames"]["inferred"] > 3)
        before = (await live.camera("a"))["frames"]["inferred"]
        answer = await live.gateway.challenge(f"{url}/beside.mp4")
        assert answer.status_code == 200 and len(answer.json()["frames"]) == 200
        await live.until("a", lambda one: one["frames"]["inferred"] > before)


def test_attempts_are_further_and_further_apart_and_not_at_the_same_moment() -> None:
    middle = [retry_delay_s(failures, "refused", 0.5) for failures in range(1, 9)]
    assert middle == [*camera_module.LADDER_S, *[camera_module.LADDER_S[-1]] * 4]
    assert list(LADDER_S) == [1, 2, 4, 8, 16, 30]
    assert all(later > earlier for earlier, later in pairwise(LADDER_S))
    assert retry_delay_s(1, "timeout", 0.0) < retry_delay_s(1, "timeout", 1.0)
    assert retry_delay_s(1, "auth_failed", 0.0) == 60


def test_states_and_the_time_of_rounds() -> None:
    assert (state_of(1.9, 2.0), state_of(2.1, 2.0)) == ("live", "stalled")
    assert patience_s([25.0, 50.0], 0.02) == 0.01 and patience_s([5.0], 0.02) == patience_s([], 0.02) == 0.02
    # A quarter of the engine's time: three times as long as it worked it is left alone.
    assert rest_s(0.1, 0.1, 0.25) == pytest.approx(0.3)
    assert rest_s(0.1, 0.5, 0.25) == 0


def test_cameras_are_off_unless_they_are_asked_for() -> None:
    assert not Settings(_env_file=None).live

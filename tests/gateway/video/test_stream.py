"""A camera's pictures as they come, from a real RTSP camera that misbehaves, from files and from the web."""

from __future__ import annotations

import gc
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

import av
import cv2
import pytest

from gateway.video.stream import (
    GIVE_UP_AFTER_S,
    SKIP_AFTER_S,
    STEP_S,
    Backlog,
    MediaClock,
    Pace,
    Place,
    Schedule,
    Stream,
)
from tests.support.rtsp_camera import RtspCamera, numbered_film
from tests.support.videos import frame_image, make_video, read_number
from touchline.video_live import CODES, StreamFailed, check_size, why

PATIENCE_S = 20.0


@contextmanager
def watched(place: Place, timeout_s: float = 1.0, keep: int = 1) -> Iterator[Stream]:
    news = threading.Event()
    stream = Stream(place, timeout_s=timeout_s, keep=keep, tell=news.set)
    stream.start()
    try:
        yield stream
    finally:
        stream.stop()
        until(lambda: not stream.alive, 0.5, known=False)
        until(lambda: has_ended(stream))


def has_ended(stream: Stream) -> bool:
    """Cut off again where it has not."""
    if stream.alive:
        stream.cut()
    return not stream.alive


def until(true: Callable[[], object], timeout_s: float = PATIENCE_S, *, known: bool = True) -> None:
    """Wait until it is true. `known`: that it will be."""
    end = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > end:
            assert not known, "it did not happen"
            return
        time.sleep(0.02)


def place_of(camera: RtspCamera, transport: str = "tcp", login: str = "") -> Place:
    return Place(camera.url.replace("://", f"://{login}"), transport, ("127.0.0.1", camera.port))


def numbers(stream: Stream) -> list[int]:
    return [read_number(one.picture.to_ndarray(format="rgb24")) for one in stream.take()]


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_the_newest_frame_is_there_and_no_older_one(transport: str) -> None:
    with RtspCamera(numbered_film(100)) as camera, watched(place_of(camera, transport)) as stream:
        until(lambda: stream.received >= 30)
        (last,) = stream.take()
        assert read_number(last.picture.to_ndarray(format="rgb24")) == last.number % 100
        assert (stream.size, stream.codec, stream.ended) == ((320, 180), "h264", None)
        assert stream.kept == stream.received >= last.number + 1


def test_every_nth_frame_is_kept_where_no_more_is_wanted() -> None:
    with RtspCamera() as camera, watched(place_of(camera), keep=8) as stream:
        stream.skip = 5
        until(lambda: stream.received >= 40)
        kept = [one.number for one in stream.take()]
        assert len(kept) >= 5 and all(number % 5 == 0 for number in kept[1:])


@pytest.mark.parametrize("digest", [True, False])
def test_passwords_of_any_characters_are_taken(digest: bool) -> None:
    login = f"bob:{quote('p@ss/w:%#?', safe='')}@"
    with (
        RtspCamera(user="bob", password="p@ss/w:%#?", digest=digest) as camera,
        watched(place_of(camera, login=login)) as stream,
    ):
        until(lambda: stream.received)


@pytest.mark.parametrize(
    ("settings", "transport", "code"),
    [
        ({"user": "bob", "password": "right"}, "tcp", "auth_failed"),
        ({"status": 404}, "tcp", "not_found"),
        ({"status": 403}, "tcp", "auth_failed"),
        ({"udp": False}, "udp", "transport"),
        ({"tcp": False}, "tcp", "transport"),
        ({"stalled": True}, "tcp", "timeout"),
        ({"muted": True}, "tcp", "timeout"),
    ],
)
def test_why_a_camera_cannot_be_read_is_said_without_its_address(
    settings: dict[str, object], transport: str, code: str
) -> None:
    with RtspCamera() as camera:
        for name, value in settings.items():
            setattr(camera, name, value)
        with watched(place_of(camera, transport, "canary:canary@"), timeout_s=0.5) as stream:
            until(lambda: stream.ended)
            assert isinstance(stream.ended, StreamFailed)
            assert stream.ended.code == code
            assert "canary" not in repr(stream.ended) + repr(stream.ended.__cause__) + stream.ended.detail
            assert "127.0.0.1" not in str(stream.ended)


def test_a_closed_port_and_a_camera_that_hangs_up() -> None:
    with RtspCamera() as camera:
        with watched(place_of(camera)) as stream:
            until(lambda: stream.received)
            camera.drop()
            until(lambda: stream.ended)
            assert stream.ended is not None and stream.ended.code == "closed"
        camera.kill()
        with watched(place_of(camera)) as stream:
            until(lambda: stream.ended)
            assert stream.ended is not None and stream.ended.code == "refused"


def failed_stream(camera: RtspCamera) -> weakref.ref[Stream]:
    stream = Stream(place_of(camera), timeout_s=1.0, keep=1, tell=lambda: None)
    stream.start()
    until(lambda: stream.waiting)
    camera.drop()
    until(lambda: stream.ended is not None and not stream.alive)
    return weakref.ref(stream)


def test_a_stream_that_has_failed_is_freed_at_once_with_its_decoder() -> None:
    gc.collect()
    gc.disable()  # the gateway collects rarely, and a decoder holds tens of MiB that it does not see
    try:
        with RtspCamera() as camera:
            assert failed_stream(camera)() is None
    finally:
        gc.enable()


def test_goodbye_is_said_to_the_camera() -> None:
    with RtspCamera() as camera:
        with watched(place_of(camera, "udp")) as stream:
            until(lambda: stream.received)
        until(lambda: camera.torn_down == 1 and camera.open_connections == 0)


@pytest.mark.parametrize("fault", ["garbage", "stalled", "muted"])
def test_a_thread_that_gets_no_packet_ends_when_its_connection_is_cut(fault: str) -> None:
    with RtspCamera() as camera, RtspCamera() as healthy, watched(place_of(healthy)) as other:
        with watched(place_of(camera), timeout_s=30) as stream:
            until(lambda: stream.received and other.received)
            setattr(camera, fault, True)
            time.sleep(0.3)
            before = other.received
        assert not stream.alive
        until(lambda: other.received > before + 5)


def test_a_picture_that_does_not_change_is_noticed_whatever_its_time_stamps_say() -> None:
    with RtspCamera() as camera, watched(place_of(camera)) as stream:
        until(lambda: stream.received > 5)
        camera.frozen = True
        until(lambda: stream.frame_at - stream.changed_at > 1.5)
        camera.frozen = False
        until(lambda: stream.frame_at - stream.changed_at < 0.7)


def test_time_stamps_that_stand_still_or_jump_disturb_nothing() -> None:
    with RtspCamera() as camera, watched(place_of(camera), keep=200) as stream:
        until(lambda: stream.received > 10)
        camera.jump_s = -30.0
        until(lambda: stream.received > 20)
        camera.stopped_clock = True
        until(lambda: stream.received > 30)
        times = [one.media_s for one in stream.take()]
        assert all(later > earlier for earlier, later in pairwise(times))
        assert times[-1] - times[0] < 10


def test_another_size_in_the_middle_is_taken() -> None:
    with RtspCamera() as camera, watched(place_of(camera)) as stream:
        until(lambda: stream.received > 5)
        camera.film = numbered_film(width=640, height=360)
        until(lambda: stream.size == (640, 360))
        assert stream.ended is None


@pytest.mark.parametrize("name", ["clip.mp4", "without_time_stamps.h264"])
def test_a_file_is_played_in_its_own_time_and_ends_or_begins_again(name: str, tmp_path: Path) -> None:
    file = make_video(tmp_path / name, 20)
    begun = time.monotonic()
    with watched(Place("", file=file), keep=100) as stream:
        until(lambda: stream.finished)
        assert time.monotonic() - begun >= 19 / 25
        assert numbers(stream) == list(range(20))
    with watched(Place("", file=file, loop=True), keep=100) as stream:
        until(lambda: stream.received >= 45)
        times = [one.media_s for one in stream.take()]
        assert all(0.03 < later - earlier < 0.05 for earlier, later in pairwise(times))


def due_s(*pts_s: float) -> list[float]:
    """When frames with these time stamps are due, at 25 a second."""
    schedule = Schedule()
    schedule.begin(0.04)
    return [schedule.due_s(one) for one in pts_s]


def test_time_stamps_of_a_file_are_believed_unless_they_stand_still_or_jump() -> None:
    uneven = [0.0, 0.02, 0.1, 0.9]
    assert due_s(*uneven) == pytest.approx([0.04 + one for one in uneven])
    # Of AVIs with B-frames: those that are out of order come at once, and the next one in its time.
    reordered = [number / 25 for number in (0, 3, 1, 2, 6, 4, 5, 9, 7, 8)]
    assert due_s(*reordered) == pytest.approx([0.04 + one for one in reordered])
    assert due_s(0, 0, 0.08, 0.08, 0.16) == pytest.approx([0.04, 0.04, 0.12, 0.12, 0.2])
    even = [0.04, 0.08, 0.12, 0.16]
    assert due_s(0, 0.04, 1000.04, 1000.08) == pytest.approx(even)
    assert due_s(33.3, 33.34, 0.0, 0.04) == pytest.approx(even)
    still = due_s(*[33.3667] * 100)
    assert [later - earlier for earlier, later in pairwise(still[40:])] == pytest.approx([0.04] * 59)


@pytest.mark.parametrize(("content", "code"), [(b"text, and no film\n" * 99, "not_video"), (None, "not_found")])
def test_a_file_that_is_none(content: bytes | None, code: str, tmp_path: Path) -> None:
    file = tmp_path / "clip.mp4"
    if content is not None:
        file.write_bytes(content)
    with watched(Place("", file=file)) as stream:
        until(lambda: stream.ended)
        assert stream.ended is not None and stream.ended.code == code and not stream.finished


class _Web(SimpleHTTPRequestHandler):
    """An MJPEG camera at /mjpeg, a redirect at /away, a web page at /page, files elsewhere."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.headers["Host"])
        if self.path == "/away":
            self.send_response(302)
            self.send_header("Location", "http://127.0.0.1:1/")
            self.end_headers()
        elif self.path == "/mjpeg":
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace;boundary=frame")
            self.end_headers()
            for number in range(500):
                jpeg = cv2.imencode(".jpg", frame_image(number, 320, 180))[1].tobytes()
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                self.wfile.write(head.encode() + jpeg + b"\r\n")
                time.sleep(0.05)
        elif self.path == "/page":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>no camera</html>" * 100)
        else:
            super().do_GET()

    def log_message(self, *arguments: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hung up is none."""


@contextmanager
def web(tls: ssl.SSLContext | None = None, folder: Path | None = None) -> Iterator[ThreadingHTTPServer]:
    """`folder` of the files that are served too."""
    server = _Server(("127.0.0.1", 0), partial(_Web, directory=str(folder) if folder else None))
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def on_web(server: ThreadingHTTPServer, path: str) -> Place:
    port = server.server_address[1]
    return Place(f"http://127.0.0.1:{port}{path}", peer=("127.0.0.1", port), sends_ahead=True, host="camera.example")


def test_a_camera_of_jpegs_is_asked_by_its_name_and_timed_by_arrival() -> None:
    with web() as server, watched(on_web(server, "/mjpeg"), keep=100) as stream:
        until(lambda: stream.received >= 30)
        shown = numbers(stream)
        assert shown == list(range(shown[0], shown[0] + len(shown)))
        assert 10 < stream.fps < 21
        assert _Web.asked[-1] == f"camera.example:{server.server_address[1]}"


@pytest.mark.parametrize(("path", "code"), [("/away", "http_error"), ("/page", "not_video")])
def test_a_redirect_is_not_followed_and_a_page_is_no_camera(path: str, code: str) -> None:
    with web() as server, watched(on_web(server, path)) as stream:
        until(lambda: stream.ended)
        assert stream.ended is not None and stream.ended.code in (code, "bad_url")


def playlist(folder: Path, segment: str = "") -> None:
    """Write live.m3u8 with segments of a second; the second one elsewhere, if `segment` says so."""
    with (
        av.open(str(make_video(folder / "whole.mp4", 75))) as whole,
        av.open(
            str(folder / "live.m3u8"), "w", format="hls", options={"hls_time": "1", "hls_list_size": "0"}
        ) as written,
    ):
        target = written.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(whole.streams.video[0]):
            if packet.dts is not None:
                packet.stream = target
                written.mux(packet)
    if segment:
        text = (folder / "live.m3u8").read_text().replace("live1.ts", segment)
        (folder / "live.m3u8").write_text(text)


def test_a_playlist_is_read_in_its_own_time_from_hosts_that_were_judged(
    web: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    url, folder = web
    playlist(folder)
    asked = []

    def judged(host: str, port: int) -> str:
        asked.append(host)
        return "127.0.0.1"

    port = int(url.rpartition(":")[2])
    place = Place(f"http://cams.example:{port}/live.m3u8", peer=("", port), sends_ahead=True, address_of=judged)
    begun = time.monotonic()
    with watched(place, keep=100) as stream:
        until(lambda: stream.ended)
        assert stream.ended is not None and stream.ended.code == "closed"
        assert stream.received == 75 and numbers(stream) == list(range(75))
        assert time.monotonic() - begun > 2
    assert set(asked) == {"cams.example"} and len(asked) >= 4


def test_a_playlist_does_not_lead_to_where_cameras_may_not_be(web: tuple[str, Path]) -> None:
    url, folder = web
    port = int(url.rpartition(":")[2])
    playlist(folder, f"http://127.0.0.1:{port}/whole.mp4")

    def judged(host: str, port: int) -> str:
        if host != "cams.example":
            raise PermissionError(host) if host == "x" else RuntimeError(host)
        return "127.0.0.1"

    for segment in ("", "file:///etc/passwd"):
        if segment:
            playlist(folder, segment)
        place = Place(f"http://cams.example:{port}/live.m3u8", peer=("", port), sends_ahead=True, address_of=judged)
        with watched(place, keep=100) as stream:
            until(lambda: stream.ended)
            assert stream.received < 75
            assert stream.ended is not None and stream.ended.code in ("not_allowed", "closed", "not_video")


def test_time_by_the_stamps_as_long_as_they_can_be_believed() -> None:
    clock = MediaClock()
    assert clock.at(5.0, 1000.0) == 1000.0
    assert clock.at(5.04, 1000.1) == pytest.approx(1000.04)
    assert clock.at(None, 1000.2) == pytest.approx(1000.14)
    assert clock.at(99.0, 1000.3) == pytest.approx(1000.24)
    assert clock.at(99.04, 1000.31) == pytest.approx(1000.28)
    assert clock.at(99.04, 1000.35) > 1000.28
    assert clock.at(99.04 - 2 * STEP_S, 1000.4) > 1000.28


def test_who_reads_late_is_behind_and_a_read_that_waits_is_not() -> None:
    backlog = Backlog(timed=True)
    assert backlog.after(0.04, 0.0, 100.0) == 0
    assert backlog.after(0.0, 0.04, 101.5) == pytest.approx(1.46) and SKIP_AFTER_S < 1.46 < GIVE_UP_AFTER_S
    assert backlog.after(0.0, None, 101.6) == 0
    assert backlog.after(0.02, 0.2, 104.0) == 0, "the camera itself was late"
    assert Backlog(timed=False).after(0.0, None, 50.0) == 0
    jpegs = Backlog(timed=False)
    assert jpegs.after(0.04, 7.0, 100.0) == 0 and jpegs.after(0.0, 8.0, 101.0) == pytest.approx(1.0)


def test_frames_that_come_ahead_wait_until_they_are_due_and_a_busy_host_goes_on_from_where_it_is() -> None:
    pace = Pace(0.0)
    assert pace.early_s(10.0, 100.0) == 0
    assert pace.early_s(10.04, 100.0) == pytest.approx(0.04)
    assert pace.early_s(10.08, 100.5) == 0
    assert pace.early_s(10.12, 103.0) == 0
    assert pace.early_s(10.16, 103.0) == pytest.approx(0.04)
    assert Pace(0.6).early_s(0.0, 5.0) == 0


def test_what_ffmpegs_errors_mean() -> None:
    assert why(av.error.HTTPForbiddenError(1, "canary"), False, "").code == "auth_failed"
    assert why(av.error.InvalidDataError(1, "canary"), True, "tcp").code == "timeout"
    assert why(OSError(113, "canary"), False, "tcp").code == "unreachable"
    assert why(OSError(77777, "canary"), False, "tcp").code == "broken"
    assert "canary" not in why(OSError(77777, "canary"), False, "tcp").detail
    with pytest.raises(StreamFailed) as refused:
        check_size(8193, 100)
    assert refused.value.code == "too_large"
    assert {refused.value.code, "auth_failed", "timeout"} <= set(CODES)

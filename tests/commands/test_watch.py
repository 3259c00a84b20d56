"""`touchline watch` as a user runs it: it says where to look, and Ctrl-C leaves nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from commands.watch import cameras_of, settings_for
from gateway.live.config import camera_config
from gateway.settings import Settings
from tests.support.quick_models import write_quick_models
from tests.support.videos import make_video

PATIENCE_S = 60


def test_two_files_are_watched_until_ctrl_c(tmp_path: Path) -> None:
    models = write_quick_models(tmp_path / "models")
    for name in ("north.mp4", "a # b?.mp4"):
        make_video(tmp_path / name, 50)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    command = [sys.executable, "-m", "commands.main", "watch", "north.mp4", "a # b?.mp4", "--port", "0"]
    environment = {"PYTHONPATH": str(Path.cwd()), "TMPDIR": str(scratch), "DEVICE": "cpu", "PYTHONUNBUFFERED": "1"}
    watching = subprocess.Popen(
        [*command, "--repository", models], cwd=tmp_path, env={**os.environ, **environment}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        said = until(watching, r"look at http://127\.0\.0\.1:\d+/live")
        said += until(watching, r": live: h264 320x180(.|\n)*: live: h264 320x180")
        url = re.findall(r"http://127\.0\.0\.1:\d+", said)[0]
        page = httpx.get(f"{url}/live")
        assert page.status_code == 200 and "grid" in page.text
        end = time.monotonic() + PATIENCE_S
        # Live is what sends pictures; the first of them is still to be inferred.
        while (picture := httpx.get(f"{url}/live/cameras/camera-2/picture.jpg")).status_code == 503:
            assert time.monotonic() < end, picture.text
            time.sleep(0.1)
        assert (picture.status_code, picture.headers["content-type"]) == (200, "image/jpeg")
        assert started_in(scratch)
    finally:
        watching.send_signal(signal.SIGINT)
        rest, _ = watching.communicate(timeout=PATIENCE_S)
    assert watching.returncode == 128 + signal.SIGINT
    assert "everything that was started is ended" in rest and "Traceback" not in said + rest
    end = time.monotonic() + PATIENCE_S
    while started_in(scratch):
        assert time.monotonic() < end, started_in(scratch)
        time.sleep(0.05)
    assert list(scratch.iterdir()) == []


def until(process: subprocess.Popen[str], pattern: str) -> str:
    """What it says until that matches."""
    said = ""
    assert process.stdout is not None
    while not re.search(pattern, said):
        line = process.stdout.readline()
        assert line, said
        said += line
    return said


def started_in(scratch: Path) -> list[str]:
    """Processes whose temporary folder this is: those that were started, whoever their parent is now."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"TMPDIR={scratch}\0".encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text())
    return found


def test_a_camera_of_this_machine_may_be_watched_because_it_was_named() -> None:
    cameras, files = cameras_of(["rtsp://user:secret@127.0.0.1:8554/a?token=x", "rtsp://10.0.0.5/b"])
    assert files is None and [camera["id"] for camera in cameras] == ["camera-1", "camera-2"]
    assert not any("secret" in camera["name"] or "token=x" in camera["name"] for camera in cameras)
    allowed = settings_for(cameras, files, Settings(_env_file=None))["LIVE_ALLOWED"]
    assert set(allowed.split(",")) == {"10.0.0.5", "127.0.0.1", "127.0.0.0/8", "::1"}
    assert "LIVE_ALLOWED" not in settings_for(cameras[1:], files, Settings(_env_file=None))
    assert "LIVE_ALLOWED" not in settings_for(cameras, files, Settings(_env_file=None, live_allowed="10.0.0.0/8"))


def test_files_of_several_folders_share_the_one_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a/x.mp4", "b/c/y#1.mp4"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    cameras, files = cameras_of(["a/x.mp4", "rtsp://10.0.0.5/b", str(tmp_path / "b/c/y#1.mp4")])
    assert files == tmp_path
    assert [camera["url"] for camera in cameras] == ["file:a/x.mp4", "rtsp://10.0.0.5/b", "file:b/c/y%231.mp4"]
    assert [camera.get("loop", False) for camera in cameras] == [True, False, True]


def test_certificates_are_looked_at_unless_any_will_do() -> None:
    for any_certificate in (False, True):
        (camera,), _ = cameras_of(["rtsps://10.0.0.5/b"], any_certificate=any_certificate)
        assert camera_config(camera).verify is not any_certificate

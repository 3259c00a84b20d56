"""Cameras of another maker's server, so that the tests' own is not its own witness."""

from __future__ import annotations

from pathlib import Path

import pytest

from local.triton import LocalTriton
from tests.support.gst_rtsp_server import gst_rtsp_server, is_installed
from tests.support.live import watching
from tests.support.videos import make_video, read_number

PASSWORD = "p@ss/w:%#?"


@pytest.mark.skipif(not is_installed(), reason="gst-rtsp-server is a Debian package, which .ci/run installs")
@pytest.mark.parametrize(
    ("transport", "user", "digest"), [("tcp", "", True), ("udp", "bob", True), ("tcp", "bob", False)]
)
async def test_a_stream_of_another_server_is_watched(
    transport: str, user: str, digest: bool, quick_triton: LocalTriton, tmp_path: Path
) -> None:
    film = make_video(tmp_path / "film.mp4", 250)
    with gst_rtsp_server(film, user=user, password=PASSWORD if user else "", digest=digest) as port:
        async with watching(tmp_path, quick_triton.grpc_url, live_timeout_s=5) as live:
            url = f"rtsp://127.0.0.1:{port}/film"
            await live.add("a", url, transport=transport, **({"username": user, "password": PASSWORD} if user else {}))
            camera = await live.until("a", lambda one: one["frames"]["inferred"] > 20, 60)
            assert (camera["state"], camera["source"]["codec"]) == ("live", "h264")
            view = live.view("a")
            assert 0 <= read_number(view.picture.to_ndarray(format="rgb24")) < 250
            for name, wrong, code in (
                ("lost", f"{url}/none", "not_found"),
                *([("locked", f"rtsp://bob:wrong@127.0.0.1:{port}/film", "auth_failed")] if user else []),
            ):
                more = {"username": user, "password": PASSWORD} if user and name == "lost" else {}
                await live.add(name, wrong, **more)
                told = await live.until(name, lambda one: one["error"])
                assert (told["state"], told["error"]["code"]) == ("failed", code)

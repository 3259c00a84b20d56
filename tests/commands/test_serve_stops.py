"""`touchline serve` ends when it is told to, whatever its decoders do."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from local.stack import LocalGateway, make_keys
from local.triton import LocalTriton
from local.validator import ChallengeFailed, send_challenge
from tests.support.videos import make_video

STUCK = """
import ctypes
from gateway.video import decode
def never(*arguments):
    open({path!r}, "w").close()
    while True:
        ctypes.CDLL(None).sleep(1000)  # without the interpreter's lock, as FFmpeg
    yield
decode.decode = never
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_although_a_decoder_never_returns(
    number: signal.Signals, web: tuple[str, Path], quick_triton: LocalTriton, tmp_path: Path
) -> None:
    make_video(web[1] / "stuck.mp4", 5)
    hangs = tmp_path / "hangs"
    (tmp_path / "sitecustomize.py").write_text(STUCK.format(path=str(hangs)))
    keys = make_keys(tmp_path / "keys")
    settings = {**keys.environment(), "TRITON_URLS": quick_triton.grpc_url, "PYTHONPATH": str(tmp_path)}
    gateway = LocalGateway(settings, log=tmp_path / "log")
    gateway.start()
    try:
        gateway.wait_ready()
        ended: list[str] = []

        def ask() -> None:
            try:
                send_challenge(gateway.url, keys.validator, keys.miner.ss58_address, f"{web[0]}/stuck.mp4")
            except ChallengeFailed as error:
                ended.append(str(error))

        asking = threading.Thread(target=ask)
        asking.start()
        until = time.monotonic() + 30
        while not hangs.exists() and time.monotonic() < until:
            time.sleep(0.02)
        assert hangs.exists()
        process = gateway._process
        assert process is not None
        os.kill(process.pid, number)
        assert process.wait(15) == 0
        asking.join(5)
        assert len(ended) == 1
        assert "stopping" in ended[0]
    finally:
        gateway.kill()
    assert "Traceback" not in (tmp_path / "log").read_text()

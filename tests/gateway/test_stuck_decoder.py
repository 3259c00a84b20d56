"""A decoder that never returns costs its own challenge and nothing else."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from gateway.errors import Stopping
from gateway.video import codec
from gateway.video import decode as decode_module
from gateway.video.decode import Decoder
from gateway.video.decoding_thread import DecodingThread, end_what_stalls, left_behind
from gateway.video.growing_file import GrowingFile
from local.triton import LocalTriton
from local.validator import challenge_body, signed_headers
from tests.support.gateway import Traces, error_of, running_gateway, settled
from tests.support.videos import make_video


class Stuck:
    """Lets every decoder hang after some frames, as inside FFmpeg."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hangs, self.released = threading.Event(), threading.Event()
        self._monkeypatch = monkeypatch
        self._plain = codec.decode

    def after(self, frames: int) -> None:
        def decode(*arguments: Any) -> Iterator[Any]:
            for number, frame in enumerate(self._plain(*arguments)):
                if number == frames:
                    self.hangs.set()
                    self.released.wait(60)
                yield frame

        self._monkeypatch.setattr(decode_module, "decode", decode)

    def no_more(self) -> None:
        self._monkeypatch.setattr(decode_module, "decode", self._plain)

    def release(self) -> None:
        """Let FFmpeg return everywhere, and the threads end."""
        self.released.set()
        until = time.monotonic() + 10
        while left_behind() and time.monotonic() < until:
            time.sleep(0.01)
        assert not left_behind()


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stuck]:
    made = Stuck(monkeypatch)
    yield made
    made.release()


def whole_file(path: Path) -> GrowingFile:
    file = GrowingFile()
    file.append(path.read_bytes())
    file.finish()
    return file


def decoder(file: GrowingFile) -> Decoder:
    return Decoder(file, size=(160, 96), frame_stride=1, pitch_stride=1, max_frames=1000)


async def test_who_is_cancelled_does_not_wait_and_nothing_is_written_any_more(stuck: Stuck, tmp_path: Path) -> None:
    stuck.after(5)
    slot = np.zeros((8, 96, 160, 3), np.uint8)
    with whole_file(make_video(tmp_path / "v.mp4", 30)) as file, DecodingThread(decoder(file)) as decoding:
        await decoding.run(decoding.decoder.open)
        filling = asyncio.create_task(decoding.run(decoding.decoder.fill, slot))
        await asyncio.to_thread(stuck.hangs.wait)
        filling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await filling
    assert left_behind() == 1
    slot[:] = 7
    await asyncio.to_thread(stuck.release)
    assert (slot == 7).all()


async def test_what_stalls_ends_when_the_gateway_stops(stuck: Stuck, tmp_path: Path) -> None:
    stuck.after(0)
    with whole_file(make_video(tmp_path / "v.mp4", 30)) as file, DecodingThread(decoder(file)) as decoding:
        enough = end_what_stalls()
        with pytest.raises(Stopping):
            await decoding.run(decoding.decoder.open)
        enough.set()


@pytest.mark.parametrize("frames", [0, 12])
async def test_the_time_limit_holds_and_the_place_is_free_again(
    frames: int, stuck: Stuck, web: tuple[str, Path], quick_triton: LocalTriton, tmp_path: Path
) -> None:
    make_video(web[1] / "stuck.mp4", 40)
    async with running_gateway(
        tmp_path, quick_triton.grpc_url, challenge_timeout_s=1.0, max_concurrent_challenges=1
    ) as gateway:
        before = Traces.of(gateway)
        stuck.after(frames)
        for _ in range(3):  # more often than there are places, slots and threads for
            assert error_of(await gateway.challenge(f"{web[0]}/stuck.mp4"))[:2] == (504, "challenge_timed_out")
        assert left_behind() == 3
        stuck_only = replace(before, busy_threads=3)
        assert await settled(gateway, stuck_only) == stuck_only
        stuck.no_more()
        for _ in range(10):  # a good one may take longer than the limit, too, on a machine that is busy
            if (status := (await gateway.challenge(f"{web[0]}/stuck.mp4?again")).status_code) != 504:
                break
        assert status == 200


async def test_a_caller_who_leaves_frees_the_place(
    stuck: Stuck, web: tuple[str, Path], quick_triton: LocalTriton, tmp_path: Path
) -> None:
    make_video(web[1] / "stuck.mp4", 40)
    async with running_gateway(tmp_path, quick_triton.grpc_url, max_concurrent_challenges=1) as gateway:
        stuck.after(3)
        body = challenge_body(f"{web[0]}/stuck.mp4")
        headers = signed_headers(gateway.keys.validator, gateway.keys.miner.ss58_address, body)
        async with httpx.AsyncClient() as caller:
            asking = asyncio.create_task(
                caller.post(f"{gateway.url}/soccer/challenge", content=body, headers=headers, timeout=60)
            )
            await asyncio.to_thread(stuck.hangs.wait)
            asking.cancel()
        async with asyncio.timeout(30):
            while not gateway.challenges.available:
                await asyncio.sleep(0.01)

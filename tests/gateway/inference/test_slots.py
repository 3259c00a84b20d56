"""Slots in real shared memory."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gateway.errors import InferenceUnavailable
from gateway.inference import slots
from gateway.inference.slots import SlotPool


async def test_slots_are_handed_out_and_taken_back_and_the_region_goes() -> None:
    pool = SlotPool(slots=2, slot_shape=(2, 4, 6, 3))
    region = Path("/dev/shm") / pool.region
    assert region.stat().st_size >= 2 * 2 * 4 * 6 * 3
    assert region.stat().st_blocks > 0, "a page that others take before it is written would kill the gateway"
    first, second = await pool.acquire(), await pool.acquire()
    assert (first.offset, second.offset, pool.free_count) == (0, 144, 0)
    second.frames[:] = 7
    assert region.read_bytes()[144:288] == b"\x07" * 144
    pool.release(first)
    assert pool.free_count == 1
    pool.close()
    assert not region.exists()


def test_more_than_there_is_of_shared_memory_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    free = shutil.disk_usage("/dev/shm").free
    monkeypatch.setattr("secrets.token_hex", lambda _: f"refused-{os.getpid()}")
    with pytest.raises(InferenceUnavailable, match="PREFETCH_FRAMES"):
        SlotPool(slots=free // 1000, slot_shape=(1, 1000, 1000, 3))
    assert not Path(f"/dev/shm/touchline-slots-refused-{os.getpid()}").exists()


def test_what_a_killed_gateway_left_is_removed_and_a_living_ones_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "from gateway.inference.slots import SlotPool; p = SlotPool(slots=1, slot_shape=(1, 9, 9, 3)); "
    code += "print(p.region, flush=True); input()"

    def started() -> tuple[subprocess.Popen[str], Path]:
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=-1, stdout=-1, stderr=-3, text=True, start_new_session=True
        )
        assert process.stdout
        return process, Path("/dev/shm") / process.stdout.readline().strip()

    killed, left = started()
    living, used = started()
    try:
        os.killpg(killed.pid, signal.SIGKILL)  # with the resource tracker, as a container is
        killed.communicate()
        assert left.exists()
        with monkeypatch.context() as jumped:
            jumped.setattr("time.time", lambda true=time.time: true() - 3600)
            pool = SlotPool(slots=1, slot_shape=(1, 9, 9, 3))
        assert not left.exists()
        assert used.exists()
        slots.remove_leftovers()
        assert (Path("/dev/shm") / pool.region).exists()
        pool.close()
    finally:
        os.killpg(living.pid, signal.SIGKILL)
        living.communicate()
        used.unlink(missing_ok=True)

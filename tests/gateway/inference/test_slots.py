"""Slots in real shared memory."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from gateway.errors import InferenceUnavailable
from gateway.inference.slots import SlotPool


async def test_slots_are_handed_out_and_taken_back_and_the_region_goes() -> None:
    pool = SlotPool(slots=2, slot_shape=(2, 4, 6, 3))
    region = Path("/dev/shm") / pool.region
    assert region.stat().st_size >= 2 * 2 * 4 * 6 * 3
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
    assert not Path(f"/dev/shm/touchline-refused-{os.getpid()}").exists()

"""The pool of slots: one shared-memory region that decoding writes and Triton reads."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import secrets
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gateway.errors import InferenceUnavailable

_PREFIX = "touchline-slots-"
_JUST_MADE_S = 1.0
_log = logging.getLogger(__name__)
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  where POSIX shared memory lives on Linux


@dataclass(frozen=True, slots=True)
class Slot:
    """One batch of frames, uint8 [B, H, W, 3], and where it lies in the region."""

    frames: npt.NDArray[np.uint8]
    offset: int
    """Bytes from the start of the region."""

    def part(self, places: range) -> Slot:
        """Some of the frames, one after the other."""
        return Slot(self.frames[places.start : places.stop], self.offset + places.start * self.frames[0].nbytes)


class SlotPool:
    """Slots carved out of one shared-memory region that is created with the pool and unlinked by `close`.

    Raises InferenceUnavailable when there is not so much shared memory.
    A process that is killed leaves the region to Python's resource tracker, which unlinks it; one that is killed
    with all its children, as containers are, leaves it to the next pool. While a pool lives, its region is locked.
    """

    def __init__(
        self,
        *,
        slots: int,
        slot_shape: tuple[int, int, int, int],
        sized_by: str = "PREFETCH_FRAMES or MAX_CONCURRENT_CHALLENGES",
    ) -> None:
        """`sized_by` names to the user what decides how many slots there are, or how large."""
        slot_bytes = int(np.prod(slot_shape))
        self.slot_count = slots
        self.slot_shape = slot_shape
        self.byte_size = slots * slot_bytes
        remove_leftovers()
        try:
            free = shutil.disk_usage(_SHARED_MEMORY).free
        except OSError as error:
            raise _not_usable(error) from error
        if free < self.byte_size:
            # A page that cannot be had when it is written kills the process, so it is asked for here.
            raise InferenceUnavailable(
                f"{_SHARED_MEMORY} has {free // 2**20} MiB free, the slots need {-(-self.byte_size // 2**20)}: lower "
                f"{sized_by}, or give the container a larger --shm-size"
            )
        try:
            self._memory = SharedMemory(name=f"{_PREFIX}{secrets.token_hex(4)}", create=True, size=self.byte_size)
            self._lock = os.open(_SHARED_MEMORY / self._memory.name, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(self._lock, fcntl.LOCK_SH)
        except OSError as error:
            raise _not_usable(error) from error
        self._free = asyncio.Queue[Slot]()
        for index in range(slots):
            offset = index * slot_bytes
            frames = np.ndarray(slot_shape, np.uint8, buffer=self._memory.buf, offset=offset)
            self._free.put_nowait(Slot(frames, offset))

    @property
    def region(self) -> str:
        """Name of the shared-memory object, as shm_open and Triton's `shm_key` take it, less the leading slash."""
        return self._memory.name

    @property
    def free_count(self) -> int:
        return self._free.qsize()

    async def acquire(self) -> Slot:
        return await self._free.get()

    def release(self, slot: Slot) -> None:
        self._free.put_nowait(slot)

    def close(self) -> None:
        while not self._free.empty():
            self._free.get_nowait()
        self._memory.unlink()
        os.close(self._lock)
        # A slot that a cancelled thread still holds keeps the mapping alive; the name is gone either way.
        with suppress(BufferError):
            self._memory.close()


def remove_leftovers() -> None:
    """Unlink the regions of gateways that were killed: those of this user that nobody holds the lock of."""
    for path in _SHARED_MEMORY.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # another's, or gone
            # One that was made this moment is not locked yet.
            if time.time() - path.stat().st_ctime < _JUST_MADE_S:
                continue
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
                _log.info("%s was left by a gateway that was killed, and is removed", path)
            finally:
                os.close(handle)


def _not_usable(error: OSError) -> InferenceUnavailable:
    return InferenceUnavailable(
        f"the slots could not be made in {_SHARED_MEMORY} ({error.strerror or error}): it has to be "
        "there and writable, as a container has it unless it is mounted read-only"
    )

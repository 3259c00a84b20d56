"""The pool of slots: one shared-memory region that decoding writes and Triton reads."""

from __future__ import annotations

import asyncio
import errno
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
    """Slots carved out of one shared-memory region that is created with the pool, all of it, and unlinked by `close`.

    Raises InferenceUnavailable when there is not so much shared memory.
    A process that is killed leaves the region to Python's resource tracker, which unlinks it; one that is killed
    with all its children, as containers are, leaves it to the next pool. While a pool lives, its region is locked.

    A slot is free again when everyone has released it: who acquired it, and who holds it beside them.
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
        self._slot_bytes = slot_bytes
        self.slot_shape = slot_shape
        self.byte_size = slots * slot_bytes
        remove_leftovers()
        try:
            free = shutil.disk_usage(_SHARED_MEMORY).free
        except OSError as error:
            raise _not_usable(error) from error
        if free < self.byte_size:
            raise self._too_large(sized_by)
        try:
            self._memory = SharedMemory(name=f"{_PREFIX}{secrets.token_hex(4)}", create=True, size=self.byte_size)
        except OSError as error:
            raise _not_usable(error) from error
        try:
            self._lock = _locked(_SHARED_MEMORY / self._memory.name, self.byte_size)
        except OSError as error:
            self._memory.unlink()
            self._memory.close()
            raise self._too_large(sized_by) if error.errno == errno.ENOSPC else _not_usable(error) from error
        self._slots = [
            Slot(np.ndarray(slot_shape, np.uint8, buffer=self._memory.buf, offset=offset), offset)
            for offset in range(0, self.byte_size, slot_bytes)
        ]
        self._holders = [0] * slots
        self._free = asyncio.Queue[Slot]()
        for slot in self._slots:
            self._free.put_nowait(slot)

    @property
    def region(self) -> str:
        """Name of the shared-memory object, as shm_open and Triton's `shm_key` take it, less the leading slash."""
        return self._memory.name

    @property
    def free_count(self) -> int:
        return self._free.qsize()

    async def acquire(self) -> Slot:
        slot = await self._free.get()
        self.hold(slot)
        return slot

    def hold(self, slot: Slot) -> None:
        """A slot that is out, or a part of one, to be released once more."""
        self._holders[slot.offset // self._slot_bytes] += 1

    def release(self, slot: Slot) -> None:
        index = slot.offset // self._slot_bytes
        self._holders[index] -= 1
        if not self._holders[index] and self._slots:
            self._free.put_nowait(self._slots[index])

    def _too_large(self, sized_by: str) -> InferenceUnavailable:
        return InferenceUnavailable(
            f"{_SHARED_MEMORY} has {shutil.disk_usage(_SHARED_MEMORY).free // 2**20} MiB free, the slots need "
            f"{-(-self.byte_size // 2**20)}: lower {sized_by}, or give the container a larger --shm-size"
        )

    def close(self) -> None:
        while not self._free.empty():
            self._free.get_nowait()
        self._slots.clear()
        self._memory.unlink()
        os.close(self._lock)
        # A slot that a cancelled thread still holds keeps the mapping alive; the name is gone either way.
        with suppress(BufferError):
            self._memory.close()


def was_left(region: str) -> bool:
    """Whether a region that a Triton of this host still knows is one of a gateway that is gone."""
    return region.startswith(_PREFIX) and not (_SHARED_MEMORY / region).exists()


def remove_leftovers() -> None:
    """Unlink the regions of gateways that were killed: those of this user that nobody holds the lock of."""
    for path in _SHARED_MEMORY.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # another's, or gone
            # One that was made this moment is not locked yet.
            # (Of a file from the future the clock was set back since.)
            if 0 <= time.time() - path.stat().st_ctime < _JUST_MADE_S:
                continue
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
                _log.info("%s was left by a gateway that was killed, and is removed", path)
            finally:
                os.close(handle)


def _locked(region: Path, size: int) -> int:
    """Lock a region and take all of its memory; the descriptor that holds the lock. Raises OSError."""
    handle = os.open(region, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH)
        try:
            # A page that others take first and that cannot be had when it is written would kill the process.
            os.posix_fallocate(handle, 0, size)
        except OSError as error:
            if error.errno == errno.ENOSPC:  # what a file system cannot do is no reason not to start
                raise
    except BaseException:
        os.close(handle)
        raise
    return handle


def _not_usable(error: OSError) -> InferenceUnavailable:
    return InferenceUnavailable(
        f"the slots could not be made in {_SHARED_MEMORY} ({error.strerror or error}): it has to be "
        "there and writable, as a container has it unless it is mounted read-only"
    )

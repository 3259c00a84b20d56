"""What glibc keeps of memory that was freed, where cameras come and go."""

from __future__ import annotations

import ctypes
from typing import Final

_M_ARENA_MAX, _M_MMAP_THRESHOLD = -8, -3
_PICTURE_BYTES: Final = 128 * 1024
_libc = ctypes.CDLL(None)


def share_among_threads() -> None:
    """Let all threads allocate from two arenas, and pictures from none.

    Each connection of a camera is a thread, and what its decoder frees is not the system's again where it lies in an
    arena of its own, or among what stays. There glibc puts all that is as large as a picture once one was freed.
    """
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(_M_ARENA_MAX, 2)
        _libc.mallopt(_M_MMAP_THRESHOLD, _PICTURE_BYTES)


def give_back() -> None:
    """Give the system back what was freed, also between what is in use. Takes some milliseconds, without the GIL."""
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)

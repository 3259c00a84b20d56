"""Whether this process opens files or sockets: the kernel is asked, so that nothing C code does is missed."""

from __future__ import annotations

import ctypes
import os
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_IN_OPEN = 0x20
_EVENT = struct.Struct("iIII")


class Watched:
    """A folder with bait in it, and addresses of this machine that wait for a call."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._notify = _libc().inotify_init1(os.O_NONBLOCK)
        assert _libc().inotify_add_watch(self._notify, os.fsencode(folder), _IN_OPEN) >= 0
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.tcp.setblocking(False)
        self.port = self.tcp.getsockname()[1]
        self._before = descriptors()

    def opened(self) -> set[str]:
        """What was opened since the last look: names of files in the folder, "tcp", descriptors that are new."""
        found = {
            f"{number}: {target}" for number, target in descriptors().items() if self._before.get(number) != target
        }
        while select.select([self._notify], [], [], 0)[0]:
            data, at = os.read(self._notify, 65536), 0
            while at < len(data):
                _, _, _, length = _EVENT.unpack_from(data, at)
                found.add(data[at + _EVENT.size : at + _EVENT.size + length].rstrip(b"\0").decode())
                at += _EVENT.size + length
        with suppress(BlockingIOError):
            self.tcp.accept()[0].close()
            found.add("tcp")
        return found

    def close(self) -> None:
        os.close(self._notify)
        self.tcp.close()


@contextmanager
def watched(folder: Path) -> Iterator[Watched]:
    made = Watched(folder)
    try:
        yield made
    finally:
        made.close()


def descriptors() -> dict[str, str]:
    """Open files and sockets of this process, by number."""
    found = {}
    for path in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found[path.name] = str(path.readlink())
    return {number: target for number, target in found.items() if "/proc/" not in target}


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)

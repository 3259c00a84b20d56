"""Ends a connection of FFmpeg's from outside, which FFmpeg has no call for.

A demuxer that gets bytes and no packet from them returns neither at a time limit nor when it is asked to, as long as
the bytes come. Its socket is found among those of this process: what was not there before and leads to the camera.
"""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress
from pathlib import Path
from weakref import WeakSet

_DESCRIPTORS = Path("/proc/self/fd")
_all: WeakSet[Connection] = WeakSet()
_lock = threading.Lock()


class Connection:
    """What FFmpeg has opened, or will, to an address; to be made before it does, by the thread that calls it."""

    def __init__(self, host: str, port: int) -> None:
        """`host` is an address, not a name."""
        self._peer = host, port
        self._before = set(_sockets())
        self._own: set[str] = set()
        with _lock:
            _all.add(self)

    def opened(self) -> None:
        """FFmpeg has connected."""
        self._own = self._candidates()

    def closed(self) -> None:
        with _lock:
            _all.discard(self)

    def cut(self) -> bool:
        """Shut the socket down, so that whoever reads from it gets an error; whether it was found.

        Of several connections to one address that were made at the same moment only those are cut that can be told
        apart from the others.
        """
        with _lock:
            others = {one for other in _all if other is not self and len(other._own) == 1 for one in other._own}
        chosen = (self._own or self._candidates()) - others
        found = [descriptor for name, descriptor in _sockets().items() if name in chosen]
        if len(found) != 1:
            return False
        with suppress(OSError), socket.socket(fileno=os.dup(found[0])) as copy:
            # A number may be another file's by now, a copy's is not.
            if _name(copy.fileno()) in chosen:
                copy.shutdown(socket.SHUT_RDWR)
                return True
        return False

    def _candidates(self) -> set[str]:
        return {name for name, number in _sockets().items() if name not in self._before and self._leads_there(number)}

    def _leads_there(self, descriptor: int) -> bool:
        with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as copy:
            peer = copy.getpeername()
            return isinstance(peer, tuple) and (peer[0].removeprefix("::ffff:"), peer[1]) == self._peer
        return False


def _sockets() -> dict[str, int]:
    """This process's sockets by the kernel's name for them, which no other ever has."""
    named = ((_name(int(entry.name)), int(entry.name)) for entry in _DESCRIPTORS.iterdir())
    return {name: number for name, number in named if name.startswith("socket:")}


def _name(descriptor: int) -> str:
    with suppress(OSError):
        return str((_DESCRIPTORS / str(descriptor)).readlink())
    return ""

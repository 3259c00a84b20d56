"""Ports of the loopback address for servers that this process is about to start."""

from __future__ import annotations

import socket
from typing import Final

_KEPT: Final[list[socket.socket]] = []


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, and that nobody is given as just any one as long as this process lives.

    They stay bound here without listening: who asks for one by its number can listen on it, with SO_REUSEADDR as
    servers do, and who connects to it before is refused. The system gives it to no socket that leaves the choice to it.
    """
    kept = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(count)]
    _KEPT.extend(kept)
    for one in kept:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(("127.0.0.1", 0))
    return [one.getsockname()[1] for one in kept]

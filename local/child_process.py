"""A server as a child process that does not outlive its parent."""

from __future__ import annotations

import ctypes
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def start_child(command: Sequence[str], environment: Mapping[str, str], log: Path | None) -> subprocess.Popen[bytes]:
    """Start `command` in a session of its own; its output goes to `log` (its folder is made), or to the terminal."""
    if log:
        log.parent.mkdir(parents=True, exist_ok=True)
    output = log.open("wb") if log else None
    try:
        return subprocess.Popen(  # noqa: S603
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT if output else None,
            preexec_fn=end_with_parent,  # noqa: PLW1509
            start_new_session=True,
        )
    finally:
        if output:
            output.close()


def end_with_parent() -> None:
    """Ask Linux to end this child when its parent dies, however it dies."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

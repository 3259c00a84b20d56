"""How the checks look at a host: its files under a root, its environment, and the commands it has."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

COMMAND_TIMEOUT_S = 10.0


def output(*command: str) -> str | None:
    """What a command prints, or None where there is no such command, it fails or takes longer than 10 s."""
    try:
        done = subprocess.run(  # noqa: S603  fixed commands of the doctor's own
            command, capture_output=True, text=True, check=False, timeout=COMMAND_TIMEOUT_S, errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


@dataclass(frozen=True, slots=True)
class Host:
    """The host that is looked at; a test gives one of its own, with parts missing."""

    root: Path = Path("/")
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    run: Callable[..., str | None] = output
    cores: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))

    def read(self, path: str) -> str:
        """Text of a file under the root; empty where it cannot be read."""
        try:
            return (self.root / path.lstrip("/")).read_text(errors="replace")
        except OSError:
            return ""

    def has(self, path: str) -> bool:
        return (self.root / path.lstrip("/")).exists()

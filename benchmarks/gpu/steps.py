"""What the steps share: how one tells what it found, whether there is a GPU and how much of its memory is in use."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, NoReturn

OK, FAILED, SKIPPED = 0, 1, 77
"""Exit statuses of a step, and of the whole run. 77 is what automake's tests say for skipped."""

NO_GPU = "no GPU"


def say(**numbers: Any) -> None:
    """One line of JSON at once, so that a step that is stopped has said what it knew."""
    print(json.dumps(numbers, default=str), flush=True)


def finish(status: int, finding: str) -> NoReturn:
    """End the step: its last line is what the table shows."""
    say(finding=finding)
    sys.exit(status)


def tried(*command: str, timeout_s: float = 20) -> str | None:
    """What a command printed, None where it is missing, failed or hung."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def gpu() -> str | None:
    """Name, driver and memory of the GPUs, None where there is none."""
    return tried("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader") or None


def gpu_mib() -> int:
    """Memory in use on the first GPU, in MiB."""
    used = tried("nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits")
    return int(used.split()[0]) if used else 0


def need_gpu() -> str:
    """The GPUs; the step is skipped without one."""
    found = gpu()
    if found is None:
        finish(SKIPPED, NO_GPU)
    return found

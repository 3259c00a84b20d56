"""The running compose stack: do frames go through shared memory, and does Triton answer each with its own result?"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.gpu.steps import FAILED, OK, SKIPPED, finish, tried

HERE = Path(__file__).resolve().parent
COMPOSE = ("docker", "compose", "-f", str(HERE.parents[1] / "deploy/docker-compose.gpu.yml"))


def main() -> None:
    if shutil.which("docker") is None:
        finish(SKIPPED, "no Docker")
    running = (tried(*COMPOSE, "ps", "--services", "--status", "running") or "").split()
    if not {"gateway", "triton"} <= set(running):
        finish(SKIPPED, "the stack is not up: docker compose up -d --build")
    if sys.argv[1:] == ["stale"]:
        done = subprocess.run(
            [*COMPOSE, "exec", "-T", "gateway", "python", "-"],
            input=(HERE / "stale.py").read_text(), capture_output=True, text=True, check=False, timeout=50,
        )  # fmt: skip
        lines = done.stdout.strip().splitlines()
        finish(done.returncode, json.loads(lines[-1])["finding"] if lines else done.stderr.strip()[-300:])
    log = tried(*COMPOSE, "logs", "--no-log-prefix", "gateway", timeout_s=30) or ""
    ready = [line for line in log.splitlines() if "frames through" in line]
    if not ready:
        finish(FAILED, "the gateway's log does not say that Triton is ready")
    through = ready[-1].rsplit("frames through", 1)[1].strip()
    finish(OK if through.startswith("shared") else FAILED, f"frames through {through}")


if __name__ == "__main__":
    main()

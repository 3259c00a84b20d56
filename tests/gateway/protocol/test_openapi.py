"""The public port against its OpenAPI document, by schemathesis: requests that keep it and requests that break it."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

from local.triton import PROJECT
from tests.support.gateway import RunningGateway

EXAMPLES = 10
"""A route and phase."""


async def test_schemathesis_finds_nothing_as_a_stranger(gateway: RunningGateway, tmp_path: Path) -> None:
    assert await asked(gateway, tmp_path) > 100
    assert gateway.challenges.in_progress == 0


async def test_schemathesis_finds_nothing_as_a_validator(gateway: RunningGateway, url: str, tmp_path: Path) -> None:
    environment = {
        "SCHEMATHESIS_HOOKS": "tests.support.signed_calls",
        "PYTHONPATH": str(PROJECT),
        "SIGNED_CALLS_GATEWAY": gateway.url,
        "SIGNED_CALLS_VIDEO": url,
        "SIGNED_CALLS_MINER": gateway.keys.miner.ss58_address,
        "SIGNED_CALLS_HOTKEY": str(next(gateway.keys.directory.glob("wallets/*/hotkeys/validator"))),
    }
    assert await asked(gateway, tmp_path, **environment) > 100
    metrics = await gateway.metrics()
    answered = re.search(r'touchline_challenges_total\{outcome="answered"\} (\d+)', metrics)
    assert answered and int(answered[1]) >= 10, "they were let in"
    assert 'touchline_challenges_total{outcome="internal"} 0.0' in metrics
    assert gateway.challenges.in_progress == 0


async def asked(gateway: RunningGateway, directory: Path, **environment: str) -> int:
    """How many requests schemathesis made, all of which passed."""
    document = directory / "openapi.json"
    document.write_bytes((await gateway.operators.get("/openapi.json")).content)
    command = [
        *(str(Path(sys.executable).parent / "schemathesis"), "run", str(document), "--url", gateway.url),
        *("--checks", "all", "--max-examples", str(EXAMPLES), "--seed", "1", "--generation-deterministic"),
        *("--phases", "examples,coverage,fuzzing", "--no-color", "--request-timeout", "30"),
    ]
    ran = await asyncio.to_thread(
        subprocess.run,
        command,
        cwd=directory,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]
    counts = re.search(r"(\d+) generated, (\d+) passed", ran.stdout)
    assert counts and counts[1] == counts[2], ran.stdout
    return int(counts[1])

"""The public port against its OpenAPI document, by schemathesis: requests that keep it and requests that break it."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

from local.triton import LocalTriton
from tests.support.gateway import running_gateway

EXAMPLES = 10
"""A route and phase."""


async def test_schemathesis_finds_nothing(quick_triton: LocalTriton, tmp_path: Path) -> None:
    async with running_gateway(tmp_path, quick_triton.grpc_url) as gateway:
        document = tmp_path / "openapi.json"
        document.write_bytes((await gateway.operators.get("/openapi.json")).content)
        command = [
            *(str(Path(sys.executable).parent / "schemathesis"), "run", str(document), "--url", gateway.url),
            *("--checks", "all", "--max-examples", str(EXAMPLES), "--seed", "1", "--generation-deterministic"),
            *("--phases", "examples,coverage,fuzzing", "--no-color", "--request-timeout", "30"),
        ]
        ran = await asyncio.to_thread(
            subprocess.run, command, cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
        assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]
        assert gateway.challenges.in_progress == 0
    asked = re.search(r"(\d+) generated, (\d+) passed", ran.stdout)
    assert asked and int(asked[1]) == int(asked[2]) > 100, ran.stdout

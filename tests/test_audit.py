"""What CI makes of `make audit`: only a known vulnerability is a failure."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from local.triton import PROJECT

FOUND = "requirements/gateway.txt\nFound 1 known vulnerability in 1 package\nName Version ID Fix Versions"


@pytest.mark.parametrize(
    ("make", "code", "said"),
    [
        ("exit 0", 0, "no pinned package"),
        (f"echo '{FOUND}' >&2; exit 2", 1, "Found 1 known vulnerability"),
        (f"echo '{FOUND}' >&2; exec sleep 20", 1, "Found 1 known vulnerability"),
        ("echo 'ConnectionError: no route to host' >&2; exit 2", 0, "NOT DONE, the network did not"),
        ("exec sleep 20", 0, "NOT DONE, the network gave no answer within 1 s"),
    ],
)
def test_only_a_known_vulnerability_fails(make: str, code: int, said: str, tmp_path: Path) -> None:
    command = tmp_path / "make"
    command.write_text(f"#!/bin/sh\n{make}\n")
    command.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "AUDIT_S": "1"}
    ran = subprocess.run(
        [PROJECT / ".ci" / "audit"], env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert ran.returncode == code, ran.stdout + ran.stderr
    assert said in ran.stdout + ran.stderr

"""`touchline` as a user meets it: as a process of its own, and quicker within the test's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from commands.main import run

Said = subprocess.CompletedProcess[str]
_PLAIN = {"COLUMNS": "200", "NO_COLOR": "1"}


def process(*arguments: str, cwd: Path, **environment: str) -> Said:
    return subprocess.run(
        [sys.executable, "-m", "commands.main", *arguments],
        check=False,
        cwd=cwd,
        env={**os.environ, **_PLAIN, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


class Touchline:
    """The same without a second or two of imports a call."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capfd = capfd

    def __call__(self, *arguments: str, cwd: Path, **environment: str) -> Said:
        with self._monkeypatch.context() as patched:
            patched.chdir(cwd)
            for name, value in {**_PLAIN, **environment}.items():
                patched.setenv(name, value)
            self._capfd.readouterr()
            status = run(arguments)
        said = self._capfd.readouterr()
        return Said(list(arguments), status, said.out, said.err)

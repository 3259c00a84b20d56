"""Ctrl-C while the command line is still being read."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest


@pytest.mark.parametrize("after_s", [0.1, 0.25, 0.4])
def test_ctrl_c_in_the_first_half_second_prints_no_traceback(after_s: float) -> None:
    """Python itself answers it before it has read a line of ours, so the process says first that it has."""
    begun = "import sys, commands.start as s; print('begun', flush=True); sys.argv = ['touchline', 'doctor']; s.main()"
    with subprocess.Popen(
        [sys.executable, "-c", begun], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(after_s)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert "Traceback" not in errors
    assert process.returncode in {130, 1, 0}, "ended by it, or was done before"

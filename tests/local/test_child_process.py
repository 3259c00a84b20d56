"""A child process and its log."""

import os
from pathlib import Path

from local.child_process import start_child


def test_the_output_goes_to_a_log_whose_folder_is_made(tmp_path: Path) -> None:
    log = tmp_path / "out" / "logs" / "child.log"
    child = start_child(["echo", "hello"], os.environ, log)
    assert child.wait(30) == 0
    assert log.read_text() == "hello\n"

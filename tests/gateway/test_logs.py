"""The log's two forms, and how much of it strangers can fill."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest

from gateway.logs import LINES, Sparing

SAYS = """
import logging
from gateway.logs import REQUEST_ID, log_to_stderr
log_to_stderr("info", FORM)
REQUEST_ID.set("abc")
logging.getLogger("a.b").info("%d of\\n%s", 1, "two")
try:
    raise ValueError("why")
except ValueError:
    logging.getLogger("a.b").exception("failed")
REQUEST_ID.set("")
logging.getLogger("a.b").info("later")
"""


def logged(form: str) -> list[str]:
    ran = subprocess.run(
        [sys.executable, "-c", SAYS.replace("FORM", repr(form))], check=True, capture_output=True, text=True, timeout=60
    )
    return ran.stderr.splitlines()


def test_a_line_of_json_where_nobody_reads_it_on_a_terminal() -> None:
    first, second, third = map(json.loads, logged("auto"))
    assert first.pop("time").endswith("+00:00")
    assert first == {"level": "info", "logger": "a.b", "message": "1 of\ntwo", "request": "abc"}
    assert "ValueError: why" in second["trace"]
    assert "request" not in third


def test_text_has_the_requests_id_at_the_end() -> None:
    lines = logged("text")
    assert lines[0].endswith(" INFO a.b: 1 of")
    assert lines[1] == "two [abc]"
    assert lines[-1].endswith(" INFO a.b: later")


def test_strangers_fill_no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1.0
    monkeypatch.setattr("gateway.logs.time.monotonic", lambda: now)
    sparing = Sparing()

    def record(level: int = logging.WARNING) -> logging.LogRecord:
        return logging.LogRecord("gateway.strangers", level, __file__, 1, "refused", (), None)

    assert sum(sparing.filter(record()) for _ in range(1000)) == LINES
    assert sparing.filter(record(logging.ERROR))
    now = 62.0
    assert sparing.filter(following := record())
    assert following.getMessage() == f"refused (and {1000 - LINES} like it before, in 61 s)"

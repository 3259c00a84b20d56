"""The siege of a gateway that is killed and started again: what it finds lost, and that it finds it."""

from __future__ import annotations

import json
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks import kill
from benchmarks.kill import CUT_OFF, NOBODY, Kill, Siege, is_lost
from local.stack import make_keys
from local.triton import LocalTriton
from tests.support.videos import make_video


def test_a_gateway_that_is_killed_loses_nothing_that_it_could_answer(
    tmp_path: Path, quick_triton: LocalTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One kill: the next life would begin after the time is over."""
    monkeypatch.setattr("os.sched_setaffinity", lambda *_: None)
    monkeypatch.setattr(kill, "write_quick_engine", lambda folder: folder)
    monkeypatch.setattr(kill, "LocalTriton", lambda *_, **__: nullcontext(quick_triton))
    video, numbers = make_video(tmp_path / "video.mp4", 30), tmp_path / "numbers.json"
    arguments = ["--minutes", 0, "--mean-s", 1, "--seed", 2, "--at-once", 1, "--video", video, "--json", numbers]
    monkeypatch.setattr(sys, "argv", ["benchmarks/kill.py", *map(str, arguments)])
    kill.main()
    found = json.loads(numbers.read_text())["counted"]
    assert found["kills"] == "1"
    assert int(found["challenges"]) > 0
    lost = (
        "gateways that ended before they were killed", "never answered",
        "accepted by a gateway that lived on, and lost", "answers that no validator would take",
    )  # fmt: skip
    left = [name for name in found if name.endswith(" left")]
    assert {name: found[name] for name in (*lost, *left)} == dict.fromkeys((*lost, *left), "0")
    assert found["sent again as they were after a restart, taken"].startswith("0 of ")


def test_what_a_gateway_that_lives_does_not_answer_is_lost(tmp_path: Path) -> None:
    with losing_gateway([CUT_OFF, 502, 503, 200]) as url:
        assert asked(tmp_path, url, []) == {
            "again": 1, "lost by a gateway that lived": 2, "download_failed": 1, "busy": 1,
        }  # fmt: skip


def test_what_a_kill_cut_off_is_not_lost_nor_is_it_answered(tmp_path: Path) -> None:
    with losing_gateway([CUT_OFF, 200]) as url:
        assert asked(tmp_path, url, [Kill(0.0)]) == {"again": 1}


def test_only_a_kill_while_a_challenge_was_asked_excuses_its_end() -> None:
    kills = [Kill(10.0, 10.5), Kill(20.0, 20.5)]
    assert [is_lost(CUT_OFF, began, kills) for began in (9.0, 20.4, 20.6)] == [False, False, True]
    assert not is_lost(CUT_OFF, 20.6, [*kills, Kill(21.0)]), "it is being killed"
    assert [is_lost(status, 9.0, kills) for status in (NOBODY, 200, 503)] == [False] * 3
    assert [is_lost(status, 9.0, kills) for status in (401, 500, 502, 504)] == [True] * 4


def asked(directory: Path, url: str, kills: list[Kill]) -> Counter[str]:
    """What comes of one challenge to a gateway at `url`."""
    gateway: Any = SimpleNamespace(url=url)
    triton: Any = None
    siege = Siege(make_keys(directory), triton, gateway, directory, "http://a/b.mp4", np.random.default_rng(1))
    siege.kills = kills
    siege.ask("c-1")
    return siege.outcomes


@contextmanager
def losing_gateway(statuses: list[int]) -> Iterator[str]:
    """A server that answers with each of `statuses` in turn; CUT_OFF hangs up."""
    frame = {"frame_number": 0, "keypoints": [[0.0, 0.0]] * 32, "objects": []}
    right = {"challenge_id": "c-1", "processing_time": 1.0, "frames": [frame]}
    errors = {502: "download_failed", 503: "busy"}
    left = iter(statuses)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            status = next(left)
            if status == CUT_OFF:
                return
            self.send_response(status)
            self.end_headers()
            said = right if status == 200 else {"error": errors[status], "detail": "on purpose"}
            self.wfile.write(json.dumps(said).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)

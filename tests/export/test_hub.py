"""Names on the hub, against a server that speaks the hub's HTTP: fetched, taken up again, checked, refused."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytest.importorskip("huggingface_hub")
pytestmark = pytest.mark.export

LARGE = bytes(range(256)) * 46_000
"""11.8 MB: huggingface_hub writes 10 MiB at a time, so that one such piece is there when the connection breaks."""
SMALL = b"a small file, which the hub keeps in git itself"


class Hub:
    """Files by path; what was asked for; `breaks` is how many answers end before the last MiB of LARGE."""

    def __init__(self) -> None:
        git = hashlib.sha1(b"blob %d\0" % len(SMALL) + SMALL).hexdigest()
        self.files = {"best.pt": (LARGE, hashlib.sha256(LARGE).hexdigest()), "weights/small.onnx": (SMALL, git)}
        self.asked: list[str] = []
        self.breaks = 0
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer(body=False)

            def do_GET(self) -> None:
                self.answer(body=True)

            def answer(self, *, body: bool) -> None:
                path, _, wanted = self.path.partition("?")[0].partition("/resolve/main/")
                if path != "/club/eleven" or wanted not in hub.files:
                    self.send_response(404)
                    self.send_header("X-Error-Code", "EntryNotFound" if path == "/club/eleven" else "RepoNotFound")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                data, etag = hub.files[wanted]
                ranges = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
                first = int(ranges[1]) if ranges else 0
                hub.asked += [f"{wanted} from {first}"] if body else []
                self.send_response(206 if first else 200)
                self.send_header("ETag", f'"{etag}"')
                self.send_header("X-Repo-Commit", "a" * 40)
                self.send_header("Content-Length", str(len(data) - first))
                if first:
                    self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
                self.end_headers()
                if not body:
                    return
                last = len(data)
                if hub.breaks:
                    hub.breaks -= 1
                    last -= 2**20
                    self.close_connection = True
                self.wfile.write(data[first:last])

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)


@pytest.fixture
def hub() -> Iterator[Hub]:
    served = Hub()
    thread = threading.Thread(target=served.server.serve_forever)
    thread.start()
    yield served
    served.server.shutdown()
    thread.join()
    served.server.server_close()


def fetch(hub: Hub, name: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """What the exporter does with a name, in a process of its own: the hub's address is read at import."""
    code = (
        "import sys; from export.errors import ExportError; from export.weights import local_file\n"
        "try: print(local_file(sys.argv[1]))\n"
        "except ExportError as error: sys.exit(str(error))"
    )
    environment = {
        **os.environ,
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.server.server_port}",
        "HF_HOME": str(folder),
        "HF_HUB_DISABLE_XET": "1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        **more,
    }
    command = [sys.executable, "-c", code, name]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_a_file_is_fetched_once(hub: Hub, tmp_path: Path) -> None:
    for _ in range(2):
        got = fetch(hub, "club/eleven:weights/small.onnx", tmp_path)
        assert Path(got.stdout.strip()).read_bytes() == SMALL, got.stderr
    assert hub.asked == ["weights/small.onnx from 0"]


def test_a_connection_that_breaks_is_taken_up_where_it_ended(hub: Hub, tmp_path: Path) -> None:
    hub.breaks = 1
    got = fetch(hub, "club/eleven:best.pt", tmp_path)
    assert Path(got.stdout.strip()).read_bytes() == LARGE, got.stderr
    assert hub.asked == ["best.pt from 0", f"best.pt from {10 * 2**20}"]


@pytest.mark.parametrize("name", ["best.pt", "weights/small.onnx"])
def test_what_is_not_what_the_hub_has_is_removed(name: str, hub: Hub, tmp_path: Path) -> None:
    data, etag = hub.files[name]
    hub.files[name] = (data[:-1] + b"?", etag)
    got = fetch(hub, f"club/eleven:{name}", tmp_path)
    assert got.returncode == 1 and f"club/eleven:{name}: what was downloaded is not what the hub has" in got.stderr
    hub.files[name] = (data, etag)
    got = fetch(hub, f"club/eleven:{name}", tmp_path)
    assert Path(got.stdout.strip()).read_bytes() == data, got.stderr


@pytest.mark.parametrize("name", ["club/eleven:worst.pt", "club/twelve:best.pt", "club/a--b:best.pt"])
def test_what_the_hub_does_not_have(name: str, hub: Hub, tmp_path: Path) -> None:
    got = fetch(hub, name, tmp_path)
    assert got.returncode == 1
    assert f"{name}: the hub does not give this file (" in got.stderr and "Traceback" not in got.stderr
    assert "Check name, network, HF_TOKEN." in got.stderr


def test_without_the_hub_what_is_there_already_is_taken(hub: Hub, tmp_path: Path) -> None:
    assert fetch(hub, "club/eleven:weights/small.onnx", tmp_path).returncode == 0
    got = fetch(hub, "club/eleven:weights/small.onnx", tmp_path, HF_HUB_OFFLINE="1")
    assert Path(got.stdout.strip()).read_bytes() == SMALL, got.stderr
    got = fetch(hub, "club/eleven:best.pt", tmp_path, HF_HUB_OFFLINE="1")
    assert got.returncode == 1 and "club/eleven:best.pt: the hub does not give this file (" in got.stderr

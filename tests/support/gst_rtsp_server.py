"""Another maker's RTSP server: gst-rtsp-server, from Debian's packages, in Debian's own Python."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PYTHON = "/usr/bin/python3"
_NEEDED = """
import gi
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer
Gst.init(None)
assert all(Gst.ElementFactory.find(name) for name in ("qtdemux", "h264parse", "rtph264pay"))
"""
_SERVER = """
import sys
import gi
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
film, user, password, digest = sys.argv[1:]
server = GstRtspServer.RTSPServer(address="127.0.0.1", service="0")
factory = GstRtspServer.RTSPMediaFactory(
    launch=f"( filesrc location={film} ! qtdemux ! h264parse ! rtph264pay name=pay0 config-interval=1 )")
if user:
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "user")
    permissions = GstRtspServer.RTSPPermissions()
    permissions.add_permission_for_role("user", "media.factory.access", True)
    permissions.add_permission_for_role("user", "media.factory.construct", True)
    factory.set_permissions(permissions)
    if digest == "True":
        auth.set_supported_methods(2)
        auth.add_digest(user, password, token)
    else:
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    server.set_auth(auth)
server.get_mount_points().add_factory("/film", factory)
server.attach(None)
print(server.get_bound_port(), flush=True)
GLib.MainLoop().run()
"""


def is_installed() -> bool:
    return Path(PYTHON).exists() and _run(_NEEDED).returncode == 0


@contextmanager
def gst_rtsp_server(film: Path, *, user: str = "", password: str = "", digest: bool = True) -> Iterator[int]:
    """Serve an MP4 at rtsp://127.0.0.1:PORT/film; gives the port."""
    process = subprocess.Popen(
        [PYTHON, "-c", _SERVER, str(film), user, password, str(digest)], stdout=subprocess.PIPE, stderr=sys.stderr
    )
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


def _run(script: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([PYTHON, "-c", script], capture_output=True, check=False, timeout=60)

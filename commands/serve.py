"""`touchline serve`: the gateway, until it is told to end."""

from __future__ import annotations

import gc
import logging
import os
import resource
import signal
import socket
import sys
import time
from contextlib import suppress
from types import FrameType
from typing import Final

import typer
import uvicorn

from commands.terminal import CommandError, read_settings
from gateway.app import build_app
from gateway.doctor.examine import cheap, examine_now
from gateway.doctor.probes import Host
from gateway.doctor.settings_file import ABOUT
from gateway.errors import StartupError
from gateway.listening import bind
from gateway.logs import log_to_stderr
from gateway.memory import share_among_threads
from gateway.protocol.edge import PatientProtocol
from gateway.video.decoding_thread import end_what_stalls, left_behind

_log = logging.getLogger(__name__)
GRACE_S: Final = 10
"""Time that challenges under way have to end by themselves when the gateway is told to stop."""
REFUSED_ANYWAY: Final = ("hotkey", "saved nodes")
"""What the gateway does not start with, and says itself."""
DESCRIPTORS: Final = 65_536
KEEP_ALIVE_S: Final = 75
"""Longer than validators' clients and proxies keep a connection: who closes first must not be us, in mid-request."""


class _Server(uvicorn.Server):
    """Waits for challenges when it is told to stop, but not for a decoder that hangs."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self.should_exit:
            end_what_stalls()
        super().handle_exit(sig, frame)


def command() -> None:
    """Run the gateway. Every setting comes from the environment or .env: `touchline settings` lists them."""
    settings = read_settings()
    sockets: list[socket.socket] = []
    try:
        log_to_stderr(settings.log_level, settings.log_format)
        _allow_descriptors()
        # Before anything else is started: a port that cannot be had needs no engine to say so.
        sockets = bind(settings.host, settings.port)
        findings = examine_now(cheap(settings, Host()))
        for finding in findings:
            if finding.level == "bad" and finding.about not in REFUSED_ANYWAY:
                _log.error("%s", finding)
            elif finding.level == "warning" and finding.about == ABOUT:
                _log.warning("%s", finding)
        if settings.live:
            share_among_threads()
        gateway = build_app(settings, findings)
    except StartupError as error:
        for one in sockets:
            one.close()
        raise CommandError(str(error)) from error
    # Decoding takes the interpreter back after every packet; at Python's 5 ms it and tracking wait for each other.
    sys.setswitchinterval(0.02)
    # What the imports made stays: looking through all of it for garbage takes 0.1 s, in which nothing else runs.
    gc.collect()
    gc.freeze()
    # An answer is made of many small objects, none of which is garbage.
    gc.set_threshold(20_000)
    server = _Server(
        uvicorn.Config(
            gateway,
            host=settings.host,
            port=settings.port,
            log_config=None,
            loop="uvloop",
            http=PatientProtocol,
            ws="none",
            proxy_headers=False,  # who asks is known by signature, never by address
            access_log=settings.log_level == "debug",
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=GRACE_S,
        )
    )
    try:
        server.run(sockets)
    except (SystemExit, KeyboardInterrupt):
        # The signal that asked for the end, handed on by uvicorn when all is done: to end when asked is no failure.
        if not server.should_exit or server.force_exit:
            _leave_decoders_behind(128 + signal.SIGINT)
            raise
    _leave_decoders_behind(0 if server.started else 3)
    if not server.started:
        raise typer.Exit(3)


def _allow_descriptors() -> None:
    """Take as many as the system grants: idle connections of strangers must not use up those of challenges."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, DESCRIPTORS)), hard))


def _leave_decoders_behind(code: int) -> None:
    """End the process here and now if a decoder never returned: Python's own end would pull FFmpeg from under it."""
    until = time.monotonic() + 1
    while left_behind() and time.monotonic() < until:
        time.sleep(0.02)
    if left_behind():
        logging.shutdown()
        os._exit(code)

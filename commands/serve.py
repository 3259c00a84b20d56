"""`touchline serve`: the gateway, until it is told to end."""

from __future__ import annotations

import gc
import logging
import sys
from typing import Final

import typer
import uvicorn

from commands.terminal import CommandError, read_settings
from gateway.app import build_app
from gateway.errors import StartupError
from gateway.listening import bind

KEEP_ALIVE_S: Final = 75
"""Longer than validators' clients and proxies keep a connection: who closes first must not be us, in mid-request."""


def command() -> None:
    """Run the gateway. Every setting comes from the environment or .env: `touchline settings` lists them."""
    settings = read_settings()
    try:
        logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        for chatty in ("httpx", "httpcore"):
            logging.getLogger(chatty).setLevel(logging.WARNING)
        # Before anything else is started: a port that cannot be had needs no engine to say so.
        sockets = bind(settings.host, settings.port)
        gateway = build_app(settings)
    except StartupError as error:
        raise CommandError(str(error)) from error
    # Decoding takes the interpreter back after every packet; at Python's 5 ms it and tracking wait for each other.
    sys.setswitchinterval(0.02)
    # What the imports made stays: looking through all of it for garbage takes 0.1 s, in which nothing else runs.
    gc.collect()
    gc.freeze()
    # An answer is made of many small objects, none of which is garbage.
    gc.set_threshold(20_000)
    server = uvicorn.Server(
        uvicorn.Config(
            gateway,
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=settings.log_level == "debug",
            timeout_keep_alive=KEEP_ALIVE_S,
        )
    )
    server.run(sockets)
    if not server.started:
        raise typer.Exit(3)

"""Ports are taken, or the setting that is wrong is named."""

from __future__ import annotations

import socket

import pytest

from gateway.errors import StartupError
from gateway.listening import bind


def test_a_name_of_two_addresses_is_bound_on_each_and_answers_nobody_yet() -> None:
    sockets = bind("localhost", 0)
    try:
        assert {one.getsockname()[0] for one in sockets} <= {"127.0.0.1", "::1"}
        for one in sockets:
            with pytest.raises(ConnectionRefusedError), socket.socket(one.family) as caller:
                caller.connect(one.getsockname())
    finally:
        for one in sockets:
            one.close()


@pytest.mark.parametrize("prefix", ["", "CONSOLE_"])
@pytest.mark.parametrize("host", ["x86_64-conda-linux-gnu", "not a name", "a..b", "192.0.2.1", "2001:db8::1"])
def test_a_host_that_is_none_of_this_machines_is_named_as_such(host: str, prefix: str) -> None:
    with pytest.raises(StartupError, match=rf"^{prefix}HOST {host} is"):
        bind(host, 0, prefix=prefix)


def test_condas_host_is_explained() -> None:
    with pytest.raises(StartupError, match="conda"):
        bind("x86_64-conda-linux-gnu", 0)


@pytest.mark.parametrize("prefix", ["", "CONSOLE_"])
def test_a_port_that_is_taken_is_named_as_such(prefix: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as owner:
        port = owner.getsockname()[1]
        with pytest.raises(StartupError, match=rf"^{prefix}PORT {port} on 127.0.0.1 .*already in use"):
            bind("127.0.0.1", port, prefix=prefix)

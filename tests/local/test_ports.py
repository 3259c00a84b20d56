import socket

import pytest

from local.ports import free_ports


def test_a_port_is_a_servers_that_asks_for_it_and_nobody_elses() -> None:
    ports = free_ports(20)
    others = [socket.create_server(("127.0.0.1", 0)) for _ in range(300)]
    callers = [socket.create_connection(("127.0.0.1", others[0].getsockname()[1])) for _ in range(100)]
    try:
        assert not {one.getsockname()[1] for one in (*others, *callers)} & set(ports)
        with socket.socket() as hasty, pytest.raises(OSError, match="in use"):
            hasty.bind(("127.0.0.1", ports[0]))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", ports[0]))
        for _ in range(2):  # one that is started again, too
            with socket.create_server(("127.0.0.1", ports[0])):
                socket.create_connection(("127.0.0.1", ports[0])).close()
    finally:
        for one in (*others, *callers):
            one.close()

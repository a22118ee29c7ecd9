"""Refusing new connections in the kernel."""

from __future__ import annotations

import socket

import pytest

from cashier.web.os_calls import refuse_new_connections


def test_queued_connections_are_accepted_and_new_ones_are_not() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname(), timeout=30) as waiting,
    ):
        assert refuse_new_connections([listening])
        with pytest.raises(TimeoutError):
            socket.create_connection(listening.getsockname(), timeout=0.2)
        accepted, _ = listening.accept()
        with accepted:
            waiting.send(b"in")
            assert accepted.recv(2) == b"in"


def test_a_missing_socket_filter_is_reported() -> None:
    with socket.socket() as closed:
        closed.close()
        assert not refuse_new_connections([closed])

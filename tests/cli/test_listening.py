"""Addresses that a command cannot listen on: the fault and its remedy in one line."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from cashier.cli.listening import host_and_port, listen_fault


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE)),
            "127.0.0.1:80 is in use: stop the other program or choose another --port",
        ),
        (
            PermissionError(errno.EACCES, os.strerror(errno.EACCES)),
            "127.0.0.1:80 needs more permissions: choose another --port, 1024 or above",
        ),
        (
            OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL)),
            "127.0.0.1 is not an address of this machine: choose another --host",
        ),
        (
            socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
            "127.0.0.1 is not an address of this machine: choose another --host",
        ),
        (
            UnicodeError("label empty or too long"),
            "127.0.0.1 is not an address of this machine: choose another --host",
        ),
        (OSError(errno.EMFILE, "Too many open files"), "127.0.0.1:80 cannot be opened: Too many open files"),
    ],
)
def test_a_fault_has_its_remedy(error: OSError | UnicodeError, message: str) -> None:
    assert listen_fault("127.0.0.1", 80, error) == message


def test_an_ipv6_address_is_bracketed() -> None:
    assert host_and_port("::1", 8080) == "[::1]:8080"
    assert host_and_port("localhost", 8080) == "localhost:8080"

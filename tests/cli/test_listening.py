"""Addresses that a command cannot listen on: the fault and its remedy in one line."""

from __future__ import annotations

import errno
import io
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cashier.cli import commands
from cashier.cli.listening import host_and_port, listen_fault
from cashier.consultation.source_table import SOURCE_NAMES
from cashier.web.server import ServerSettings


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


class FullOutput(io.StringIO):
    """Standard output that takes nothing."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def flush(self) -> None:
        raise OSError(self._number, os.strerror(self._number))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EPIPE, errno.EIO])
def test_a_service_serves_although_nothing_takes_its_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    served: list[str] = []

    def serve_app(settings: ServerSettings, build: object, announce: Callable[[str, int], None], *_: object) -> None:
        announce(settings.host, 8080)
        served.append(settings.host)

    config = tmp_path / "cashier.toml"
    sources = "".join(f'[sources.{name}]\nurl = "http://127.0.0.1:1"\n' for name in SOURCE_NAMES)
    config.write_text(f"[operations]\nport = 0\n{sources}")
    monkeypatch.setenv("CASHIER_TOKEN_SECRET", "t" * 32)
    monkeypatch.setattr(commands, "log_uncaught", lambda: None)
    monkeypatch.setattr(commands, "serve_app", serve_app)
    monkeypatch.setattr(sys, "stdout", FullOutput(number))
    commands.serve(config)
    assert served == ["127.0.0.1"]

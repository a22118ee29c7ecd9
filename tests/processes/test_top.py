"""`cashier top` in a terminal: it is drawn, waits for a port that is down, and leaves at q."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from socket import socket

import msgspec
import pytest

from tests.cli.overviews import sick_overview

pytestmark = pytest.mark.processes
TIMEOUT_S = 60.0


class Terminal:
    """A terminal of 100 by 40 in which `cashier top` runs."""

    def __init__(self, url: str) -> None:
        self.descriptor, shown = pty.openpty()
        fcntl.ioctl(shown, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        self.before = termios.tcgetattr(shown)
        command = [sys.executable, "-m", "cashier", "top", "--url", url, "--interval", "0.2"]
        environment = os.environ | {"TERM": "xterm-256color"}
        self.process = subprocess.Popen(
            command, stdin=shown, stdout=shown, stderr=shown, env=environment, start_new_session=True
        )
        self._shown = shown
        self._seen = b""

    def until(self, text: str) -> None:
        """Read what is drawn until `text` is."""
        ends_s = time.monotonic() + TIMEOUT_S
        while text.encode() not in self._seen:
            assert time.monotonic() < ends_s, self._seen[-2000:]
            if select.select([self.descriptor], [], [], 0.1)[0]:
                self._seen += os.read(self.descriptor, 65_536)
        self._seen = b""

    def ends(self) -> int:
        """The exit status. The terminal is as it was."""
        ends_s = time.monotonic() + TIMEOUT_S
        while self.process.poll() is None:
            assert time.monotonic() < ends_s
            if select.select([self.descriptor], [], [], 0.05)[0]:
                os.read(self.descriptor, 65_536)
        assert termios.tcgetattr(self._shown) == self.before
        return self.process.returncode

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.descriptor)
        os.close(self._shown)


@contextmanager
def terminal(url: str) -> Iterator[Terminal]:
    opened = Terminal(url)
    try:
        yield opened
    finally:
        opened.close()


@contextmanager
def operations_port(port: int) -> Iterator[None]:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = msgspec.json.encode(sick_overview())
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", port), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def port() -> int:
    with socket() as unused:
        unused.bind(("127.0.0.1", 0))
        number: int = unused.getsockname()[1]
        return number


def test_it_waits_for_a_port_that_is_down_and_leaves_at_q(port: int) -> None:
    with terminal(f"http://127.0.0.1:{port}") as top:
        top.until("nothing listens")
        with operations_port(port):
            top.until("pay_00000000000000000000000004")
        top.until("nothing listens")
        with operations_port(port):
            top.until("pay_00000000000000000000000004")
        os.write(top.descriptor, b"q")
        assert top.ends() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_restores_the_terminal(port: int, number: signal.Signals) -> None:
    with operations_port(port), terminal(f"http://127.0.0.1:{port}") as top:
        top.until("pay_00000000000000000000000004")
        top.process.send_signal(number)
        assert top.ends() == 0

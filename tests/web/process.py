"""Starts the server of `serving.py` and talks to it in bytes."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .offers import BODY

POST = b"POST /v1/consult HTTP/1.1\r\nHost: shop\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
GET = b"GET %s HTTP/1.1\r\nHost: shop\r\n\r\n"
PATIENCE_S = 60.0


def asking(body: bytes = BODY) -> bytes:
    return POST % len(body) + body


class Reply:
    """One HTTP answer."""

    def __init__(self, head: bytes, body: bytes) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(first.split()[1])
        self.headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def last(self) -> bool:
        return self.headers.get("connection") == "close"


class Talk:
    """A connection, and what has come of it."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self._come = b""

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def say(self, data: bytes) -> None:
        self.socket.sendall(data)

    def reply(self) -> Reply:
        """The next answer. Raises EOFError where the connection ends before or in it."""
        head = self.head()
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        while len(self._come) < length:
            self._more()
        body, self._come = self._come[:length], self._come[length:]
        return Reply(head, body)

    def head(self) -> bytes:
        return self._until(b"\r\n\r\n")

    def ended(self) -> bool:
        """Waits until the server ends the connection; False where it says something instead."""
        with contextlib.suppress(ConnectionResetError):
            return not self._come and self.socket.recv(1) == b""
        return True

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._come:
            self._more()
        before, self._come = self._come.split(mark, 1)
        return before

    def _more(self) -> None:
        piece = self.socket.recv(65_536)
        if not piece:
            raise EOFError
        self._come += piece


class Served:
    """A running server."""

    def __init__(self, workers: int, delay_ms: int, drain_s: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "web.serving", str(workers), str(delay_ms), str(drain_s)],
            cwd=Path(__file__).parent.parent,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.port = int(self.line())

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, data: bytes) -> Reply:
        with Talk(self.port) as talk:
            talk.say(data)
            return talk.reply()

    def wait_until_ready(self) -> None:
        """The port is bound before anybody listens, so connections are refused until one is not."""
        until = time.monotonic() + PATIENCE_S
        while True:
            with contextlib.suppress(OSError, EOFError):
                if self.ask(GET % b"/readyz").status == 200:
                    return
            assert time.monotonic() < until, "the server does not get ready"
            time.sleep(0.02)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)


@contextlib.contextmanager
def served(workers: int = 1, delay_ms: int = 0, drain_s: int = 10) -> Iterator[Served]:
    running = Served(workers, delay_ms, drain_s)
    try:
        running.wait_until_ready()
        yield running
    finally:
        if running.process.poll() is None:
            running.stop()
        if running.process.stdout is not None:
            running.process.stdout.close()

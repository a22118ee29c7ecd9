"""Starts the server of `server_main.py` and exchanges bytes with it."""

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

from tests.web.fake_service import BODY

POST = b"POST /v1/consult HTTP/1.1\r\nHost: shop\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
GET = b"GET %s HTTP/1.1\r\nHost: shop\r\n\r\n"
TIMEOUT_S = 60.0


def consult_request(body: bytes = BODY) -> bytes:
    return POST % len(body) + body


class RawResponse:
    """One HTTP response."""

    def __init__(self, head: bytes, body: bytes) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(first.split()[1])
        self.headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def closes_connection(self) -> bool:
        return self.headers.get("connection") == "close"


class RawClient:
    """A connection whose received bytes are buffered."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
        self._buffer = b""

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read_response(self) -> RawResponse:
        """The next response. Raises EOFError if the connection ends first."""
        head = self.read_head()
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        while len(self._buffer) < length:
            self._receive()
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return RawResponse(head, body)

    def read_head(self) -> bytes:
        return self._until(b"\r\n\r\n")

    def is_closed(self) -> bool:
        """Wait until the server closes the connection; False if it sends something instead."""
        with contextlib.suppress(ConnectionResetError):
            return not self._buffer and self.socket.recv(1) == b""
        return True

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            self._receive()
        before, self._buffer = self._buffer.split(mark, 1)
        return before

    def _receive(self) -> None:
        piece = self.socket.recv(65_536)
        if not piece:
            raise EOFError
        self._buffer += piece


class ServerProcess:
    """A running server."""

    def __init__(self, delay_ms: int = 0, folder: Path | None = None, **settings: Any) -> None:
        """`settings`: keys of `[server]`, by default a free port and no delay of a stop.

        Waits until all of its workers accept connections, unless it has a `folder`: see
        `server_main`.
        """
        given = json.dumps({"port": 0, "shutdown_delay_s": 0, **settings})
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.web.server_main", given, str(delay_ms), *([str(folder)] if folder else [])],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        # 0 if it has ended without listening.
        self.port = int(self.line() or 0) if folder is None else 0
        if self.port and settings.get("workers", 1) > 1:
            self._wait_for_workers(settings["workers"])

    def _wait_for_workers(self, count: int) -> None:
        """The first one to accept connections does not wait for the others."""
        accepting: set[str] = set()
        until_s = time.monotonic() + TIMEOUT_S
        while len(accepting) < count:
            assert time.monotonic() < until_s, f"{len(accepting)} of {count} workers accept connections"
            self.request(consult_request(BODY.replace(b"o_1001", b"o_worker")))
            accepting.add(self.line())

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def request(self, data: bytes) -> RawResponse:
        with RawClient(self.port) as client:
            client.send(data)
            return client.read_response()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(TIMEOUT_S)


@contextlib.contextmanager
def running_server(delay_ms: int = 0, folder: Path | None = None, **settings: Any) -> Iterator[ServerProcess]:
    running = ServerProcess(delay_ms, folder, **settings)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.send_signal(signal.SIGINT)
            running.process.wait(TIMEOUT_S)
        if running.process.stdout is not None:
            running.process.stdout.close()

"""Sends exports to a collector by OTLP/HTTP. Blocks, so it belongs to a thread of its own."""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, cast

from msgspec import Struct

from cashier.telemetry.collector_url import CollectorUrl

_TIMEOUT_S = 5.0
# The answer to an export has a few bytes.
_MOST_ANSWER_BYTES = 65_536
# https://opentelemetry.io/docs/specs/otlp/#retryable-response-codes
_RETRYABLE = frozenset({429, 502, 503, 504})
_LONGEST_RETRY_AFTER_S = 60.0


class Delivery(Struct, frozen=True):
    """The end of one export. `fault`: why it was not delivered, else empty.

    `retry`: a later try may be. `body`: the answer to a delivered one.
    """

    fault: str = ""
    retry: bool = False
    retry_after_s: float = 0.0
    body: bytes = b""


class CollectorClient:
    """One connection, kept open between exports. Its `repr` shows no header.

    `timeout_s`: for the connection, for sending, and for the answer as a whole, each.
    """

    def __init__(
        self,
        url: CollectorUrl,
        headers: Mapping[str, str],
        timeout_s: float = _TIMEOUT_S,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.url = url
        self._headers = {**headers, "content-type": "application/x-protobuf", "user-agent": "cashier"}
        self._timeout_s = timeout_s
        self._clock_s = clock_s
        self._connection: http.client.HTTPConnection | None = None

    def __repr__(self) -> str:
        return f"<CollectorClient {self.url.text}>"

    def post(self, body: bytes) -> Delivery:
        """Send one export. Raises nothing."""
        while True:
            reused = self._connection is not None
            try:
                return self._exchange(body)
            except (OSError, http.client.HTTPException, ValueError) as fault:
                self.close()
                # The collector may have closed a connection that it found idle.
                if reused and not isinstance(fault, TimeoutError):
                    continue
                # The text of a ValueError may quote a header.
                why = fault.strerror if isinstance(fault, OSError) and fault.strerror else type(fault).__name__
                return Delivery(fault=why, retry=not isinstance(fault, ValueError))

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(OSError):
                connection.close()

    def _exchange(self, body: bytes) -> Delivery:
        if self._connection is None:
            self._connection = self._connect()
        if self._connection.sock is not None:
            self._connection.sock.settimeout(self._timeout_s)  # of the last answer, what was left
        self._connection.request("POST", self.url.path, body, self._headers)
        response = self._connection.getresponse()
        answer = response.read(_MOST_ANSWER_BYTES)
        if not response.isclosed():
            self.close()  # more than an answer has
        if 200 <= response.status < 300:
            return Delivery(body=answer)
        return Delivery(
            fault=f"status {response.status}",
            retry=response.status in _RETRYABLE,
            retry_after_s=_seconds(response.getheader("retry-after")),
        )

    def _connect(self) -> http.client.HTTPConnection:
        connection: Any
        if self.url.secure:
            context = ssl.create_default_context()
            connection = http.client.HTTPSConnection(
                self.url.host, self.url.port, timeout=self._timeout_s, context=context
            )
        else:
            connection = http.client.HTTPConnection(self.url.host, self.url.port, timeout=self._timeout_s)
        connection.response_class = self._response
        return cast("http.client.HTTPConnection", connection)

    def _response(self, sock: socket.socket, *others: Any, **named: Any) -> http.client.HTTPResponse:
        reader: Any = _TimedReader(sock, self._timeout_s, self._clock_s)
        return http.client.HTTPResponse(reader, *others, **named)


class _TimedReader(io.RawIOBase):
    """Reads one answer from a socket, within `timeout_s` altogether.

    The timeout of a socket is that of each read, so an answer of single bytes would never end.
    """

    def __init__(self, sock: socket.socket, timeout_s: float, clock_s: Callable[[], float]) -> None:
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)
        self._clock_s = clock_s
        self._ends_s = clock_s() + timeout_s

    def makefile(self, _mode: str) -> io.BufferedReader:
        """All that a response does with its socket."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Raises TimeoutError, OSError."""
        left_s = self._ends_s - self._clock_s()
        if left_s <= 0:
            raise TimeoutError
        self._sock.settimeout(left_s)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def _seconds(retry_after: str | None) -> float:
    if retry_after is None or not (retry_after.isascii() and retry_after.isdigit()):
        return 0.0
    return min(float(retry_after), _LONGEST_RETRY_AFTER_S)

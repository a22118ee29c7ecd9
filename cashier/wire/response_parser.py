"""Where an answer begins, where it ends and whether it may be believed. Bytes in, responses out; no sockets, no clock, no pool.

llhttp does the protocol: conflicting lengths, bad chunk sizes, folded lines and control characters are its errors. What it leaves open
is decided here: bounds on everything, no body without a told end, no encodings, and nothing after the answer.
"""

from __future__ import annotations

import httptools
from msgspec import Struct

from cashier.source_errors import Garbled
from cashier.wire.transport import Response

# Room for the size line and the two line ends of one chunk, so that an honest answer in small chunks is not taken for a flood.
CHUNK_FRAME_BYTES = 16
# 100 and 103 come once or twice; more is somebody keeping us busy.
MAX_INTERIM_RESPONSES = 8
BODILESS_STATUSES = frozenset((204, 304))


class ResponseBounds(Struct, frozen=True):
    """`max_head_bytes` bounds all of an answer that is not body: heads, early answers, chunk extensions and trailers together."""

    max_head_bytes: int
    max_headers: int
    max_body_bytes: int


class ResponseParser:
    """The answers on one connection, one after the other. After a `Garbled` it is of no more use.

    `begun`: some of an answer has come. `reusable`: the last answer left the connection fit for another question.
    """

    __slots__ = (
        "_body", "_bounds", "_chunked", "_chunks", "_complete", "_headers", "_interims", "_length", "_max_headers", "_name", "_parser",
        "_received", "_retry_after", "_size", "_status", "reusable",
    )  # fmt: skip

    def __init__(self, name: str, bounds: ResponseBounds) -> None:
        self._name = name
        self._bounds = bounds
        self._max_headers = bounds.max_headers
        self._parser = httptools.HttpResponseParser(self)
        self.reusable = True
        self._next()

    def _next(self) -> None:
        self._body: bytes | bytearray = b""
        self._size = 0
        self._received = 0
        self._chunks = 0
        self._headers = 0
        self._interims = 0
        self._complete = False
        self._status = 0
        self._length = -1
        self._chunked = False
        self._retry_after = b""

    @property
    def begun(self) -> bool:
        return self._received > 0

    def feed(self, data: bytes) -> Response | None:
        """The whole answer with its last byte, None before. Raises Garbled."""
        self._received += len(data)
        surplus = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            # A complete answer stands, whatever comes behind it; but nothing more is read from this connection.
            if not self._complete:
                raise self._garbled(error) from None
            surplus = True
        if not surplus and self._received - self._size - self._chunks * CHUNK_FRAME_BYTES > self._bounds.max_head_bytes:
            raise Garbled(f"{self._name}: more than {self._bounds.max_head_bytes} bytes around the body")
        if not self._complete:
            return None
        self.reusable = self.reusable and not surplus
        response = Response(
            self._status, bytes(self._body), parse_retry_after(self._retry_after) if self._retry_after else None
        )
        self._next()
        return response

    def _garbled(self, error: httptools.HttpParserError) -> Exception:
        """Our own verdict where a callback of ours spoke it, else llhttp's. A bug in a callback stays what it is."""
        if isinstance(error, httptools.HttpParserCallbackError) and isinstance(error.__context__, Exception):
            return error.__context__
        return Garbled(f"{self._name}: {error}")

    def end(self) -> None:
        """Nothing more will come. The parser holds our methods: without this, every closed connection would be left to the collector."""
        del self._parser

    # What llhttp calls, in this order.

    def on_message_begin(self) -> None:
        if self._complete:
            raise Garbled(f"{self._name}: more than was asked for")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers += 1
        if self._headers > self._max_headers:
            raise Garbled(f"{self._name}: more than {self._max_headers} headers")
        if self._status:
            return  # a trailer decides nothing
        key = name.lower()
        if key in _TELLING:
            self._tell(key, value.strip().lower())

    def _tell(self, key: bytes, value: bytes) -> None:
        if key == b"content-length":
            self._length = int(value)
        elif key == b"transfer-encoding":
            if value != b"chunked" or self._chunked:
                raise Garbled(f"{self._name}: a transfer encoding that is not chunked")
            self._chunked = True
        elif key == b"content-encoding":
            if value not in (b"identity", b""):
                raise Garbled(f"{self._name}: a content encoding that was not accepted")
        else:
            self._retry_after = value

    def on_headers_complete(self) -> None:
        self._status = status = self._parser.get_status_code()
        if status < 200:
            self._interims += 1
            if status < 100 or status == 101 or self._interims > MAX_INTERIM_RESPONSES:
                raise Garbled(f"{self._name}: status {status} in the place of an answer")
            return
        self.reusable = self._parser.should_keep_alive()
        if self._length > self._bounds.max_body_bytes:
            raise Garbled(f"{self._name}: a body of more than {self._bounds.max_body_bytes} bytes announced")
        if status in BODILESS_STATUSES:
            # It announces a body and has none; should one come all the same, it must not meet the next question.
            self.reusable = self.reusable and self._length <= 0 and not self._chunked
        elif self._length < 0 and not self._chunked:
            raise Garbled(f"{self._name}: a body whose end cannot be told from a broken connection")

    def on_chunk_header(self) -> None:
        self._chunks += 1

    def on_body(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self._bounds.max_body_bytes:
            raise Garbled(f"{self._name}: a body of more than {self._bounds.max_body_bytes} bytes")
        if not self._body:
            self._body = data
        else:
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += data

    def on_message_complete(self) -> None:
        if self._status >= 200:
            self._complete = True
            return
        # An early answer; the head of the next one begins.
        self._status = 0
        self._length = -1
        self._chunked = False
        self._retry_after = b""


_TELLING = frozenset((b"content-length", b"transfer-encoding", b"content-encoding", b"retry-after"))


def parse_retry_after(value: bytes) -> float | None:
    """The seconds that a `Retry-After` names; None for a date or nonsense. Ten digits are three centuries and no answer either."""
    return float(value) if value.isdigit() and len(value) < 10 else None

"""Parsing and validation of answers: bytes in, responses out. No sockets, no clock, no pool.

llhttp implements the protocol: conflicting lengths, bad chunk sizes, folded lines and control
characters are its errors. This module decides the rest: bounds on everything, no body that ends
only with the connection, no content encodings, and nothing after the answer.

Most heads of an upstream equal an earlier one but for the length of the body. Such an answer, if it
comes in one piece, is cut instead of parsed: llhttp and the rules have accepted its head before.
"""

from __future__ import annotations

import re

import httptools
from msgspec import Struct
from msgspec.structs import replace

from cashier.source_errors import Garbled
from cashier.wire.response_headers import ResponseHeaders
from cashier.wire.transport import AnsweringConnection, Response

# Allowance for the size line and line ends of one chunk, so that small chunks do not look like a
# flood.
CHUNK_FRAME_BYTES = 16
# 100 and 103 usually occur once or twice; more is abuse.
MAX_INTERIM_RESPONSES = 8
BODILESS_STATUSES = frozenset((204, 304))
# One head in this number of parsed answers is kept. Keeping costs time and gains none if heads
# differ.
KEEP_EVERY = 16
_LENGTH = re.compile(rb"\r\nContent-Length: ?([0-9]+)\r\n", re.IGNORECASE)
# The next length may have as many more digits.
_MORE_DIGITS = 9


class ResponseBounds(Struct, frozen=True):
    """`max_head_bytes` bounds all bytes outside the body.

    These are the head, interim responses, chunk extensions and trailers together. `keep_headers`:
    put them into the response.
    """

    max_head_bytes: int
    max_headers: int
    max_body_bytes: int
    keep_headers: bool = False


class ResponseParser:
    """Parses the successive answers on one connection. Unusable after a `Garbled`.

    `started`: part of an answer has arrived. `reusable`: the last answer left the connection fit
    for another request. `request_ids`: the values of its `X-Request-Id` headers. `retry_after`: its
    `Retry-After`, which may be a date.
    """

    __slots__ = (
        "_body", "_body_bytes", "_bounds", "_chunked", "_chunks", "_complete", "_connection", "_headers", "_interims",
        "_kept_end", "_kept_request_ids", "_kept_start", "_length", "_max_headers", "_name", "_parsed", "_parser",
        "_received_bytes", "_status", "request_ids", "retry_after", "reusable",
    )  # fmt: skip

    def __init__(self, name: str, bounds: ResponseBounds, connection: AnsweringConnection | None = None) -> None:
        """`connection`: see `Response`."""
        self._name = name
        self._bounds = bounds
        self._connection = connection
        self._max_headers = bounds.max_headers
        self._parser = httptools.HttpResponseParser(self)
        self._parsed = 0
        # A head that was accepted, without the digits of its length in the middle.
        self._kept_start = self._kept_end = b""
        self._kept_request_ids: tuple[bytes, ...] = ()
        self.reusable = True
        self.retry_after = b""
        self.request_ids: tuple[bytes, ...] = ()
        self._reset()

    def _reset(self) -> None:
        self._body: bytes | bytearray = b""
        self._body_bytes = 0
        self._received_bytes = 0
        self._chunks = 0
        self._headers = 0
        self._interims = 0
        self._complete = False
        self._status = 0
        self._length = -1
        self._chunked = False

    @property
    def started(self) -> bool:
        return self._received_bytes > 0

    def feed(self, data: bytes) -> Response | None:
        """Return the complete answer with its last byte, None before. Raises Garbled."""
        if self._kept_start and not self._received_bytes and data.startswith(self._kept_start):
            length, end, body = data[len(self._kept_start) :].partition(self._kept_end)
            if end and length == b"%d" % len(body) and len(body) <= self._bounds.max_body_bytes:
                self.request_ids, self.retry_after = self._kept_request_ids, b""
                return Response(200, body, None, self._connection)
        self._received_bytes += len(data)
        surplus = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            # A complete answer stands regardless of what follows, but the connection is not read
            # again.
            if not self._complete:
                raise self._garbled(error) from None
            surplus = True
        if (
            not surplus
            and self._received_bytes - self._body_bytes - self._chunks * CHUNK_FRAME_BYTES > self._bounds.max_head_bytes
        ):
            raise Garbled(f"{self._name}: more than {self._bounds.max_head_bytes} bytes outside the body")
        if not self._complete:
            return None
        self.reusable = self.reusable and not surplus
        self._parsed += 1
        if not self._parsed % KEEP_EVERY and self._received_bytes == len(data):
            self._keep_head(data)
        response = Response(
            self._status,
            bytes(self._body),
            parse_retry_after(self.retry_after) if self.retry_after else None,
            self._connection,
        )
        self._reset()
        return response

    def _keep_head(self, answer: bytes) -> None:
        """Keep the head of a usual answer: with a length, and with nothing before or after it."""
        head_bytes = answer.find(b"\r\n\r\n") + 4
        length = _LENGTH.search(answer, 0, head_bytes)
        if (
            length is not None
            and self._status == 200
            and len(answer) - head_bytes == self._body_bytes == self._length
            and head_bytes + _MORE_DIGITS <= self._bounds.max_head_bytes
            and not self.retry_after
        ):
            self._kept_start = answer[: length.start(1)]
            self._kept_end = answer[length.end(1) : head_bytes]
            self._kept_request_ids = self.request_ids

    def _garbled(self, error: httptools.HttpParserError) -> Exception:
        """The error that a callback raised, even if it is a bug; else llhttp's as `Garbled`."""
        if isinstance(error, httptools.HttpParserCallbackError) and isinstance(error.__context__, Exception):
            return error.__context__
        return Garbled(f"{self._name}: {error}")

    def close(self) -> None:
        """Break the reference cycles: the parser holds bound methods of this object."""
        del self._parser
        self._connection = None

    # Callbacks of llhttp, in the order of the calls.

    def on_message_begin(self) -> None:
        if self._complete:
            raise Garbled(f"{self._name}: more than one answer to a request")
        self.request_ids = ()
        self.retry_after = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers += 1
        if self._headers > self._max_headers:
            raise Garbled(f"{self._name}: more than {self._max_headers} headers")
        if self._status:
            return  # trailers are ignored
        key = name.lower()
        if key in _RELEVANT_HEADERS:
            self._read_header(key, value)

    def _read_header(self, key: bytes, value: bytes) -> None:
        if key == b"content-length":
            self._length = int(value)
        elif key == b"transfer-encoding":
            # With a tab at the end, llhttp takes it for a body without an end.
            if value.strip(b" ").lower() != b"chunked" or self._chunked:
                raise Garbled(f"{self._name}: a transfer encoding that is not chunked")
            self._chunked = True
        elif key == b"content-encoding":
            if value.strip().lower() not in (b"identity", b""):
                raise Garbled(f"{self._name}: a content encoding that was not requested")
        elif key == b"x-request-id":
            self.request_ids = (*self.request_ids, value.strip())
        else:
            self.retry_after = value.strip()

    def on_headers_complete(self) -> None:
        self._status = status = self._parser.get_status_code()
        if status < 200:
            self._interims += 1
            if status < 100 or status == 101 or self._interims > MAX_INTERIM_RESPONSES:
                raise Garbled(f"{self._name}: status {status} instead of an answer")
            return
        self.reusable = self._parser.should_keep_alive()
        if self._length > self._bounds.max_body_bytes:
            raise Garbled(f"{self._name}: a body of more than {self._bounds.max_body_bytes} bytes announced")
        if status in BODILESS_STATUSES:
            # It announces a body and has none. If one arrives anyway, it must not precede the next
            # answer.
            self.reusable = self.reusable and self._length <= 0 and not self._chunked
        elif self._length < 0 and not self._chunked:
            raise Garbled(f"{self._name}: a body that only a closed connection would end")

    def on_chunk_header(self) -> None:
        self._chunks += 1

    def on_body(self, data: bytes) -> None:
        if self._chunked and not self._chunks:
            raise Garbled(f"{self._name}: a body without chunks")
        self._body_bytes += len(data)
        if self._body_bytes > self._bounds.max_body_bytes:
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
        # An interim response: the head of the next one follows.
        self._status = 0
        self._length = -1
        self._chunked = False


class HeaderKeepingParser(ResponseParser):
    """A parser whose responses have headers: a class of its own, so that others pay nothing."""

    __slots__ = ("_kept",)

    def _reset(self) -> None:
        super()._reset()
        self._kept: list[tuple[str, str]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        if not self._status:
            self._kept.append((name.decode("latin-1"), value.strip().decode("latin-1")))

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if not self._complete:
            self._kept.clear()

    def _keep_head(self, answer: bytes) -> None:
        """The headers are needed each time."""

    def feed(self, data: bytes) -> Response | None:
        kept = self._kept
        response = super().feed(data)
        return None if response is None else replace(response, headers=ResponseHeaders(kept))


def make_parser(name: str, bounds: ResponseBounds, connection: AnsweringConnection | None = None) -> ResponseParser:
    return (HeaderKeepingParser if bounds.keep_headers else ResponseParser)(name, bounds, connection)


_RELEVANT_HEADERS = frozenset(
    (b"content-length", b"transfer-encoding", b"content-encoding", b"retry-after", b"x-request-id")
)


def parse_retry_after(value: bytes) -> float | None:
    """Seconds from a `Retry-After`; None for a date, nonsense or more than nine digits."""
    return float(value) if value.isdigit() and len(value) < 10 else None

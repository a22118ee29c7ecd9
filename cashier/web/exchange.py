"""One request and its response: the ASGI interface, or the direct one of consultations.

The direct one serves a consultation whose body is complete, without an event stream. It saves the
scope and the messages; the response is the same as over ASGI.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from enum import Enum, auto
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import unquote

import structlog
from starlette.types import Message, Scope

from cashier.web.access_log import AccessEntry
from cashier.web.application import ADMITTED, CashierApp
from cashier.web.endpoint_path import CONSULT_PATH
from cashier.web.problem import PROBLEM_TYPE, ProblemCode, encode_problem, make_problem
from cashier.web.request_headers import read_request_id
from cashier.web.request_parser import ProtocolError, RequestHead
from cashier.web.response import CLOSE, HeaderList
from cashier.web.sse import EVENT_STREAM, accepts_event_stream

_log = structlog.get_logger("cashier.web")

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
STATUS_LINES = {status.value: b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode()) for status in HTTPStatus}
CONSULT_TARGET = CONSULT_PATH.encode("ascii")
# An event stream's reader ignores it.
_COMMENT = b":\n\n"
_DISCONNECT: Message = {"type": "http.disconnect"}


class Framing(Enum):
    """What delimits the body of a response (RFC 9112, section 6)."""

    LENGTH = auto()
    CHUNKS = auto()
    CLOSE = auto()
    NO_BODY = auto()


class SharedState(Protocol):
    """State of the server, as an exchange uses it."""

    draining: bool
    default_headers: list[tuple[bytes, bytes]]


class ExchangeOwner(Protocol):
    """The connection, as an exchange uses it."""

    application: CashierApp
    transport: asyncio.Transport
    write_paused: bool
    reading: bool

    @property
    def server_state(self) -> SharedState: ...
    @property
    def is_last_request(self) -> bool:
        """Whether the server stops and no further request was received."""

    async def writable(self) -> None:
        """Wait until the client has read enough, or has gone."""

    def adjust_reading(self) -> None:
        """Read on if the exchange has room for more of the body."""

    def address(self, name: str) -> tuple[str, int] | None: ...
    def complete(self, exchange: Exchange) -> None:
        """The response is written."""

    def abandon(self, exchange: Exchange) -> None:
        """There will be no complete response."""


class Exchange:
    """`received`: the request is complete. `closes`: the connection ends after the response."""

    __slots__ = (
        "_access", "_admitted", "_body", "_changed", "_connection", "_delivered", "_expects_continue", "_fault",
        "_framing", "_head", "_is_event_stream", "_left", "_request", "closes", "disconnected", "received",
        "response_complete", "response_started",
    )  # fmt: skip

    def __init__(
        self, connection: ExchangeOwner, request: RequestHead, body: bytes, *, received: bool, admitted: bool
    ) -> None:
        """`body`: what has arrived of it. `admitted`: a consultation that passed admission."""
        self._connection = connection
        self._request = request
        self._admitted = admitted
        self._body: bytes | bytearray = body
        self._delivered = False
        self._expects_continue = request.expects_continue
        self._fault: ProtocolError | None = None
        self._changed: asyncio.Event | None = None
        self._access = AccessEntry(request) if connection.application.access_log else None
        self._head = b""
        self._framing = Framing.LENGTH
        self._is_event_stream = False
        self._left = 0
        self.closes = not request.keep_alive
        self.received = received
        self.disconnected = False
        self.response_started = False
        self.response_complete = False

    def __repr__(self) -> str:
        return f"<Exchange {self._request.method!r} received={self.received} started={self.response_started}>"

    @property
    def _is_direct(self) -> bool:
        """Whether it is a consultation with its whole body, and wants one response."""
        whole = self.received and not self._expects_continue
        return self._admitted and whole and not accepts_event_stream(self._request.fields.get(b"accept"))

    @property
    def unread_bytes(self) -> int:
        """Of the body: received, and not yet taken by the application."""
        return len(self._body)

    @property
    def probe(self) -> bytes:
        """Bytes that mean nothing to the client at this point; empty if there are none."""
        if self.response_started:
            return self._frame(_COMMENT, more=True) if self._is_event_stream else b""
        return b"" if self._request.http_1_0 else CONTINUE

    def feed(self, piece: bytes, *, complete: bool) -> None:
        """Add the next piece of the body."""
        if not self._body:
            self._body = piece
        elif piece:
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += piece
        self.received = complete
        self._wake()

    def fail(self, fault: ProtocolError) -> None:
        """The rest of the body is unreadable. Counts once the application wants to read it."""
        self._fault = fault
        self._wake()

    def disconnect(self) -> None:
        """The client has gone."""
        self.disconnected = True
        self._wake()

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()

    async def run(self) -> None:
        application = self._connection.application
        try:
            if not self._is_direct:
                await application(self._scope(), self.receive, self.send)
            elif not self.disconnected:
                response = await application.respond(self._request.fields, self._take_body(), self.receive)
                if response is not None:
                    self._respond(*response)
        except Exception:  # noqa: BLE001 - a bug of the application must not leave its client without an end
            # Starlette raises an error again after it has answered 500 and logged it.
            if not (self.response_complete or self.disconnected):
                _log.exception("request failed without a response")
                if not self.response_started:
                    self._respond(*final_problem(ProblemCode.INTERNAL, "The request failed."))
        finally:
            if not self.response_started:
                application.http_metrics.count_unanswered(self._request.target)
            if self._access is not None:
                self._access.write(complete=self.response_complete)
            if not self.response_complete:
                self._connection.abandon(self)

    async def receive(self) -> Message:
        """ASGI `receive`: the body as it arrives, then a disconnect after client or response."""
        if self._expects_continue:
            self._expects_continue = False
            if not (self.disconnected or self.response_started):
                self._connection.transport.write(CONTINUE)
        while not (self.disconnected or self.response_complete):
            if self._body or (self.received and not self._delivered):
                return {"type": "http.request", "body": self._take_body(), "more_body": not self.received}
            if self._fault is not None:
                self._refuse(self._fault)
                break
            if self._changed is None:
                self._changed = asyncio.Event()
            self._changed.clear()
            await self._changed.wait()
        return _DISCONNECT

    def _take_body(self) -> bytes:
        """What has arrived of the body and is not taken yet."""
        body, self._body = self._body, b""
        self._delivered = self.received
        if not self._connection.reading:
            self._connection.adjust_reading()
        return bytes(body)

    async def send(self, message: Message) -> None:
        """ASGI `send`. Holds the head until the body begins, so that one write takes both."""
        if self._connection.write_paused:
            await self._connection.writable()
        if self.disconnected:
            return
        if message["type"] == "http.response.start":
            headers = message.get("headers", ())
            if any(b"\n" in value or b"\r" in value for _, value in headers):
                raise ValueError("a line break in a response header")
            self._head = self._encode_head(message["status"], headers)
            return
        if self.response_complete or not (self._head or self.response_started):
            raise RuntimeError("a part of a response out of its order")
        more: bool = message.get("more_body", False)
        data, self._head = self._head + self._frame(message.get("body", b""), more=more), b""
        self._write(data, more=more)

    def _respond(self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
        if not self.disconnected:
            head = self._encode_head(status, headers)
            self._write(head if self._request.method == b"HEAD" else head + body, more=False)

    def _refuse(self, fault: ProtocolError) -> None:
        """Answer an unreadable body, unless the response has begun, and end the exchange."""
        if not self.response_started:
            self._respond(*final_problem(fault.code, fault.detail))
        self.disconnected = True

    def _write(self, data: bytes, *, more: bool) -> None:
        if not self.response_started:
            self._connection.application.http_metrics.count_response(self._request.target, data)
        elif self._is_event_stream:
            self._connection.application.http_metrics.count_events(data)
        self.response_started = True
        if data:
            self._connection.transport.write(data)
            if self._access is not None:
                self._access.sent(data)
        if not more:
            self.response_complete = True
            if self._changed is not None:
                self._changed.set()
            self._connection.complete(self)

    def _encode_head(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        """The head, with the framing that the body of this response needs."""
        state = self._connection.server_state
        fields = [*state.default_headers, *headers]
        values = dict(fields)
        if self._access is not None:
            self._access.head(status, values)
        if values.get(b"connection") == b"close":
            self.closes = True
        elif self.closes or (state.draining and self._connection.is_last_request):
            self.closes = True
            fields += CLOSE
        length = values.get(b"content-length")
        self._is_event_stream = values.get(b"content-type") == EVENT_STREAM
        if self._request.method == b"HEAD" or status in (204, 304):
            self._framing = Framing.NO_BODY
        elif length is not None:
            self._left = int(length)
        elif self._request.http_1_0:
            self._framing = Framing.CLOSE
        else:
            self._framing = Framing.CHUNKS
            fields.append((b"transfer-encoding", b"chunked"))
        return encode_head(status, fields)

    def _frame(self, body: bytes, *, more: bool) -> bytes:
        if self._framing is Framing.NO_BODY:
            return b""
        if self._framing is Framing.CHUNKS:
            chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            return chunk if more else chunk + b"0\r\n\r\n"
        if self._framing is Framing.LENGTH:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError("a body of another length than its Content-Length")
        return body

    def _scope(self) -> Scope:
        request = self._request
        raw_path, _, query = request.target.partition(b"?")
        path = raw_path.decode("ascii")
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.0" if request.http_1_0 else "1.1",
            "method": request.method.decode("ascii"),
            "scheme": "http",
            "path": unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": query,
            "root_path": "",
            "headers": request.headers,
            "client": self._connection.address("peername"),
            "server": self._connection.address("sockname"),
            "state": {},
        }
        if self._admitted:
            scope[ADMITTED] = True
        return scope


def encode_head(status: int, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    lines = b"".join(map(b"%b: %b\r\n".__mod__, headers))
    return b"%b%b\r\n" % (STATUS_LINES[status], lines)


def final_problem(code: ProblemCode, detail: str) -> tuple[int, HeaderList, bytes]:
    """Status, headers and body of a problem after which the connection ends."""
    problem = make_problem(code, detail)
    body = encode_problem(problem)
    request_id = read_request_id({}).encode("ascii")
    headers = [PROBLEM_TYPE, (b"x-request-id", request_id), (b"content-length", b"%d" % len(body)), *CLOSE]
    return problem.status, headers, body

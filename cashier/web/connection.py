"""One HTTP/1.1 connection of a client: a protocol for uvicorn's server, bounded by construction.

Requests are served one after the other. Further input waits in a buffer, and beyond a limit in the
kernel, so a client that sends or pipelines without end holds no more than one read. The bytes of a
message that are not its body are counted until it ends. One deadline at a time bounds how long the
client may take for its next step.

An end of the stream is a half-close: what was received is answered, then the connection ends.
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import math
import socket
import struct
import termios
from collections.abc import Mapping
from enum import Enum, auto
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.server import ServerState

from cashier.web.application import CashierApp
from cashier.web.balanced_listener import WorkerCount
from cashier.web.exchange import CONSULT_TARGET, Exchange, encode_head, final_problem
from cashier.web.overload_response import encode_refusal, request_priority
from cashier.web.problem import ProblemCode
from cashier.web.request_parser import (
    CHUNKED,
    HEAD_LIMIT_BYTES,
    ChunkedBody,
    ProtocolError,
    RequestHead,
    parse_head,
)

HEAD_TIMEOUT_S = 10.0
# How long the rest of an answered body, or of a refused stream, is discarded. That lets its sender
# read the response; a close at once would reset the connection.
DISCARD_S = 5.0
# After an error, when nothing says how much is still to come.
DISCARD_BYTES = 1 << 20
# A client must read this much of what is written to it within this time.
WRITE_STALL_S = 20.0
WRITE_STALL_BYTES = 4096
# How long a connection without a request may still send one while the server stops. An immediate
# close would cross with a request on its way.
CLOSE_GRACE_S = 0.25
# Input beyond this waits in the kernel, both pipelined requests and body that is not yet used.
READ_AHEAD_BYTES = 65_536
# After an end of the stream nothing shows whether the client still reads. An interim response, or a
# comment in an event stream, does: a client that has gone resets the connection. Sent after this
# time, then at twice the distance each, few enough for clients that limit their number.
PROBE_S = 0.25
LAST_PROBE_S = 2.0


class StoppableState(ServerState):
    """State that all connections of a server share.

    `draining`: every answer ends its connection. `stopping`: no new connection is to be expected.
    `idle`: the longest idle connection first. `count`: None without other workers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.draining = False
        self.stopping = False
        self.idle: dict[ClientConnection, None] = {}
        self.count: WorkerCount | None = None


class Phase(Enum):
    """Decides what the deadline means. A write that stalls takes precedence over every phase."""

    # Between requests. Blank lines do not end it.
    IDLE = auto()
    HEAD = auto()
    BODY = auto()
    # From the complete request to the end of the response. The application bounds it. It also
    # receives the body if that is too large, or if the client waits for its consent.
    EXCHANGE = auto()
    # The request is answered; the rest of its body is read and dropped.
    DISCARD = auto()
    # The last response is written; the rest of the input is read and dropped.
    CLOSING = auto()


class ClientConnection(asyncio.Protocol):
    """`server_state` is a `StoppableState`, the application a `CashierApp`.

    `config.limit_concurrency` limits the connections: see `[server] max_connections`.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.application: CashierApp = config.loaded_app
        self.server_state = cast("StoppableState", server_state)
        self.transport: asyncio.Transport
        self.write_paused = False
        self.reading = True
        self._loop = _loop or asyncio.get_running_loop()
        self._keep_alive_s = config.timeout_keep_alive
        self._max_connections = config.limit_concurrency or math.inf
        # Input from `_at` on is unused; no end of a head was found before `_searched`.
        self._buffer: bytes | bytearray = b""
        self._at = 0
        self._searched = 0
        # Of the message in progress: blank lines before it, and what is left of its body. `_chunks`
        # is set while `_left` is `CHUNKED`.
        self._blank_bytes = 0
        self._left = 0
        self._chunks: ChunkedBody | None = None
        # A request whose body is being received.
        self._request: RequestHead | None = None
        self._body = bytearray()
        self._exchange: Exchange | None = None
        # No input counts any more: it is not HTTP, or the client has sent its last.
        self._unreadable = False
        self._ended = False
        self._discarded = 0
        self._writable: asyncio.Event | None = None
        self._unsent = 0
        self._phase = Phase.IDLE
        self._phase_s = HEAD_TIMEOUT_S
        self._deadline = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = math.inf

    def __repr__(self) -> str:
        return f"<ClientConnection {self._phase.name} {self._exchange!r} buffered={len(self._buffer) - self._at}>"

    # Events of the transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as asyncio does
        self.transport = transport
        state = self.server_state
        if len(state.connections) >= self._max_connections and not self._close_longest_idle():
            self._phase = Phase.CLOSING
            self._write_refusal(b"", {}, closes=True)
            transport.close()
            return
        state.connections.add(self)  # type: ignore[arg-type] # uvicorn lists its own protocols
        self._report_count()
        self._enter(Phase.IDLE, CLOSE_GRACE_S if state.stopping else HEAD_TIMEOUT_S)

    def data_received(self, data: bytes) -> None:
        if self._unreadable or self._phase is Phase.CLOSING:
            self._discard(len(data))
            return
        if self._at == len(self._buffer):
            self._buffer, self._at, self._searched = data, 0, 0
        else:
            self._append(data)
        self._advance()

    def eof_received(self) -> bool:
        """Keep the connection open for the responses to complete requests."""
        self._ended = True
        if self._phase is Phase.CLOSING:
            self.transport.close()
        elif self._left:
            self._drop_exchange()
            self._close()
        elif self._exchange is not None:
            self._enter(Phase.EXCHANGE, PROBE_S)
        else:
            self._advance()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._phase = Phase.CLOSING
        self.server_state.connections.discard(self)
        self._report_count()
        self.server_state.idle.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._buffer = b""
        self._at = 0
        self._drop_exchange()
        self.write_paused = False
        self._wake_writer()

    def pause_writing(self) -> None:
        self.write_paused = True
        self._unsent = self.transport.get_write_buffer_size()
        self._set_deadline(WRITE_STALL_S)

    def resume_writing(self) -> None:
        self.write_paused = False
        self._wake_writer()
        self._set_deadline(self._phase_s)
        self._advance()

    def shutdown(self) -> None:
        """Close after the request in progress, or after the next one if it arrives soon."""
        if self._phase is Phase.IDLE:
            self._enter(Phase.IDLE, CLOSE_GRACE_S)

    # What an exchange uses

    @property
    def is_last_request(self) -> bool:
        return self.server_state.draining and self._at == len(self._buffer)

    async def writable(self) -> None:
        if self._writable is None:
            self._writable = asyncio.Event()
        self._writable.clear()
        await self._writable.wait()

    def address(self, name: str) -> tuple[str, int] | None:
        address = self.transport.get_extra_info(name)
        return (str(address[0]), int(address[1])) if isinstance(address, tuple) else None

    def adjust_reading(self) -> None:
        exchange = self._exchange
        wanted = len(self._buffer) - self._at <= READ_AHEAD_BYTES and (
            exchange is None or exchange.unread_bytes <= READ_AHEAD_BYTES
        )
        if wanted != self.reading and not (self._ended or self.transport.is_closing()):
            self.reading = wanted
            if wanted:
                self.transport.resume_reading()
            else:
                self.transport.pause_reading()

    def complete(self, exchange: Exchange) -> None:
        self.server_state.total_requests += 1
        self._exchange = None
        # What the head did not announce is not done: the signal to stop may have come after it.
        if exchange.closes or self._unreadable:
            self._close()
        else:
            if self._left or self.server_state.draining:
                self._end_message()
            else:
                self._enter(Phase.IDLE, self._keep_alive_s)
            if self._at < len(self._buffer) or self._ended or not self.reading:
                self._advance()

    def abandon(self, exchange: Exchange) -> None:
        if self._exchange is not exchange:
            return  # the connection is lost
        if exchange.response_started:
            # An orderly end would look like a complete response to some clients.
            self.transport.abort()
        else:
            self._exchange = None
            self._close()

    # Input

    def _append(self, data: bytes) -> None:
        if isinstance(self._buffer, bytes):
            self._buffer = bytearray(self._buffer)
        if self._at:
            del self._buffer[: self._at]
            self._searched = max(0, self._searched - self._at)
            self._at = 0
        self._buffer += data

    def _advance(self) -> None:
        """Use the input as far as it goes. A request starts after the response to the previous."""
        while self._phase is not Phase.CLOSING and not self._unreadable:
            if self._left:
                if not self._read_body():
                    break
            elif self._exchange is not None or self.write_paused:
                break
            elif self._at == len(self._buffer):
                if self._ended:
                    self._close()
                break
            elif not self._start_request():
                break
        if not self.reading or len(self._buffer) - self._at > READ_AHEAD_BYTES or self._left:
            self.adjust_reading()

    def _start_request(self) -> bool:
        """Whether the head of the next request was complete."""
        buffer, begin = self._buffer, self._at
        while buffer.startswith(b"\r\n", begin):
            begin += 2
        self._blank_bytes += begin - self._at
        self._at = begin
        budget = HEAD_LIMIT_BYTES - self._blank_bytes
        try:
            parsed = parse_head(buffer, begin, self._searched, budget)
        except ProtocolError as error:
            self._refuse(error)
            return False
        if parsed is None:
            self._searched = len(buffer)
            if self._ended:
                self._close()
            elif self._phase is Phase.IDLE and buffer[begin : begin + 1] not in (b"", b"\r"):
                self._enter(Phase.HEAD, HEAD_TIMEOUT_S)
            return False
        request, end = parsed
        self._at = self._searched = end
        self._blank_bytes = 0
        self._left = length = request.length
        if length == CHUNKED:
            self._chunks = ChunkedBody(budget - (end - begin))
        if 0 <= length <= len(buffer) - end:
            self._at, self._left = end + length, 0
            self._serve(request, bytes(buffer[end : end + length]))
        elif length > self.application.body_limit_bytes or request.expects_continue:
            self._serve(request, b"")
        else:
            self._request = request
            self._enter(Phase.BODY, self.application.body_timeout_s)
        return True

    def _serve(self, request: RequestHead, body: bytes) -> None:
        """Start the application, unless the request is a consultation that is not admitted."""
        consultation = request.target == CONSULT_TARGET and request.method == b"POST"
        if consultation and self.application.limits_admission and not self._admits(request, body):
            self._refuse_for_overload(request)
            return
        self._exchange = exchange = Exchange(self, request, body, received=not self._left, admitted=consultation)
        self.server_state.idle.pop(self, None)
        self._phase = Phase.EXCHANGE
        self._deadline = self._phase_s = math.inf
        if self._ended:
            self._enter(Phase.EXCHANGE, PROBE_S)
        task = self._loop.create_task(exchange.run())
        self.server_state.tasks.add(task)
        task.add_done_callback(self.server_state.tasks.discard)

    def _admits(self, request: RequestHead, body: bytes) -> bool:
        """Whether the consultation is admitted. Counts it: call once."""
        return self.application.admits(request_priority(request.fields, body, self.application.is_verified))

    def _write_refusal(self, target: bytes, headers: Mapping[bytes, bytes], *, closes: bool) -> None:
        application = self.application
        refusal = encode_refusal(headers, application.origins, application.refusal_texts, closes=closes)
        application.http_metrics.count_response(target, refusal)
        self.transport.write(refusal)

    def _refuse_for_overload(self, request: RequestHead) -> None:
        """Refusals must leave most CPU time to admitted requests: one write, and no task."""
        closes = not request.keep_alive or self.is_last_request
        self._write_refusal(CONSULT_TARGET, request.fields, closes=closes)
        if closes:
            self._close()
        else:
            self._end_message()

    def _end_message(self) -> None:
        """Wait for the next request, after the rest of a request that is answered already."""
        if self._left:
            self._enter(Phase.DISCARD, DISCARD_S)
        else:
            self._enter(Phase.IDLE, CLOSE_GRACE_S if self.server_state.stopping else self._keep_alive_s)

    def _read_body(self) -> bool:
        """Whether the body of the request in progress is complete."""
        fault = None
        if self._chunks is None:
            piece = self._take_body()
        else:
            piece, self._at = self._chunks.feed(self._buffer, self._at)
            fault = self._chunks.fault
            if self._chunks.complete:
                self._chunks, self._left = None, 0
        if self._request is not None:
            self._body += piece
            if not self._left or len(self._body) > self.application.body_limit_bytes:
                request, body = self._request, bytes(self._body)
                self._request = None
                self._body.clear()
                self._serve(request, body)
        elif self._exchange is not None:
            self._exchange.feed(piece, complete=not self._left)
        elif not self._left:
            self._end_message()
        if fault is not None:
            self._unreadable = True
            if self._exchange is not None:
                self._exchange.fail(fault)
            elif self._phase is Phase.BODY:
                self._refuse(fault)
            else:
                self._close()
        return not self._left

    def _take_body(self) -> bytes:
        """Take the buffered part of a body with a length."""
        end = self._at + self._left
        piece = bytes(self._buffer[self._at : end])
        self._at += len(piece)
        self._left -= len(piece)
        return piece

    def _refuse(self, error: ProtocolError) -> None:
        """Answer an unreadable request with a problem, and close."""
        status, headers, body = final_problem(error.code, error.detail)
        head = encode_head(status, [*self.server_state.default_headers, *headers])
        target = b"" if self._request is None else self._request.target
        self.application.http_metrics.count_response(target, head + body)
        line = self._buffer[self._at :] if self._request is None else self._request.method
        self.transport.write(head if line.startswith(b"HEAD") else head + body)
        self._unreadable = True
        self._close()

    # The end

    def _drop_exchange(self) -> None:
        """End the work for a client that has gone, quietly."""
        if self._exchange is not None:
            self._exchange.disconnect()
            self._exchange = None

    def _close(self) -> None:
        """Close after everything is written. Discard input on its way, unless there is none."""
        # Between requests the buffer has blank lines only, which are no input.
        unused = self._phase is not Phase.IDLE and self._at < len(self._buffer)
        more = self._unreadable or self._left or unused
        self._buffer, self._at, self._left, self._chunks, self._request = b"", 0, 0, None, None
        self._unsent = self.transport.get_write_buffer_size()
        self._enter(Phase.CLOSING, WRITE_STALL_S if self._unsent else DISCARD_S)
        if self.transport.is_closing():
            return
        if self._ended or not more:
            self.transport.close()
        else:
            self.transport.write_eof()
            self.adjust_reading()

    def _discard(self, count: int) -> None:
        self._discarded += count
        if self._discarded > DISCARD_BYTES:
            self.transport.abort()

    def _close_longest_idle(self) -> bool:
        for connection in self.server_state.idle:
            if connection.is_unused():
                self.server_state.connections.discard(connection)
                connection._close()
                return True
        return False

    def is_unused(self) -> bool:
        """Whether an idle connection has nothing to send, and the kernel no request from it."""
        return not self.transport.get_write_buffer_size() and not _unread_bytes(self.transport)

    def _report_count(self) -> None:
        count = len(self.server_state.connections)
        self.application.http_metrics.connections.set(count)
        if self.server_state.count is not None:
            self.server_state.count.set(count)

    def _wake_writer(self) -> None:
        if self._writable is not None:
            self._writable.set()

    # Deadlines

    def _enter(self, phase: Phase, seconds: float) -> None:
        idle = self.server_state.idle
        idle.pop(self, None)
        if phase is Phase.IDLE:
            idle[self] = None
        self._phase = phase
        self._phase_s = seconds
        if not self.write_paused:
            self._deadline = self._loop.time() + seconds
            if self._deadline < self._timer_due:
                self._start_timer(seconds)

    def _set_deadline(self, seconds: float) -> None:
        """One timer follows all deadlines: one that is put off only makes it start again."""
        self._deadline = self._loop.time() + seconds
        if self._deadline < self._timer_due:
            self._start_timer(seconds)

    def _start_timer(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_due = self._deadline
        self._timer = self._loop.call_later(seconds, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._timer_due = math.inf
        if self._deadline == math.inf:
            return
        early_s = self._deadline - self._loop.time()
        # uvloop's clock has milliseconds.
        if early_s > 0.001:
            self._start_timer(early_s)
        else:
            self._on_deadline()

    def _on_deadline(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        if self.write_paused or (self._phase is Phase.CLOSING and unsent):
            if self._unsent - unsent < WRITE_STALL_BYTES:
                _reset(self.transport)
            else:
                self._unsent = unsent
                self._set_deadline(WRITE_STALL_S)
        elif self._phase is Phase.IDLE:
            if _unread_bytes(self.transport):
                self._set_deadline(CLOSE_GRACE_S)
            else:
                self._close()
        elif self._phase is Phase.HEAD:
            self._close()
        elif self._phase is Phase.BODY:
            self._refuse(ProtocolError(ProblemCode.BODY_TIMEOUT, "The body was not complete in time."))
        elif self._phase is Phase.EXCHANGE:
            self._probe()
        else:
            self.transport.abort()

    def _probe(self) -> None:
        exchange = self._exchange
        if exchange is not None and (probe := exchange.probe):
            self.transport.write(probe)
            if self._phase_s < LAST_PROBE_S:
                self._enter(Phase.EXCHANGE, 2 * self._phase_s)


def _reset(transport: asyncio.Transport) -> None:
    """Abort, and have the kernel drop what it could still send. It would keep that for minutes."""
    client_socket = transport.get_extra_info("socket")
    if client_socket is not None:
        client_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _unread_bytes(transport: asyncio.Transport) -> int:
    """The bytes in the kernel that the loop has not read yet. They may be a request."""
    client_socket = transport.get_extra_info("socket")
    if client_socket is None:
        return 0
    count = array.array("i", [0])
    fcntl.ioctl(client_socket.fileno(), termios.FIONREAD, count)
    return count[0]

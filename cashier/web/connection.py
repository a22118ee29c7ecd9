"""One HTTP connection: uvicorn's protocol, with bounds on what a client may hold open and an end that loses no request.

uvicorn leaves five things open, which are closed here. Headers may be endless and a half-sent head may stay for ever. An idle
connection is closed though a request may be waiting in the kernel's buffer. A request that comes while the server stops is not told that
the connection ends. Bytes that are not HTTP are answered at once, so the error overtakes the answer that is still being made. A request
that would rather speak another protocol loses its body, and Java's client wishes for HTTP/2 with the first request of each connection.

And when there is too much to do, whom the ladder does not admit is told so here, before anything is parsed.
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import termios
from typing import Any, cast

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from cashier.web.application import ADMITTED, CashierApp
from cashier.web.consultation_stream import accepts_event_stream
from cashier.web.fast_path import FastPath
from cashier.web.overload_response import encode_refusal, plain_request_priority
from cashier.web.plain_request import PlainRequest, parse_plain_request
from cashier.web.problem import ProblemCode, encode_problem, make_problem
from cashier.web.request_headers import read_request_id
from cashier.web.single_write import SingleWrite

HEAD_LIMIT_BYTES = 65_536
HEAD_TIMEOUT_S = 10.0
# How long a body that was answered before its end is still swallowed, so that its sender gets to read the answer.
DISCARD_BODY_S = 5.0
# While the server stops: how long a connection without a request may still bring one. Closing at once would cross with those under way.
CLOSE_GRACE_S = 0.25
# What goes with a wish for another protocol. Without its Connection header a request stays what its version makes it.
_UPGRADE_HEADERS = (b"upgrade", b"connection", b"http2-settings")

_FINAL_HEADERS = (
    b"content-type: application/problem+json\r\nx-request-id: %s\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
)


class StoppableState(ServerState):
    """What all connections of a server share."""

    def __init__(self) -> None:
        super().__init__()
        self.draining = False


class ClientConnection(HttpToolsProtocol):
    """`server_state` is a `StoppableState`."""

    server_state: StoppableState

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        # From the first byte of a request to its last.
        self.receiving = False
        self._in_head = False
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._last_of_all: RequestResponseCycle | None = None
        door = config.loaded_app
        self._door: CashierApp | None = door if isinstance(door, CashierApp) else None
        self._admitted = False
        self._refused_lately = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn narrows it
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._head_overdue)
        if self.server_state.draining:
            self.loop.call_later(CLOSE_GRACE_S, self._close_if_quiet)

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_head_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_between_requests() and self._door is not None:
            request = parse_plain_request(data)
            if request is not None and (self._refuses(request, self._door) or self._serves(request, self._door)):
                return
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as wish:
            self._overlook_wish(data[wish.args[0] :])
        except httptools.HttpParserError:
            self._give_up(ProblemCode.MALFORMED, "This is not HTTP/1.1.")
        if self._in_head:
            self._head_unfinished(len(data))

    def on_message_begin(self) -> None:
        self.receiving = self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            # The parser takes what follows for the other protocol. The same head without the wish is on its way.
            return
        self._forget_head_timer()
        self._head_bytes = 0
        self._in_head = False
        super().on_headers_complete()
        if self._admitted:
            self._admitted = False
            self.scope[ADMITTED] = True  # type: ignore[literal-required]  # ours alone; servers may add keys
        self.cycle.transport = cast("asyncio.Transport", SingleWrite(self.transport))  # all of it that a cycle uses
        if self.server_state.draining:
            self._make_last(self.cycle)

    def on_message_complete(self) -> None:
        if self._in_head:
            return
        self.receiving = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.receiving and not self.transport.is_closing():
            self.loop.call_later(DISCARD_BODY_S, self._cut, self.cycle)

    def timeout_keep_alive_handler(self) -> None:
        if self._refused_lately:
            self._stay()
        else:
            self._close_if_quiet()

    def shutdown(self) -> None:
        """The server stops: the request under way is the last, or the next one if it comes soon."""
        if self._serving():
            self._make_last(self.cycle)
        else:
            self.loop.call_later(CLOSE_GRACE_S, self._close_if_quiet)

    def _is_between_requests(self) -> bool:
        """Whether nothing is under way and nothing stands in the way of an answer."""
        return not (
            self.receiving
            or self._serving()
            or self.flow.write_paused
            or self.server_state.draining
            or self.transport.is_closing()
        )

    def _refuses(self, request: PlainRequest, door: CashierApp) -> bool:
        """Whether a consultation was refused. One write, and no timer moved: most of the time must be left for those who are let in."""
        if not door.crowded:
            return False
        self._admitted = door.admits(plain_request_priority(request, door.knows))
        if self._admitted:
            return False
        self.transport.write(encode_refusal(request))
        self._forget_head_timer()
        self._refused_lately = True
        if self.timeout_keep_alive_task is None:
            self._stay()
        return True

    def _serves(self, request: PlainRequest, door: CashierApp) -> bool:
        """Whether it is answered as a whole. A stream is not."""
        headers = request.headers()
        if headers is None or accepts_event_stream(headers.get(b"accept")):
            return False
        self._admitted = False
        self._unset_keepalive_if_required()
        self._forget_head_timer()
        whole = FastPath(self, headers, request.data[request.body :])
        self.cycle = cast("RequestResponseCycle", whole)  # has all that is asked of one
        task = self.loop.create_task(whole.run(door, self.server_state.default_headers))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return True

    def _stay(self) -> None:
        self._refused_lately = False
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def _overlook_wish(self, rest: bytes) -> None:
        """The request as if it had not asked for another protocol (RFC 9110, section 7.8: a server may ignore that)."""
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._give_up(ProblemCode.MALFORMED, "This is no proxy.")
            return
        lines = [b"%s %s HTTP/%s" % (method, self.url, self.parser.get_http_version().encode())]
        lines += [b"%s: %s" % header for header in self.headers if header[0] not in _UPGRADE_HEADERS]
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"\r\n".join(lines) + b"\r\n\r\n" + rest)

    def _serving(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _make_last(self, cycle: RequestResponseCycle) -> None:
        """Of requests that came in one go only the last ends the connection, else those behind it would be lost."""
        before = self._last_of_all
        if before is not None and not before.response_started:
            before.keep_alive = True
        if cycle.keep_alive:
            cycle.keep_alive = False
            self._last_of_all = cycle

    def _close_if_quiet(self) -> None:
        if self.transport.is_closing() or self.receiving or self._serving() or _has_unread_bytes(self.transport):
            return
        self.transport.close()

    def _head_unfinished(self, received_bytes: int) -> None:
        self._head_bytes += received_bytes
        if self.transport.is_closing():
            return
        if self._head_bytes > HEAD_LIMIT_BYTES:
            self._give_up(
                ProblemCode.HEADERS_TOO_LARGE, f"The request line and headers must not exceed {HEAD_LIMIT_BYTES} bytes."
            )
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._head_overdue)

    def _head_overdue(self) -> None:
        """No whole head in time. While answers are being made reading may be paused, so it may be our own doing."""
        self._head_timer = None
        if self._serving():
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._head_overdue)
        elif not self.transport.is_closing():
            self.transport.close()

    def _forget_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _cut(self, cycle: RequestResponseCycle) -> None:
        if self.receiving and self.cycle is cycle:
            self.transport.abort()

    def _give_up(self, code: ProblemCode, detail: str) -> None:
        """No more can be read. Answers to whole requests go first, and then there is no more to say."""
        if self._serving() and (self._in_head or not self.receiving):
            self.cycle.keep_alive = False
            self.flow.pause_reading()
            return
        if self._serving():
            # The body of the request under way is broken: the application is told what it would be told of a client that went away.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            what = make_problem(code, detail)
            body = encode_problem(what)
            identity = read_request_id({}).encode("ascii")
            self.transport.write(STATUS_LINE[what.status] + _FINAL_HEADERS % (identity, len(body)) + body)
        self.transport.close()


def _has_unread_bytes(transport: asyncio.Transport) -> bool:
    """Whether the kernel holds bytes that the loop has not read yet: they may be a request."""
    count = array.array("i", [0])
    fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.FIONREAD, count)
    return count[0] > 0

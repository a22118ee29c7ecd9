"""One HTTP connection: uvicorn's protocol with limits on the client and a lossless close.

Changes uvicorn's behaviour in these points:

- The size of a request head is limited, and so is the time to send it.
- An idle connection is not closed while a request waits in the kernel's buffer.
- While the server stops, a response tells its client that the connection ends.
- Bytes that are not HTTP are refused after the responses in progress, not ahead of them.
- A request that asks for a protocol upgrade keeps its body. Java's client asks for HTTP/2 with the
  first request of every connection.

Under overload it refuses a plain request before parsing it.
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
from cashier.web.fast_path import FastPath
from cashier.web.fast_path_parser import PlainRequest, parse_plain_request
from cashier.web.overload_response import encode_refusal, plain_request_priority
from cashier.web.problem import ProblemCode, encode_problem, make_problem
from cashier.web.request_headers import read_request_id
from cashier.web.single_write import SingleWrite
from cashier.web.sse import accepts_event_stream

HEAD_LIMIT_BYTES = 65_536
HEAD_TIMEOUT_S = 10.0
# How long the rest of an answered body is discarded, which lets its sender read the
# response.
DISCARD_BODY_S = 5.0
# How long a connection without a request may still send one while the server stops. An immediate
# close would cross with a request on its way.
CLOSE_GRACE_S = 0.25
# The headers of a protocol upgrade. Without Connection the HTTP version decides on keep-alive.
_UPGRADE_HEADERS = (b"upgrade", b"connection", b"http2-settings")

_FINAL_HEADERS = (
    b"content-type: application/problem+json\r\nx-request-id: %s\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
)


class StoppableState(ServerState):
    """State that all connections of a server share.

    `draining`: every answer ends its connection. `stopping`: no new connection is to be expected.
    """

    def __init__(self) -> None:
        super().__init__()
        self.draining = False
        self.stopping = False


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
        self._last_cycle: RequestResponseCycle | None = None
        application = config.loaded_app
        self._application: CashierApp | None = application if isinstance(application, CashierApp) else None
        self._admitted = False
        self._refused_since_timer = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn narrows it
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._on_head_timeout)
        if self.server_state.stopping:
            self.loop.call_later(CLOSE_GRACE_S, self._close_if_idle)

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_head_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_between_requests() and self._application is not None:
            request = parse_plain_request(data)
            if request is not None and (
                self._refuse(request, self._application) or self._serve_fast(request, self._application)
            ):
                return
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._end_input(ProblemCode.MALFORMED, "The request is not HTTP/1.1.")
        if self._in_head:
            self._on_partial_head(len(data))

    def on_message_begin(self) -> None:
        self.receiving = self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            # The parser takes the rest for the other protocol. `_ignore_upgrade` parses the same
            # head without its upgrade headers.
            return
        self._cancel_head_timer()
        self._head_bytes = 0
        self._in_head = False
        super().on_headers_complete()
        if self._admitted:
            self._admitted = False
            self.scope[ADMITTED] = True  # type: ignore[literal-required]  # a scope may carry private keys
        # A cycle uses no more of a transport than `SingleWrite` has.
        self.cycle.transport = cast("asyncio.Transport", SingleWrite(self.transport))
        if self.server_state.draining:
            self._close_after(self.cycle)

    def on_message_complete(self) -> None:
        if self._in_head:
            return
        self.receiving = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.receiving and not self.transport.is_closing():
            self.loop.call_later(DISCARD_BODY_S, self._abort_if_receiving, self.cycle)

    def timeout_keep_alive_handler(self) -> None:
        if self._refused_since_timer:
            self._restart_keep_alive()
        else:
            self._close_if_idle()

    def shutdown(self) -> None:
        """Close after the request in progress, or after the next one if it arrives soon."""
        if self._is_responding():
            self._close_after(self.cycle)
        else:
            self.loop.call_later(CLOSE_GRACE_S, self._close_if_idle)

    def _is_between_requests(self) -> bool:
        """Whether no request is in progress and a response could be written at once."""
        return not (
            self.receiving
            or self._is_responding()
            or self.flow.write_paused
            or self.server_state.draining
            or self.transport.is_closing()
        )

    def _refuse(self, request: PlainRequest, application: CashierApp) -> bool:
        """Whether the consultation was refused for overload.

        Makes one write and moves no timer: refusals must leave most CPU time to admitted requests.
        """
        if not application.limits_admission:
            return False
        self._admitted = application.admits(plain_request_priority(request, application.is_verified))
        if self._admitted:
            return False
        self.transport.write(encode_refusal(request, application.origins))
        self._cancel_head_timer()
        self._refused_since_timer = True
        if self.timeout_keep_alive_task is None:
            self._restart_keep_alive()
        return True

    def _serve_fast(self, request: PlainRequest, application: CashierApp) -> bool:
        """Whether the request takes the fast path. A request for an event stream does not."""
        headers = request.headers()
        if headers is None or accepts_event_stream(headers.get(b"accept")):
            return False
        self._admitted = False
        self._unset_keepalive_if_required()
        self._cancel_head_timer()
        fast_path = FastPath(self, headers, request.data[request.body :])
        # `FastPath` has every attribute of a cycle that the protocol uses.
        self.cycle = cast("RequestResponseCycle", fast_path)
        task = self.loop.create_task(fast_path.run(application, self.server_state.default_headers))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return True

    def _restart_keep_alive(self) -> None:
        self._refused_since_timer = False
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Parse the request again without its upgrade headers (RFC 9110, section 7.8)."""
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._end_input(ProblemCode.MALFORMED, "CONNECT is not supported.")
            return
        lines = [b"%s %s HTTP/%s" % (method, self.url, self.parser.get_http_version().encode())]
        lines += [b"%s: %s" % header for header in self.headers if header[0] not in _UPGRADE_HEADERS]
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"\r\n".join(lines) + b"\r\n\r\n" + rest)

    def _is_responding(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _close_after(self, cycle: RequestResponseCycle) -> None:
        """Make `cycle` the last. Of pipelined requests only the last may end the connection."""
        previous = self._last_cycle
        if previous is not None and not previous.response_started:
            previous.keep_alive = True
        if cycle.keep_alive:
            cycle.keep_alive = False
            self._last_cycle = cycle

    def _close_if_idle(self) -> None:
        if self.transport.is_closing() or self.receiving or self._is_responding() or _has_unread_bytes(self.transport):
            return
        self.transport.close()

    def _on_partial_head(self, received_bytes: int) -> None:
        self._head_bytes += received_bytes
        if self.transport.is_closing():
            return
        if self._head_bytes > HEAD_LIMIT_BYTES:
            self._end_input(
                ProblemCode.HEADERS_TOO_LARGE, f"The request line and headers must not exceed {HEAD_LIMIT_BYTES} bytes."
            )
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._on_head_timeout)

    def _on_head_timeout(self) -> None:
        """Close, except during a response: this server may have paused reading."""
        self._head_timer = None
        if self._is_responding():
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._on_head_timeout)
        elif not self.transport.is_closing():
            self.transport.close()

    def _cancel_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _abort_if_receiving(self, cycle: RequestResponseCycle) -> None:
        if self.receiving and self.cycle is cycle:
            self.transport.abort()

    def _end_input(self, code: ProblemCode, detail: str) -> None:
        """Stop reading after unreadable input. Responses to complete requests go out first."""
        if self._is_responding() and (self._in_head or not self.receiving):
            self.cycle.keep_alive = False
            self.flow.pause_reading()
            return
        if self._is_responding():
            # The body of the request in progress is broken: for the application its client has
            # gone.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            problem = make_problem(code, detail)
            body = encode_problem(problem)
            request_id = read_request_id({}).encode("ascii")
            self.transport.write(STATUS_LINE[problem.status] + _FINAL_HEADERS % (request_id, len(body)) + body)
        self.transport.close()


def _has_unread_bytes(transport: asyncio.Transport) -> bool:
    """Whether the kernel holds bytes that the loop has not read yet. They may be a request."""
    count = array.array("i", [0])
    fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.FIONREAD, count)
    return count[0] > 0

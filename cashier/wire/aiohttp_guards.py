"""Guards around aiohttp: no resending of its own, no unsolicited answers, no endless waiting.

Each guard names the behaviour that it prevents, as seen in aiohttp 3.14. The tests of `wire` fail
without it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpProcessingError, RawResponseMessage
from aiohttp.streams import StreamReader

from cashier.source_errors import FailureReason, Garbled, Unreachable
from cashier.wire.call_completion import connect_failure_reason, describe_failure, has_unread, loss_reason
from cashier.wire.connection_health import ConnectionHealth


class StaleConnection(Unreachable):
    """A reused connection was unfit before anything was written: any request may use another."""

    reason = FailureReason.RESET


class ConnectionLost(Unreachable):
    """The connection broke before the head of an answer was complete."""


class CheckedConnection(ResponseHandler):
    """A connection that knows its health, and closes if aiohttp takes framing otherwise than named.

    aiohttp takes a body with an unusual `Transfer-Encoding`, such as one with a tab at the end, for
    one that ends with the connection, and then waits for that end. `answered`: it has answered
    before. `previous_id` and `echoed`: see `RequestIdEcho`.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.health = ConnectionHealth()
        self.answered = False
        self.previous_id = b""
        self.echoed = 0

    def feed_data(self, data: tuple[RawResponseMessage, StreamReader], size: int = 0) -> None:
        message = data[0]
        if message.chunked != (aiohttp.hdrs.TRANSFER_ENCODING in message.headers):
            self.close()
            self.set_exception(HttpProcessingError(message="a transfer encoding that is not chunked"))
            return
        super().feed_data(data, size)


class _SuspectsLast(aiohttp.BaseConnector):
    """aiohttp uses idle connections in turn, so that a suspect one gets its share of the calls."""

    async def _get(self, key: Any, traces: Any) -> aiohttp.connector.Connection | None:
        """None: a new connection is opened, also if all idle ones are suspect, others not."""
        idle = self._conns.get(key)
        if idle and any(_suspect(kept) for kept, _ in idle):
            self._conns[key] = idle = deque(sorted(idle, key=lambda kept: _suspect(kept[0])))
            succeeding = any(busy.answered and not _suspect(busy) for busy in self._connected())
            if _suspect(idle[0][0]) and succeeding and len(idle) + len(self._acquired) < self.limit:
                return None
        return await super()._get(key, traces)

    def _connected(self) -> list[CheckedConnection]:
        """Those in use. While one is being opened, aiohttp has something else in its place."""
        return [busy for busy in self._acquired if isinstance(busy, CheckedConnection)]


def _suspect(connection: Any) -> bool:
    return cast("CheckedConnection", connection).health.suspect


class TCPConnector(_SuspectsLast, aiohttp.TCPConnector):
    """To a host and port."""


class UnixConnector(_SuspectsLast, aiohttp.UnixConnector):
    """To a socket file."""


class CheckedResponse(aiohttp.ClientResponse):
    """Remembers its connection. aiohttp forgets it with the last byte."""

    answered_by: CheckedConnection | None = None

    async def start(self, connection: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        self.answered_by = cast("CheckedConnection | None", connection.protocol)
        return await super().start(connection)


class CheckedRequest(aiohttp.ClientRequest):
    """Checks the connection once more before it writes.

    aiohttp's pool hands out connections with an unsolicited answer on them, read or not, and takes
    that answer for the answer to the next request.
    """

    async def send(self, conn: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        protocol = cast("CheckedConnection | None", conn.protocol)
        if (
            protocol is None
            or protocol.should_close
            or protocol.transport is None
            or (protocol.answered and has_unread(protocol.transport))
        ):
            raise StaleConnection(f"{self.url.origin()}: a reused connection is unfit", sent=False)
        return await super().send(conn)


async def report_loss(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Middleware: turn errors that aiohttp answers by resending into one that it does not know.

    aiohttp resends by method, regardless of the error and the connection. Here `Request.safe`
    decides.
    """
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        # The text of a ServerDisconnectedError may hold part of the answer.
        failure = describe_failure(error if isinstance(error, OSError) else None)
        raise ConnectionLost(f"{request.url.origin()}: {failure}", reason=loss_reason(error.__cause__)) from error


def not_connected_reason(error: aiohttp.ClientError, *, tls: bool) -> FailureReason:
    """What kept aiohttp from connecting."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            return FailureReason.DNS
        case aiohttp.ClientSSLError():
            return FailureReason.TLS
        case aiohttp.ClientConnectorError():
            return connect_failure_reason(error.os_error, tls=tls)
    return connect_failure_reason(error, tls=tls)


async def note_reused(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: Any) -> None:
    """Trace callback: the request will be written to a connection that has answered before."""
    context.trace_request_ctx.reused = True
    context.trace_request_ctx.sent = True


async def note_connected(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: Any) -> None:
    """Trace callback: the request will be written to a new connection."""
    context.trace_request_ctx.sent = True


@contextmanager
def fail_when_closed(response: aiohttp.ClientResponse, error: Garbled) -> Iterator[None]:
    """While a body is read, raise `error` in the reader if aiohttp closes the connection silently.

    aiohttp does so if the body breaks the protocol after the head was handed on.
    """

    def fail(_closed: asyncio.Future[None]) -> None:
        if not response.content.is_eof() and response.content.exception() is None:
            response.content.set_exception(error)

    protocol = response.connection.protocol if response.connection is not None else None
    closed = protocol.closed if protocol is not None else None
    if closed is None:  # the complete answer is here
        yield
        return
    # Reading `closed` creates this future, so its exception must be retrieved. Once per connection,
    # however often it is used.
    closed.remove_done_callback(_retrieve_exception)
    closed.add_done_callback(_retrieve_exception)
    closed.add_done_callback(fail)
    try:
        yield
    finally:
        closed.remove_done_callback(fail)


def _retrieve_exception(closed: asyncio.Future[None]) -> None:
    """Prevent asyncio's report of an exception that was never retrieved."""
    if not closed.cancelled():
        closed.exception()

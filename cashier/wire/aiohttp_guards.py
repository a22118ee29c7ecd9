"""What aiohttp must be kept from doing: sending again by itself, believing what it was not asked for, waiting for ever.

Each guard names what it guards against, as seen in aiohttp 3.14; the tests of `wire` fail without it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import aiohttp

from cashier.source_errors import Garbled, Unreachable
from cashier.wire.delivery import describe_failure


class StaleConnection(Unreachable):
    """The kept connection turned out unfit before anything was written: any request may go out on another one."""


class ConnectionLost(Unreachable):
    """The connection broke before the head of an answer was complete."""


class CheckedRequest(aiohttp.ClientRequest):
    """Looks at the connection once more before it writes.

    The pool hands out a connection on which an answer came that nobody had asked for, and takes that answer for the next question's.
    """

    async def send(self, conn: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        if conn.protocol is None or conn.protocol.should_close:
            raise StaleConnection(f"{self.url.origin()}: a kept connection is unfit", sent=False)
        return await super().send(conn)


async def report_loss(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """A middleware: what aiohttp would answer by sending again becomes something that it does not know.

    It repeats by method, whatever broke and on whatever connection. What may be sent twice is `Request.safe`.
    """
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        # The text of a ServerDisconnectedError may hold what had come of the answer.
        happened = describe_failure(error if isinstance(error, OSError) else None)
        raise ConnectionLost(f"{request.url.origin()}: {happened}") from error


async def note_reused(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: Any) -> None:
    """For a trace: this request goes out on a connection that had answered before."""
    context.trace_request_ctx.kept = True
    context.trace_request_ctx.sent = True


async def note_connected(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: Any) -> None:
    """For a trace: this request has a connection of its own, and is written next."""
    context.trace_request_ctx.sent = True


@contextmanager
def fail_when_closed(answer: aiohttp.ClientResponse, verdict: Garbled) -> Iterator[None]:
    """While a body is read. Where one breaks the protocol after its head was handed on, aiohttp closes the connection and tells nobody."""

    def tell(_closed: asyncio.Future[None]) -> None:
        if not answer.content.is_eof() and answer.content.exception() is None:
            answer.content.set_exception(verdict)

    protocol = answer.connection.protocol if answer.connection is not None else None
    closed = protocol.closed if protocol is not None else None
    if closed is None:  # the whole answer is here
        yield
        return
    # aiohttp makes this future for us alone, so we have to look at it. At most once per connection, however often it is used.
    closed.remove_done_callback(_look)
    closed.add_done_callback(_look)
    closed.add_done_callback(tell)
    try:
        yield
    finally:
        closed.remove_done_callback(tell)


def _look(closed: asyncio.Future[None]) -> None:
    """A future that ends in an exception at which nobody looks is reported as a bug."""
    if not closed.cancelled():
        closed.exception()

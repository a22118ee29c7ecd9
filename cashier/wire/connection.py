"""One upstream connection: writes a request, reads its answer, reports events to its owner."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol, cast

from cashier.source_errors import Garbled
from cashier.wire.response_parser import ResponseBounds, ResponseParser

if TYPE_CHECKING:
    from cashier.wire.host_pool import HostPool
    from cashier.wire.http1_call import Http1Call


class ConnectionOwner(Protocol):
    """Receives the events of its connections."""

    def on_open(self, connection: UpstreamConnection) -> None: ...

    def on_free(self, connection: UpstreamConnection) -> None:
        """The answer is complete, but not yet delivered, and the connection is reusable."""

    def on_unfit(self, connection: UpstreamConnection) -> None:
        """The connection must not be used again. `on_lost` follows."""

    def on_lost(self, connection: UpstreamConnection, error: BaseException | None) -> None: ...


class UpstreamConnection(asyncio.Protocol):
    """`call`: the one in flight, None while idle. `reused`: it has answered before.

    `idle_since_s` is monotonic.
    """

    __slots__ = ("_owner", "_parser", "_transport", "call", "idle_since_s", "pool", "reused")

    _transport: asyncio.Transport

    def __init__(self, owner: ConnectionOwner, pool: HostPool, bounds: ResponseBounds) -> None:
        self._owner = owner
        self._parser = ResponseParser(pool.address.name, bounds)
        self.pool = pool
        self.call: Http1Call | None = None
        self.reused = False
        self.idle_since_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, because uvloop's transports have the methods of a transport but not the base
        # class.
        self._transport = cast("asyncio.Transport", transport)
        self._owner.on_open(self)

    @property
    def usable(self) -> bool:
        return not self._transport.is_closing()

    @property
    def answer_started(self) -> bool:
        """Part of the answer to the current request has arrived."""
        return self._parser.started

    def send(self, call: Http1Call, request: bytes) -> None:
        self.call = call
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        call = self.call
        if call is None:
            self.drop()  # an answer without a request
            return
        try:
            response = self._parser.feed(data)
        except Garbled as garbled:
            self.drop()
            call.finish(garbled)
            return
        if response is None:
            return
        self.call = None
        self.reused = True
        if self._parser.reusable:
            self._owner.on_free(self)
        else:
            self.drop()
        call.finish(response)

    def eof_received(self) -> None:
        # A half-closed connection is useless: no further answer will arrive.
        self._owner.on_unfit(self)
        self._transport.abort()

    def drop(self) -> None:
        """Close at once, without notice to the call in flight."""
        self.call = None
        self._owner.on_unfit(self)
        self._transport.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._owner.on_lost(self, exc)
        self._parser.close()

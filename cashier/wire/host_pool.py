"""The connections to one address: the pool opens them and keeps the idle ones.

`http1` assigns calls. A connection writes a request, reads its answer, and reports events to its
owner.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Protocol, cast

from cashier.source_errors import Garbled, Unreachable
from cashier.wire.address_parser import UpstreamAddress
from cashier.wire.call_completion import describe_failure
from cashier.wire.http1_call import Http1Call
from cashier.wire.load_balancing import BackOff
from cashier.wire.request_writer import RequestWriter
from cashier.wire.response_parser import ResponseBounds, make_parser
from cashier.wire.transport import MAX_UNSAFE_IDLE_S


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
        self._parser = make_parser(pool.address.name, bounds)
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


class HostPool:
    """`idle` is a stack: the connection used last is used next, surplus ones age at the bottom.

    `address_index`: the index of this address among those of its source.
    """

    __slots__ = ("_bounds", "_tls", "address", "address_index", "back_off", "connecting", "idle", "open", "writer")

    def __init__(
        self, address_index: int, address: UpstreamAddress, bounds: ResponseBounds, tls: ssl.SSLContext | None
    ) -> None:
        self.address_index = address_index
        self.address = address
        self.writer = RequestWriter(address)
        self.back_off = BackOff()
        self.idle: list[UpstreamConnection] = []
        self.open: set[UpstreamConnection] = set()
        self.connecting = 0
        self._bounds = bounds
        self._tls = tls

    @property
    def size(self) -> int:
        return len(self.open) + self.connecting

    @property
    def load(self) -> int:
        """Calls in flight and calls waiting for a connection that is being opened."""
        return len(self.open) - len(self.idle) + self.connecting

    def take(self) -> UpstreamConnection | None:
        """The youngest idle connection, or None."""
        while self.idle:
            connection = self.idle.pop()
            if connection.usable:
                return connection
        return None

    def take_fresh(self, now_s: float) -> UpstreamConnection | None:
        """For an unsafe request: only a connection idle for less than `MAX_UNSAFE_IDLE_S`."""
        while self.idle and now_s - self.idle[-1].idle_since_s < MAX_UNSAFE_IDLE_S:
            connection = self.idle.pop()
            if connection.usable:
                return connection
        return None

    def make_room(self) -> None:
        """Close the oldest idle connection, if any. `ConnectionOwner.on_lost` follows."""
        if self.idle:
            self.idle[0].drop()

    def forget(self, connection: UpstreamConnection) -> None:
        if connection in self.idle:
            self.idle.remove(connection)

    def expire(self, now_s: float, idle_s: float) -> float:
        """Close connections idle for `idle_s`; return when the next one can expire."""
        while self.idle and self.idle[0].idle_since_s + idle_s <= now_s:
            self.idle[0].drop()
        return (self.idle[0].idle_since_s if self.idle else now_s) + idle_s

    async def connect(self, owner: ConnectionOwner, timeout_s: float) -> UpstreamConnection:
        """Raises Unreachable, also for an unknown name and an untrusted certificate."""
        loop = asyncio.get_running_loop()
        address = self.address

        def make_connection() -> UpstreamConnection:
            return UpstreamConnection(owner, self, self._bounds)

        try:
            async with asyncio.timeout(timeout_s):
                if address.socket_path is not None:
                    _, connection = await loop.create_unix_connection(make_connection, address.socket_path)
                else:
                    _, connection = await loop.create_connection(
                        make_connection, address.host, address.port, ssl=self._tls if address.tls else None
                    )
        except TimeoutError:
            raise Unreachable(f"{address.name}: no connection within {timeout_s * 1000:.0f} ms", sent=False) from None
        except OSError as error:
            raise Unreachable(f"{address.name}: {describe_failure(error)}", sent=False) from error
        return connection

    def __repr__(self) -> str:
        idle = len(self.idle)
        outstanding = len(self.open) - idle
        counts = f"{len(self.open)} open, {idle} idle, {outstanding} outstanding, {self.connecting} connecting"
        return f"<{self.address.name}: {counts}>"

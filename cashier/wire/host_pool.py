"""One address and the connections to it. Opens them and keeps the idle ones; who is served by which is decided in `http1`."""

from __future__ import annotations

import asyncio
import ssl

from cashier.source_errors import Unreachable
from cashier.wire.addresses import UpstreamAddress
from cashier.wire.connection import ConnectionOwner, UpstreamConnection
from cashier.wire.delivery import describe_failure
from cashier.wire.load_balancing import BackOff
from cashier.wire.request_writer import RequestWriter
from cashier.wire.response_parser import ResponseBounds
from cashier.wire.transport import MAX_UNSAFE_IDLE_S


class HostPool:
    """`idle` is a stack: the connection used last is used next, so that those too many grow old at the bottom.

    `place` is its index among the addresses of its source.
    """

    __slots__ = ("_bounds", "_tls", "address", "back_off", "connecting", "heads", "idle", "open", "place")

    def __init__(
        self, place: int, address: UpstreamAddress, bounds: ResponseBounds, tls: ssl.SSLContext | None
    ) -> None:
        self.place = place
        self.address = address
        self.heads = RequestWriter(address)
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
        """Calls under way and calls that wait for a connection of their own."""
        return len(self.open) - len(self.idle) + self.connecting

    def take(self) -> UpstreamConnection | None:
        """An idle connection, the youngest; None if there is none."""
        while self.idle:
            connection = self.idle.pop()
            if connection.usable:
                return connection
        return None

    def take_fresh(self, now_s: float) -> UpstreamConnection | None:
        """The same for what must not be sent twice: only one that was in use a moment ago. See `MAX_UNSAFE_IDLE_S`."""
        while self.idle and now_s - self.idle[-1].idle_since_s < MAX_UNSAFE_IDLE_S:
            connection = self.idle.pop()
            if connection.usable:
                return connection
        return None

    def make_room(self) -> None:
        """Closes the idle connection that is oldest, if there is one. `ConnectionOwner.lost` follows."""
        if self.idle:
            self.idle[0].drop()

    def forget(self, connection: UpstreamConnection) -> None:
        if connection in self.idle:
            self.idle.remove(connection)

    def expire(self, now_s: float, idle_s: float) -> float:
        """Closes what has been idle for `idle_s`. Returns when to look again: nothing grows too old before."""
        while self.idle and self.idle[0].idle_since_s + idle_s <= now_s:
            self.idle[0].drop()
        return (self.idle[0].idle_since_s if self.idle else now_s) + idle_s

    async def connect(self, keeper: ConnectionOwner, timeout_s: float) -> UpstreamConnection:
        """Raises Unreachable, for a name that is not known and a certificate that is not trusted as well."""
        loop = asyncio.get_running_loop()
        address = self.address

        def connection() -> UpstreamConnection:
            return UpstreamConnection(keeper, self, self._bounds)

        try:
            async with asyncio.timeout(timeout_s):
                if address.socket_path is not None:
                    _, made = await loop.create_unix_connection(connection, address.socket_path)
                else:
                    _, made = await loop.create_connection(
                        connection, address.host, address.port, ssl=self._tls if address.tls else None
                    )
        except TimeoutError:
            raise Unreachable(f"{address.name}: no connection within {timeout_s * 1000:.0f} ms", sent=False) from None
        except OSError as error:
            raise Unreachable(f"{address.name}: {describe_failure(error)}", sent=False) from error
        return made

    def __repr__(self) -> str:
        idle = len(self.idle)
        outstanding = len(self.open) - idle
        return f"<{self.address.name}: {len(self.open)} open, {idle} idle, {outstanding} outstanding, {self.connecting} connecting>"

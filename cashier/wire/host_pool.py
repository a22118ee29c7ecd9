"""The connections to one address: the pool opens them and keeps the idle ones.

`http1` assigns calls. A connection writes a request, reads its answer, and reports events to its
owner.
"""

from __future__ import annotations

import asyncio
from collections import deque
from math import inf
from typing import Protocol, cast

from cashier.source_errors import FailureReason, Garbled, SourceError, Unreachable, WrongIdentity
from cashier.wire.address_parser import UpstreamAddress
from cashier.wire.call_completion import connect_failure_reason, describe_failure, has_unread
from cashier.wire.connection_health import (
    MAX_ERRORS_IN_ROW,
    ConnectionHealth,
    FailureStreak,
    RequestIdEcho,
    SickClosings,
)
from cashier.wire.http1_call import Http1Call
from cashier.wire.load_balancing import BackOff, LatencyEstimate
from cashier.wire.request_writer import RequestWriter
from cashier.wire.resolver import ResolvedAddress
from cashier.wire.response_parser import ResponseBounds, make_parser
from cashier.wire.tls import ClientTls
from cashier.wire.transport import MAX_UNSAFE_IDLE_S, Request, Response

# The `address_index` of a call or a pool whose address is no longer one of the source's.
RETIRED = -1


class ConnectionOwner(Protocol):
    """Receives the events of its connections. `queue`: the calls that wait for one."""

    queue: deque[Http1Call]

    def on_open(self, connection: UpstreamConnection) -> None: ...

    def on_free(self, connection: UpstreamConnection, call: Http1Call) -> None:
        """The answer is complete, but not yet delivered, and the connection is reusable."""

    def on_refusal(self, connection: UpstreamConnection, call: Http1Call, *, overloaded: bool) -> None:
        """As `on_free`, after a 429 or 5xx. `overloaded`: it asks for less load."""

    def on_discredited(self, connection: UpstreamConnection, error: SourceError) -> bool:
        """See `Response.discredit`."""

    def on_call_end(self, pool: HostPool, call: Http1Call, *, failed: bool) -> None:
        """A call to this one of several addresses ended. See `LoadBalancer.record`."""

    def on_abandoned(self, pool: HostPool, call: Http1Call) -> None:
        """Such a call was given up before it had an answer."""

    def serve_queue(self, pool: HostPool) -> None:
        """A connection is free, and its answer delivered."""

    def on_unfit(self, connection: UpstreamConnection) -> None:
        """The connection must not be used again. `on_lost` follows."""

    def on_lost(self, connection: UpstreamConnection, error: BaseException | None) -> None: ...


class UpstreamConnection(asyncio.Protocol):
    """`call`: the one in flight, None while idle. `answered`: the request that it answered last.

    `idle_since_s` is monotonic. So is `expires_s`: from then on it is closed instead of reused.
    `overtime`: it expired before, and its replacement was started. `took_s`: the duration of its
    last call.
    """

    __slots__ = (
        "_echoed", "_owner", "_parser", "_previous_id", "_transport", "answered", "call", "expires_s", "health",
        "idle_since_s", "overtime", "pool", "took_s",
    )  # fmt: skip

    _transport: asyncio.Transport

    def __init__(self, owner: ConnectionOwner, pool: HostPool, bounds: ResponseBounds) -> None:
        self._owner = owner
        self._parser = make_parser(pool.name, bounds, self)
        self._previous_id = b""
        self._echoed = 0
        self.pool = pool
        self.expires_s = inf
        self.overtime = False
        self.call: Http1Call | None = None
        self.health = ConnectionHealth()
        self.answered: Request | None = None
        self.idle_since_s = 0.0
        self.took_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, because uvloop's transports have the methods of a transport but not the base
        # class.
        self._transport = cast("asyncio.Transport", transport)
        self._owner.on_open(self)

    @property
    def usable(self) -> bool:
        return not self._transport.is_closing()

    @property
    def reused(self) -> bool:
        """It has answered before."""
        return self.answered is not None

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
            self._drop_broken(call, garbled)
            return
        if response is None:
            return
        if self._parser.request_ids and not self._echoes(call):
            self._drop_broken(call, WrongIdentity(f"{self.pool.name}: an answer to another request"))
            return
        # A request without a body is written at once.
        if call.request.body and self._transport.get_write_buffer_size():
            self._answered_early(call, response)
            return
        self.call = None
        self.answered = call.request
        owner, pool = self._owner, self.pool
        errors = pool.errors_in_row
        if pool.balanced:
            owner.on_call_end(pool, call, failed=_refused(response))
        if not self._parser.reusable:
            pool.errors_in_row += response.status >= 500
            self.drop()
        elif response.status >= 500 or response.status == 429:
            overloaded = response.status == 429 or (response.status == 503 and self._parser.retry_after != b"")
            owner.on_refusal(self, call, overloaded=overloaded)
        else:
            if self.health.suspect:
                self.health.record_success()
            owner.on_free(self, call)
        call.finish(response)
        if errors and errors == pool.errors_in_row:  # nor was this answer discredited
            pool.errors_in_row = 0
            pool.broken.clear()
        if owner.queue:
            owner.serve_queue(pool)

    def _answered_early(self, call: Http1Call, response: Response) -> None:
        """A refusal may precede the end of its request; anything else answers another request."""
        if response.status < 400:
            self._drop_broken(call, Garbled(f"{self.pool.name}: an answer before its request was written"))
            return
        if self.pool.balanced:
            self._owner.on_call_end(self.pool, call, failed=_refused(response))
        self.drop()
        call.finish(response)

    def _drop_broken(self, call: Http1Call, error: Garbled) -> None:
        if self.pool.balanced:
            self._owner.on_call_end(self.pool, call, failed=True)
        self.pool.record_broken(call.request)
        self.drop()
        error.elsewhere = self.pool.siblings_succeed
        call.finish(error)

    def _echoes(self, call: Http1Call) -> bool:
        """False: the answer belongs to another request."""
        expected, received, previous = (
            call.call_headers.request_id.encode(),
            self._parser.request_ids,
            self._previous_id,
        )
        self._previous_id = expected
        if expected in received and expected != previous:
            self._echoed += 1
        return self.pool.echo.matches(expected, received, previous, self._echoed)

    def discredit(self, error: SourceError) -> bool:
        """See `Response.discredit`."""
        return self._owner.on_discredited(self, error)

    @property
    def has_unread(self) -> bool:
        """Bytes or an end have arrived that were not requested: nothing may be sent on it."""
        return has_unread(self._transport)

    def eof_received(self) -> None:
        # A half-closed connection is useless: no further answer will arrive.
        self._owner.on_unfit(self)
        self._transport.abort()

    def lose(self) -> None:
        """Close at once. `ConnectionOwner.on_lost` follows and ends or repeats a call in flight."""
        self._owner.on_unfit(self)
        self._transport.abort()

    def drop(self) -> None:
        """Close at once, without notice to the call in flight."""
        self.call = None
        self._owner.on_unfit(self)
        self._transport.abort()

    def abandon(self, call: Http1Call) -> None:
        """Its call is given up. The late answer must never reach the next request."""
        if self.pool.balanced:
            self._owner.on_abandoned(self.pool, call)
        self.drop()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self in self.pool.open:
            self._owner.on_lost(self, exc)
            self._parser.close()


def _refused(response: Response) -> bool:
    return response.status >= 500 or response.status == 429


class HostPool:
    """`idle` is a stack: the connection used last is used next, surplus ones age at the bottom.

    So do those that were much slower than the next one: they may lead to a slow backend.

    `suspects`: idle ones whose last answer was an error, the oldest first. They are used after all
    others. `errors_in_row`: of all its connections, since an answer without; `broken`: of
    these, the requests that ended their connections. `address_index`: the index of this
    address among those of its source; `RETIRED` once it is no longer one of them. `address` has the
    URL; `target` is one address of its name, None while the name is not resolved, and for a socket
    file. `proven`: the last connect did not fail. `balanced`: its source has others too, so
    `latency` is kept. `cold`: it is new beside others, or was away.
    """

    __slots__ = (
        "_bounds", "_tls", "address", "address_index", "back_off", "balanced", "broken", "cold", "connecting", "echo",
        "errors_in_row", "idle", "latency", "open", "proven", "sick_closings", "suspects", "target", "writer",
    )  # fmt: skip

    def __init__(
        self,
        address_index: int,
        address: UpstreamAddress,
        bounds: ResponseBounds,
        tls: ClientTls | None,
        target: ResolvedAddress | None = None,
    ) -> None:
        self.address_index = address_index
        self.address = address
        self.target = target
        self.writer = RequestWriter(address)
        self.back_off = BackOff()
        self.latency = LatencyEstimate()
        self.balanced = False
        self.proven = True
        self.cold = False
        self.echo = RequestIdEcho()
        self.sick_closings = SickClosings()
        self.errors_in_row = 0
        self.broken = FailureStreak()
        self.idle: list[UpstreamConnection] = []
        self.suspects: list[UpstreamConnection] = []
        self.open: set[UpstreamConnection] = set()
        self.connecting = 0
        self._bounds = bounds
        self._tls = tls

    @property
    def name(self) -> str:
        """The configured URL and, behind a name, the address."""
        target, address = self.target, self.address
        if target is None or target.ip == address.host:
            return address.name
        return f"{address.name} ({target.ip if target.port is None else f'{target.ip} port {target.port}'})"

    @property
    def weight(self) -> float:
        """See `ResolvedAddress`."""
        return 1.0 if self.target is None else self.target.weight

    @property
    def priority(self) -> int:
        """See `ResolvedAddress`."""
        return 0 if self.target is None else self.target.priority

    @property
    def resolved(self) -> bool:
        """It can be connected to without a lookup."""
        return self.target is not None or self.address.socket_path is not None

    @property
    def size(self) -> int:
        return len(self.open) + self.connecting

    @property
    def load(self) -> int:
        """Calls in flight and calls waiting for a connection that is being opened."""
        return len(self.open) - len(self.idle) - len(self.suspects) + self.connecting

    @property
    def siblings_succeed(self) -> bool:
        """Other connections than the suspect ones have answered, and go on to."""
        return self.errors_in_row < MAX_ERRORS_IN_ROW and any(
            connection.reused and not connection.health.suspect for connection in self.open
        )

    def record_broken(self, request: Request) -> None:
        self.errors_in_row += 1
        self.broken.add(request)

    def may_close_sick(self, now_s: float) -> bool:
        return self.sick_closings.allow(len(self.open), now_s)

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
            if connection.usable and self._is_silent(connection):
                return connection
        return None

    def take_suspect(self, *, safe: bool, now_s: float) -> UpstreamConnection | None:
        """The suspect connection unused for longest, so that a recovery of any is noticed."""
        for connection in tuple(self.suspects):
            if not safe and now_s - connection.idle_since_s >= MAX_UNSAFE_IDLE_S:
                continue
            self.suspects.remove(connection)
            if connection.usable and (safe or self._is_silent(connection)):
                return connection
        return None

    def _is_silent(self, connection: UpstreamConnection) -> bool:
        """Close it if it is not. An unsafe request must not meet an answer that is already here.

        A new connection may have unread parts of its TLS handshake.
        """
        if connection.reused and connection.has_unread:
            connection.drop()
            return False
        return True

    def make_room(self) -> None:
        """Close an idle connection, if any, suspects first. `ConnectionOwner.on_lost` follows."""
        for connection in (*self.suspects[:1], *self.idle[:1])[:1]:
            connection.drop()

    def forget(self, connection: UpstreamConnection) -> None:
        for connections in (self.idle, self.suspects):
            if connection in connections:
                connections.remove(connection)

    def expire(self, now_s: float, idle_s: float) -> float:
        """Close connections idle for `idle_s` or too old; return when the next one can expire."""

        def due_s(connection: UpstreamConnection) -> float:
            return min(connection.idle_since_s + idle_s, connection.expires_s)

        for connection in [connection for connection in (*self.idle, *self.suspects) if due_s(connection) <= now_s]:
            connection.drop()
        return min(map(due_s, (*self.idle, *self.suspects)), default=now_s + idle_s)

    def retire(self) -> None:
        """Close the idle connections now, and each other one when its answer is complete."""
        self.address_index = RETIRED
        for connection in self.open:
            connection.expires_s = -inf
        for connection in (*self.idle, *self.suspects):
            connection.drop()

    async def connect(self, owner: ConnectionOwner, timeout_s: float) -> UpstreamConnection:
        """Raises Unreachable, also for an untrusted certificate. Never looks a name up."""
        loop = asyncio.get_running_loop()
        address, target = self.address, self.target
        connection = UpstreamConnection(owner, self, self._bounds)
        try:
            async with asyncio.timeout(timeout_s):
                if address.socket_path is not None:
                    await loop.create_unix_connection(lambda: connection, address.socket_path)
                elif target is not None:
                    await loop.create_connection(
                        lambda: connection,
                        target.ip,
                        address.port if target.port is None else target.port,
                        ssl=self._tls.context if self._tls is not None and address.tls else None,
                        server_hostname=address.server_name if address.tls else None,
                    )
                else:
                    detail = f"{self.name}: the name is not resolved"
                    raise Unreachable(detail, sent=False, reason=FailureReason.DNS)
        except asyncio.CancelledError:
            # uvloop reports no loss if it is cancelled just after `connection_made`.
            connection.connection_lost(None)
            raise
        except TimeoutError:
            connection.connection_lost(None)
            detail = f"{self.name}: no connection within {timeout_s * 1000:.0f} ms"
            raise Unreachable(detail, sent=False, reason=FailureReason.CONNECT_TIMEOUT) from None
        except OSError as error:
            reason = connect_failure_reason(error, tls=address.tls)
            raise Unreachable(f"{self.name}: {describe_failure(error)}", sent=False, reason=reason) from error
        return connection

    def __repr__(self) -> str:
        idle = len(self.idle) + len(self.suspects)
        outstanding = len(self.open) - idle
        counts = f"{len(self.open)} open, {idle} idle, {outstanding} outstanding, {self.connecting} connecting"
        return f"<{self.name}: {counts}>"

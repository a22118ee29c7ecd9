"""HTTP/1.1 client for one source: assigns calls to pooled connections, queues them and retries.

A call needs no task and no timer: on an open connection it is one write and one callback. Only
opening a connection takes a task, and one timer per client expires idle connections. Parsing is in
`response_parser`, sockets are in `host_pool`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from functools import partial
from time import monotonic
from typing import Annotated

from msgspec import Meta, Struct

from cashier.source_errors import Garbled, Overloaded, Shed, SourceError, Unreachable, WrongIdentity
from cashier.wire.address_parser import parse_addresses
from cashier.wire.call_completion import describe_failure
from cashier.wire.connection_health import MAX_ERRORS_IN_ROW, SLOW_FACTOR, SLOW_MARGIN_S
from cashier.wire.host_pool import HostPool, UpstreamConnection
from cashier.wire.http1_call import Http1Call
from cashier.wire.load_balancing import LoadBalancer
from cashier.wire.request_writer import check_request
from cashier.wire.response_parser import ResponseBounds
from cashier.wire.tls import client_tls
from cashier.wire.transport import CallHeaders, OnResponse, Request

Positive = Annotated[int, Meta(ge=1)]


class Http1Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """`connections` and `ahead` count per address; `queue` bounds the waiting calls per source.

    `idle_s` must be below the upstream's keep-alive, or every idle period ends in a retry.
    """

    connections: Positive = 64
    ahead: Annotated[int, Meta(ge=0)] = 2
    queue: Positive = 256
    connect_timeout_ms: Positive = 1000
    idle_s: Annotated[float, Meta(gt=0)] = 50.0
    max_head_bytes: Positive = 16384
    max_headers: Positive = 100
    max_body_bytes: Positive = 1 << 20
    ca_file: str | None = None
    client_cert_file: str | None = None
    client_key_file: str | None = None


class Http1Client:
    """A `Transport` and `ConnectionOwner`. ValueError for an invalid address or file.

    `keep_headers`: responses have their headers.
    """

    def __init__(
        self, urls: Sequence[str], settings: Http1Settings | None = None, *, keep_headers: bool = False
    ) -> None:
        self._settings = settings = settings or Http1Settings()
        addresses = parse_addresses(urls)
        encrypted = any(address.tls for address in addresses)
        tls = client_tls(settings.ca_file, settings.client_cert_file, settings.client_key_file) if encrypted else None
        bounds = ResponseBounds(settings.max_head_bytes, settings.max_headers, settings.max_body_bytes, keep_headers)
        self._pools = [HostPool(index, address, bounds, tls) for index, address in enumerate(addresses)]
        self.addresses = tuple(address.name for address in addresses)
        self._sole_pool = self._pools[0] if len(self._pools) == 1 else None
        self._balancer = LoadBalancer(self._pools)
        self.queue: deque[Http1Call] = deque()
        self._connects: dict[asyncio.Task[UpstreamConnection], Http1Call | None] = {}
        self._expiry: asyncio.TimerHandle | None = None
        self._drained: asyncio.Future[None] | None = None
        self._closed = False

    async def open(self) -> None:
        for pool in self._pools:
            for _ in range(min(self._settings.ahead, self._settings.connections) - pool.size):
                self._connect(pool, None)
        if self._connects:
            await asyncio.wait(tuple(self._connects))

    def send(
        self, request: Request, call_headers: CallHeaders, budget_ms: int, on_response: OnResponse, avoid: int = 0
    ) -> Http1Call:
        """See `Transport`. ValueError for an invalid request, which is a bug of the caller."""
        check_request(request, call_headers)
        call = Http1Call(request, call_headers, budget_ms, on_response, avoid)
        if self._closed:
            self._refuse(call, Unreachable(f"{self._names()}: closed", sent=False))
            return call
        pool = self._sole_pool or self._pick_pool(avoid)
        call.address_index = pool.address_index
        connection = pool.take() if request.safe else pool.take_fresh(monotonic())
        if connection is None and pool.suspects:
            connection = self._take_suspect(pool, safe=request.safe)
        if connection is not None:
            call.connection = connection
            connection.send(call, pool.writer.encode(request, call_headers, budget_ms))
        elif request.safe and pool.broken_in_row >= MAX_ERRORS_IN_ROW and not pool.may_close_sick(monotonic()):
            # Every connection has to be closed: a call for each would be a storm of connects.
            self._refuse(call, Unreachable(f"{pool.address.name}: its last answers were broken", sent=False))
        else:
            self._enqueue(call, pool)
        return call

    def _take_suspect(self, pool: HostPool, *, safe: bool) -> UpstreamConnection | None:
        """A suspect connection; None if a new one should be opened instead.

        That is so while others succeed; and now and then while none does, because a probe of a
        source that failed must reach another backend.
        """
        now_s = monotonic()
        if pool.siblings_succeed:
            if self._has_room(pool):
                return None
        elif any(connection.health.failing for connection in pool.suspects) and pool.may_close_sick(now_s):
            if not self._has_room(pool):
                pool.make_room()
            return None
        return pool.take_suspect(safe=safe, now_s=now_s)

    def _pick_pool(self, avoid: int) -> HostPool:
        return self._sole_pool or self._balancer.pick(monotonic(), avoid)

    # Waiting for a connection

    def _enqueue(self, call: Http1Call, pool: HostPool) -> None:
        if len(self.queue) >= self._settings.queue:
            self._refuse(call, Shed(f"{self._names()}: {len(self.queue)} calls already wait for a connection"))
            return
        call.join_queue(self.queue)
        self._connect_for(call, pool)

    def _refuse(self, call: Http1Call, error: SourceError) -> None:
        asyncio.get_running_loop().call_soon(call.finish, error)

    def _has_room(self, pool: HostPool) -> bool:
        return pool.size < self._settings.connections

    def _assign(self, connection: UpstreamConnection, call: Http1Call) -> None:
        call.leave_queue()
        call.connection = connection
        call.address_index = connection.pool.address_index
        connection.send(call, connection.pool.writer.encode(call.request, call.call_headers, call.write_late()))

    def on_free(self, connection: UpstreamConnection, call: Http1Call) -> None:
        connection.idle_since_s = now_s = monotonic()
        connection.took_s = took_s = now_s - call.written_s
        idle = connection.pool.idle
        if idle and took_s > SLOW_FACTOR * idle[-1].took_s + SLOW_MARGIN_S:
            idle.insert(0, connection)
        else:
            idle.append(connection)
        if self._expiry is None:
            self._expire()

    def on_refusal(self, connection: UpstreamConnection, call: Http1Call, *, overloaded: bool) -> None:
        pool, health, now_s = connection.pool, connection.health, monotonic()
        pool.errors_in_row += 1
        if overloaded:  # which no other connection changes
            health.suspect = True
        elif health.record_failure(call.request) and pool.may_close_sick(now_s):
            connection.drop()
            return
        connection.idle_since_s = now_s
        pool.suspects.append(connection)
        if self._expiry is None:
            self._expire()

    def on_discredited(self, connection: UpstreamConnection, error: SourceError) -> bool:
        pool, now_s = connection.pool, monotonic()
        if isinstance(error, WrongIdentity):
            pool.record_broken()
            connection.lose()
            return pool.siblings_succeed
        if isinstance(error, Garbled):
            pool.errors_in_row += 1
            if connection.call is None and pool.may_close_sick(now_s):
                connection.lose()
                return pool.siblings_succeed
        if not connection.health.suspect:
            connection.health.suspect = True
            if connection in pool.idle:
                pool.idle.remove(connection)
                pool.suspects.append(connection)
        overloaded = isinstance(error, Overloaded) and not connection.health.failing
        return not overloaded and pool.siblings_succeed

    def serve_queue(self, pool: HostPool) -> None:
        """The longest waiting call takes a free connection, even if another is being opened for it.

        The new connection then serves the next one. A suspect one is left for the call that has no
        other coming.
        """
        while self.queue:
            call = self.queue[0]
            safe = call.request.safe
            connection = pool.take() if safe else pool.take_fresh(monotonic())
            if connection is None and pool.suspects and not call.connecting:
                connection = pool.take_suspect(safe=safe, now_s=monotonic())
            if connection is None:
                return
            self._assign(connection, call)

    def _use_room(self) -> None:
        """After the loss of a connection, open others for waiting calls that have none coming."""
        for call in self.queue:
            if not call.connecting and not self._connect_for(call, self._pick_pool(call.avoid)):
                return

    # Opening connections

    def _connect_for(self, call: Http1Call, pool: HostPool) -> bool:
        """Return False if the pool is full.

        An unsafe call then closes an old idle connection, whose loss makes room for it.
        """
        if self._has_room(pool):
            self._connect(pool, call)
            return True
        if not call.request.safe:
            pool.make_room()
        return False

    def _connect(self, pool: HostPool, call: Http1Call | None) -> None:
        """Connect for `call`, or ahead of need.

        The connection may serve another call; a failure counts against this one only.
        """
        pool.connecting += 1
        if call is not None:
            call.connecting = True
            call.attempts += 1
            call.address_index = pool.address_index
        task = asyncio.get_running_loop().create_task(pool.connect(self, self._settings.connect_timeout_ms / 1000))
        self._connects[task] = call
        task.add_done_callback(partial(self._connect_done, pool, call))

    def _connect_done(self, pool: HostPool, call: Http1Call | None, task: asyncio.Task[UpstreamConnection]) -> None:
        del self._connects[task]
        pool.connecting -= 1
        if call is not None:
            call.connecting = False
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            self._connect_failed(pool, call, error)
            return
        connection = task.result()
        if not connection.usable:
            unusable = Unreachable(f"{pool.address.name}: closed as soon as it was open", sent=False)
            self._connect_failed(pool, call, unusable)
            return
        pool.back_off.record_success()
        if call is not None and call.retried and call.waiting:
            self._assign(connection, call)
            return
        connection.idle_since_s = monotonic()
        pool.idle.append(connection)
        self.serve_queue(pool)
        if self._expiry is None and pool.idle:
            self._expire()

    def _connect_failed(self, pool: HostPool, call: Http1Call | None, error: BaseException) -> None:
        """Raise an error other than `Unreachable`, which is a bug, for the loop to report.

        The caller gets an outcome in any case.
        """
        unreachable = (
            error
            if isinstance(error, Unreachable)
            else Unreachable(f"{pool.address.name}: {describe_failure(error)}", sent=False)
        )
        pool.back_off.record_failure(monotonic())
        if call is not None and call.waiting:
            suspect = pool.take_suspect(safe=call.request.safe, now_s=monotonic())
            if suspect is not None:
                self._assign(suspect, call)
            else:
                self._try_elsewhere(call, unreachable)
        self._use_room()
        if unreachable is not error:
            raise error

    def _try_elsewhere(self, call: Http1Call, unreachable: Unreachable) -> None:
        """Try as many connects as there are addresses.

        If the other pools are full, a queued call waits for one of their connections.
        """
        if call.attempts < len(self._pools) and self._connect_for(call, self._pick_pool(call.avoid)):
            return
        if call.attempts >= len(self._pools) or call.queue is None:
            call.finish(Unreachable(unreachable.detail, sent=True) if call.sent else unreachable)

    # Events of connections: see `ConnectionOwner`

    def on_open(self, connection: UpstreamConnection) -> None:
        connection.pool.open.add(connection)

    def on_unfit(self, connection: UpstreamConnection) -> None:
        connection.pool.forget(connection)

    def on_lost(self, connection: UpstreamConnection, error: BaseException | None) -> None:
        pool, call = connection.pool, connection.call
        connection.call = None
        pool.forget(connection)
        pool.open.remove(connection)
        if call is not None:
            call.connection = None
            # A retry uses a connection that has answered nothing yet, so no second retry follows
            # it.
            if connection.reused and not connection.answer_started and call.request.safe:
                self._retry(call, pool)
            else:
                call.finish(Unreachable(f"{pool.address.name}: {describe_failure(error)}"))
        self._use_room()
        if self._drained is not None and not any(pool.open for pool in self._pools):
            self._drained.set_result(None)

    def _retry(self, call: Http1Call, pool: HostPool) -> None:
        """Send again once: the upstream closed a reused connection as the request arrived.

        On a new connection, because the other idle ones may be as old.
        """
        call.retried = True
        call.attempts = 0
        best = self._pick_pool(call.avoid)
        self._connect(best if self._has_room(best) else pool, call)

    # Expiry and closing

    def _expire(self) -> None:
        now_s = monotonic()
        due_s = min(pool.expire(now_s, self._settings.idle_s) for pool in self._pools)
        # The loop's clock may lag a millisecond behind this one; a delay of 0 would spin.
        self._expiry = asyncio.get_running_loop().call_later(max(0.001, due_s - now_s), self._expire)

    async def close(self) -> None:
        self._closed = True
        if self._expiry is not None:
            self._expiry.cancel()
        connections = [connection for pool in self._pools for connection in pool.open]
        calls = [*self.queue, *self._connects.values(), *(connection.call for connection in connections)]
        for connection in connections:
            connection.drop()
        for task in self._connects:
            task.cancel()
        for call in calls:
            if call is not None:
                call.finish(Unreachable(f"{self._names()}: closed", sent=call.sent))
        await asyncio.gather(*self._connects, return_exceptions=True)
        if any(pool.open for pool in self._pools):
            self._drained = self._drained or asyncio.get_running_loop().create_future()
            await asyncio.shield(self._drained)

    def _names(self) -> str:
        return ", ".join(self.addresses)

    def __repr__(self) -> str:
        return f"<Http1Client {len(self.queue)} queued, {' '.join(map(repr, self._pools))}>"

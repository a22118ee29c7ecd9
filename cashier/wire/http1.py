"""HTTP/1.1 client for one source: assigns calls to pooled connections, queues them and retries.

A call needs no task and no timer: on an open connection it is one write and one callback. Only
opening a connection takes a task, and one timer per client expires idle connections. Parsing is in
`response_parser`, sockets are in `host_pool`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context
from functools import partial
from math import inf
from random import uniform
from time import monotonic
from typing import Annotated

from msgspec import Meta, Struct

from cashier.source_errors import FailureReason, Garbled, Overloaded, Shed, SourceError, Unreachable, WrongIdentity
from cashier.wire.address_parser import UpstreamAddress, parse_addresses
from cashier.wire.address_pools import AddressPools, AddressSource
from cashier.wire.call_completion import describe_failure, loss_reason
from cashier.wire.connection_health import SLOW_FACTOR, SLOW_MARGIN_S
from cashier.wire.file_watch import FileWatch
from cashier.wire.host_pool import RETIRED, HostPool, UpstreamConnection
from cashier.wire.http1_call import Http1Call
from cashier.wire.request_writer import check_request
from cashier.wire.resolver import ResolvedAddress, Resolver
from cashier.wire.response_parser import ResponseBounds
from cashier.wire.tls import ClientTls
from cashier.wire.transport import CallHeaders, DiscoveredList, OnResponse, Request

Positive = Annotated[int, Meta(ge=1)]
OnAddresses = Callable[[tuple[str, ...]], None]

# RFC 8305: the recommended and the least delay before the next address is tried.
FALL_BACK_S = 0.25
MIN_FALL_BACK_S = 0.01
# How much longer an expired connection serves while its replacement is being opened.
OVERTIME_S = 1.0


class Http1Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """`connections` and `ahead` count per address; `queue` bounds the waiting calls per source.

    `idle_s` must be below the upstream's keep-alive, or every idle period ends in a retry. A name
    is looked up every `resolve_s`. No connection is reused after `max_age_s`: the addresses behind
    a balancer, or behind the name of one, change unseen.
    """

    connections: Positive = 64
    ahead: Annotated[int, Meta(ge=0)] = 2
    queue: Positive = 256
    connect_timeout_ms: Positive = 1000
    idle_s: Annotated[float, Meta(gt=0, le=86_400)] = 50.0
    resolve_s: Annotated[float, Meta(ge=1, le=3600)] = 30.0
    max_age_s: Annotated[float, Meta(ge=1, le=86_400)] = 300.0
    max_head_bytes: Positive = 16384
    max_headers: Positive = 100
    max_body_bytes: Positive = 1 << 20
    ca_file: str | None = None
    client_cert_file: str | None = None
    client_key_file: str | None = None


class Http1Client:
    """A `Transport` and `ConnectionOwner`. ValueError for an invalid address or file.

    `resolver`: shared with the other transports, so that they share lookups. `keep_headers`:
    responses have their headers. `discovery`: where the addresses of the only URL come from; it is
    closed with the client. `files`: follows those of certificates and keys.
    """

    def __init__(
        self,
        urls: Sequence[str],
        settings: Http1Settings | None = None,
        resolver: Resolver | None = None,
        *,
        keep_headers: bool = False,
        discovery: AddressSource | None = None,
        files: FileWatch | None = None,
    ) -> None:
        self._settings = settings = settings or Http1Settings()
        addresses = parse_addresses(urls)
        encrypted = any(address.tls for address in addresses)
        names = (settings.ca_file, settings.client_cert_file, settings.client_key_file)
        tls = ClientTls(*names, files) if encrypted else None
        bounds = ResponseBounds(settings.max_head_bytes, settings.max_headers, settings.max_body_bytes, keep_headers)

        def make_pool(address: UpstreamAddress, target: ResolvedAddress | None) -> HostPool:
            return HostPool(0, address, bounds, tls, target)

        self._names = ", ".join(address.name for address in addresses)
        self.discovery = discovery
        self._replaced: set[asyncio.Task[None]] = set()
        self._hosts = AddressPools(
            addresses, make_pool, resolver or Resolver(), settings.resolve_s, self._addresses_changed, discovery
        )
        self._pools = self._hosts.live
        self._sole_pool = self._hosts.sole
        # A connect that takes longer than this (RFC 8305) or a quarter of its time, for a call with
        # less time a quarter of that, is not waited for alone.
        self._fall_back_s = min(FALL_BACK_S, settings.connect_timeout_ms / 4000)
        self.on_addresses: OnAddresses | None = None
        self.queue: deque[Http1Call] = deque()
        self._connects: dict[asyncio.Task[UpstreamConnection], Http1Call | None] = {}
        self._fallbacks: dict[asyncio.Task[UpstreamConnection], asyncio.TimerHandle] = {}
        self._expiry: asyncio.TimerHandle | None = None
        self._drained: asyncio.Future[None] | None = None
        self._closed = False

    @property
    def addresses(self) -> tuple[str, ...]:
        """One per configured URL, or per address of its name once that is resolved."""
        return tuple(pool.name for pool in self._pools)

    def discover(self, discovery: AddressSource | None) -> None:
        """Take the addresses from elsewhere. Calls under way go on."""
        before, self.discovery = self.discovery, discovery
        self._hosts.discover(discovery)
        if before is not None and self._hosts.started:
            self._replaced.add(task := asyncio.get_running_loop().create_task(before.close()))
            task.add_done_callback(self._replaced.discard)

    async def open(self) -> None:
        for pool in self._pools:
            self._connect_ahead(pool, self._settings.ahead)
        self._hosts.start()
        # The connects of an unresolved name are followed by those to its further addresses.
        for _ in range(2):
            if self._connects:
                await asyncio.wait(tuple(self._connects))

    @property
    def connected(self) -> bool | None:
        """See `NetworkTransport`."""
        if any(pool.open for pool in self._pools):
            return True
        return False if all(pool.back_off.failures for pool in self._pools) else None

    @property
    def endpoints(self) -> int:
        """See `NetworkTransport`."""
        return sum(pool.resolved for pool in self._pools)

    def discovered(self) -> DiscoveredList | None:
        """See `NetworkTransport`."""
        if self.discovery is None:
            return None
        name = self.discovery.name
        return DiscoveredList(self.discovery.way, name.age_s, name.changes, name.failure or "")

    async def is_reachable(self) -> bool:
        for pool in self._pools:
            if not pool.size and not self._closed:
                self._connect(pool, None)
        while self._connects and not any(pool.open for pool in self._pools):
            await asyncio.wait(tuple(self._connects), return_when=asyncio.FIRST_COMPLETED)
        return any(pool.open for pool in self._pools)

    def send(
        self, request: Request, call_headers: CallHeaders, budget_ms: int, on_response: OnResponse, avoid: int = 0
    ) -> Http1Call:
        """See `Transport`. ValueError for an invalid request, which is a bug of the caller."""
        check_request(request, call_headers)
        call = Http1Call(request, call_headers, budget_ms, on_response, avoid)
        if self._closed:
            self._refuse(call, self._closed_error(sent=False))
            return call
        pool = self._sole_pool or self._pick_pool(avoid)
        call.address_index = pool.address_index
        connection = pool.take() if request.safe else pool.take_fresh(monotonic())
        if connection is None and pool.suspects:
            connection = self._take_suspect(pool, safe=request.safe)
        if connection is not None:
            call.connection = connection
            connection.send(call, pool.writer.encode(request, call_headers, budget_ms))
        elif request.safe and pool.broken.covers(request) and not pool.may_close_sick(monotonic()):
            # Every connection has to be closed: a call for each would be a storm of connects.
            broken = f"{pool.address.name}: its last answers were broken"
            self._refuse(call, Unreachable(broken, sent=False, reason=FailureReason.BACKING_OFF))
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
        if self._sole_pool is not None:
            return self._sole_pool
        now_s = monotonic()
        for pool in self._hosts.unproven:
            # Whether it works again is learned without a call.
            if pool.back_off.until_s <= now_s and not pool.connecting and self._has_room(pool):
                self._connect(pool, None)
        return self._hosts.pick(now_s, avoid)

    # Waiting for a connection

    def _enqueue(self, call: Http1Call, pool: HostPool) -> None:
        if len(self.queue) >= self._settings.queue:
            full = f"{self._names}: {len(self.queue)} calls already wait for a connection"
            self._refuse(call, Shed(full, reason=FailureReason.QUEUE_FULL))
            return
        call.join_queue(self.queue)
        self._connect_for(call, pool)

    def _refuse(self, call: Http1Call, error: SourceError) -> None:
        asyncio.get_running_loop().call_soon(call.finish, error)

    def _closed_error(self, *, sent: bool) -> Unreachable:
        return Unreachable(f"{self._names}: closed", sent=sent, reason=FailureReason.CLOSED)

    def _has_room(self, pool: HostPool) -> bool:
        return pool.size < self._settings.connections

    def _assign(self, connection: UpstreamConnection, call: Http1Call) -> None:
        call.leave_queue()
        call.connection = connection
        call.address_index = connection.pool.address_index
        connection.send(call, connection.pool.writer.encode(call.request, call.call_headers, call.write_late()))

    def on_free(self, connection: UpstreamConnection, call: Http1Call) -> None:
        connection.idle_since_s = now_s = monotonic()
        if now_s >= connection.expires_s and self._ends(connection, now_s):
            connection.drop()
            return
        connection.took_s = took_s = now_s - call.written_s
        idle = connection.pool.idle
        if idle and took_s > SLOW_FACTOR * idle[-1].took_s + SLOW_MARGIN_S:
            idle.insert(0, connection)
        else:
            idle.append(connection)
        if self._expiry is None:
            self._expire()

    def _ends(self, connection: UpstreamConnection, now_s: float) -> bool:
        """Whether an expired connection ends now.

        If it is the only free one, another is opened first, so that no call waits for a connect.
        """
        pool = connection.pool
        if pool.idle or connection.overtime or pool.address_index == RETIRED or not self._has_room(pool):
            return True
        connection.overtime = True
        connection.expires_s = now_s + OVERTIME_S
        self._connect(pool, None)
        return False

    def on_refusal(self, connection: UpstreamConnection, call: Http1Call, *, overloaded: bool) -> None:
        pool, health, now_s = connection.pool, connection.health, monotonic()
        pool.errors_in_row += 1
        if overloaded:  # which no other connection changes
            health.suspect = True
        elif health.record_failure(call.request) and pool.may_close_sick(now_s):
            connection.drop()
            return
        if now_s >= connection.expires_s and self._ends(connection, now_s):
            connection.drop()
            return
        connection.idle_since_s = now_s
        pool.suspects.append(connection)
        if self._expiry is None:
            self._expire()

    def on_call_end(self, pool: HostPool, call: Http1Call, *, failed: bool) -> None:
        now_s = monotonic()
        self._hosts.record_call(pool, now_s - call.written_s, now_s, failed=failed)

    def on_abandoned(self, pool: HostPool, call: Http1Call) -> None:
        now_s = monotonic()
        pool.latency.record_at_least(now_s - call.written_s, now_s)

    def on_discredited(self, connection: UpstreamConnection, error: SourceError) -> bool:
        pool, now_s = connection.pool, monotonic()
        if pool.balanced and not connection.health.suspect:  # else it counted as a refusal
            self._hosts.record_call(pool, connection.took_s, now_s, failed=True)
        if isinstance(error, WrongIdentity):
            if connection.answered is not None:
                pool.record_broken(connection.answered)
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
        # Its callbacks keep the context, and serve other calls too.
        task = Context().run(asyncio.get_running_loop().create_task, self._open(pool))
        self._connects[task] = call
        task.add_done_callback(partial(self._connect_done, pool, call))
        if call is not None:
            call.connecting += 1
            call.attempts += 1
            call.address_index = pool.address_index
            if self._sole_pool is None or not pool.resolved:
                self._schedule_fall_back(pool, call, task)

    def _connect_ahead(self, pool: HostPool, count: int) -> None:
        for _ in range(min(count, self._settings.connections) - pool.size):
            self._connect(pool, None)

    async def _open(self, pool: HostPool) -> UpstreamConnection:
        """Raises Unreachable, also for an unknown name."""
        timeout_s = self._settings.connect_timeout_ms / 1000
        started_s = monotonic()
        try:
            await self._hosts.settle(pool, timeout_s)
        except OSError as error:
            detail = f"{pool.name}: {describe_failure(error)}"
            raise Unreachable(detail, sent=False, reason=FailureReason.DNS) from error
        if pool.address_index == RETIRED:
            detail = f"{pool.name}: no longer an address of this name"
            raise Unreachable(detail, sent=False, reason=FailureReason.DNS)
        return await pool.connect(self, max(timeout_s - (monotonic() - started_s), timeout_s / 4))

    def _schedule_fall_back(self, pool: HostPool, call: Http1Call, task: asyncio.Task[UpstreamConnection]) -> None:
        after_s = max(MIN_FALL_BACK_S, min(self._fall_back_s, call.budget_ms / 4000))
        loop = asyncio.get_running_loop()
        self._fallbacks[task] = loop.call_later(after_s, self._fall_back, pool, call, task)

    def _fall_back(self, pool: HostPool, call: Http1Call, task: asyncio.Task[UpstreamConnection]) -> None:
        """Try the next address beside a connect that takes long. The first to connect wins."""
        del self._fallbacks[task]
        if not call.waiting or call.attempts >= len(self._pools):
            if call.waiting and not pool.resolved:  # its addresses are still being looked up
                self._schedule_fall_back(pool, call, task)
            return
        tried = 0 if pool.address_index == RETIRED else 1 << pool.address_index
        other = self._pick_pool(call.avoid | tried)
        # A failing address gets one connect at a time: calls that try all addresses must not flood
        # a source that is down as a whole.
        if other is not pool and (other.proven or not other.connecting):
            self._use(call, other)

    def _use(self, call: Http1Call, pool: HostPool) -> bool:
        """Send a waiting call on an idle connection, or connect. False if the pool is full.

        A retry needs a new connection.
        """
        if not call.retried:
            connection = pool.take() if call.request.safe else pool.take_fresh(monotonic())
            if connection is not None:
                self._assign(connection, call)
                return True
        return self._connect_for(call, pool)

    def _connect_done(self, pool: HostPool, call: Http1Call | None, task: asyncio.Task[UpstreamConnection]) -> None:
        del self._connects[task]
        fallback = self._fallbacks.pop(task, None)
        if fallback is not None:
            fallback.cancel()
        pool.connecting -= 1
        if call is not None:
            call.connecting -= 1
        if not pool.size:
            self._hosts.drained(pool)
        if task.cancelled():
            if not self._closed:  # another address was faster: this one is used last for a while
                self._hosts.record_failure(pool, monotonic())
                self._use_room()
            return
        error = task.exception()
        if error is not None:
            self._connect_failed(pool, call, error)
            return
        connection = task.result()
        if not connection.usable:
            detail = f"{pool.address.name}: closed as soon as it was open"
            unusable = Unreachable(detail, sent=False, reason=FailureReason.RESET)
            self._connect_failed(pool, call, unusable)
            return
        self._hosts.record_success(pool, monotonic())
        if call is not None and call.connecting:
            self._cancel_connects(call)
        if call is not None and call.retried and call.waiting:
            self._assign(connection, call)
            return
        if pool.address_index == RETIRED:
            connection.drop()
            return
        connection.idle_since_s = monotonic()
        pool.idle.append(connection)
        self.serve_queue(pool)
        if self._expiry is None and pool.idle:
            self._expire()

    def _cancel_connects(self, call: Http1Call) -> None:
        for task, waiting in self._connects.items():
            if waiting is call:
                task.cancel()

    def _connect_failed(self, pool: HostPool, call: Http1Call | None, error: BaseException) -> None:
        """Raise an error other than `Unreachable`, which is a bug, for the loop to report.

        The caller gets an outcome in any case.
        """
        unreachable = (
            error
            if isinstance(error, Unreachable)
            else Unreachable(f"{pool.address.name}: {describe_failure(error)}", sent=False)
        )
        self._hosts.record_failure(pool, monotonic())
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
        if call.attempts < len(self._pools) and self._use(call, self._pick_pool(call.avoid)):
            return
        if call.connecting:  # to another address
            return
        if call.attempts >= len(self._pools) or call.queue is None:
            if call.sent:
                unreachable = Unreachable(unreachable.detail, sent=True, reason=unreachable.reason)
            call.finish(unreachable)

    # Events of connections: see `ConnectionOwner`

    def on_open(self, connection: UpstreamConnection) -> None:
        pool = connection.pool
        pool.open.add(connection)
        # The jitter keeps connections that were opened together from ending together.
        age_s = self._settings.max_age_s * uniform(0.8, 1.0)
        connection.expires_s = -inf if pool.address_index == RETIRED else monotonic() + age_s

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
                if not connection.reused:
                    pool.record_broken(call.request)
                if pool.balanced:
                    self.on_call_end(pool, call, failed=True)
                detail = f"{pool.address.name}: {describe_failure(error)}"
                call.finish(Unreachable(detail, reason=loss_reason(error)))
        self._use_room()
        if not pool.size:
            self._hosts.drained(pool)
        if self._drained is not None and not any(pool.open for pool in self._hosts.all):
            self._drained.set_result(None)

    def _retry(self, call: Http1Call, pool: HostPool) -> None:
        """Send again once: the upstream closed a reused connection as the request arrived.

        On a new connection, because the other idle ones may be as old.
        """
        call.retried = True
        call.attempts = 0
        if call.request.renew is not None:
            call.request = call.request.renew()
        best = self._pick_pool(call.avoid)
        self._connect(best if self._has_room(best) else pool, call)

    # Changes of the addresses

    def _addresses_changed(self, moved: dict[int, int], opened: list[HostPool]) -> None:
        """Renumber the calls in progress, connect to the new addresses, and report them all."""
        self._sole_pool = self._hosts.sole
        in_flight = [connection.call for pool in self._hosts.all for connection in pool.open]
        calls = {id(call): call for call in (*self.queue, *self._connects.values(), *in_flight) if call is not None}
        for call in calls.values():
            call.address_index = moved.get(call.address_index, RETIRED)
            call.avoid = sum(1 << new for old, new in moved.items() if new != RETIRED and call.avoid >> old & 1)
            call.attempts = 0
        for pool in opened:
            self._connect_ahead(pool, max(1, self._settings.ahead))
        if self.on_addresses is not None:
            self.on_addresses(self.addresses)

    # Expiry and closing

    def _expire(self) -> None:
        now_s = monotonic()
        due_s = min(pool.expire(now_s, self._settings.idle_s) for pool in self._pools)
        # The loop's clock may lag a millisecond behind this one; a delay of 0 would spin.
        delay_s = max(0.001, due_s - now_s)
        self._expiry = asyncio.get_running_loop().call_later(delay_s, self._expire, context=Context())

    async def close(self) -> None:
        self._closed = True
        if self._expiry is not None:
            self._expiry.cancel()
        self._hosts.close()
        for fallback in self._fallbacks.values():
            fallback.cancel()
        connections = [connection for pool in self._hosts.all for connection in pool.open]
        calls = [*self.queue, *self._connects.values(), *(connection.call for connection in connections)]
        for connection in connections:
            connection.drop()
        for task in self._connects:
            task.cancel()
        for call in calls:
            if call is not None:
                call.finish(self._closed_error(sent=call.sent))
        if self.discovery is not None:
            await self.discovery.close()
        await asyncio.gather(*self._connects, *self._replaced, return_exceptions=True)
        if any(pool.open for pool in self._hosts.all):
            self._drained = self._drained or asyncio.get_running_loop().create_future()
            await asyncio.shield(self._drained)

    def __repr__(self) -> str:
        return f"<Http1Client {len(self.queue)} queued, {' '.join(map(repr, self._pools))}>"

"""Kept HTTP/1.1 connections to one source: which call gets which connection, who waits, what is tried again.

No task and no timer per call: a call on an open connection is one write and one callback. Only opening a connection is a task, and one
timer per transport looks after idle connections. Parsing lives in `framing`, sockets in `connection` and `lane`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from functools import partial
from time import monotonic
from typing import Annotated

from msgspec import Meta, Struct

from cashier.source_errors import Shed, SourceError, Unreachable
from cashier.wire.addresses import parse_addresses
from cashier.wire.connection import UpstreamConnection
from cashier.wire.delivery import describe_failure
from cashier.wire.host_pool import HostPool
from cashier.wire.http1_call import Http1Call
from cashier.wire.load_balancing import LoadBalancer
from cashier.wire.request_writer import check_request
from cashier.wire.response_parser import ResponseBounds
from cashier.wire.tls import client_tls
from cashier.wire.transport import CallHeaders, OnResponse, Request

Positive = Annotated[int, Meta(ge=1)]


class Http1Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """`connections` and `ahead` count per address, `queue` per source: so many calls may wait for a connection.

    `idle_s` has to be below the upstream's own keep-alive, or every quiet minute ends in a retry.
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
    """The transport. ValueError for an address or a file that is not understood."""

    def __init__(self, urls: Sequence[str], settings: Http1Settings | None = None) -> None:
        self._settings = settings = settings or Http1Settings()
        addresses = parse_addresses(urls)
        encrypted = any(address.tls for address in addresses)
        tls = client_tls(settings.ca_file, settings.client_cert_file, settings.client_key_file) if encrypted else None
        bounds = ResponseBounds(settings.max_head_bytes, settings.max_headers, settings.max_body_bytes)
        self._lanes = [HostPool(place, address, bounds, tls) for place, address in enumerate(addresses)]
        self.places = tuple(address.name for address in addresses)
        self._sole = self._lanes[0] if len(self._lanes) == 1 else None
        self._choice = LoadBalancer(self._lanes)
        self._queue: deque[Http1Call] = deque()
        self._connects: dict[asyncio.Task[UpstreamConnection], Http1Call | None] = {}
        self._expiry: asyncio.TimerHandle | None = None
        self._drained: asyncio.Future[None] | None = None
        self._closed = False

    async def open(self) -> None:
        for lane in self._lanes:
            for _ in range(min(self._settings.ahead, self._settings.connections) - lane.size):
                self._connect(lane, None)
        if self._connects:
            await asyncio.wait(tuple(self._connects))

    def send(
        self, request: Request, call_headers: CallHeaders, budget_ms: int, reply: OnResponse, avoid: int = 0
    ) -> Http1Call:
        """See `Transport`. ValueError for a request that could not be one on the wire: a bug of who made it."""
        check_request(request, call_headers)
        call = Http1Call(request, call_headers, budget_ms, reply, avoid)
        if self._closed:
            self._refuse(call, Unreachable(f"{self._names()}: closed", sent=False))
            return call
        lane = self._sole or self._next_lane(avoid)
        call.place = lane.place
        connection = lane.take() if request.safe else lane.take_fresh(monotonic())
        if connection is not None:
            call.connection = connection
            connection.ask(call, lane.heads.whole(request, call_headers, budget_ms))
        else:
            self._wait(call, lane)
        return call

    def _next_lane(self, avoid: int) -> HostPool:
        return self._sole or self._choice.next(monotonic(), avoid)

    # Waiting for a connection

    def _wait(self, call: Http1Call, lane: HostPool) -> None:
        if len(self._queue) >= self._settings.queue:
            self._refuse(call, Shed(f"{self._names()}: {len(self._queue)} calls wait for a connection already"))
            return
        call.join_queue(self._queue)
        self._open_for(call, lane)

    def _refuse(self, call: Http1Call, error: SourceError) -> None:
        asyncio.get_running_loop().call_soon(call.finish, error)

    def _has_room(self, lane: HostPool) -> bool:
        return lane.size < self._settings.connections

    def _begin(self, connection: UpstreamConnection, call: Http1Call) -> None:
        call.leave_queue()
        call.connection = connection
        call.place = connection.lane.place
        connection.ask(call, connection.lane.heads.whole(call.request, call.call_headers, call.left_ms()))

    def freed(self, connection: UpstreamConnection) -> None:
        """Who waits longest gets it, whether or not a connection is being opened for them: that one will serve the next."""
        if self._queue:
            self._begin(connection, self._queue[0])
            return
        connection.idle_since_s = monotonic()
        connection.lane.idle.append(connection)
        if self._expiry is None:
            self._expire()

    def _use_room(self) -> None:
        """A connection less: whoever waits without one being opened for them may have one now."""
        for call in self._queue:
            if not call.connecting and not self._open_for(call, self._next_lane(call.avoid)):
                return

    # Opening connections

    def _open_for(self, call: Http1Call, lane: HostPool) -> bool:
        """False where there is no room. What may not have an idle connection makes some, and is seen to when that one is closed."""
        if self._has_room(lane):
            self._connect(lane, call)
            return True
        if not call.request.safe:
            lane.make_room()
        return False

    def _connect(self, lane: HostPool, call: Http1Call | None) -> None:
        """For `call`, or ahead of need. The connection may in the end serve another; a failure is charged to this call alone."""
        lane.connecting += 1
        if call is not None:
            call.connecting = True
            call.attempts += 1
            call.place = lane.place
        task = asyncio.get_running_loop().create_task(lane.connect(self, self._settings.connect_timeout_ms / 1000))
        self._connects[task] = call
        task.add_done_callback(partial(self._connected, lane, call))

    def _connected(self, lane: HostPool, call: Http1Call | None, task: asyncio.Task[UpstreamConnection]) -> None:
        del self._connects[task]
        lane.connecting -= 1
        if call is not None:
            call.connecting = False
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            self._not_connected(lane, call, error)
            return
        connection = task.result()
        if not connection.usable:
            self._not_connected(
                lane, call, Unreachable(f"{lane.address.name}: closed as soon as it was open", sent=False)
            )
            return
        lane.back_off.worked()
        if call is not None and call.retried and call.waits:
            self._begin(connection, call)
        else:
            self.freed(connection)

    def _not_connected(self, lane: HostPool, call: Http1Call | None, error: BaseException) -> None:
        """Raises what is no `Unreachable`, for the loop to report: a bug of ours, of which the caller hears all the same."""
        unreachable = (
            error
            if isinstance(error, Unreachable)
            else Unreachable(f"{lane.address.name}: {describe_failure(error)}", sent=False)
        )
        lane.back_off.failed(monotonic())
        if call is not None and call.waits:
            self._try_elsewhere(call, unreachable)
        self._use_room()
        if unreachable is not error:
            raise error

    def _try_elsewhere(self, call: Http1Call, unreachable: Unreachable) -> None:
        """As many attempts as there are addresses; where the others are full, a queued call waits for one of their connections."""
        if call.attempts < len(self._lanes) and self._open_for(call, self._next_lane(call.avoid)):
            return
        if call.attempts >= len(self._lanes) or call.queue is None:
            call.finish(Unreachable(unreachable.detail, sent=True) if call.sent else unreachable)

    # What connections tell: see `Keeper`

    def made(self, connection: UpstreamConnection) -> None:
        connection.lane.open.add(connection)

    def unfit(self, connection: UpstreamConnection) -> None:
        connection.lane.forget(connection)

    def lost(self, connection: UpstreamConnection, error: BaseException | None) -> None:
        lane, call = connection.lane, connection.call
        connection.call = None
        lane.forget(connection)
        lane.open.remove(connection)
        if call is not None:
            call.connection = None
            # A retry goes out on a connection that has answered nothing yet, so it is never followed by another.
            if connection.kept and not connection.answered and call.request.safe:
                self._retry(call, lane)
            else:
                call.finish(Unreachable(f"{lane.address.name}: {describe_failure(error)}"))
        self._use_room()
        if self._drained is not None and not any(lane.open for lane in self._lanes):
            self._drained.set_result(None)

    def _retry(self, call: Http1Call, lane: HostPool) -> None:
        """The upstream had closed a kept connection when our question came. Once, and on a fresh connection: the others may be as old."""
        call.retried = True
        call.attempts = 0
        best = self._next_lane(call.avoid)
        self._connect(best if self._has_room(best) else lane, call)

    # Growing old, and the end

    def _expire(self) -> None:
        now_s = monotonic()
        due_s = min(lane.expire(now_s, self._settings.idle_s) for lane in self._lanes)
        # A loop's clock may lag a millisecond behind ours; waiting for none would spin.
        self._expiry = asyncio.get_running_loop().call_later(max(0.001, due_s - now_s), self._expire)

    async def close(self) -> None:
        self._closed = True
        if self._expiry is not None:
            self._expiry.cancel()
        connections = [connection for lane in self._lanes for connection in lane.open]
        under_way = [*self._queue, *self._connects.values(), *(connection.call for connection in connections)]
        for connection in connections:
            connection.drop()
        for task in self._connects:
            task.cancel()
        for call in under_way:
            if call is not None:
                call.finish(Unreachable(f"{self._names()}: closed", sent=call.sent))
        await asyncio.gather(*self._connects, return_exceptions=True)
        if any(lane.open for lane in self._lanes):
            self._drained = self._drained or asyncio.get_running_loop().create_future()
            await asyncio.shield(self._drained)

    def _names(self) -> str:
        return ", ".join(self.places)

    def __repr__(self) -> str:
        return f"<Http1 {len(self._queue)} queued, {' '.join(map(repr, self._lanes))}>"

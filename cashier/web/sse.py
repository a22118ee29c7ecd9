"""Server-sent events on one connection: one class of streams, which an `EventFormat` adapts.

The next update is requested only after the previous event has been sent, so events do not pile up
for a slow reader.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from time import perf_counter_ns
from typing import Any, Generic, NamedTuple, Self, TypeVar

import orjson
import structlog
from starlette.types import Send

from cashier.fanout.ask import SourceReport
from cashier.web.codec import server_timing
from cashier.web.disconnect_watch import WatchedRequest
from cashier.web.problem import Headers, ProblemCode, RequestRefused, encode_problem, make_problem
from cashier.web.response import NO_STORE, Localize

_log = structlog.get_logger("cashier.web")

EVENT_STREAM = b"text/event-stream"
# Proxies and mobile networks close a connection that is silent for 30 to 60 seconds.
HEARTBEAT_S = 15.0
# The longest wait for buffer space for one event. Generous to a phone that changes its network;
# without a limit a client could hold resources forever.
STALL_S = 10.0
# nginx buffers a response unless X-Accel-Buffering forbids it.
_HEADERS = ((b"content-type", EVENT_STREAM), NO_STORE, (b"x-accel-buffering", b"no"))
# A comment line, which a reader ignores.
HEARTBEAT = b":\n\n"

T = TypeVar("T")


class EventFormat(NamedTuple, Generic[T]):
    """The events of one kind of stream. An update gets a number, from 1, which is its event id.

    `encode`: an update as JSON without line breaks. `end`: the data of the last event, from the
    last update and its number. `sources`: for Server-Timing. `refusal_for`: None for an error that
    is a bug, which is logged as `failure_log` and reported with `failure_detail`. `end_id`: the
    id of the last event; a client that reconnects sends it. `localize`: for the event `error`.
    `heartbeat`: sent after `HEARTBEAT_S` without an event; None for streams that end sooner.
    """

    event: bytes
    encode: Callable[[int, T], bytes]
    end: Callable[[int, T], dict[str, Any]]
    sources: Callable[[T], tuple[SourceReport, ...]]
    refusal_for: Callable[[Exception], RequestRefused | None]
    failure_log: str
    failure_detail: str
    heartbeat: bytes | None
    end_id: Callable[[T], bytes | None] = lambda _: None
    headers: Headers = ()
    localize: Localize = lambda problem: (problem, ())


class EventStream(Generic[T]):
    """A stream whose first update is known. Later errors can only be sent as an event."""

    __slots__ = ("_first", "_format", "_request_id", "_updates")

    def __init__(
        self, first: T, updates: AsyncGenerator[T, None], request_id: str, event_format: EventFormat[T]
    ) -> None:
        self._first = first
        self._updates = updates
        self._request_id = request_id
        self._format = event_format

    @classmethod
    async def start(cls, updates: AsyncGenerator[T, None], request_id: str, event_format: EventFormat[T]) -> Self:
        """Wait for the first update. An exception before it becomes a problem response."""
        return cls(await anext(updates), updates, request_id, event_format)

    async def send(self, send: Send, watched: WatchedRequest, started_ns: int) -> None:
        """Send all events. Closes `updates`, also if the client disconnects or stops reading."""
        timing = server_timing((perf_counter_ns() - started_ns) / 1e6, self._format.sources(self._first))
        headers = [
            *_HEADERS,
            *self._format.headers,
            (b"x-request-id", self._request_id.encode("ascii")),
            (b"server-timing", timing),
        ]
        try:
            # An end before the first event ends `_events` without running it.
            async with aclosing(self._updates), aclosing(self._events()) as events:
                async with asyncio.timeout(STALL_S):
                    await send({"type": "http.response.start", "status": 200, "headers": headers})
                await _flush(send, b"")
                async for event in events:
                    await _flush(send, event)
                await _send(send, b"", more=False)
        except TimeoutError:
            _log.warning("event stream reader stalled", request_id=self._request_id, waited_s=STALL_S)
        except asyncio.CancelledError:
            if not watched.absorb_cancellation():
                raise

    async def _events(self) -> AsyncGenerator[bytes, None]:
        number, latest = 1, self._first
        heartbeat = self._format.heartbeat
        updates = self._updates if heartbeat is None else _with_heartbeats(self._updates)
        async with aclosing(updates):
            yield self._encode_update(number, latest)
            try:
                async for update in updates:
                    if update is None:
                        yield heartbeat or b""
                    else:
                        number, latest = number + 1, update
                        yield self._encode_update(number, latest)
            except Exception as error:  # noqa: BLE001 - reported to the client without its text
                yield _encode_event(b"error", self._encode_error(error))
            else:
                end = orjson.dumps(self._format.end(number, latest))
                yield _encode_event(b"end", end, self._format.end_id(latest))

    def _encode_update(self, number: int, update: T) -> bytes:
        return _encode_event(self._format.event, self._format.encode(number, update), b"%d" % number)

    def _encode_error(self, error: Exception) -> bytes:
        refusal = self._format.refusal_for(error)
        if refusal is not None:
            return encode_problem(self._format.localize(refusal.problem)[0])
        _log.error(self._format.failure_log, request_id=self._request_id, exc_info=error)
        problem = make_problem(ProblemCode.INTERNAL, self._format.failure_detail)
        return encode_problem(self._format.localize(problem)[0])


def accepts_event_stream(accept: bytes | None) -> bool:
    """Whether an Accept value names event streams, and not with `q=0`. `*/*` accepts JSON."""
    if accept is None or EVENT_STREAM not in (lowered := accept.lower()):
        return False
    for media_range in lowered.split(b","):
        media_type, *parameters = (part.strip() for part in media_range.split(b";"))
        if media_type == EVENT_STREAM:
            return not any(parameter.startswith(b"q=") and not parameter[2:].strip(b"0.") for parameter in parameters)
    return False


def _encode_event(name: bytes, payload: bytes, event_id: bytes | None = None) -> bytes:
    return b"event: %b\n%bdata: %b\n\n" % (name, b"" if event_id is None else b"id: %b\n" % event_id, payload)


async def _flush(send: Send, part: bytes) -> None:
    """Send a part in a write of its own, because gateways may hold back the rest of a write.

    An empty part is the head alone. The event loop merges the writes of one iteration.
    """
    await _send(send, part, more=True)
    await asyncio.sleep(0)


async def _send(send: Send, body: bytes, *, more: bool) -> None:
    async with asyncio.timeout(STALL_S):
        await send({"type": "http.response.body", "body": body, "more_body": more})


async def _with_heartbeats(updates: AsyncGenerator[T, None]) -> AsyncGenerator[T | None, None]:
    """Yield `updates`, and None after each `HEARTBEAT_S` without one. Closes `updates`."""
    pending: asyncio.Task[T | None] | None = None
    try:
        while True:
            # A task of its own: cancelling `anext` on a timeout would end the generator.
            pending = asyncio.create_task(_next(updates))
            while not pending.done():
                await asyncio.wait((pending,), timeout=HEARTBEAT_S)
                if not pending.done():
                    yield None
            update = pending.result()
            if update is None:
                return
            yield update
    finally:
        if pending is not None and not pending.done():
            pending.cancel()
            await asyncio.wait((pending,))
        await updates.aclose()


async def _next(updates: AsyncGenerator[T, None]) -> T | None:
    return await anext(updates, None)

"""The interface of all transports: send a request with a callback, get an abandonable call.

A call in flight is an object with a callback, not a task: the fan-out counts callbacks down, and a
task costs more than parsing the answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from cashier.source_errors import SourceError
from cashier.wire.response_headers import NO_HEADERS, ResponseHeaders

# An unsafe request uses a connection that was idle for less than this, or a new one: if the
# upstream is just closing a reused connection, the client cannot know whether the request was
# processed. Servers close idle connections after 2 to 75 seconds, none after less than 1.
MAX_UNSAFE_IDLE_S = 1.0


class Request(Struct, frozen=True):
    """One HTTP request to an upstream.

    `target`: path and query, percent-encoded ASCII. `safe`: sending it twice changes nothing. Only
    a safe request is sent again, once, if a reused connection closes before the first byte of an
    answer. `headers` are added to those of every request; `Accept` and `Content-Type` replace the
    default `application/json`. `read_only` is for adapters of payment services: a request that
    changes nothing, although it is not a GET, such as that of a token or a GraphQL query. `renew`:
    what to send in its place if it is sent again, for a signature that is for one use.
    """

    target: str
    method: str = "GET"
    body: bytes = b""
    safe: bool = True
    headers: tuple[tuple[str, str], ...] = ()
    read_only: bool = False
    renew: Callable[[], Request] | None = None

    def __repr__(self) -> str:
        """Omit the body: it may hold a payer's code or password."""
        return f"<Request {self.method} {self.target!r} {len(self.body)} B{'' if self.safe else ' unsafe'}>"


class CallHeaders(Struct, frozen=True):
    """Header values that every call of one consultation carries.

    `tracestate`: only with a `traceparent`.
    """

    request_id: str
    traceparent: str | None = None
    tracestate: str | None = None


class AnsweringConnection(Protocol):
    """The connection that delivered an answer."""

    def discredit(self, error: SourceError) -> bool:
        """See `Response.discredit`."""


class Response(Struct, frozen=True, eq=False):
    """A complete answer of any status. `retry_after_s`: the header, if a number of seconds.

    `headers`: empty unless the transport keeps them, as it does for adapters. `connection`: None if
    nothing can be concluded about it. The two are no part of the answer's value.
    """

    status: int
    body: bytes
    retry_after_s: float | None = None
    connection: AnsweringConnection | None = None
    headers: ResponseHeaders = NO_HEADERS

    def json(self) -> Any:
        """The body as JSON. Raises `msgspec.DecodeError`, a ValueError."""
        return msgspec.json.decode(self.body)

    def discredit(self, error: SourceError) -> SourceError:
        """Report that the answer means this error: its connection may be at fault.

        Wrong identity closes the connection: its answers may belong to other requests. Other errors
        make it suspect. Returns the error, with `elsewhere` set if another connection may do
        better.
        """
        if self.connection is not None:
            error.elsewhere = self.connection.discredit(error)
        return error

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Response) and self._value() == other._value()

    def __hash__(self) -> int:
        return hash(self._value())

    def _value(self) -> tuple[int, bytes, float | None]:
        return self.status, self.body, self.retry_after_s

    def __repr__(self) -> str:
        """Omit the body: it holds the payer's data."""
        return f"<Response {self.status} {len(self.body)} B>"


OnResponse = Callable[[Response | SourceError], None]


class TransportCall(Protocol):
    """A request in flight."""

    @property
    def address_index(self) -> int:
        """The address that it was sent to or waits for: an index into `Transport.addresses`.

        Negative once its address is no longer one of them.
        """

    @property
    def sent(self) -> bool:
        """While in flight: the upstream may have received the request.

        A call abandoned while this is False is never sent.
        """

    def abandon(self) -> None:
        """Give up: the callback will not be called. Idempotent, also after the callback."""


class Transport(Protocol):
    """The connection to one upstream source with one or more addresses."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """The names of its addresses. They change only if the transport resolves names."""

    async def open(self) -> None:
        """Open connections ahead. An unreachable source is no error: each call tries again."""

    async def is_reachable(self) -> bool:
        """Whether a connection to one of the addresses is open or can be opened now.

        Takes at most the connect timeout. Sends no request.
        """

    def send(
        self, request: Request, call_headers: CallHeaders, budget_ms: int, on_response: OnResponse, avoid: int = 0
    ) -> TransportCall:
        """Start a call. Unless abandoned first, `on_response` is called once, after this returns.

        `avoid` is a bit mask of addresses to leave out; it is ignored if it covers all of them.

        `budget_ms` is the caller's remaining time, sent as `X-Deadline-Ms`. The transport does not
        enforce it: the caller abandons. Never raises for a fault of an upstream or a network.
        """

    async def close(self) -> None:
        """End all calls with `Unreachable`; leave no connection, task or timer behind."""


class DiscoveredList(Struct, frozen=True):
    """The addresses that discovery by `way` found last, `age_s` ago; None: none so far.

    `changes`: how often they became others. `failure`: why the last lookup found none; else empty.
    """

    way: str
    age_s: float | None
    changes: int
    failure: str


class NetworkTransport(Transport, Protocol):
    """A transport with connections of its own."""

    @property
    def connected(self) -> bool | None:
        """True: a connection is open. False: none is, and the last connect to each address failed.

        None: none is open, and none failed last. Opens no connection and looks up no name.
        """

    @property
    def endpoints(self) -> int:
        """How many addresses it knows."""

    def discovered(self) -> DiscoveredList | None:
        """None if its addresses come from a lookup of their names."""

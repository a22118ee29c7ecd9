"""The one small interface of every wire: hand it a request and a callback, get back something that can be abandoned.

A call in flight is an object with a callback, not a task: the fan-out counts callbacks down, and tasks cost more than parsing does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from cashier.source_errors import SourceError

# What is not safe goes out on a connection that was in use within this time, or on a new one: of a kept connection that the upstream is
# just closing nobody can tell whether it took the request. Servers close what is idle after 2 to 75 seconds, none after less than 1.
MAX_UNSAFE_IDLE_S = 1.0


class Request(Struct, frozen=True):
    """One HTTP request to an upstream.

    `target` is path and query, already percent-encoded ASCII. `safe` means that sending it twice changes nothing: only such a request is
    sent again, once, when a kept connection turns out to be closed before the first byte of an answer. `headers` are sent besides those
    that every request has, and may not be one of them.
    """

    target: str
    method: str = "GET"
    body: bytes = b""
    safe: bool = True
    headers: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:
        """Without the body: it may hold a payer's code or password."""
        return f"<Request {self.method} {self.target!r} {len(self.body)} B{'' if self.safe else ' unsafe'}>"


class CallHeaders(Struct, frozen=True):
    """What accompanies every call of one consultation. All three become headers."""

    request_id: str
    traceparent: str | None = None


class Response(Struct, frozen=True):
    """A whole answer, whatever its status. `retry_after_s` is from the header, where it was a number of seconds."""

    status: int
    body: bytes
    retry_after_s: float | None = None

    def __repr__(self) -> str:
        """Without the body: it is the payer's."""
        return f"<Response {self.status} {len(self.body)} B>"


OnResponse = Callable[[Response | SourceError], None]


class TransportCall(Protocol):
    """A request under way."""

    @property
    def place(self) -> int:
        """The address it was sent to, or waits for: an index into `Transport.places`."""

    @property
    def sent(self) -> bool:
        """While it is under way: the upstream may have received the request. Abandoned while this is False, it never will."""

    def abandon(self) -> None:
        """Nobody waits any more: the reply will not be called. Idempotent, also after the reply."""


class Transport(Protocol):
    """A way to one upstream source, whatever the number of its addresses."""

    @property
    def places(self) -> tuple[str, ...]:
        """The names of its addresses."""

    async def open(self) -> None:
        """Open connections ahead. A source that cannot be reached yet is no error: it will be tried again when it is needed."""

    def send(
        self, request: Request, call_headers: CallHeaders, budget_ms: int, reply: OnResponse, avoid: int = 0
    ) -> TransportCall:
        """Start a call. `reply` is called exactly once, later than this returns, unless the exchange is abandoned first.

        `avoid` has a bit for each place that should not be asked; where that would leave none, it is not heeded.

        `budget_ms` is what is left of the caller's time; it goes out as `X-Deadline-Ms`. The transport does not enforce it: who asked
        does, by abandoning. Never raises for what an upstream or a network does.
        """

    async def close(self) -> None:
        """End what is under way with `Unreachable` and leave no connection, task or timer behind."""

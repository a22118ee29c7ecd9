"""One call of the `http1` client: its request and its progress."""

from __future__ import annotations

from collections import deque
from time import monotonic
from typing import Protocol

from cashier.source_errors import SourceError
from cashier.wire.call_completion import deliver
from cashier.wire.transport import CallHeaders, OnResponse, Request, Response


class CallConnection(Protocol):
    """The connection that a call was sent on."""

    def abandon(self, call: Http1Call) -> None:
        """Close at once, without notice to the call."""


class Http1Call:
    """A `TransportCall`.

    Until it ends, it is in `queue`, or waits for the connection of its retry, or has `connection`.
    `attempts`: the connects made for it. `connecting`: how many are in progress. `avoid` and
    `address_index`: see `Transport` and `TransportCall`.
    """

    __slots__ = (
        "address_index", "attempts", "avoid", "budget_ms", "call_headers", "connecting", "connection", "on_response",
        "queue", "request", "retried", "started_s", "written_s",
    )  # fmt: skip

    def __init__(
        self, request: Request, call_headers: CallHeaders, budget_ms: int, on_response: OnResponse, avoid: int
    ) -> None:
        self.avoid = avoid
        self.address_index = 0
        self.request = request
        self.call_headers = call_headers
        self.budget_ms = budget_ms
        self.on_response: OnResponse | None = on_response
        self.started_s = self.written_s = monotonic()
        self.connection: CallConnection | None = None
        self.queue: deque[Http1Call] | None = None
        self.connecting = 0
        self.attempts = 0
        self.retried = False

    @property
    def waiting(self) -> bool:
        return self.on_response is not None and self.connection is None

    @property
    def sent(self) -> bool:
        """Part of it may have been written: it has a connection, or had one before its retry."""
        return self.connection is not None or self.retried

    def finish(self, outcome: Response | SourceError) -> None:
        on_response = self.on_response
        if on_response is not None:
            self.on_response = self.connection = None
            if self.queue is not None:
                self.leave_queue()
            deliver(on_response, outcome)

    def abandon(self) -> None:
        connection = self.connection
        if self.on_response is not None:
            self.on_response = self.connection = None
            self.leave_queue()
            if connection is not None:
                connection.abandon(self)

    def join_queue(self, queue: deque[Http1Call]) -> None:
        self.queue = queue
        queue.append(self)

    def leave_queue(self) -> None:
        if self.queue is not None:
            self.queue.remove(self)
            self.queue = None

    def write_late(self) -> int:
        """Note that it is written only now; return the rest of its budget, at least 1 ms."""
        self.written_s = monotonic()
        return max(1, self.budget_ms - int((self.written_s - self.started_s) * 1000))

"""A call on the `http1` wire: who asked what, and where it stands."""

from __future__ import annotations

from collections import deque
from time import monotonic
from typing import TYPE_CHECKING

from cashier.source_errors import SourceError
from cashier.wire.delivery import deliver
from cashier.wire.transport import CallHeaders, OnResponse, Request, Response

if TYPE_CHECKING:
    from cashier.wire.connection import UpstreamConnection


class Http1Call:
    """Until it is over, a call waits in `queue`, or for the connection of its retry, or `connection` has it.

    `attempts` counts the connections tried on its behalf, `connecting` says that one is being opened now. `avoid` and `place` as in
    `Transport` and `Exchange`.
    """

    __slots__ = (
        "attempts", "avoid", "budget_ms", "connecting", "connection", "place", "queue", "reply", "request", "retried", "started_s", "call_headers",
    )  # fmt: skip

    def __init__(
        self, request: Request, call_headers: CallHeaders, budget_ms: int, reply: OnResponse, avoid: int
    ) -> None:
        self.avoid = avoid
        self.place = 0
        self.request = request
        self.call_headers = call_headers
        self.budget_ms = budget_ms
        self.reply: OnResponse | None = reply
        self.started_s = monotonic()
        self.connection: UpstreamConnection | None = None
        self.queue: deque[Http1Call] | None = None
        self.connecting = False
        self.attempts = 0
        self.retried = False

    @property
    def waits(self) -> bool:
        return self.reply is not None and self.connection is None

    @property
    def sent(self) -> bool:
        """Some of it may have been written: it has a connection, or it had one before its retry."""
        return self.connection is not None or self.retried

    def finish(self, outcome: Response | SourceError) -> None:
        reply = self.reply
        if reply is not None:
            self.reply = self.connection = None
            if self.queue is not None:
                self.leave_queue()
            deliver(reply, outcome)

    def abandon(self) -> None:
        connection = self.connection
        if self.reply is not None:
            self.reply = self.connection = None
            self.leave_queue()
            if connection is not None:
                let_go(connection)

    def join_queue(self, queue: deque[Http1Call]) -> None:
        self.queue = queue
        queue.append(self)

    def leave_queue(self) -> None:
        if self.queue is not None:
            self.queue.remove(self)
            self.queue = None

    def left_ms(self) -> int:
        """What waiting left of the budget, at least 1."""
        return max(1, self.budget_ms - int((monotonic() - self.started_s) * 1000))


def let_go(connection: UpstreamConnection) -> None:
    """What becomes of a connection whose answer nobody waits for. It is closed: the next question must never get that answer."""
    connection.drop()

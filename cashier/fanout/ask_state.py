"""The state of one ask within a scatter, and the callback that its source receives.

`scatter` decides.
"""

from __future__ import annotations

import sys
from typing import Any, Protocol

from cashier.fanout.ask import Ask, AskCall, SourceStatus
from cashier.source_errors import SourceError

NEVER_NS = sys.maxsize


class OutcomeCollector(Protocol):
    """Collects the outcomes of asks until it has ended."""

    ended: bool

    def collect(self, pending: PendingAsk, outcome: Any, status: SourceStatus, age_ms: int) -> None:
        """Take the outcome of one ask."""


class PendingAsk:
    """The state of one ask.

    `call`: in progress. `ended_call`: the one that brought the outcome, or was abandoned; `error`:
    why there is no answer. Both are for those who want to know what the ask did.

    Once settled it drops its reference to the scatter, and at the scatter's close all others: a
    late `done`, or one that a source keeps, has no effect and keeps nothing alive.
    """

    __slots__ = (
        "age_ms", "ask", "call", "ended_call", "ended_ns", "error", "expires_ns", "scatter", "started_ns", "status",
        "unmet_needs",
    )  # fmt: skip

    def __init__(self, ask: Ask, scatter: OutcomeCollector) -> None:
        self.ask = ask
        self.scatter: OutcomeCollector | None = scatter
        self.unmet_needs = 0
        self.call: AskCall | None = None
        self.ended_call: AskCall | None = None
        self.error: SourceError | None = None
        self.started_ns = 0
        self.expires_ns = NEVER_NS  # NEVER_NS also means: not started
        self.ended_ns = 0
        self.status: SourceStatus | None = None  # None: not settled
        self.age_ms = 0

    def done(self, outcome: Any, status: SourceStatus = SourceStatus.FRESH, age_ms: int = 0) -> None:
        scatter = self.scatter
        if scatter is None:
            return
        self.ended_call, self.call = self.call, None
        if not scatter.ended:
            scatter.collect(self, outcome, status, age_ms)

    def abandon_call(self) -> None:
        """Call once settled: whether the timeout was over is known then."""
        call, self.call = self.call, None
        if call is not None:
            self.ended_call = call
            if self.ended_ns >= self.expires_ns:
                call.time_out()
            else:
                call.abandon()

    def __repr__(self) -> str:
        unsettled = "waiting" if self.expires_ns == NEVER_NS else "asked"
        return f"{self.ask.name}: {unsettled if self.status is None else self.status.value}"

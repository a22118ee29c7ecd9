"""Slot: the place of one ask in a scatter, and the `done` that its source is given. Decides nothing; that is `scatter`."""

from __future__ import annotations

import sys
from typing import Any, Protocol

from cashier.fanout.ask import Ask, PendingCall, SourceStatus

NEVER_NS = sys.maxsize


class OutcomeCollector(Protocol):
    """Where the outcomes of slots go, until it is over."""

    over: bool

    def arrived(self, slot: PendingAsk, outcome: Any, status: SourceStatus, age_ms: int) -> None:
        """Take the outcome of one ask."""


class PendingAsk:
    """The place of one ask.

    Once settled it lets go of the scatter and of the call, so that a late `done`, or one kept for long, reaches and holds nothing.
    """

    __slots__ = ("age_ms", "ask", "ended_ns", "expires_ns", "flight", "lacking", "scatter", "started_ns", "status")

    def __init__(self, ask: Ask, scatter: OutcomeCollector) -> None:
        self.ask = ask
        self.scatter: OutcomeCollector | None = scatter
        self.lacking = 0
        self.flight: PendingCall | None = None
        self.started_ns = 0
        self.expires_ns = NEVER_NS  # also: not asked yet
        self.ended_ns = 0
        self.status: SourceStatus | None = None  # None: not settled
        self.age_ms = 0

    def done(self, outcome: Any, status: SourceStatus = SourceStatus.FRESH, age_ms: int = 0) -> None:
        scatter = self.scatter
        if scatter is None:
            return
        self.flight = None
        if not scatter.over:
            scatter.arrived(self, outcome, status, age_ms)

    def let_go(self) -> None:
        """Abandon the call, if one is under way."""
        flight, self.flight = self.flight, None
        if flight is not None:
            flight.abandon()

    def __repr__(self) -> str:
        unsettled = "waiting" if self.expires_ns == NEVER_NS else "asked"
        return f"{self.ask.name}: {unsettled if self.status is None else self.status.value}"

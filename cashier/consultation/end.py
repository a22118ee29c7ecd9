"""The end of a consultation as observers see it: metrics, records, traces.

Observers cost the payer no answer: what one of them raises is reported to the event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeAlias

from msgspec import Struct

from cashier.consultation.answer import Consultation, ConsultError, OrderUnknown
from cashier.domain.order import ConsultRequest
from cashier.fanout.ask_state import PendingAsk
from cashier.fanout.scatter import ScatterResult

# A faulty observer fails with every consultation, and each report holds a traceback.
REPORT_S = 60.0


class ConsultationOutcome(StrEnum):
    """COMPLETE, DEGRADED: with methods; the latter without an answer of at least one source.

    BLOCKED: the order cannot be paid. ORDER_UNKNOWN: the acquirer has no such order. UNAVAILABLE: a
    required source is silent. ABANDONED: the caller left first. ERROR: a bug.
    """

    COMPLETE = "COMPLETE"
    DEGRADED = "DEGRADED"
    BLOCKED = "BLOCKED"
    ORDER_UNKNOWN = "ORDER_UNKNOWN"
    UNAVAILABLE = "UNAVAILABLE"
    ABANDONED = "ABANDONED"
    ERROR = "ERROR"


class ConsultationEnd(Struct, frozen=True):
    """One consultation that has just ended.

    `asks`: what each ask did, in the plan's order; readable only during the call of an observer.
    `gathered`: None if the scatter did not end by itself. `consultation`: the answer; of a stream
    the last one. `error`: in the place of an answer; `CancelledError` or `GeneratorExit` if the
    caller left. `now`: the time of day of the start. `recheck`: of a payment, before its submit.

    Times are of one clock, in ns: `started_ns`, from which the deadline counts; `asked_ns`, when
    the first ask could start; `ended_ns`, when the answer was complete; and `deadline_ns`.
    """

    request: ConsultRequest
    call_headers: Any
    asks: Sequence[PendingAsk]
    gathered: ScatterResult | None
    consultation: Consultation | None
    error: BaseException | None
    now: datetime
    started_ns: int
    asked_ns: int
    ended_ns: int
    deadline_ns: int
    recheck: bool
    streamed: bool

    @property
    def outcome(self) -> ConsultationOutcome:
        error, consultation = self.error, self.consultation
        if error is None:
            if consultation is None or not consultation.payable:
                return ConsultationOutcome.BLOCKED
            return ConsultationOutcome.DEGRADED if consultation.degraded else ConsultationOutcome.COMPLETE
        if isinstance(error, OrderUnknown):
            return ConsultationOutcome.ORDER_UNKNOWN
        if isinstance(error, ConsultError):
            return ConsultationOutcome.UNAVAILABLE
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            return ConsultationOutcome.ABANDONED
        return ConsultationOutcome.ERROR


OnEnd: TypeAlias = Callable[[ConsultationEnd], None]


class Observers:
    """What is called after each consultation, in the order of registration."""

    __slots__ = ("_failures", "_reported_s", "registered")

    def __init__(self) -> None:
        self.registered: list[OnEnd] = []
        self._failures = 0
        self._reported_s = -REPORT_S

    def add(self, on_end: OnEnd) -> None:
        self.registered.append(on_end)

    def notify(self, end: ConsultationEnd) -> None:
        for on_end in self.registered:
            try:
                on_end(end)
            except Exception as bug:  # noqa: BLE001 - of an observer: the payer has a right to the answer
                self._report(bug)

    def _report(self, bug: Exception) -> None:
        """Report at most one failure a minute, with the number of those since the last report."""
        self._failures += 1
        now_s = time.monotonic()
        if now_s - self._reported_s < REPORT_S:
            return
        message = f"cashier: an observer of consultations raised, {self._failures} times since the last report"
        self._reported_s, self._failures = now_s, 0
        asyncio.get_running_loop().call_exception_handler({"message": message, "exception": bug})

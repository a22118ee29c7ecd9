"""Status query: ask engine and acquirer about a payment, and reverse it where due.

Concurrent callers share one query. Nothing is cached: a caller never gets the result of a query
that began before its call.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from typing import Any

import structlog
from msgspec import Struct
from msgspec.structs import replace

from cashier.domain.engine_contract import EngineAnswered, EnginePayment, NeverArrived, ReversalReason, Sealed
from cashier.domain.order_result import AcquirerResult
from cashier.domain.payment_state import FINAL, IllegalTransition, PaymentStatus
from cashier.domain.status_mapping import EngineOutcome, acquirer_report, engine_report
from cashier.domain.status_resolution import PaymentProgress, ResolvedStatus, resolve_status
from cashier.domain.upstream_report import AcquirerReport, AcquirerReportStatus, EngineReport, EngineReportStatus
from cashier.payments.coalescing import SingleFlight
from cashier.payments.errors import KeyReused
from cashier.payments.payment_metrics import PaymentMetrics
from cashier.payments.policy import Operation
from cashier.payments.ports import PaymentPorts

_log = structlog.get_logger("cashier.payments")


class UpstreamStatus(Struct, frozen=True):
    """The engine's report on the payment and the acquirer's on its order.

    `payment`: as the engine answered, if it was asked about the payment and knows it.
    """

    engine: EngineReport
    acquirer: AcquirerReport
    payment: EnginePayment | None = None


# Payments whose correction was logged; payments whose end was reported.
_MOST_CORRECTED = 10_000
_MOST_ENDED = 10_000
# The report of an acquirer that was not asked.
_NOT_ASKED = AcquirerReport(AcquirerReportStatus.SILENT)


class ResolvedPayment(Struct, frozen=True):
    """A payment's status and the reports that it follows from."""

    resolution: ResolvedStatus
    upstream: UpstreamStatus


class StatusQuery:
    """`now` is the wall clock.

    The final status that this worker reported last holds for tokens without one, too.
    """

    def __init__(
        self,
        ports: PaymentPorts,
        most_under_way: int,
        now: Callable[[], datetime],
        counts: PaymentMetrics | None = None,
    ) -> None:
        self._ports = ports
        self._now = now
        self._queries: SingleFlight[UpstreamStatus] = SingleFlight(most_under_way)
        self._reversals: SingleFlight[UpstreamStatus] = SingleFlight(most_under_way)
        self._counts = counts or PaymentMetrics()
        self._corrected: set[str] = set()
        self._ended: OrderedDict[str, PaymentStatus] = OrderedDict()

    def __repr__(self) -> str:
        corrections = self._counts.corrections.value
        parts = f"queries={len(self._queries)} reversals={len(self._reversals)} corrections={corrections}"
        return f"<StatusQuery {parts}>"

    async def drain(self) -> None:
        """Wait until no query and no reversal is under way."""
        await self._queries.drain()
        await self._reversals.drain()

    async def query(self, payment_id: str, order_id: str, operation: Operation) -> UpstreamStatus:
        """Ask engine and acquirer. Raises `TooManyPayments`."""
        return await self._queries.run(payment_id, lambda: self._query_both(payment_id, order_id, operation))

    async def resolve(
        self,
        payment: PaymentProgress,
        fingerprint: str,
        order_id: str,
        operation: Operation,
        upstream: UpstreamStatus | None = None,
    ) -> ResolvedPayment:
        """Resolve the status from `upstream` or from a new query; reverse first where that is due.

        `fingerprint`: of the body that the caller's token belongs to. Raises `KeyReused` if the
        engine has another body under this id, which the caller may neither see nor end;
        `TooManyPayments`.
        """
        if upstream is None:
            upstream = await self.query(payment.payment_id, order_id, operation)
        if upstream.payment is not None and upstream.payment.fingerprint not in (None, fingerprint):
            raise KeyReused
        resolution = self.resolution(payment, upstream)
        # While the engine is silent its body is unknown. A token without a submit then has nothing
        # to end.
        body_unknown = upstream.engine.status is EngineReportStatus.SILENT and payment.sent_at is None
        if not resolution.to_reverse or body_unknown:
            return ResolvedPayment(resolution, upstream)
        upstream = await self.reverse(payment.payment_id, order_id, resolution.reversal_reason, operation)
        return ResolvedPayment(self.resolution(payment, upstream), upstream)

    async def reverse(
        self, payment_id: str, order_id: str, reason: ReversalReason | None, operation: Operation
    ) -> UpstreamStatus:
        """Ask the engine to end the payment, then both how it stands. Raises `TooManyPayments`."""
        return await self._reversals.run(payment_id, lambda: self._reverse(payment_id, order_id, reason, operation))

    async def with_acquirer(self, engine: EngineReport, order_id: str, operation: Operation) -> UpstreamStatus:
        """Add the acquirer's report if the engine reported an end: the acquirer must confirm it."""
        if engine.status not in (EngineReportStatus.SUCCEEDED, EngineReportStatus.FAILED):
            return UpstreamStatus(engine, _NOT_ASKED)
        return UpstreamStatus(engine, acquirer_report(await self._order_result(order_id, operation)))

    async def _order_result(self, order_id: str, operation: Operation) -> AcquirerResult:
        return await self._ports.acquirer.result(order_id, operation.call_headers, operation.policy.settings.look_ms)

    def resolution(self, payment: PaymentProgress, upstream: UpstreamStatus) -> ResolvedStatus:
        """The status that follows from these reports. One end, whichever token asks."""
        resolution = self._resolve(payment, upstream)
        ended = self._ended.get(payment.payment_id)
        if resolution.final and payment.last_status not in FINAL and ended is not None:
            payment = replace(payment, last_status=ended)
            resolution = self._resolve(payment, upstream)
        if resolution.correction:
            self._note_correction(payment, resolution)
        if resolution.final and (resolution.correction or payment.payment_id not in self._ended):
            self._ended[payment.payment_id] = resolution.status
            if len(self._ended) > _MOST_ENDED:
                self._ended.popitem(last=False)
        return resolution

    def _resolve(self, payment: PaymentProgress, upstream: UpstreamStatus) -> ResolvedStatus:
        try:
            return resolve_status(payment, upstream.engine, upstream.acquirer, self._now())
        except IllegalTransition as contradiction:
            # An upstream took back a final word, or we have a bug. Report what the upstreams say
            # now.
            _log.error(
                "impossible status transition",
                payment_id=payment.payment_id,
                why=str(contradiction),
            )
            return resolve_status(replace(payment, last_status=None), upstream.engine, upstream.acquirer, self._now())

    async def _query_both(self, payment_id: str, order_id: str, operation: Operation) -> UpstreamStatus:
        looked_up, result = await asyncio.gather(
            self._ports.engine.look_up(payment_id, order_id, operation.call_headers, operation.policy.settings.look_ms),
            self._order_result(order_id, operation),
        )
        return upstream_status(looked_up, result)

    async def _reverse(
        self, payment_id: str, order_id: str, reason: ReversalReason | None, operation: Operation
    ) -> UpstreamStatus:
        """Ask the acquirer after the engine: the reversal may have changed the order."""
        outcome: EngineOutcome = await self._ports.engine.reverse(
            payment_id, order_id, operation.call_headers, operation.policy.settings.look_ms, reason=reason
        )
        if outcome == Sealed():
            # The first reason may be another caller's. A look-up gives it to both, if the engine
            # keeps what it refuses.
            upstream = await self._query_both(payment_id, order_id, operation)
            kept = upstream.engine.status is not EngineReportStatus.NEVER_ARRIVED
            return upstream if kept else replace(upstream, engine=engine_report(outcome))
        upstream = upstream_status(outcome, await self._order_result(order_id, operation))
        if isinstance(outcome, NeverArrived):
            return replace(upstream, engine=EngineReport(EngineReportStatus.UNSEALED))
        return upstream

    def _note_correction(self, payment: PaymentProgress, resolution: ResolvedStatus) -> None:
        """Count and log it once, though every caller with an old token gets it."""
        if payment.payment_id in self._corrected:
            return
        if len(self._corrected) >= _MOST_CORRECTED:
            self._corrected.clear()
        self._corrected.add(payment.payment_id)
        self._counts.corrections.add()
        _log.warning(
            "the acquirer corrected a final status",
            payment_id=payment.payment_id,
            reported=payment.last_status,
            corrected=resolution.status.value,
        )


def upstream_status(outcome: EngineOutcome, result: AcquirerResult) -> UpstreamStatus:
    payment = outcome.payment if isinstance(outcome, EngineAnswered) else None
    return UpstreamStatus(engine_report(outcome), acquirer_report(result), payment)


def visibly_different(before: ResolvedStatus, after: ResolvedStatus) -> bool:
    """Whether the payer would see a difference; the next poll time alone is none."""
    return _visible_part(before) != _visible_part(after)


def _visible_part(resolution: ResolvedStatus) -> tuple[Any, ...]:
    action = resolution.next_action if resolution.status is PaymentStatus.ACTION_REQUIRED else None
    return resolution.status, resolution.message, action, resolution.arrived

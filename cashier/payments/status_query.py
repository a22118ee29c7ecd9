"""Looking: what engine and acquirer say of a payment now, asked once for all who want to know before it is asked.

Nothing is remembered: every look is a new one. Where the look says that the engine should reverse, it is asked to, once for all as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any

import structlog
from msgspec import Struct
from msgspec.structs import replace

from cashier.domain.acquirer_contract import AcquirerResult
from cashier.domain.engine_contract import EngineAnswered
from cashier.domain.payment_state import IllegalTransition, PaymentStatus
from cashier.domain.status_mapping import EngineOutcome, acquirer_report, engine_report
from cashier.domain.status_resolution import (
    AcquirerReport,
    AcquirerReportStatus,
    EngineReport,
    EngineReportStatus,
    PaymentProgress,
    ResolvedStatus,
    resolve_status,
)
from cashier.payments.coalescing import FreshSingleFlight, TooManyRuns
from cashier.payments.errors import KeyReused, TooManyPayments
from cashier.payments.ports import PaymentPorts
from cashier.payments.settings import AcceptSettings

_log = structlog.get_logger("cashier.payments")


class UpstreamStatus(Struct, frozen=True):
    """What was heard of a payment, and of its order. `fingerprint`: of the body that the engine has it by, where it says so."""

    engine: EngineReport
    acquirer: AcquirerReport
    fingerprint: str | None = None


# What is heard of an acquirer that was not asked.
_UNASKED = AcquirerReport(AcquirerReportStatus.SILENT)


class ResolvedPayment(Struct, frozen=True):
    """Where a payment stands, and from what that follows."""

    resolution: ResolvedStatus
    heard: UpstreamStatus


class StatusQuery:
    """Looks at payments. `now` is the wall clock."""

    def __init__(self, upstreams: PaymentPorts, settings: AcceptSettings, now: Callable[[], datetime]) -> None:
        self._upstreams = upstreams
        self._now = now
        self._looks: FreshSingleFlight[UpstreamStatus] = FreshSingleFlight(settings.most_under_way)
        self._reversals: FreshSingleFlight[UpstreamStatus] = FreshSingleFlight(settings.most_under_way)
        self.settings = settings

    def __repr__(self) -> str:
        return f"<Looking looks={len(self._looks)} reversals={len(self._reversals)}>"

    async def drain(self) -> None:
        """When all that is under way has ended."""
        await self._looks.drain()
        await self._reversals.drain()

    async def heard(self, payment_id: str, order_id: str, call_headers: Any) -> UpstreamStatus:
        """What both say now. Raises `TooManyPayments`."""
        return await self._shared(self._looks, payment_id, lambda: self._look(payment_id, order_id, call_headers))

    async def see(
        self, payment: PaymentProgress, fingerprint: str, order_id: str, call_headers: Any, heard: UpstreamStatus | None = None
    ) -> ResolvedPayment:
        """Where it stands, by a look or by what was just `heard`; and after a reverse, where that is due.

        `fingerprint`: of the body that the asker knows it by. Where the engine has it by another, it is not theirs to know or to end:
        `KeyReused`. Raises `TooManyPayments`.
        """
        if heard is None:
            heard = await self.heard(payment.payment_id, order_id, call_headers)
        if heard.fingerprint not in (None, fingerprint):
            raise KeyReused
        found = self._standing(payment, heard)
        # Of a silent engine it is not known whose body it has. One that knows of no submit of its own has nothing to end there.
        unknown = heard.engine.word is EngineReportStatus.SILENT and payment.sent_at is None
        if not found.to_reverse or unknown:
            return ResolvedPayment(found, heard)
        heard = await self._shared(
            self._reversals, payment.payment_id, lambda: self._reverse(payment.payment_id, order_id, call_headers)
        )
        return ResolvedPayment(self._standing(payment, heard), heard)

    async def confirmed(self, engine: EngineReport, order_id: str, call_headers: Any) -> UpstreamStatus:
        """What the engine has just said, and the acquirer too where that counts: an end has to be confirmed by it."""
        if engine.word not in (EngineReportStatus.SUCCEEDED, EngineReportStatus.FAILED):
            return UpstreamStatus(engine, _UNASKED)
        return UpstreamStatus(engine, acquirer_report(await self.result(order_id, call_headers)))

    async def result(self, order_id: str, call_headers: Any) -> AcquirerResult:
        return await self._upstreams.acquirer.result(order_id, call_headers, self.settings.look_ms)

    def _standing(self, payment: PaymentProgress, heard: UpstreamStatus) -> ResolvedStatus:
        try:
            return resolve_status(payment, heard.engine, heard.acquirer, self._now())
        except IllegalTransition as contradiction:
            # Somebody has taken back what they said for good, or we have a bug. What is told instead is what they say now.
            _log.error(
                "a payment was heard to move where it cannot", payment_id=payment.payment_id, why=str(contradiction)
            )
            return resolve_status(replace(payment, told=None), heard.engine, heard.acquirer, self._now())

    async def _look(self, payment_id: str, order_id: str, call_headers: Any) -> UpstreamStatus:
        looked, result = await asyncio.gather(
            self._upstreams.engine.look_up(payment_id, order_id, call_headers, self.settings.look_ms),
            self.result(order_id, call_headers),
        )
        return UpstreamStatus(
            engine_report(looked),
            acquirer_report(result),
            looked.payment.fingerprint if isinstance(looked, EngineAnswered) else None,
        )

    async def _reverse(self, payment_id: str, order_id: str, call_headers: Any) -> UpstreamStatus:
        """The acquirer is asked after the engine: what the reverse did may be the news."""
        reversed_: EngineOutcome = await self._upstreams.engine.reverse(
            payment_id, order_id, call_headers, self.settings.look_ms
        )
        return UpstreamStatus(engine_report(reversed_), acquirer_report(await self.result(order_id, call_headers)))

    async def _shared(
        self,
        fresh: FreshSingleFlight[UpstreamStatus],
        payment_id: str,
        work: Callable[[], Coroutine[Any, Any, UpstreamStatus]],
    ) -> UpstreamStatus:
        try:
            return await fresh.run(payment_id, work)
        except TooManyRuns:
            raise TooManyPayments from None


def shows(told: ResolvedStatus, found: ResolvedStatus) -> bool:
    """Whether what has changed is worth telling: more than when to look again."""
    return _shown(told) != _shown(found)


def _shown(found: ResolvedStatus) -> tuple[Any, ...]:
    action = found.next_action if found.status is PaymentStatus.ACTION_REQUIRED else None
    return found.status, found.message, action

"""Mapping of engine and acquirer outcomes to the reports of `upstream_report`.

A submit that was refused or not sent has no report: there is no payment.
"""

from __future__ import annotations

from typing import TypeAlias

from cashier.domain.engine_contract import EngineAnswered, NeverArrived, OutcomeUnknown, ReversalReason, Sealed
from cashier.domain.order_result import AcquirerResult, NoOrder, OrderResult
from cashier.domain.upstream_report import AcquirerReport, AcquirerReportStatus, EngineReport, EngineReportStatus
from cashier.source_errors import Unanswered

_REASONS = frozenset(ReversalReason)

EngineOutcome: TypeAlias = EngineAnswered | NeverArrived | Sealed | OutcomeUnknown | Unanswered


def engine_report(outcome: EngineOutcome) -> EngineReport:
    match outcome:
        case EngineAnswered(payment):
            code = payment.failure.code if payment.failure is not None else None
            return EngineReport(
                EngineReportStatus(payment.status),
                code,
                payment.next_action,
                reversal_reason(payment.reversal_reason),
                payment.received,
                payment.returned,
                None if payment.failure is None else payment.failure.promotion_id,
            )
        case NeverArrived():
            return EngineReport(EngineReportStatus.NEVER_ARRIVED)
        case Sealed(reason):
            return EngineReport(EngineReportStatus.SEALED, reversal_reason=reversal_reason(reason))
        case OutcomeUnknown() | Unanswered():
            return EngineReport(EngineReportStatus.SILENT)


def reversal_reason(reported: str | None) -> ReversalReason | None:
    """None also for a reason that is not in the contract: a later one may add some."""
    return ReversalReason(reported) if reported in _REASONS else None


def acquirer_report(result: AcquirerResult) -> AcquirerReport:
    """An acquirer that does not know the order counts as silent: the money's state is open."""
    match result:
        case OrderResult():
            return AcquirerReport(
                AcquirerReportStatus(result.status), result.payment_id, result.closed_reason, result.paid
            )
        case NoOrder() | Unanswered():
            return AcquirerReport(AcquirerReportStatus.SILENT)

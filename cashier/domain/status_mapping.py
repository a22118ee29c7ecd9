"""What engine and acquirer said, in the domain's words. A submit that is busy, reused or not sent has none: there is no payment."""

from __future__ import annotations

from typing import TypeAlias

from cashier.domain.acquirer_contract import NoOrder, OrderResult, AcquirerResult
from cashier.domain.engine_contract import EngineAnswered, NeverArrived, OutcomeUnknown, Sealed
from cashier.domain.status_resolution import AcquirerReport, AcquirerReportStatus, EngineReport, EngineReportStatus
from cashier.source_errors import Unanswered

EngineOutcome: TypeAlias = EngineAnswered | NeverArrived | Sealed | OutcomeUnknown | Unanswered


def engine_report(outcome: EngineOutcome) -> EngineReport:
    match outcome:
        case EngineAnswered(payment):
            code = payment.failure.code if payment.failure is not None else None
            return EngineReport(EngineReportStatus(payment.status), code, payment.next_action)
        case NeverArrived():
            return EngineReport(EngineReportStatus.NEVER_ARRIVED)
        case Sealed():
            return EngineReport(EngineReportStatus.SEALED)
        case OutcomeUnknown() | Unanswered():
            return EngineReport(EngineReportStatus.SILENT)


def acquirer_report(result: AcquirerResult) -> AcquirerReport:
    """An acquirer that does not know an order for which money was asked is no better than a silent one: it says nothing of the money."""
    match result:
        case OrderResult():
            return AcquirerReport(AcquirerReportStatus(result.status), result.payment_id, result.closed_reason, result.paid)
        case NoOrder() | Unanswered():
            return AcquirerReport(AcquirerReportStatus.SILENT)

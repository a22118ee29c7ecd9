"""Mapping of engine and acquirer outcomes to the reports of `status_resolution`.

A submit that was refused or not sent has no report: there is no payment.
"""

from __future__ import annotations

from typing import TypeAlias

from cashier.domain.engine_contract import EngineAnswered, NeverArrived, OutcomeUnknown, Sealed
from cashier.domain.order_result import AcquirerResult, NoOrder, OrderResult
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
    """An acquirer that does not know the order counts as silent: the money's state is open."""
    match result:
        case OrderResult():
            return AcquirerReport(
                AcquirerReportStatus(result.status), result.payment_id, result.closed_reason, result.paid
            )
        case NoOrder() | Unanswered():
            return AcquirerReport(AcquirerReportStatus.SILENT)

"""What engine and acquirer said, in the domain's words. A submit that is busy, reused or not sent has none: there is no payment."""

from __future__ import annotations

from typing import TypeAlias

from cashier.domain.acquirer_contract import NoOrder, OrderResult, Result
from cashier.domain.engine_contract import EngineAnswered, NeverArrived, OutcomeUnknown, Sealed
from cashier.domain.status_resolution import AcquirerReport, AcquirerWord, EngineReport, EngineWord
from cashier.source_errors import Unanswered

OfThePayment: TypeAlias = EngineAnswered | NeverArrived | Sealed | OutcomeUnknown | Unanswered


def engine_report(outcome: OfThePayment) -> EngineReport:
    match outcome:
        case EngineAnswered(payment):
            code = payment.failure.code if payment.failure is not None else None
            return EngineReport(EngineWord(payment.status), code, payment.next_action)
        case NeverArrived():
            return EngineReport(EngineWord.NEVER_ARRIVED)
        case Sealed():
            return EngineReport(EngineWord.SEALED)
        case OutcomeUnknown() | Unanswered():
            return EngineReport(EngineWord.SILENT)


def acquirer_report(result: Result) -> AcquirerReport:
    """An acquirer that does not know an order for which money was asked is no better than a silent one: it says nothing of the money."""
    match result:
        case OrderResult():
            return AcquirerReport(AcquirerWord(result.status), result.payment_id, result.closed_reason, result.paid)
        case NoOrder() | Unanswered():
            return AcquirerReport(AcquirerWord.SILENT)

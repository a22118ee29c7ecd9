"""What engine and acquirer said, in the domain's words. A submit that is busy, reused or not sent has none: there is no payment."""

from __future__ import annotations

from typing import TypeAlias

from cashier.domain.acquirer_contract import NoOrder, OrderResult, Result
from cashier.domain.engine_contract import Answered, NeverArrived, Sealed, Unknown
from cashier.domain.status_resolution import AcquirerHeard, AcquirerWord, EngineHeard, EngineWord
from cashier.source_errors import NoNews

OfThePayment: TypeAlias = Answered | NeverArrived | Sealed | Unknown | NoNews


def engine_heard(outcome: OfThePayment) -> EngineHeard:
    match outcome:
        case Answered(payment):
            code = payment.failure.code if payment.failure is not None else None
            return EngineHeard(EngineWord(payment.status), code, payment.next_action)
        case NeverArrived():
            return EngineHeard(EngineWord.NEVER_ARRIVED)
        case Sealed():
            return EngineHeard(EngineWord.SEALED)
        case Unknown() | NoNews():
            return EngineHeard(EngineWord.SILENT)


def acquirer_heard(result: Result) -> AcquirerHeard:
    """An acquirer that does not know an order for which money was asked is no better than a silent one: it says nothing of the money."""
    match result:
        case OrderResult():
            return AcquirerHeard(AcquirerWord(result.status), result.payment_id, result.closed_reason, result.paid)
        case NoOrder() | NoNews():
            return AcquirerHeard(AcquirerWord.SILENT)

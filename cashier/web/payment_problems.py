"""Why a payment was not taken further, as a problem. One table: each error of the flow, and what is said of it.

Nothing that a caller sent is repeated, and a payer whom the risk service refuses is not told why.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cashier.consultation.flow import OrderUnknown
from cashier.payments.errors import (
    CheckUnavailable,
    ConsultChanged,
    EngineUnavailable,
    InFlight,
    Invalid,
    KeyReused,
    OrderBusy,
    RiskRejected,
    TooManyPayments,
)
from cashier.tokens.jws import TokenRefused
from cashier.web.problem import STATUS_AND_TITLE, FieldProblem, ProblemCode, RequestRefused, invalid
from cashier.web.response import RETRY_AFTER_1

CHANGED = "The order can be paid, but not as it was agreed to. Nothing was sent. Let the payer choose again from the consultation."
BUSY = "Another attempt on this order lives. Look at that payment, or cancel it, before another is tried."
OVER = "The order cannot be paid any more: `changes` says why. Nothing was sent by this request."
IN_FLIGHT = "The same request is under way elsewhere and has not come to its end. Send it again as it was."
REJECTED = "The payment was refused. Nothing was sent. Another way to pay may be tried."
REUSED = "The Idempotency-Key belongs to a payment with another body. Take a new key for a new payment."
UNKNOWN = "The acquirer knows no order with this order_id."
UNREACHABLE = (
    "The payment engine could not be reached or did not say whether it has the payment: nothing was sent by this request;"
    " ask again with the same key."
)
CROWDED = (
    "As many payments are under way as are taken on at once. Nothing was sent by this request. Send it again as it was."
)


def _of_token(error: TokenRefused) -> RequestRefused:
    code = ProblemCode(error.code)
    return RequestRefused(code, f"{STATUS_AND_TITLE[code][1]}.")


def _of_fields(error: Invalid) -> RequestRefused:
    return invalid(*(FieldProblem(fault.field, fault.code, fault.message) for fault in error.faults))


def _of_change(error: ConsultChanged) -> RequestRefused:
    detail = CHANGED if error.consultation.payable else OVER
    return RequestRefused(ProblemCode.CONSULT_CHANGED, detail, changes=error.changes, consultation=error.consultation)


def _of_silence(error: CheckUnavailable) -> RequestRefused:
    detail = (
        f"No usable answer from {', '.join(error.silent)}; nothing was sent by this request. Send it again as it was."
    )
    return RequestRefused(
        ProblemCode.CHECK_UNAVAILABLE, detail, sources=error.sources, silent=error.silent, headers=RETRY_AFTER_1
    )


# By the type of the error, which has no subtypes.
_TABLE: dict[type[Exception], Callable[[Any], RequestRefused]] = {
    TokenRefused: _of_token,
    Invalid: _of_fields,
    OrderUnknown: lambda _: RequestRefused(ProblemCode.ORDER_UNKNOWN, UNKNOWN),
    RiskRejected: lambda _: RequestRefused(ProblemCode.RISK_REJECTED, REJECTED),
    ConsultChanged: _of_change,
    OrderBusy: lambda error: RequestRefused(ProblemCode.ORDER_BUSY, BUSY, payment_id=error.payment_id),
    InFlight: lambda _: RequestRefused(ProblemCode.IN_FLIGHT, IN_FLIGHT, headers=RETRY_AFTER_1),
    KeyReused: lambda _: RequestRefused(ProblemCode.KEY_REUSED, REUSED),
    CheckUnavailable: _of_silence,
    EngineUnavailable: lambda _: RequestRefused(ProblemCode.ENGINE_UNAVAILABLE, UNREACHABLE, headers=RETRY_AFTER_1),
    TooManyPayments: lambda _: RequestRefused(ProblemCode.OVERLOADED, CROWDED, headers=RETRY_AFTER_1),
}


def refusal_for(error: Exception) -> RequestRefused | None:
    """None: an error that the flow should not have let out."""
    found = _TABLE.get(type(error))
    return None if found is None else found(error)

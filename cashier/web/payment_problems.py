"""Maps each error of the payments package to its problem response.

No value that a caller sent is repeated, and the reason of a risk rejection is not disclosed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cashier.consultation.answer import OrderUnknown
from cashier.payments.errors import (
    CheckUnavailable,
    ConsultChanged,
    EngineUnavailable,
    InFlight,
    Invalid,
    KeyReused,
    NoSuchAttempt,
    NotResendable,
    NotResumable,
    OrderBusy,
    ResendUnconfirmed,
    RiskRejected,
    StatusUnavailable,
    TooManyPayments,
)
from cashier.tokens.jws import TokenRefused
from cashier.web.problem import STATUS_AND_TITLE, FieldProblem, ProblemCode, RequestRefused, invalid
from cashier.web.response import RETRY_AFTER_1

_CHANGED = (
    "The order can be paid, but not at the terms that the payer accepted. Nothing was sent."
    " Let the payer choose again from the consultation."
)
_ORDER_OVER = "The order can no longer be paid; `changes` has the reason. Nothing was sent by this request."
_BUSY = "Another payment attempt for this order is live. Resume, replace or cancel it before a new attempt."
_NO_ATTEMPT = "This payer has no such payment for this order."
_NEVER_SENT = "The payment engine has no such payment, so there is nothing to resume. It can be replaced."
_IN_FLIGHT = "The same request is still in progress elsewhere. Repeat it unchanged."
_REJECTED = "The payment was rejected. Nothing was sent. The payer may try another payment method."
_RESEND_UNCONFIRMED = "No usable answer from risk. The code may have been sent again."
_KEY_REUSED = "The Idempotency-Key belongs to a payment with another body. Use a new key for a new payment."
_ORDER_UNKNOWN = "The acquirer knows no order with this order_id."
_ENGINE_UNAVAILABLE = (
    "The payment engine could not be reached or did not report whether it has the payment."
    " Nothing was sent by this request. Repeat it with the same key."
)
_OVERLOADED = "The limit of concurrent payments is reached. Nothing was sent by this request. Repeat it unchanged."


def _token_problem(error: TokenRefused) -> RequestRefused:
    code = ProblemCode(error.code)
    return RequestRefused(code, f"{STATUS_AND_TITLE[code][1]}.")


def _invalid_fields(error: Invalid) -> RequestRefused:
    return invalid(*(FieldProblem(fault.field, fault.code, fault.message) for fault in error.faults))


def _consult_changed(error: ConsultChanged) -> RequestRefused:
    detail = _CHANGED if error.consultation.payable else _ORDER_OVER
    return RequestRefused(ProblemCode.CONSULT_CHANGED, detail, changes=error.changes, consultation=error.consultation)


def _not_resumable(error: NotResumable) -> RequestRefused:
    detail = f"The payment engine does not report {error.missing} of this payment, which resuming it needs."
    return RequestRefused(ProblemCode.NOT_RESUMABLE, detail if error.missing else _NEVER_SENT)


def _status_unavailable(error: StatusUnavailable) -> RequestRefused:
    detail = f"No usable answer from {', '.join(error.silent)}, so the payment cannot be shown. Repeat the request."
    return RequestRefused(ProblemCode.STATUS_UNAVAILABLE, detail, silent=error.silent, headers=RETRY_AFTER_1)


def _check_unavailable(error: CheckUnavailable) -> RequestRefused:
    detail = f"No usable answer from {', '.join(error.silent)}. Nothing was sent by this request. Repeat it unchanged."
    return RequestRefused(
        ProblemCode.CHECK_UNAVAILABLE, detail, sources=error.sources, silent=error.silent, headers=RETRY_AFTER_1
    )


# Looked up by exact type: the errors have no subtypes.
_TABLE: dict[type[Exception], Callable[[Any], RequestRefused]] = {
    TokenRefused: _token_problem,
    Invalid: _invalid_fields,
    OrderUnknown: lambda _: RequestRefused(ProblemCode.ORDER_UNKNOWN, _ORDER_UNKNOWN),
    RiskRejected: lambda _: RequestRefused(ProblemCode.RISK_REJECTED, _REJECTED),
    ConsultChanged: _consult_changed,
    OrderBusy: lambda error: RequestRefused(
        ProblemCode.ORDER_BUSY,
        _BUSY,
        payment_id=error.payment_id,
        next_action=error.next_action,
        expires_at=error.expires_at,
    ),
    NoSuchAttempt: lambda _: RequestRefused(ProblemCode.NOT_FOUND, _NO_ATTEMPT),
    NotResumable: _not_resumable,
    NotResendable: lambda error: RequestRefused(
        ProblemCode.NOT_RESENDABLE, f"The challenge is not sent again: {error.why}."
    ),
    ResendUnconfirmed: lambda _: RequestRefused(
        ProblemCode.CHECK_UNAVAILABLE, _RESEND_UNCONFIRMED, silent=("risk",), headers=RETRY_AFTER_1
    ),
    StatusUnavailable: _status_unavailable,
    InFlight: lambda _: RequestRefused(ProblemCode.IN_FLIGHT, _IN_FLIGHT, headers=RETRY_AFTER_1),
    KeyReused: lambda _: RequestRefused(ProblemCode.KEY_REUSED, _KEY_REUSED),
    CheckUnavailable: _check_unavailable,
    EngineUnavailable: lambda _: RequestRefused(
        ProblemCode.ENGINE_UNAVAILABLE, _ENGINE_UNAVAILABLE, headers=RETRY_AFTER_1
    ),
    TooManyPayments: lambda _: RequestRefused(ProblemCode.OVERLOADED, _OVERLOADED, headers=RETRY_AFTER_1),
}


def refusal_for(error: Exception) -> RequestRefused | None:
    """None for an error outside the table, which is a bug."""
    make_refusal = _TABLE.get(type(error))
    return None if make_refusal is None else make_refusal(error)

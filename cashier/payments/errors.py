"""Exceptions for a submit or a challenge answer that was refused.

The refused call sent nothing, except `InFlight`.
"""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from cashier.consultation.answer import Consultation
from cashier.domain.next_action import Action
from cashier.domain.offer_diff import Change
from cashier.fanout.ask import SourceReport


class AcceptError(Exception):
    """A submit, or an answer to a challenge, was refused."""


class FieldFault(Struct, frozen=True):
    """A fault of one request field, by its path. The value is not repeated."""

    field: str
    code: str
    message: str


class Invalid(AcceptError):
    """Fields are missing for this payment method, or hold an invalid value."""

    def __init__(self, faults: tuple[FieldFault, ...]) -> None:
        super().__init__("; ".join(f"{fault.field} {fault.message}" for fault in faults))
        self.faults = faults


class KeyReused(AcceptError):
    """The idempotency key belongs to a payment with another body."""


class InFlight(AcceptError):
    """The same submit is still under way in another worker, or a stop interrupted it.

    It may have been sent.
    """


class OrderBusy(AcceptError):
    """Another attempt on the order is live.

    `next_action` and `expires_at`: of that attempt, if the caller is its payer and the engine says.
    """

    def __init__(self, payment_id: str, next_action: Action | None = None, expires_at: datetime | None = None) -> None:
        super().__init__(f"Payment {payment_id} is under way for this order.")
        self.payment_id = payment_id
        self.next_action = next_action
        self.expires_at = expires_at


class NoSuchAttempt(AcceptError):
    """The order has no attempt of this payer. Another payer's is not disclosed: it is the same."""


class StatusUnavailable(AcceptError):
    """The state of the attempt, or whether there is one, could not be determined.

    `silent`: the services and sources without a usable answer.
    """

    def __init__(self, silent: tuple[str, ...]) -> None:
        super().__init__(f"No usable answer from {', '.join(silent)}.")
        self.silent = silent


class NotResumable(AcceptError):
    """The engine does not know the payment, or does not report `missing`, a field of its answer."""

    def __init__(self, missing: str | None = None) -> None:
        super().__init__(f"The engine does not report {missing}." if missing else "The engine has no such payment.")
        self.missing = missing


class NotResendable(AcceptError):
    """The code of the challenge is not sent again. `why`: the reason, to follow a colon."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class ResendUnconfirmed(AcceptError):
    """The risk service did not answer. It may have sent the code."""


class ConsultChanged(AcceptError):
    """The accepted offer no longer holds. `consultation` is a fresh one to choose from."""

    def __init__(self, changes: tuple[Change, ...], consultation: Consultation) -> None:
        super().__init__(", ".join(change.what for change in changes))
        self.changes = changes
        self.consultation = consultation


class RiskRejected(AcceptError):
    """The risk service rejected the payment.

    `code` is for operators and must not reach the payer.
    """

    def __init__(self, code: str | None) -> None:
        super().__init__(code or "no reason given")
        self.code = code


class CheckUnavailable(AcceptError):
    """A check that could refuse the payment could not be made.

    `silent`: the sources without a usable answer. `sources`: the reports of all that were called.
    """

    def __init__(self, silent: tuple[str, ...], sources: tuple[SourceReport, ...] = ()) -> None:
        super().__init__(f"No usable answer from {', '.join(silent)}.")
        self.silent = silent
        self.sources = sources


class EngineUnavailable(AcceptError):
    """The engine was unreachable, or did not say whether it has the payment.

    This call sent nothing; an earlier one with the same key may have.
    """


class TooManyPayments(AcceptError):
    """This worker has reached its bound on running payments or waiting callers."""

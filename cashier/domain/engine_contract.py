"""Contract of the payment engine: the submission, and a closed set of outcomes per call.

A submit without a readable answer is `OutcomeUnknown`: the payment may exist, and only a look-up
can decide. `sources.engine` makes the calls.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TypeAlias

from msgspec import Struct

from cashier.domain.legs import EngineLeg
from cashier.domain.money import Money
from cashier.domain.next_action import Action
from cashier.domain.order import Instant
from cashier.source_errors import SourceError, Unanswered


class Submission(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of a submit. `alternatives`: channels to try if the leg's own is closed.

    `amount`: the payer's part, the sum of all legs but promotions. `legs`: only promotions if they
    leave nothing to pay, and none for an order of 0. `method_id`, `option_id`: the payer's choice,
    which the engine reports back. `expires_at`: the end of the payer's time to act, never later
    than the order's; what the engine shows the payer must end by then.

    `auth_code` is the payer's secret, so the repr omits it.
    """

    payment_id: str
    order_id: str
    user_id: str | None = None
    merchant_id: str
    fingerprint: str
    amount: Money
    legs: tuple[EngineLeg, ...]
    decision_id: str
    alternatives: tuple[str, ...]
    method_id: str | None = None
    option_id: str | None = None
    auth_code: str | None = None
    return_url: str | None = None
    expires_at: Instant | None = None

    def __repr__(self) -> str:
        return f"<Submission {self.payment_id} of {self.order_id}, {len(self.legs)} legs>"


class EngineStatus(StrEnum):
    PROCESSING = "PROCESSING"
    ACTION_REQUIRED = "ACTION_REQUIRED"
    USER_PAYING = "USER_PAYING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"


class ReversalReason(StrEnum):
    """Why a payment is reversed. The engine keeps the first one and reports it to every caller."""

    CHALLENGE_FAILED = "CHALLENGE_FAILED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"
    ORDER_OVER = "ORDER_OVER"


class EngineFailure(Struct, frozen=True):
    """Why no money was taken: a code, and a text for operators.

    `promotion_id`: the promotion that the engine refused, if it says so.
    """

    code: str
    text: str
    promotion_id: str | None = None


class EnginePayment(Struct, frozen=True, kw_only=True):
    """A payment as the engine reports it. Raises ValueError if it contradicts itself.

    `fingerprint` and `submitted_at`: of the accepted submit, if reported. So are `user_id`,
    `merchant_id`, `method_id`, `option_id` and `amount`, what the payer pays: with them a payer
    finds an attempt whose token is lost. `expires_at`: the end of the payer's time to act.
    `reversal_reason`: of the first reversal that was asked for, if reported; an unknown one says
    nothing. `received` and `returned`: all that arrived for this payment so far, by any number of
    transfers, and what of it went or goes back.
    """

    payment_id: str
    status: EngineStatus
    order_id: str | None = None
    fingerprint: str | None = None
    submitted_at: Instant | None = None
    failure: EngineFailure | None = None
    next_action: Action | None = None
    user_id: str | None = None
    merchant_id: str | None = None
    method_id: str | None = None
    option_id: str | None = None
    amount: Money | None = None
    expires_at: Instant | None = None
    reversal_reason: str | None = None
    received: Money | None = None
    returned: Money | None = None

    def __post_init__(self) -> None:
        if self.failure is not None and self.status is not EngineStatus.FAILED:
            raise ValueError("a failure code without the status FAILED")
        if self.next_action is None and self.status is EngineStatus.ACTION_REQUIRED:
            raise ValueError("ACTION_REQUIRED without an action")


class EngineAnswered(Struct, frozen=True):
    """The engine has the payment, in `payment.status`."""

    payment: EnginePayment


class OrderHasLiveAttempt(Struct, frozen=True):
    """Refused: another attempt on the order is live."""

    payment_id: str


class EngineKeyReused(Struct, frozen=True):
    """Refused: the engine has a payment with this id and another fingerprint."""


class NotSent(Struct, frozen=True):
    """The request certainly never left: no payment exists, and none will follow from it."""

    error: SourceError


class OutcomeUnknown(Struct, frozen=True):
    """The engine may have the payment or may yet receive it.

    Look it up. Never send it under another id, and never report it as failed.
    """

    error: SourceError


class NeverArrived(Struct, frozen=True):
    """The engine has no such payment. A submit that is still on its way may yet arrive.

    After a reversal: the engine cannot refuse what it does not have.
    """


class Sealed(Struct, frozen=True):
    """A reversal found no such payment, and the engine refuses it from now on.

    No money was or will be taken. `reversal_reason` as in `EnginePayment`.
    """

    reversal_reason: str | None = None


SubmitOutcome: TypeAlias = EngineAnswered | OrderHasLiveAttempt | EngineKeyReused | NotSent | OutcomeUnknown
LookUpOutcome: TypeAlias = EngineAnswered | NeverArrived | Unanswered
ReverseOutcome: TypeAlias = EngineAnswered | Sealed | NeverArrived | Unanswered

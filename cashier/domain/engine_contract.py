"""The submit and how the payment engine may answer for a payment, each a closed set. How it is asked is in `sources.engine`.

Above all what no answer means: what came of a submit and cannot be read is `OutcomeUnknown`. The payment may exist, and only looking it up tells.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TypeAlias

from msgspec import Struct

from cashier.domain.legs import EngineLeg
from cashier.domain.next_action import Action
from cashier.domain.order import Instant
from cashier.source_errors import SourceError, Unanswered


class Submission(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of a submit. `alternatives`: channels to try where the leg's own is closed. `auth_code` is the payer's, and not shown."""

    payment_id: str
    order_id: str
    user_id: str
    merchant_id: str
    fingerprint: str
    legs: tuple[EngineLeg, ...]
    decision_id: str
    alternatives: tuple[str, ...]
    auth_code: str | None = None
    return_url: str | None = None

    def __repr__(self) -> str:
        return f"<Submission {self.payment_id} of {self.order_id}, {len(self.legs)} legs>"


class EngineStatus(StrEnum):
    PROCESSING = "PROCESSING"
    ACTION_REQUIRED = "ACTION_REQUIRED"
    USER_PAYING = "USER_PAYING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"


class EngineFailure(Struct, frozen=True):
    """Why no money was taken: a code, and a text for operators."""

    code: str
    text: str


class EnginePayment(Struct, frozen=True, kw_only=True):
    """A payment as the engine has it. ValueError for one that contradicts itself: such an answer tells nothing.

    `fingerprint` and `submitted_at`: as it was sent, and when, where the engine says so.
    """

    payment_id: str
    status: EngineStatus
    order_id: str | None = None
    fingerprint: str | None = None
    submitted_at: Instant | None = None
    failure: EngineFailure | None = None
    next_action: Action | None = None

    def __post_init__(self) -> None:
        if self.failure is not None and self.status is not EngineStatus.FAILED:
            raise ValueError("a failure of what has not failed")
        if self.next_action is None and self.status is EngineStatus.ACTION_REQUIRED:
            raise ValueError("an action is required and not named")


class EngineAnswered(Struct, frozen=True):
    """The engine has the payment; `payment.status` says how it stands."""

    payment: EnginePayment


class OrderHasLiveAttempt(Struct, frozen=True):
    """Another attempt on the order lives, and this one was not taken."""

    payment_id: str


class EngineKeyReused(Struct, frozen=True):
    """The engine has a payment of this id with another fingerprint, and this one was not taken."""


class NotSent(Struct, frozen=True):
    """The request certainly never left: there is no payment, and none will come of it."""

    error: SourceError


class OutcomeUnknown(Struct, frozen=True):
    """The engine may have the payment, or may yet get it. Look it up; never send it under another id, never call it failed."""

    error: SourceError


class NeverArrived(Struct, frozen=True):
    """A look-up found no such payment. One that is still on its way may yet arrive."""


class Sealed(Struct, frozen=True):
    """A reverse found no such payment: should it arrive later, the engine refuses it. Nothing was taken, and nothing will be."""


SubmitOutcome: TypeAlias = EngineAnswered | OrderHasLiveAttempt | EngineKeyReused | NotSent | OutcomeUnknown
LookUpOutcome: TypeAlias = EngineAnswered | NeverArrived | Unanswered
ReverseOutcome: TypeAlias = EngineAnswered | Sealed | Unanswered

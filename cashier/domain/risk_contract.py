"""Contract of the risk service: the inquiry, and closed sets of decisions and challenge results.

`sources.risk` makes the calls.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, TypeAlias

from msgspec import Meta, Struct

from cashier.domain.money import Money
from cashier.domain.order import Id, Instant
from cashier.domain.pay_method import Kind
from cashier.domain.payment_request import Device
from cashier.source_errors import Unanswered


class Inquiry(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A request for a decision. `instrument_id` may be a vault token, so the repr omits it."""

    payment_id: str
    order_id: str
    user_id: str | None = None
    merchant_id: str
    amount: Money
    kind: Kind
    instrument_id: str | None = None
    device: Device

    def __repr__(self) -> str:
        return f"<Inquiry {self.payment_id} {self.kind}>"


class ChallengeType(StrEnum):
    SMS_OTP = "SMS_OTP"
    PASSWORD = "PASSWORD"  # noqa: S105  a name, not one
    BIOMETRIC = "BIOMETRIC"
    THREE_DS = "THREE_DS"


AttemptsLeft = Annotated[int, Meta(ge=0, le=100)]
ResendAfter = Annotated[int, Meta(ge=0, le=3_600)]


class RiskChallenge(Struct, frozen=True, kw_only=True):
    """`render_value`: what the payer sees, such as part of a telephone number or a bank's name.

    `resend_after_s`: until its code may be sent again. None: the service does not say.
    """

    challenge_id: Id
    type: ChallengeType
    render_value: Annotated[str, Meta(max_length=256)]
    attempts_left: AttemptsLeft
    expires_at: Instant
    resend_after_s: ResendAfter | None = None


class Accepted(Struct, frozen=True):
    decision_id: str


class Rejected(Struct, frozen=True):
    """`code`: the reason, for operators only.

    Shown to a payer, it would help to evade the rules.
    """

    decision_id: str
    code: str | None


class Challenged(Struct, frozen=True):
    decision_id: str
    challenge: RiskChallenge


class Passed(Struct, frozen=True):
    """The payer is authenticated. The engine needs the decision that the challenge belongs to."""


class WrongAnswer(Struct, frozen=True):
    """`attempts_left` 0: this challenge has failed for good."""

    attempts_left: int


class Expired(Struct, frozen=True):
    """Too late for this challenge. Another decision may bring a new one."""


class NoChallenge(Struct, frozen=True):
    """The risk service does not know this challenge of the payment."""


class Resent(Struct, frozen=True):
    """The code of the challenge was sent again, or, if not `sent`, was sent too recently for it.

    `resend_after_s`: until it may be sent the next time.
    """

    resend_after_s: int
    sent: bool = True


class NoResend(Struct, frozen=True):
    """The risk service cannot send this challenge again, or does not know it."""


RiskDecision: TypeAlias = Accepted | Rejected | Challenged | Unanswered
ChallengeVerification: TypeAlias = Passed | WrongAnswer | Expired | NoChallenge | Unanswered
ChallengeResend: TypeAlias = Resent | NoResend | Unanswered

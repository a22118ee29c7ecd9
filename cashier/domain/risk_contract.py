"""What the risk service is asked about a payment, and how it may answer, each a closed set. How it is asked is in `sources.risk`."""

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
    """What is to be decided. `instrument_id` may be a vault token, so it is not shown."""

    payment_id: str
    order_id: str
    user_id: str
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


class RiskChallenge(Struct, frozen=True, kw_only=True):
    """`render_value` is for the payer to see: part of a telephone number, a bank's name."""

    challenge_id: Id
    type: ChallengeType
    render_value: Annotated[str, Meta(max_length=256)]
    attempts_left: AttemptsLeft
    expires_at: Instant


class Accepted(Struct, frozen=True):
    decision_id: str


class Rejected(Struct, frozen=True):
    """`code` is the risk service's reason; it is for operators, not for the payer, who would learn how to get round it."""

    decision_id: str
    code: str | None


class Challenged(Struct, frozen=True):
    decision_id: str
    challenge: RiskChallenge


class Passed(Struct, frozen=True):
    """The payer is who they say. The engine wants the decision that the challenge belongs to."""


class WrongAnswer(Struct, frozen=True):
    """`attempts_left` 0: this challenge is failed for good."""

    attempts_left: int


class Expired(Struct, frozen=True):
    """Too late for this challenge; deciding again may bring another one."""


class NoChallenge(Struct, frozen=True):
    """The risk service knows no such challenge of this payment."""


RiskDecision: TypeAlias = Accepted | Rejected | Challenged | Unanswered
ChallengeVerification: TypeAlias = Passed | WrongAnswer | Expired | NoChallenge | Unanswered

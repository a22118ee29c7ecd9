"""The risk service: may this payer pay this, and was the challenge passed? Neither question is asked twice by itself.

A decision may send a text message and is counted, an answer to a challenge is counted. Without a decision nothing is sent to the engine.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, TypeAlias
from urllib.parse import quote

import msgspec
from msgspec import Meta, Struct

from cashier.answer import SourceError, WrongIdentity
from cashier.domain.method import Kind
from cashier.domain.money import Money
from cashier.domain.order import Id, Instant
from cashier.domain.payment_request import Device
from cashier.sources.again import NoNews
from cashier.sources.source import not_answered, refuse_strange, understood
from cashier.wire.awaited import ask
from cashier.wire.exchange import Request, Response, Transport, Trip


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
    render_value: str
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


class Wrong(Struct, frozen=True):
    """`attempts_left` 0: this challenge is failed for good."""

    attempts_left: int


class Expired(Struct, frozen=True):
    """Too late for this challenge; deciding again may bring another one."""


class NoChallenge(Struct, frozen=True):
    """The risk service knows no such challenge of this payment."""


Decided: TypeAlias = Accepted | Rejected | Challenged | NoNews
Verified: TypeAlias = Passed | Wrong | Expired | NoChallenge | NoNews


class _Verdict(StrEnum):
    ACCEPT = "ACCEPT"
    REJECT = "REJECT"
    CHALLENGE = "CHALLENGE"


class _Decision(Struct, frozen=True, kw_only=True):
    decision: _Verdict
    decision_id: Id
    code: str | None = None
    challenge: RiskChallenge | None = None
    payment_id: str | None = None

    def __post_init__(self) -> None:
        if (self.decision is _Verdict.CHALLENGE) != (self.challenge is not None):
            raise ValueError("a challenge comes with the decision to challenge, and only with it")


class _Taken(StrEnum):
    PASSED = "PASSED"
    FAILED = "FAILED"
    EXPIRED = "EXPIRED"


class _Verification(Struct, frozen=True, kw_only=True):
    status: _Taken
    attempts_left: AttemptsLeft
    payment_id: str | None = None


_encode = msgspec.json.Encoder().encode
_decision = msgspec.json.Decoder(_Decision).decode
_verification = msgspec.json.Decoder(_Verification).decode


def decide_request(inquiry: Inquiry) -> Request:
    return Request("/risk/decisions", "POST", _encode(inquiry), safe=False)


def parse_decision(response: Response | SourceError, payment_id: str) -> Decided:
    if isinstance(response, SourceError):
        return NoNews(response)
    if response.status != 200:
        return NoNews(not_answered(response.status, response.retry_after_s))
    found: Any = understood(_decided, response.body, payment_id)
    return NoNews(found) if isinstance(found, SourceError) else found


def _decided(body: bytes, payment_id: str) -> Decided:
    told = _decision(body)
    _refuse_another(told.payment_id, payment_id)
    if told.challenge is not None:
        return Challenged(told.decision_id, told.challenge)
    return Accepted(told.decision_id) if told.decision is _Verdict.ACCEPT else Rejected(told.decision_id, told.code)


def verify_request(challenge_id: str, payment_id: str, value: str) -> Request:
    """`value` is the payer's code or password: it goes into the body and nowhere else."""
    body = _encode({"payment_id": payment_id, "value": value})
    return Request(f"/risk/challenges/{quote(challenge_id, safe='')}/verify", "POST", body, safe=False)


def parse_verification(response: Response | SourceError, payment_id: str) -> Verified:
    """After `NoNews` the answer may have been counted, or passed: deciding again tells."""
    if isinstance(response, SourceError):
        return NoNews(response)
    if response.status not in (200, 404):
        return NoNews(not_answered(response.status, response.retry_after_s))
    found: Any = understood(_verified if response.status == 200 else _no_challenge, response.body, payment_id)
    return NoNews(found) if isinstance(found, SourceError) else found


def _verified(body: bytes, payment_id: str) -> Verified:
    told = _verification(body)
    _refuse_another(told.payment_id, payment_id)
    match told.status:
        case _Taken.PASSED:
            return Passed()
        case _Taken.FAILED:
            return Wrong(told.attempts_left)
        case _Taken.EXPIRED:
            return Expired()


def _no_challenge(body: bytes, _payment_id: str) -> Verified:
    refuse_strange(body)
    return NoChallenge()


def _refuse_another(told: str | None, payment_id: str) -> None:
    if told is not None and told != payment_id:
        raise WrongIdentity("answered about another payment")


class Risk:
    """Asked over a transport."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def decide(self, inquiry: Inquiry, trip: Trip, budget_ms: int) -> Decided:
        return parse_decision(await ask(self._transport, decide_request(inquiry), trip, budget_ms), inquiry.payment_id)

    async def verify(self, challenge_id: str, payment_id: str, value: str, trip: Trip, budget_ms: int) -> Verified:
        return parse_verification(await ask(self._transport, verify_request(challenge_id, payment_id, value), trip, budget_ms), payment_id)

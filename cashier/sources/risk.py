"""The risk service: decisions, verification of challenges, sending them again. None is retried.

A decision and a resend may send a text message and are counted; so is each answer to a challenge.
Without a decision nothing is sent to the engine.
"""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Struct

from cashier.domain.order import Id
from cashier.domain.risk_contract import (
    Accepted,
    AttemptsLeft,
    Challenged,
    ChallengeResend,
    ChallengeVerification,
    Expired,
    Inquiry,
    NoChallenge,
    NoResend,
    Passed,
    Rejected,
    ResendAfter,
    Resent,
    RiskChallenge,
    RiskDecision,
    WrongAnswer,
)
from cashier.fanout.failure_log import OnFailure, ignore_failure
from cashier.metrics.store import Store
from cashier.source_errors import SourceError, Unanswered, WrongIdentity
from cashier.sources.service_calls import ServiceCalls
from cashier.sources.service_request import ServiceRequest
from cashier.sources.source import check_not_found, error_of_response, parse_answer
from cashier.wire.transport import CallHeaders, Response, Transport


class DecisionKind(StrEnum):
    ACCEPT = "ACCEPT"
    REJECT = "REJECT"
    CHALLENGE = "CHALLENGE"


class Decision(Struct, frozen=True, kw_only=True):
    """An answer to `decide`. Raises ValueError if decision and challenge do not agree."""

    decision: DecisionKind
    decision_id: Id
    code: str | None = None
    challenge: RiskChallenge | None = None
    payment_id: str | None = None

    def __post_init__(self) -> None:
        if (self.decision is DecisionKind.CHALLENGE) != (self.challenge is not None):
            raise ValueError("a challenge belongs to the decision CHALLENGE and to no other")


class VerificationStatus(StrEnum):
    PASSED = "PASSED"
    FAILED = "FAILED"
    EXPIRED = "EXPIRED"


class Verification(Struct, frozen=True, kw_only=True):
    """An answer to `verify`."""

    status: VerificationStatus
    attempts_left: AttemptsLeft
    payment_id: str | None = None


class ResendAnswer(Struct, frozen=True, kw_only=True):
    """An answer to `resend`."""

    resend_after_s: ResendAfter
    sent: bool = True
    payment_id: str | None = None


class VerificationRequest(Struct, frozen=True):
    """The body of a verification. `value`: the payer's code or password, so the repr omits it."""

    payment_id: str
    value: str

    def __repr__(self) -> str:
        return f"<VerificationRequest of {self.payment_id}>"


class ResendRequest(Struct, frozen=True):
    """The body of a resend."""

    payment_id: str


_encode = msgspec.json.Encoder().encode
_decode_decision = msgspec.json.Decoder(Decision).decode
_decode_verification = msgspec.json.Decoder(Verification).decode
_decode_resent = msgspec.json.Decoder(ResendAnswer).decode


def decide_request(inquiry: Inquiry) -> ServiceRequest:
    return ServiceRequest(
        "/risk/decisions", "POST", _encode(inquiry), safe=False, operation="decide", arguments=(inquiry,)
    )


def parse_decision(response: Response | SourceError, payment_id: str) -> RiskDecision:
    if isinstance(response, SourceError):
        return Unanswered(response)
    if response.status != 200:
        return Unanswered(error_of_response(response))
    outcome: Any = parse_answer(response, _parse_decided, response.body, payment_id)
    return Unanswered(outcome) if isinstance(outcome, SourceError) else outcome


def _parse_decided(body: bytes, payment_id: str) -> RiskDecision:
    answer = _decode_decision(body)
    _check_identity(answer.payment_id, payment_id)
    if answer.challenge is not None:
        return Challenged(answer.decision_id, answer.challenge)
    if answer.decision is DecisionKind.ACCEPT:
        return Accepted(answer.decision_id)
    return Rejected(answer.decision_id, answer.code)


def verify_request(challenge_id: str, payment_id: str, value: str) -> ServiceRequest:
    """`value` is the payer's code or password: it appears in the body and nowhere else."""
    body = _encode(VerificationRequest(payment_id, value))
    return ServiceRequest(
        f"/risk/challenges/{quote(challenge_id, safe='')}/verify",
        "POST",
        body,
        safe=False,
        operation="verify",
        arguments=(challenge_id, payment_id, value),
    )


def parse_verification(response: Response | SourceError, payment_id: str) -> ChallengeVerification:
    """After `Unanswered` the payer's answer may count or have passed: a new decision tells."""
    if isinstance(response, SourceError):
        return Unanswered(response)
    if response.status not in (200, 404):
        return Unanswered(error_of_response(response))
    parse = _parse_verified if response.status == 200 else _parse_no_challenge
    outcome: Any = parse_answer(response, parse, response.body, payment_id)
    return Unanswered(outcome) if isinstance(outcome, SourceError) else outcome


def _parse_verified(body: bytes, payment_id: str) -> ChallengeVerification:
    answer = _decode_verification(body)
    _check_identity(answer.payment_id, payment_id)
    match answer.status:
        case VerificationStatus.PASSED:
            return Passed()
        case VerificationStatus.FAILED:
            return WrongAnswer(answer.attempts_left)
        case VerificationStatus.EXPIRED:
            return Expired()


def _parse_no_challenge(body: bytes, _payment_id: str) -> ChallengeVerification:
    check_not_found(body)
    return NoChallenge()


def resend_request(challenge_id: str, payment_id: str) -> ServiceRequest:
    return ServiceRequest(
        f"/risk/challenges/{quote(challenge_id, safe='')}/resend",
        "POST",
        _encode(ResendRequest(payment_id)),
        safe=False,
        operation="resend",
        arguments=(challenge_id, payment_id),
    )


def parse_resend(response: Response | SourceError, payment_id: str) -> ChallengeResend:
    """After `Unanswered` the code may have been sent."""
    if isinstance(response, SourceError):
        return Unanswered(response)
    if response.status == 404:
        # Risk services without this path answer with a page of their own.
        return NoResend()
    if response.status != 200:
        return Unanswered(error_of_response(response))
    outcome: Any = parse_answer(response, _parse_resent, response.body, payment_id)
    return Unanswered(outcome) if isinstance(outcome, SourceError) else outcome


def _parse_resent(body: bytes, payment_id: str) -> ChallengeResend:
    answer = _decode_resent(body)
    _check_identity(answer.payment_id, payment_id)
    return Resent(answer.resend_after_s, answer.sent)


def _check_identity(answered: str | None, payment_id: str) -> None:
    if answered is not None and answered != payment_id:
        raise WrongIdentity("an answer about another payment")


class RiskClient:
    """Calls the risk service over a transport."""

    def __init__(
        self, transport: Transport, on_failure: OnFailure = ignore_failure, metrics: Store | None = None
    ) -> None:
        self._calls = ServiceCalls("risk", transport, on_failure, metrics)

    async def decide(self, inquiry: Inquiry, call_headers: CallHeaders, budget_ms: int) -> RiskDecision:
        parse = partial(parse_decision, payment_id=inquiry.payment_id)
        return await self._calls.ask(decide_request(inquiry), parse, call_headers, budget_ms)

    async def verify(
        self, challenge_id: str, payment_id: str, value: str, call_headers: CallHeaders, budget_ms: int
    ) -> ChallengeVerification:
        request = verify_request(challenge_id, payment_id, value)
        return await self._calls.ask(
            request, partial(parse_verification, payment_id=payment_id), call_headers, budget_ms
        )

    async def resend(
        self, challenge_id: str, payment_id: str, call_headers: CallHeaders, budget_ms: int
    ) -> ChallengeResend:
        request = resend_request(challenge_id, payment_id)
        return await self._calls.ask(request, partial(parse_resend, payment_id=payment_id), call_headers, budget_ms)

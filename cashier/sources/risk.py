"""The risk service: may this payer pay this, and was the challenge passed? Neither question is asked twice by itself.

A decision may send a text message and is counted, an answer to a challenge is counted. Without a decision nothing is sent to the engine.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Struct

from cashier.domain.order import Id
from cashier.domain.risk_contract import (
    Accepted,
    AttemptsLeft,
    Challenged,
    RiskDecision,
    Expired,
    Inquiry,
    NoChallenge,
    Passed,
    Rejected,
    RiskChallenge,
    ChallengeVerification,
    WrongAnswer,
)
from cashier.source_errors import SourceError, Unanswered, WrongIdentity
from cashier.sources.source import check_not_found, error_of_status, parse_or_error
from cashier.wire.request_response import send_and_wait
from cashier.wire.transport import CallHeaders, Request, Response, Transport


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


def parse_decision(response: Response | SourceError, payment_id: str) -> RiskDecision:
    if isinstance(response, SourceError):
        return Unanswered(response)
    if response.status != 200:
        return Unanswered(error_of_status(response.status, response.retry_after_s))
    found: Any = parse_or_error(_decided, response.body, payment_id)
    return Unanswered(found) if isinstance(found, SourceError) else found


def _decided(body: bytes, payment_id: str) -> RiskDecision:
    told = _decision(body)
    _refuse_another(told.payment_id, payment_id)
    if told.challenge is not None:
        return Challenged(told.decision_id, told.challenge)
    return Accepted(told.decision_id) if told.decision is _Verdict.ACCEPT else Rejected(told.decision_id, told.code)


def verify_request(challenge_id: str, payment_id: str, value: str) -> Request:
    """`value` is the payer's code or password: it goes into the body and nowhere else."""
    body = _encode({"payment_id": payment_id, "value": value})
    return Request(f"/risk/challenges/{quote(challenge_id, safe='')}/verify", "POST", body, safe=False)


def parse_verification(response: Response | SourceError, payment_id: str) -> ChallengeVerification:
    """After `Unanswered` the answer may have been counted, or passed: deciding again tells."""
    if isinstance(response, SourceError):
        return Unanswered(response)
    if response.status not in (200, 404):
        return Unanswered(error_of_status(response.status, response.retry_after_s))
    found: Any = parse_or_error(_verified if response.status == 200 else _no_challenge, response.body, payment_id)
    return Unanswered(found) if isinstance(found, SourceError) else found


def _verified(body: bytes, payment_id: str) -> ChallengeVerification:
    told = _verification(body)
    _refuse_another(told.payment_id, payment_id)
    match told.status:
        case _Taken.PASSED:
            return Passed()
        case _Taken.FAILED:
            return WrongAnswer(told.attempts_left)
        case _Taken.EXPIRED:
            return Expired()


def _no_challenge(body: bytes, _payment_id: str) -> ChallengeVerification:
    check_not_found(body)
    return NoChallenge()


def _refuse_another(told: str | None, payment_id: str) -> None:
    if told is not None and told != payment_id:
        raise WrongIdentity("answered about another payment")


class RiskClient:
    """Asked over a transport."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def decide(self, inquiry: Inquiry, call_headers: CallHeaders, budget_ms: int) -> RiskDecision:
        return parse_decision(
            await send_and_wait(self._transport, decide_request(inquiry), call_headers, budget_ms), inquiry.payment_id
        )

    async def verify(
        self, challenge_id: str, payment_id: str, value: str, call_headers: CallHeaders, budget_ms: int
    ) -> ChallengeVerification:
        return parse_verification(
            await send_and_wait(
                self._transport, verify_request(challenge_id, payment_id, value), call_headers, budget_ms
            ),
            payment_id,
        )

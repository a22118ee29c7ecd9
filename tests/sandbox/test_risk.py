"""Risk: decisions and the course of challenges."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from cashier.sandbox.risk import Amount, DecisionBody, SimulatedRisk, VerifyBody

from . import contract
from .hand_clock import HandClock

SMALL, LARGE, TOO_LARGE = Amount("CNY", 9_999), Amount("CNY", 10_000), Amount("CNY", 5_000_001)


def inquiry(
    payment_id: str = "pay_1", user_id: str = "u_1", amount: Amount = LARGE, kind: str = "QUICK_PAY"
) -> DecisionBody:
    body = {
        "payment_id": payment_id,
        "order_id": "o_1",
        "user_id": user_id,
        "merchant_id": "m_1",
        "amount": amount,
        "kind": kind,
    }
    return msgspec.convert(msgspec.to_builtins(body), DecisionBody)


@pytest.fixture
def risk(clock: HandClock) -> SimulatedRisk:
    return SimulatedRisk(clock)


def verify(
    risk: SimulatedRisk, decision: contract.Decision, value: str, payment_id: str = "pay_1"
) -> contract.Verified | None:
    assert decision.challenge is not None
    answer = risk.verify(decision.challenge.challenge_id, VerifyBody(payment_id, value))
    return msgspec.convert(answer, contract.Verified) if answer else None


def decide(risk: SimulatedRisk, body: DecisionBody | None = None) -> contract.Decision:
    return msgspec.convert(risk.decide(body or inquiry()), contract.Decision)


@pytest.mark.parametrize(
    ("body", "decision", "code"),
    [
        (inquiry(amount=SMALL), "ACCEPT", None),
        (inquiry(amount=LARGE), "CHALLENGE", None),
        (inquiry(amount=LARGE, kind="AGREEMENT"), "ACCEPT", None),
        (inquiry(amount=LARGE, kind="WALLET"), "ACCEPT", None),
        (inquiry(amount=TOO_LARGE), "REJECT", "AMOUNT_TOO_HIGH"),
        (inquiry(amount=SMALL, user_id="u_7"), "REJECT", "USER_LISTED"),
        (inquiry(amount=Amount("JPY", 10_000), kind="CARD"), "CHALLENGE", None),
        (inquiry(amount=Amount("KWD", 12_750), kind="CARD"), "ACCEPT", None),
    ],
)
def test_the_rules_decide_by_user_amount_and_kind(
    risk: SimulatedRisk, body: DecisionBody, decision: str, code: str | None
) -> None:
    decided = decide(risk, body)
    assert (decided.decision, decided.code) == (decision, code)
    assert (decided.challenge is not None) == (decision == "CHALLENGE")


@pytest.mark.parametrize(
    ("kind", "challenge"), [("QUICK_PAY", "SMS_OTP"), ("CARD", "THREE_DS"), ("BALANCE", "PASSWORD")]
)
def test_each_kind_has_its_challenge(risk: SimulatedRisk, kind: str, challenge: str) -> None:
    issued = decide(risk, inquiry(kind=kind)).challenge
    assert issued is not None
    assert issued.type == challenge


@pytest.mark.parametrize(
    ("value", "kind", "challenge"),
    [(49_999, "BALANCE", "PASSWORD"), (50_000, "BALANCE", "BIOMETRIC"), (50_000, "CARD", "THREE_DS")],
)
def test_a_large_balance_payment_takes_more_than_a_password(
    risk: SimulatedRisk, value: int, kind: str, challenge: str
) -> None:
    decided = decide(risk, inquiry(amount=Amount("CNY", value), kind=kind))
    assert decided.challenge is not None
    assert decided.challenge.type == challenge
    verified = verify(risk, decided, "246810")
    assert verified is not None
    assert verified.status == "PASSED"


def test_the_right_answer_passes_and_clears_the_decision(risk: SimulatedRisk) -> None:
    decided = decide(risk)
    assert not risk.cleared(decided.decision_id, "pay_1")
    verified = verify(risk, decided, "246810")
    assert verified is not None
    assert verified.status == "PASSED"
    assert risk.cleared(decided.decision_id, "pay_1")
    again = decide(risk)
    assert (again.decision, again.decision_id) == ("ACCEPT", decided.decision_id)


def test_a_decision_clears_only_its_own_payment(risk: SimulatedRisk) -> None:
    decided = decide(risk, inquiry("pay_1", amount=SMALL))
    decide(risk, inquiry("pay_2", amount=SMALL))
    assert risk.cleared(decided.decision_id, "pay_1")
    assert not risk.cleared(decided.decision_id, "pay_2")


def test_three_wrong_answers_end_in_a_rejection(risk: SimulatedRisk) -> None:
    decided = decide(risk)
    left = [verified.attempts_left for _ in range(3) if (verified := verify(risk, decided, "000000"))]
    assert left == [2, 1, 0]
    late = verify(risk, decided, "246810")
    assert late is not None
    assert (late.status, late.attempts_left) == ("FAILED", 0)
    rejected = decide(risk)
    assert (rejected.decision, rejected.code) == ("REJECT", "CHALLENGE_FAILED")
    assert not risk.cleared(decided.decision_id, "pay_1")


def test_a_repeated_request_does_not_renew_the_attempts(risk: SimulatedRisk) -> None:
    decided = decide(risk)
    verify(risk, decided, "000000")
    again = decide(risk)
    assert again.challenge is not None
    assert again.challenge.attempts_left == 2
    assert again.decision_id == decided.decision_id


def test_a_challenge_expires_and_is_replaced_twice(risk: SimulatedRisk, clock: HandClock) -> None:
    seen = []
    for _ in range(3):
        decided = decide(risk)
        assert decided.challenge is not None
        seen.append(decided.challenge.challenge_id)
        clock.advance(timedelta(minutes=5))
        expired = verify(risk, decided, "246810")
        assert expired is not None
        assert expired.status == "EXPIRED"
    assert len(set(seen)) == 3
    assert decide(risk).code == "TOO_MANY_CHALLENGES"


def test_a_challenge_of_another_payment_is_unknown(risk: SimulatedRisk) -> None:
    decided = decide(risk)
    decide(risk, inquiry("pay_2"))
    assert verify(risk, decided, "246810", payment_id="pay_2") is None
    assert verify(risk, decided, "246810", payment_id="pay_3") is None


def test_a_changed_amount_is_decided_anew(risk: SimulatedRisk) -> None:
    small = decide(risk, inquiry(amount=SMALL))
    large = decide(risk, inquiry(amount=LARGE))
    assert large.decision == "CHALLENGE"
    assert not risk.cleared(small.decision_id, "pay_1")

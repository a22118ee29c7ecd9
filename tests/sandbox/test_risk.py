"""Risk: who is accepted, challenged, rejected, and how a challenge goes."""

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
    told = {
        "payment_id": payment_id,
        "order_id": "o_1",
        "user_id": user_id,
        "merchant_id": "m_1",
        "amount": amount,
        "kind": kind,
    }
    return msgspec.convert(msgspec.to_builtins(told), DecisionBody)


@pytest.fixture
def risk(clock: HandClock) -> SimulatedRisk:
    return SimulatedRisk(clock)


def verify(
    risk: SimulatedRisk, told: contract.Decision, value: str, payment_id: str = "pay_1"
) -> contract.Verified | None:
    assert told.challenge is not None
    answer = risk.verify(told.challenge.challenge_id, VerifyBody(payment_id, value))
    return msgspec.convert(answer, contract.Verified) if answer else None


def decide(risk: SimulatedRisk, asked: DecisionBody | None = None) -> contract.Decision:
    return msgspec.convert(risk.decide(asked or inquiry()), contract.Decision)


@pytest.mark.parametrize(
    ("asked", "decision", "code"),
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
    risk: SimulatedRisk, asked: DecisionBody, decision: str, code: str | None
) -> None:
    told = decide(risk, asked)
    assert (told.decision, told.code) == (decision, code)
    assert (told.challenge is not None) == (decision == "CHALLENGE")


@pytest.mark.parametrize(
    ("kind", "challenge"), [("QUICK_PAY", "SMS_OTP"), ("CARD", "THREE_DS"), ("BALANCE", "PASSWORD")]
)
def test_each_kind_has_its_challenge(risk: SimulatedRisk, kind: str, challenge: str) -> None:
    told = decide(risk, inquiry(kind=kind)).challenge
    assert told is not None
    assert told.type == challenge


@pytest.mark.parametrize(
    ("value", "kind", "challenge"),
    [(49_999, "BALANCE", "PASSWORD"), (50_000, "BALANCE", "BIOMETRIC"), (50_000, "CARD", "THREE_DS")],
)
def test_more_than_a_password_is_wanted_for_a_large_sum_of_a_balance(
    risk: SimulatedRisk, value: int, kind: str, challenge: str
) -> None:
    decided = decide(risk, inquiry(amount=Amount("CNY", value), kind=kind))
    assert decided.challenge is not None
    assert decided.challenge.type == challenge
    verified = verify(risk, decided, "246810")
    assert verified is not None
    assert verified.status == "PASSED"


def test_the_right_answer_passes_and_clears_the_decision(risk: SimulatedRisk) -> None:
    told = decide(risk)
    assert not risk.cleared(told.decision_id, "pay_1")
    verified = verify(risk, told, "246810")
    assert verified is not None
    assert verified.status == "PASSED"
    assert risk.cleared(told.decision_id, "pay_1")
    again = decide(risk)
    assert (again.decision, again.decision_id) == ("ACCEPT", told.decision_id)


def test_a_decision_clears_only_the_payment_it_was_made_for(risk: SimulatedRisk) -> None:
    told = decide(risk, inquiry("pay_1", amount=SMALL))
    decide(risk, inquiry("pay_2", amount=SMALL))
    assert risk.cleared(told.decision_id, "pay_1")
    assert not risk.cleared(told.decision_id, "pay_2")


def test_three_wrong_answers_end_in_a_rejection(risk: SimulatedRisk) -> None:
    told = decide(risk)
    left = [verified.attempts_left for _ in range(3) if (verified := verify(risk, told, "000000"))]
    assert left == [2, 1, 0]
    late = verify(risk, told, "246810")
    assert late is not None
    assert (late.status, late.attempts_left) == ("FAILED", 0)
    rejected = decide(risk)
    assert (rejected.decision, rejected.code) == ("REJECT", "CHALLENGE_FAILED")
    assert not risk.cleared(told.decision_id, "pay_1")


def test_asking_again_does_not_renew_the_attempts(risk: SimulatedRisk) -> None:
    told = decide(risk)
    verify(risk, told, "000000")
    again = decide(risk)
    assert again.challenge is not None
    assert again.challenge.attempts_left == 2
    assert again.decision_id == told.decision_id


def test_a_challenge_expires_and_is_replaced_twice(risk: SimulatedRisk, clock: HandClock) -> None:
    seen = []
    for _ in range(3):
        told = decide(risk)
        assert told.challenge is not None
        seen.append(told.challenge.challenge_id)
        clock.advance(timedelta(minutes=5))
        expired = verify(risk, told, "246810")
        assert expired is not None
        assert expired.status == "EXPIRED"
    assert len(set(seen)) == 3
    assert decide(risk).code == "TOO_MANY_CHALLENGES"


def test_a_challenge_of_another_payment_is_not_there(risk: SimulatedRisk) -> None:
    told = decide(risk)
    decide(risk, inquiry("pay_2"))
    assert verify(risk, told, "246810", payment_id="pay_2") is None
    assert verify(risk, told, "246810", payment_id="pay_3") is None


def test_another_amount_under_the_same_payment_is_decided_afresh(risk: SimulatedRisk) -> None:
    small = decide(risk, inquiry(amount=SMALL))
    large = decide(risk, inquiry(amount=LARGE))
    assert large.decision == "CHALLENGE"
    assert not risk.cleared(small.decision_id, "pay_1")

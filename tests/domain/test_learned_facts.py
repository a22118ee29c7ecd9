"""What is forgotten after each refusal, change and failure."""

from __future__ import annotations

import pytest

from cashier.domain.learned_facts import FactGroup, learned_from_changes, learned_from_failure
from cashier.domain.offer_diff import Change, ChangeType
from cashier.domain.order import Blocked
from cashier.domain.pay_method import ReasonCode

PAYER, MERCHANT, MARKET, HOLDINGS = FactGroup.PAYER, FactGroup.MERCHANT, FactGroup.MARKET, FactGroup.HOLDINGS
UNDETERMINED = {code for code in ReasonCode if code.startswith("SOURCE_")}
OWN_TO_THE_PAYER = (
    {code for code in ReasonCode if code.startswith(("CARD_", "DAILY_", "MONTHLY_"))}
    | {ReasonCode.KYC_REQUIRED, ReasonCode.AGREEMENT_TERMINATED, ReasonCode.ACCOUNT_FROZEN}
    | {ReasonCode.BALANCE_INSUFFICIENT}
)


def change(what: ChangeType, reason: ReasonCode | None = None, subject: str | None = None) -> Change:
    return Change(what=what, before=None, after=None, subject=subject, reason=reason)


@pytest.mark.parametrize("code", sorted(set(ReasonCode) - UNDETERMINED - {ReasonCode.ORDER_EXPIRES_SOON}))
def test_every_refusal_teaches_something(code: ReasonCode) -> None:
    learned = learned_from_changes([change(ChangeType.METHOD_CLOSED, code)], None)
    assert learned
    if code in OWN_TO_THE_PAYER:
        assert learned == {PAYER}, "one payer's refusal must not empty what all payers share"
    if code.startswith(("CHANNEL_", "NO_CHANNEL")):
        assert learned == {MARKET}


@pytest.mark.parametrize("what", ChangeType)
def test_a_change_without_a_reason_teaches_what_may_have_changed(what: ChangeType) -> None:
    assert bool(learned_from_changes([change(what)], None)) is (what is not ChangeType.ORDER_STATE)


@pytest.mark.parametrize(
    ("subject", "learned"), [("fee", {MARKET}), ("order", set()), ("p_1", {PAYER}), (None, {PAYER})]
)
def test_the_part_of_a_price_says_whose_it_is(subject: str | None, learned: set[FactGroup]) -> None:
    assert learned_from_changes([change(ChangeType.PRICE_CHANGED, subject=subject)], None) == learned


@pytest.mark.parametrize("blocked", Blocked)
def test_a_blocked_order_teaches_about_its_parties(blocked: Blocked) -> None:
    learned = learned_from_changes([change(ChangeType.ORDER_STATE)], blocked)
    if blocked.startswith("USER_"):
        assert learned == {PAYER}
    elif blocked.startswith(("MERCHANT_", "PRODUCT_NOT")):
        assert learned == {MERCHANT}
    else:
        assert learned <= {HOLDINGS}


@pytest.mark.parametrize(
    ("code", "learned"),
    [
        ("CHANNEL_UNAVAILABLE", {MARKET}),
        ("CHANNEL_CLOSED", {MARKET}),
        ("NO_CHANNEL", {MARKET}),
        ("MERCHANT_SUSPENDED", {MERCHANT}),
        ("INSTRUMENT_DECLINED", {PAYER}),
        ("CARD_UNBOUND", {PAYER}),
        ("PROMOTION_USED", {PAYER}),
        ("BALANCE_INSUFFICIENT", {PAYER}),
        ("LIMIT_EXCEEDED", {PAYER}),
        ("EXPIRED_CARD", {PAYER}),
        ("SOMETHING_NEW", {PAYER}),
        ("", {PAYER}),
        *((code, set()) for code in ("DECLINED", "AUTH_CODE_USED", "REVERSED", "EXPIRED", "ORDER_PAID", "RISK_X")),
    ],
)
def test_a_failure_teaches_by_its_code(code: str, learned: set[FactGroup]) -> None:
    assert learned_from_failure(code) == learned

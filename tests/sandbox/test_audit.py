"""The audit reports each violation, and nothing else."""

from __future__ import annotations

import pytest
from msgspec import structs

from cashier.sandbox.audit import AuditTerms, audit, fee_on
from cashier.sandbox.ledger import EntryType, LedgerEntry
from cashier.sandbox.risk import Amount

from .hand_clock import NOON

TERMS = AuditTerms(
    prices={"o_1": 100, "o_2": 100}, opening={("u_1", "acc_1"): 150}, fees_bps={"ch_dear": (500,)}, live=()
)


def entry(
    what: EntryType, value: int, source: str | None = None, payment_id: str = "pay_1", order_id: str = "o_1"
) -> LedgerEntry:
    amount = Amount("CNY", value)
    return LedgerEntry(
        at=NOON, payment_id=payment_id, order_id=order_id, user_id="u_1", what=what, amount=amount, source=source
    )


def paid(
    value: int = 100, source: str = "CHANNEL:ch_1", payment_id: str = "pay_1", order_id: str = "o_1"
) -> list[LedgerEntry]:
    return [
        entry("TAKEN", value, source, payment_id, order_id),
        entry("SUCCEEDED", value, None, payment_id, order_id),
        entry("ORDER_PAID", value, None, payment_id, order_id),
    ]


VALID: dict[str, list[LedgerEntry]] = {
    "nothing": [],
    "paid by a channel": paid(),
    "paid with the channel's fee": paid(105, "CHANNEL:ch_dear"),
    "paid with a coupon and the balance": [entry("TAKEN", 20, "PROMOTION:p_1"), *paid(80, "BALANCE:acc_1")],
    "two orders, one account": [*paid(100, "BALANCE:acc_1"), *paid(100, "CHANNEL:ch_1", "pay_2", "o_2")],
    "refused": [entry("REFUSED", 100)],
    "failed, forgotten, and paid by a retry": [entry("FAILED", 100), entry("FORGOTTEN", 100), *paid()],
    "failed and given back": [
        entry("TAKEN", 20, "PROMOTION:p_1"),
        entry("TAKEN", 80, "BALANCE:acc_1"),
        entry("RETURNED", 20, "PROMOTION:p_1"),
        entry("RETURNED", 80, "BALANCE:acc_1"),
        entry("FAILED", 80),
    ],
    "a coupon given back and used by another": [
        entry("TAKEN", 20, "PROMOTION:p_1"),
        entry("RETURNED", 20, "PROMOTION:p_1"),
        entry("FAILED", 0),
        entry("TAKEN", 20, "PROMOTION:p_1", "pay_2"),
        *paid(80, payment_id="pay_2"),
    ],
    "succeeded for a closed order and refunded": [
        entry("TAKEN", 100, "CHANNEL:ch_1"),
        entry("SUCCEEDED", 100),
        entry("REFUNDED", 100, "CHANNEL:ch_1"),
    ],
    "paid too much and the rest refunded": [
        entry("TAKEN", 7, "CHANNEL:ch_1"),
        entry("REFUNDED", 7, "CHANNEL:ch_1"),
        *paid(),
    ],
}


@pytest.mark.parametrize("entries", VALID.values(), ids=VALID.keys())
def test_a_valid_ledger_has_no_violations(entries: list[LedgerEntry]) -> None:
    assert audit(entries, TERMS) == []


INVALID: dict[str, tuple[list[LedgerEntry], str]] = {
    "an order paid twice": ([*paid(), *paid(payment_id="pay_2")], "o_1 was paid 2 times"),
    "too little taken": (
        paid(99),
        "pay_1 took 99 after discounts of 0 for an order of 100, which leaves a wrong fee of -1",
    ),
    "too much taken": (
        paid(101),
        "pay_1 took 101 after discounts of 0 for an order of 100, which leaves a wrong fee of 1",
    ),
    "a fee of another channel": (paid(105), "a wrong fee of 5"),
    "a fee left out": (paid(100, "CHANNEL:ch_dear"), "a wrong fee of 0"),
    "a discount and the whole price": ([entry("TAKEN", 20, "PROMOTION:p_1"), *paid()], "a wrong fee of 20"),
    "the acquirer recorded another sum": ([*paid()[:2], entry("ORDER_PAID", 90)], "the acquirer recorded 90"),
    "a coupon used by two": (
        [
            *(entry("TAKEN", 20, "PROMOTION:p_1"), *paid(80)),
            *(entry("TAKEN", 20, "PROMOTION:p_1", "pay_2", "o_2"), *paid(80, payment_id="pay_2", order_id="o_2")),
        ],
        "PROMOTION:p_1 of u_1 is used by pay_2 and by pay_1",
    ),
    "an account below zero": (
        [*paid(100, "BALANCE:acc_1"), *paid(100, "BALANCE:acc_1", "pay_2", "o_2")],
        "acc_1 of u_1 holds -50 of 150 after pay_2",
    ),
    "an account above its opening balance": (
        [entry("RETURNED", 1, "BALANCE:acc_1"), entry("FAILED", 1)],
        "acc_1 of u_1 holds 151 of 150 after pay_1",
    ),
    "taken after a refusal": (
        [entry("REFUSED", 100), entry("TAKEN", 100, "CHANNEL:ch_1")],
        "pay_1 was refused and has entries",
    ),
    "failed without a return": (
        [entry("TAKEN", 100, "CHANNEL:ch_1"), entry("FAILED", 100)],
        "pay_1 did not pay its order and keeps 100 of CHANNEL:ch_1",
    ),
    "succeeded, not paid, not refunded": (
        [entry("TAKEN", 100, "CHANNEL:ch_1"), entry("SUCCEEDED", 100)],
        "pay_1 did not pay its order and keeps 100 of CHANNEL:ch_1",
    ),
    "refunded to another source": (
        [entry("TAKEN", 100, "CHANNEL:ch_1"), entry("SUCCEEDED", 100), entry("REFUNDED", 100, "CHANNEL:ch_2")],
        "pay_1 returned to CHANNEL:ch_2 more than it had taken",
    ),
    "refunded twice": (
        [
            entry("TAKEN", 100, "CHANNEL:ch_1"),
            entry("SUCCEEDED", 100),
            entry("REFUNDED", 100, "CHANNEL:ch_1"),
            entry("REFUNDED", 100, "CHANNEL:ch_1"),
        ],
        "pay_1 returned to CHANNEL:ch_1 more than it had taken",
    ),
    "paid and refunded": (
        [*paid(), entry("REFUNDED", 100, "CHANNEL:ch_1")],
        "pay_1 paid o_1 and returned money afterwards",
    ),
    "paid and failed": (
        [entry("TAKEN", 100, "CHANNEL:ch_1"), entry("FAILED", 100), entry("ORDER_PAID", 100)],
        "pay_1 paid o_1 and is ['FAILED']",
    ),
    "two outcomes": ([*paid(), entry("FAILED", 100)], "pay_1 has the outcomes ['SUCCEEDED', 'FAILED'], not 1 of them"),
    "ended without an outcome": (
        [entry("TAKEN", 80, "BALANCE:acc_1"), entry("RETURNED", 80, "BALANCE:acc_1")],
        "pay_1 has the outcomes [], not 1 of them",
    ),
}


@pytest.mark.parametrize(("entries", "violation"), INVALID.values(), ids=INVALID.keys())
def test_a_violation_is_reported(entries: list[LedgerEntry], violation: str) -> None:
    assert violation in "\n".join(audit(entries, TERMS))


def test_a_forgotten_payment_keeps_nothing_while_its_retry_is_live() -> None:
    terms = structs.replace(TERMS, live=("pay_1",))
    retry = entry("TAKEN", 20, "PROMOTION:p_1")
    gone = [entry("TAKEN", 80, "BALANCE:acc_1"), entry("FAILED", 80), entry("FORGOTTEN", 80)]
    assert audit([entry("FAILED", 80), entry("FORGOTTEN", 80), retry], terms) == []
    assert audit([*gone, retry], terms) == ["pay_1 did not pay its order and keeps 80 of BALANCE:acc_1"]


def test_a_live_payment_may_hold_money_and_has_no_outcome() -> None:
    held = [entry("TAKEN", 80, "BALANCE:acc_1")]
    live_terms = AuditTerms(prices=TERMS.prices, opening=TERMS.opening, fees_bps={}, live={"pay_1"})
    assert audit(held, live_terms) == []
    assert audit(held, TERMS)
    assert audit([*held, entry("FAILED", 80)], live_terms) == ["pay_1 has the outcomes ['FAILED'], not 0 of them"]


@pytest.mark.parametrize(
    ("carried", "bps", "fee"), [(100, 0, 0), (49, 100, 0), (50, 100, 1), (12_800, 100, 128), (10_000, 33, 33)]
)
def test_halves_of_a_fee_are_rounded_up(carried: int, bps: int, fee: int) -> None:
    assert fee_on(carried, bps) == fee


def test_a_fee_is_rounded_down_to_the_channels_step() -> None:
    assert fee_on(12_750, 125, 10) == 150


def test_a_channel_carries_only_multiples_of_its_step() -> None:
    stepped = AuditTerms(prices=TERMS.prices, opening=TERMS.opening, fees_bps={}, steps={"ch_1": (10,)}, live=())
    assert audit(paid(), stepped) == []
    odd = [entry("TAKEN", 95, "CHANNEL:ch_1"), entry("TAKEN", 5, "BALANCE:acc_1"), *paid()[1:]]
    assert "paid 95 over ch_1" in "\n".join(audit(odd, stepped))

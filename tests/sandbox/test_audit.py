"""The audit complains of each thing that may not happen, and of nothing else."""

from __future__ import annotations

import pytest

from cashier.sandbox.audit import AuditTerms, audit, fee_on
from cashier.sandbox.ledger import LedgerEntry, EntryType
from cashier.sandbox.risk import Amount

from .hand_clock import NOON

TERMS = AuditTerms(prices={"o_1": 100, "o_2": 100}, opening={("u_1", "acc_1"): 150}, fees_bps={"ch_dear": 500}, live=())


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


RIGHT: dict[str, list[LedgerEntry]] = {
    "nothing": [],
    "paid by a channel": paid(),
    "paid with the channel's fee": paid(105, "CHANNEL:ch_dear"),
    "paid with a coupon and the balance": [entry("TAKEN", 20, "PROMOTION:p_1"), *paid(80, "BALANCE:acc_1")],
    "two orders, one account": [*paid(100, "BALANCE:acc_1"), *paid(100, "CHANNEL:ch_1", "pay_2", "o_2")],
    "refused": [entry("REFUSED", 100)],
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


@pytest.mark.parametrize("entries", RIGHT.values(), ids=RIGHT.keys())
def test_what_is_right_is_not_complained_of(entries: list[LedgerEntry]) -> None:
    assert audit(entries, TERMS) == []


WRONG: dict[str, tuple[list[LedgerEntry], str]] = {
    "an order paid twice": ([*paid(), *paid(payment_id="pay_2")], "o_1 was paid 2 times"),
    "too little taken": (paid(99), "pay_1 took 99 after 0 off for an order of 100: no fee is -1"),
    "too much taken": (paid(101), "pay_1 took 101 after 0 off for an order of 100: no fee is 1"),
    "a fee of another channel": (paid(105), "no fee is 5"),
    "a fee left out": (paid(100, "CHANNEL:ch_dear"), "no fee is 0"),
    "a discount and the whole price": ([entry("TAKEN", 20, "PROMOTION:p_1"), *paid()], "no fee is 20"),
    "the acquirer told another sum": ([*paid()[:2], entry("ORDER_PAID", 90)], "the acquirer was told of 90"),
    "a coupon used by two": (
        [
            *(entry("TAKEN", 20, "PROMOTION:p_1"), *paid(80)),
            *(entry("TAKEN", 20, "PROMOTION:p_1", "pay_2", "o_2"), *paid(80, payment_id="pay_2", order_id="o_2")),
        ],
        "PROMOTION:p_1 of u_1 is used by pay_2 and by pay_1",
    ),
    "an account below nothing": (
        [*paid(100, "BALANCE:acc_1"), *paid(100, "BALANCE:acc_1", "pay_2", "o_2")],
        "acc_1 of u_1 holds -50 of 150 after pay_2",
    ),
    "an account above its beginning": (
        [entry("RETURNED", 1, "BALANCE:acc_1"), entry("FAILED", 1)],
        "acc_1 of u_1 holds 151 of 150 after pay_1",
    ),
    "taken after a refusal": (
        [entry("REFUSED", 100), entry("TAKEN", 100, "CHANNEL:ch_1")],
        "pay_1 was refused and has entries",
    ),
    "failed and kept": (
        [entry("TAKEN", 100, "CHANNEL:ch_1"), entry("FAILED", 100)],
        "pay_1 did not pay its order and keeps 100 of CHANNEL:ch_1",
    ),
    "succeeded, not paid, not refunded": (
        [entry("TAKEN", 100, "CHANNEL:ch_1"), entry("SUCCEEDED", 100)],
        "pay_1 did not pay its order and keeps 100 of CHANNEL:ch_1",
    ),
    "refunded to another source": (
        [entry("TAKEN", 100, "CHANNEL:ch_1"), entry("SUCCEEDED", 100), entry("REFUNDED", 100, "CHANNEL:ch_2")],
        "pay_1 gave back to CHANNEL:ch_2 what it had not taken",
    ),
    "refunded twice": (
        [
            entry("TAKEN", 100, "CHANNEL:ch_1"),
            entry("SUCCEEDED", 100),
            entry("REFUNDED", 100, "CHANNEL:ch_1"),
            entry("REFUNDED", 100, "CHANNEL:ch_1"),
        ],
        "pay_1 gave back to CHANNEL:ch_1 what it had not taken",
    ),
    "paid and refunded": ([*paid(), entry("REFUNDED", 100, "CHANNEL:ch_1")], "pay_1 paid o_1 and gave back afterwards"),
    "paid and failed": (
        [entry("TAKEN", 100, "CHANNEL:ch_1"), entry("FAILED", 100), entry("ORDER_PAID", 100)],
        "pay_1 paid o_1 and is ['FAILED']",
    ),
    "two verdicts": ([*paid(), entry("FAILED", 100)], "pay_1 has the verdicts ['SUCCEEDED', 'FAILED'], not 1 of them"),
    "ended without a verdict": (
        [entry("TAKEN", 80, "BALANCE:acc_1"), entry("RETURNED", 80, "BALANCE:acc_1")],
        "pay_1 has the verdicts [], not 1 of them",
    ),
}


@pytest.mark.parametrize(("entries", "complaint"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_said(entries: list[LedgerEntry], complaint: str) -> None:
    assert complaint in "\n".join(audit(entries, TERMS))


def test_what_lives_may_hold_money_and_has_no_verdict_yet() -> None:
    held = [entry("TAKEN", 80, "BALANCE:acc_1")]
    living = AuditTerms(prices=TERMS.prices, opening=TERMS.opening, fees_bps={}, live={"pay_1"})
    assert audit(held, living) == []
    assert audit(held, TERMS)
    assert audit([*held, entry("FAILED", 80)], living) == ["pay_1 has the verdicts ['FAILED'], not 0 of them"]


@pytest.mark.parametrize(
    ("carried", "bps", "fee"), [(100, 0, 0), (49, 100, 0), (50, 100, 1), (12_800, 100, 128), (10_000, 33, 33)]
)
def test_halves_of_a_fee_are_rounded_up(carried: int, bps: int, fee: int) -> None:
    assert fee_on(carried, bps) == fee

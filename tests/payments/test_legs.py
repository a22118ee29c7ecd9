"""Legs: coupons, balance and card each give an exact share, and the shares add up."""

from __future__ import annotations

import pytest

from cashier.domain.pay_method import Availability, Kind
from cashier.domain.payment_state import PaymentStatus
from cashier.sandbox import CASES
from tests.payments.checkout import Checkout, checkout

pytestmark = pytest.mark.virtual_time

CHARGING = sorted(set(Kind) - {Kind.FREE})
EXACT: dict[tuple[str, str, str | None], dict[str, int]] = {
    ("chinese_shop", "QUICK_PAY:c_2", None): {
        "PROMOTION:p_1": 1_000,
        "PROMOTION:p_2": 640,
        "PROMOTION:p_3": 288,
        "CHANNEL:ch_quick_cmb": 10_872,
    },
    ("chinese_shop", "BALANCE:acc_2", None): {"PROMOTION:p_4": 1_500, "BALANCE:acc_2": 11_300},
    ("balance_is_enough", "BALANCE:acc_1", None): {"PROMOTION:p_3": 288, "BALANCE:acc_1": 3_212},
    ("chinese_shop", "CARD", None): {"PROMOTION:p_4": 1_500, "CHANNEL:ch_card_worldpay": 11_413},
    ("chinese_shop", "BALANCE:acc_1+QUICK_PAY", None): {
        "PROMOTION:p_4": 1_500,
        "BALANCE:acc_1": 10_000,
        "CHANNEL:ch_quick_icbc": 1_300,
    },
    ("chinese_shop", "BALANCE:acc_1+QUICK_PAY", "c_2"): {
        "PROMOTION:p_4": 1_500,
        "BALANCE:acc_1": 10_000,
        "CHANNEL:ch_quick_cmb": 1_300,
    },
    ("indonesian_shop", "OTC", "ALFAMART"): {"PROMOTION:p_622": 1_500_000, "CHANNEL:ch_otc_alfamart": 23_735_000},
    ("kuwaiti_shop", "CARD", None): {"PROMOTION:p_9651": 310, "CHANNEL:ch_card_checkout": 12_590},
}


@pytest.mark.parametrize(("case", "method_id", "option_id"), EXACT)
async def test_each_leg_takes_exactly_its_share(
    shop: Checkout, case: str, method_id: str, option_id: str | None
) -> None:
    payment = await shop.pay(case, method_id, option_id, card_token="tok_1" if method_id == "CARD" else None)
    if payment.status is PaymentStatus.CHALLENGE:
        payment = await shop.answer(payment)
    if payment.status is PaymentStatus.ACTION_REQUIRED:
        shop.settle(payment)
        payment = await shop.follow_to_end(payment)
    assert payment.status is PaymentStatus.SUCCEEDED
    taken = shop.net_taken()
    assert taken == EXACT[case, method_id, option_id]
    order = CASES[case].request["amount"]["value"]
    discounts = sum(value for source, value in taken.items() if source.startswith("PROMOTION"))
    money = sum(taken.values()) - discounts
    assert payment.amount.value == money, "the reported amount is the amount taken"
    paid = next(entry for entry in shop.entries if entry.what == "ORDER_PAID")
    assert paid.amount.value == money
    fee = money - (order - discounts)
    assert fee == {Kind.CARD: 113 if case == "chinese_shop" else 150, Kind.OTC: 235_000}.get(
        Kind(method_id.partition(":")[0]), 0
    )


async def test_an_order_that_a_kinds_own_promotion_brings_to_zero_is_paid_by_it_alone_with_any_method() -> None:
    async with checkout() as shop:
        shop.restrict_promotion("p_3", *CHARGING)
        consultation = await shop.consult("discounted_to_zero")
        method_ids = [
            method.method_id for method in consultation.methods if method.availability is Availability.AVAILABLE
        ]
    assert len(method_ids) > 8
    for method_id in method_ids:
        async with checkout() as shop:
            shop.restrict_promotion("p_3", *CHARGING)
            payment = await shop.pay("discounted_to_zero", method_id)
            assert (payment.status, payment.amount.value, payment.route) == (PaymentStatus.SUCCEEDED, 0, None), (
                method_id
            )
            assert shop.net_taken() == {"PROMOTION:p_3": 288}
            assert shop.payments_that_paid("o_1011") == [payment.payment_id]


async def test_a_failed_payment_returns_every_leg() -> None:
    async with checkout() as shop:
        payment = await shop.pay("chinese_shop", "BALANCE:acc_1+QUICK_PAY")
        if payment.status is PaymentStatus.CHALLENGE:
            payment = await shop.answer(payment)
        assert payment.status is PaymentStatus.SUCCEEDED
    async with checkout() as shop:
        shop.inject("engine", "decline", on="submit")
        payment = await shop.pay("chinese_shop", "BALANCE:acc_1+QUICK_PAY")
        if payment.status is PaymentStatus.CHALLENGE:
            payment = await shop.answer(payment)
        assert payment.status is PaymentStatus.FAILED
        assert shop.net_taken() == {}
        assert {entry.source for entry in shop.entries if entry.what == "RETURNED"} == {
            "PROMOTION:p_4",
            "BALANCE:acc_1",
        }


async def test_a_coupon_is_used_once_and_offered_again_after_a_failed_payment(shop: Checkout) -> None:
    payment = await shop.pay("balance_is_enough", "WALLET:ALIPAY", key="k1")
    shop.settle(payment, "FAILED")
    assert (await shop.look(payment)).status is PaymentStatus.FAILED
    again = await shop.pay("balance_is_enough", "BALANCE:acc_1", key="k2")
    assert again.status is PaymentStatus.SUCCEEDED
    assert shop.net_taken()["PROMOTION:p_3"] == 288
    other = await shop.new_request("guest_order", "BALANCE:acc_1")
    assert "p_3" not in other.promotion_ids

"""Orders that leave nothing to pay: submitted with promotion legs or none.

They are paid by the acquirer's word, as any other.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cashier.domain.offer_diff import ChangeType
from cashier.domain.pay_method import Kind
from cashier.domain.payment_state import PaymentStatus
from cashier.payments.errors import CheckUnavailable, ConsultChanged
from tests.payments.checkout import GATING, Checkout, checkout

pytestmark = pytest.mark.virtual_time

# Case, the order's amount where it differs, and the promotion that pays for it.
FREE: list[tuple[str, dict[str, int], dict[str, int]]] = [
    ("nothing_to_pay", {}, {}),
    ("discounted_to_zero", {}, {"PROMOTION:p_3": 288}),
    ("scan_to_pay", {"o_1014": 0}, {}),
    ("japanese_shop", {"o_8101": 0}, {}),
    ("kuwaiti_shop", {"o_96501": 0}, {}),
]


@pytest.mark.parametrize(("case", "amounts", "taken"), FREE, ids=[case for case, *_ in FREE])
async def test_a_free_order_is_paid_by_the_acquirers_word(
    case: str, amounts: dict[str, int], taken: dict[str, int]
) -> None:
    async with checkout(order_cny=amounts) as shop:
        consultation = await shop.consult(case)
        assert [method.method_id for method in consultation.methods] == ["FREE"]
        payment = await shop.pay(case, "FREE")
        assert (payment.status, payment.amount.value, payment.route) == (PaymentStatus.SUCCEEDED, 0, None)
        assert payment.next_action is None
        assert shop.net_taken() == taken
        assert shop.payments_that_paid(payment.order_id) == [payment.payment_id]
        [inquiry] = [body for name, body in shop.bodies if name == "decide"]
        assert (inquiry["kind"], inquiry["amount"]["value"], inquiry.get("instrument_id")) == ("FREE", 0, None)
        [submission] = shop.submissions
        assert {f"{leg['type']}:{leg['id']}": leg["amount"]["value"] for leg in submission["legs"]} == taken
        assert submission["alternatives"] == []
        assert (await shop.look(payment)).status is PaymentStatus.SUCCEEDED


async def test_every_gating_source_may_be_silent(shop: Checkout) -> None:
    for case in ("nothing_to_pay", "discounted_to_zero"):
        request = await shop.new_request(case, "FREE")
        shop.silent.update(GATING)
        assert (await shop.submit(request, key=case)).status is PaymentStatus.SUCCEEDED
        shop.clear_faults()


async def test_marketing_must_answer_where_its_coupon_pays(shop: Checkout) -> None:
    covered, zero = (
        await shop.new_request("discounted_to_zero", "FREE"),
        await shop.new_request("nothing_to_pay", "FREE"),
    )
    shop.silent.add("marketing")
    assert (await shop.submit(zero, key="k0")).status is PaymentStatus.SUCCEEDED
    shop.reset_counts()
    with pytest.raises(CheckUnavailable) as unavailable:
        await shop.submit(covered)
    assert unavailable.value.silent == ("marketing",)
    assert shop.count("decide") == shop.count("submit") == 0
    shop.clear_faults()
    assert (await shop.submit(covered)).status is PaymentStatus.SUCCEEDED


async def test_a_repeated_submit_is_the_same_payment(shop: Checkout) -> None:
    request = await shop.new_request("nothing_to_pay", "FREE")
    first, second = await shop.submit(request), await shop.submit(request)
    assert (first.payment_id, second.status) == (second.payment_id, PaymentStatus.SUCCEEDED)
    assert shop.count("submit") == 1


async def test_an_unknown_outcome_is_looked_up(shop: Checkout) -> None:
    shop.inject("engine", "reset", on="submit")
    payment = await shop.pay("discounted_to_zero", "FREE")
    assert (await shop.follow_to_end(payment)).status is PaymentStatus.SUCCEEDED
    assert shop.count("submit") == 1


async def test_success_is_the_acquirers_word_and_not_the_engines(shop: Checkout) -> None:
    shop.inject("acquirer", "error", always=True)
    payment = await shop.pay("nothing_to_pay", "FREE")
    assert payment.status is PaymentStatus.PROCESSING
    shop.clear_faults()
    assert (await shop.look(payment)).status is PaymentStatus.SUCCEEDED


async def test_cancelling_returns_the_coupon(shop: Checkout) -> None:
    shop.inject("engine", "stall", on="submit")
    payment = await shop.pay("discounted_to_zero", "FREE")
    assert payment.status is PaymentStatus.PROCESSING
    assert (await shop.cancel(payment)).status is PaymentStatus.CLOSED
    assert shop.net_taken() == {}
    assert (await shop.pay("discounted_to_zero", "FREE", key="k2")).status is PaymentStatus.SUCCEEDED


async def test_a_coupon_spent_elsewhere_brings_the_other_methods_back(shop: Checkout) -> None:
    request = await shop.new_request("discounted_to_zero", "FREE")
    await shop.pay("balance_is_enough", "BALANCE:acc_1", key="k0")
    shop.reset_counts()
    with pytest.raises(ConsultChanged) as changed:
        await shop.submit(request)
    assert [(change.what, change.subject) for change in changed.value.changes] == [
        (ChangeType.METHOD_CLOSED, "FREE"),
        (ChangeType.PROMOTION_GONE, "p_3"),
    ]
    assert shop.count("submit") == 0
    assert {method.kind for method in changed.value.consultation.methods} >= {Kind.BALANCE, Kind.QUICK_PAY}
    shop.workers[0].invalidate("marketing", prefix="u_1/")
    payment = await shop.pay("discounted_to_zero", "BALANCE:acc_1", key="k2")
    assert (payment.status, payment.amount.value) == (PaymentStatus.SUCCEEDED, 288)


async def test_an_order_that_became_free_is_offered_as_free(shop: Checkout) -> None:
    shop.restrict_promotion("p_3", Kind.WALLET)
    request = await shop.new_request("discounted_to_zero", "QUICK_PAY:c_2")
    shop.restrict_promotion("p_3")
    with pytest.raises(ConsultChanged) as changed:
        await shop.submit(request)
    assert [change.what for change in changed.value.changes] == [ChangeType.METHOD_CLOSED, ChangeType.PRICE_CHANGED]
    assert [method.method_id for method in changed.value.consultation.methods] == ["FREE"]
    shop.workers[0].invalidate("marketing", prefix="u_1/")
    assert (await shop.pay("discounted_to_zero", "FREE", key="k2")).status is PaymentStatus.SUCCEEDED


@pytest.mark.parametrize(
    "fields", [{"promotion_ids": ["p_3", "p_1"]}, {"expected_payable": {"currency": "CNY", "value": 1}}]
)
async def test_a_free_order_is_paid_only_as_it_was_shown(shop: Checkout, fields: dict[str, Any]) -> None:
    with pytest.raises(ConsultChanged):
        await shop.pay("discounted_to_zero", "FREE", **fields)
    assert shop.count("submit") == 0


@pytest.mark.parametrize("coupons", [100, 640, 800])
async def test_many_coupons_that_pay_for_an_order_leave_no_payment_without_a_token(coupons: int) -> None:
    """The offer of 800 has 47 KB in its token, and would be too long for that of the payment."""
    async with checkout(order_cny={"o_1001": 12_800}) as shop:
        ask, sources = shop._sources["marketing"], dict(shop._sources)
        offered = [
            {
                "promotion_id": f"{number:036}",
                "type": "COUPON",
                "title": "A coupon",
                "threshold": {"currency": "CNY", "value": 0},
                "amount_off": {"currency": "CNY", "value": 12_800 // coupons},
                "kinds": [],
                "group": f"group {number}",
                "stackable": True,
            }
            for number in range(coupons)
        ]

        async def with_coupons(**inputs: Any) -> Any:
            return {**msgspec.json.decode(msgspec.json.encode(await ask(**inputs))), "promotions": offered}

        sources["marketing"] = with_coupons
        shop.__dict__["_sources"] = sources
        payment = await shop.submit(await shop.new_request("chinese_shop", "FREE", promotion_ids=()))
        assert shop.count("submit") == 1
        assert (await shop.look(payment)).status is payment.status

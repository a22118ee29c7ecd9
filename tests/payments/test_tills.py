"""Payments at a till: naming a member moves none of their money, whatever the caller claims."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from cashier.domain.offer_diff import ChangeType
from cashier.domain.order import Terminal
from cashier.domain.pay_method import ReasonCode
from cashier.payments.errors import ConsultChanged
from tests.payments.checkout import Checkout

pytestmark = pytest.mark.virtual_time

AT_POS = ReasonCode.TERMINAL_NOT_SUPPORTED
NAMED = [
    ("balance_is_enough", "BALANCE:acc_1", {}),
    ("chinese_shop", "QUICK_PAY:c_2", {}),
    ("chinese_shop", "AGREEMENT:ag_1", {}),
    ("chinese_shop", "CARD", {"card_token": "tok_1"}),
]


def assert_nothing_was_sent(shop: Checkout) -> None:
    assert shop.count("decide") == shop.count("submit") == 0
    assert shop.entries == ()


@pytest.mark.parametrize(("case", "method_id", "means"), NAMED)
async def test_an_offer_of_another_terminal_is_not_paid_at_a_till(
    shop: Checkout, case: str, method_id: str, means: dict[str, Any]
) -> None:
    request = await shop.new_request(case, method_id, **means)
    with pytest.raises(ConsultChanged) as changed:
        await shop.submit(structs.replace(request, terminal=Terminal.POS))
    assert (ChangeType.METHOD_CLOSED, AT_POS) in [(change.what, change.reason) for change in changed.value.changes]
    assert_nothing_was_sent(shop)


async def test_a_balance_that_a_card_completes_is_not_paid_at_a_till(shop: Checkout) -> None:
    request = await shop.new_request("chinese_shop", "BALANCE:acc_1+QUICK_PAY")
    with pytest.raises(ConsultChanged):
        await shop.submit(structs.replace(request, terminal=Terminal.POS))
    assert_nothing_was_sent(shop)


@pytest.mark.parametrize("terminal", Terminal)
@pytest.mark.parametrize("method_id", ["BALANCE:acc_1", "QUICK_PAY:c_2"])
async def test_a_tills_order_takes_no_named_members_money_on_any_claimed_terminal(
    shop: Checkout, method_id: str, terminal: Terminal
) -> None:
    request = await shop.new_request("scan_to_pay", method_id, terminal=terminal)
    with pytest.raises(ConsultChanged) as changed:
        await shop.submit(request)
    code = AT_POS if terminal is Terminal.POS else ReasonCode.PRODUCT_NOT_SUPPORTED
    assert (ChangeType.METHOD_CLOSED, code) in [(change.what, change.reason) for change in changed.value.changes]
    assert_nothing_was_sent(shop)


async def test_coupons_of_a_named_member_do_not_pay_a_whole_order_at_a_till(shop: Checkout) -> None:
    """There the payer would show and confirm nothing."""
    request = await shop.new_request("discounted_to_zero", "FREE")
    at_pos = await shop.consult("discounted_to_zero", terminal="POS")
    assert "FREE" not in {method.method_id for method in at_pos.methods}
    assert all(not method.amount.discounts for method in at_pos.methods if method.amount is not None)
    with pytest.raises(ConsultChanged) as changed:
        await shop.submit(structs.replace(request, terminal=Terminal.POS))
    assert {change.what for change in changed.value.changes} == {ChangeType.METHOD_CLOSED, ChangeType.PROMOTION_GONE}
    assert_nothing_was_sent(shop)

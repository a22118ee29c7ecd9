"""A walk-in payer at a till: pays by 正扫 and 反扫, repeats, cancels, and is reversed."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from msgspec import structs

from cashier.domain.next_action import Await, DisplayQr
from cashier.domain.offer_diff import ChangeType
from cashier.domain.order import Blocked, Product, Terminal
from cashier.domain.payment_message import MessageCode
from cashier.domain.payment_request import PaymentRequest
from cashier.domain.payment_state import PaymentStatus
from cashier.payments.errors import CheckUnavailable, ConsultChanged, KeyReused, OrderBusy
from cashier.tokens.jws import TokenRefused
from tests.payments.checkout import GATING, Checkout, checkout

pytestmark = pytest.mark.virtual_time

PAYS_AT_ONCE = {"auth_code": "130123456789012340"}
NEVER_PAYS = {"auth_code": "130123456789012349"}
ABOUT_PAYERS = ("member", "card", "balance", "quota", "marketing")
ORDER = "o_1022"


def assert_no_payer_was_asked_about(shop: Checkout) -> None:
    assert [name for name in ABOUT_PAYERS if shop.count(name)] == []
    assert [name for name, body in shop.bodies if "user_id" in body] == []


async def test_a_walk_in_pays_by_the_code_that_the_till_shows(shop: Checkout) -> None:
    payment = await shop.pay("walk_in", "MERCHANT_QR:ALIPAY")
    assert payment.status is PaymentStatus.ACTION_REQUIRED
    assert isinstance(payment.next_action, DisplayQr)
    shop.settle(payment)
    assert (await shop.follow_to_end(payment)).status is PaymentStatus.SUCCEEDED
    assert shop.payments_that_paid(ORDER) == [payment.payment_id]
    assert shop.net_taken() == {"CHANNEL:ch_mqr_alipay": 4_600}
    assert_no_payer_was_asked_about(shop)


@pytest.mark.parametrize("last_digit", ["0", "3", "8"])
async def test_a_walk_in_pays_by_the_code_that_they_show(shop: Checkout, last_digit: str) -> None:
    payment = await shop.pay("walk_in", "CONSUMER_QR", auth_code=f"13012345678901234{last_digit}")
    assert (await shop.follow_to_end(payment)).status is PaymentStatus.SUCCEEDED
    assert shop.payments_that_paid(ORDER) == [payment.payment_id]
    assert_no_payer_was_asked_about(shop)


@pytest.mark.parametrize("name", ABOUT_PAYERS)
async def test_no_silent_source_about_payers_refuses_a_walk_in(shop: Checkout, name: str) -> None:
    shop.silent.add(name)
    assert (await shop.pay("walk_in", "CONSUMER_QR", **PAYS_AT_ONCE)).status is PaymentStatus.SUCCEEDED


async def test_where_every_gating_source_must_answer_those_about_payers_need_not() -> None:
    async with checkout(every_gating_source=True) as shop:
        shop.silent.update(set(GATING) - {"channel"})
        assert (await shop.pay("walk_in", "CONSUMER_QR", **PAYS_AT_ONCE)).status is PaymentStatus.SUCCEEDED


async def test_silent_channels_still_refuse_a_walk_in(shop: Checkout) -> None:
    request = await shop.new_request("walk_in", "CONSUMER_QR", **PAYS_AT_ONCE)
    shop.silent.add("channel")
    with pytest.raises(CheckUnavailable) as unavailable:
        await shop.submit(request)
    assert unavailable.value.silent == ("channel",)
    assert shop.count("submit") == 0


async def test_a_walk_ins_repeated_submit_is_the_same_payment_and_another_body_is_not() -> None:
    async with checkout(workers=2) as shop:
        request = await shop.new_request("walk_in", "CONSUMER_QR", **PAYS_AT_ONCE)
        first = await shop.submit(request)
        for worker in (0, 1):
            again = await shop.submit(request, worker=worker)
            assert (again.payment_id, again.status) == (first.payment_id, PaymentStatus.SUCCEEDED)
            with pytest.raises(KeyReused):
                await shop.submit(structs.replace(request, auth_code="130123456789012341"), worker=worker)
        assert shop.count("submit") == 1


async def test_a_walk_in_who_never_confirms_is_reversed_after_45_s(shop: Checkout) -> None:
    payment = await shop.pay("walk_in", "CONSUMER_QR", **NEVER_PAYS)
    assert (payment.status, payment.message.code) == (PaymentStatus.PROCESSING, MessageCode.USER_PAYING)
    assert isinstance(payment.next_action, Await)
    await asyncio.sleep(44)
    assert shop.count("reverse") == 0
    await asyncio.sleep(1)
    assert (await shop.look(payment)).status is PaymentStatus.CLOSED
    assert shop.net_taken() == {}
    again = await shop.pay("walk_in", "CONSUMER_QR", key="k2", **PAYS_AT_ONCE)
    assert again.status is PaymentStatus.SUCCEEDED


async def test_a_walk_ins_code_is_cancelled_before_another_way_is_tried(shop: Checkout) -> None:
    other = await shop.new_request("walk_in", "CONSUMER_QR", **PAYS_AT_ONCE)
    shown = await shop.pay("walk_in", "MERCHANT_QR:WECHAT_PAY")
    with pytest.raises(OrderBusy) as busy:
        await shop.submit(other, "k2")
    assert busy.value.payment_id == shown.payment_id
    assert (await shop.cancel(shown)).status is PaymentStatus.CLOSED
    assert (await shop.submit(other, "k2")).status is PaymentStatus.SUCCEEDED


async def test_a_member_may_pay_a_tills_order_by_name_and_as_a_walk_in_but_not_with_the_others_token(
    shop: Checkout,
) -> None:
    walk_in = await shop.new_request("walk_in", "CONSUMER_QR", **PAYS_AT_ONCE)
    member = await shop.new_request("walk_in", "CONSUMER_QR", user_id="u_5", **PAYS_AT_ONCE)
    for request, user_id in ((walk_in, "u_5"), (member, None), (member, "u_1")):
        with pytest.raises(TokenRefused, match="TOKEN_OTHER_USER"):
            await shop.submit(structs.replace(request, user_id=user_id))
    assert shop.count("decide") == shop.count("submit") == 0
    assert (await shop.submit(member)).status is PaymentStatus.SUCCEEDED


async def test_an_order_that_gets_a_user_is_no_longer_a_walk_ins(shop: Checkout) -> None:
    request = await shop.new_request("walk_in", "CONSUMER_QR", **PAYS_AT_ONCE)
    shop.world.population._orders[ORDER]["user_id"] = "u_1"
    with pytest.raises(ConsultChanged) as changed:
        await shop.submit(request)
    assert [(change.what, change.after) for change in changed.value.changes] == [
        (ChangeType.ORDER_STATE, Blocked.ORDER_USER_MISMATCH)
    ]
    assert changed.value.consultation.order.title == ""
    assert shop.count("submit") == 0


@pytest.mark.parametrize("method_id", ["BALANCE:acc_1", "QUICK_PAY:c_2", "BALANCE:acc_1+QUICK_PAY", "AGREEMENT:ag_1"])
@pytest.mark.parametrize("terminal", [Terminal.POS, Terminal.APP])
async def test_a_walk_in_has_no_members_instruments(shop: Checkout, method_id: str, terminal: Terminal) -> None:
    request = await shop.new_request("walk_in", "MERCHANT_QR:ALIPAY")
    with pytest.raises(ConsultChanged):
        await shop.submit(structs.replace(request, method_id=method_id, terminal=terminal))
    assert shop.count("decide") == shop.count("submit") == 0


@pytest.mark.parametrize("product", [each for each in Product if each is not Product.SCAN])
async def test_a_submit_without_user_is_invalid_for_other_products(shop: Checkout, product: Product) -> None:
    body: dict[str, Any] = msgspec.to_builtins(await shop.new_request("walk_in", "MERCHANT_QR:ALIPAY"))
    with pytest.raises(msgspec.ValidationError, match="user_id is required unless product is SCAN"):
        msgspec.convert({**body, "product": product}, PaymentRequest)

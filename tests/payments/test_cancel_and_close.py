"""Cancels and closed orders: unpaid payments end, and late money goes back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from cashier.domain.payment_message import MessageCode
from cashier.domain.payment_resource import Payment
from cashier.domain.payment_state import PaymentStatus
from cashier.wire.transport import Request, Response
from tests.payments.checkout import Checkout, Reply

pytestmark = pytest.mark.virtual_time


@pytest.mark.parametrize(
    ("locale", "text"),
    [
        (
            "en",
            "The payment is closed. The money that was taken will be returned to where it came from"
            " within 15 working days.",
        ),
        ("zh-CN", "交易已关闭。已扣款项将在15个工作日内原路退回"),
    ],
)
async def test_money_for_a_closed_order_is_refunding_with_the_15_day_notice(
    shop: Checkout, locale: str, text: str
) -> None:
    shop.inject("engine", "close_first", on="submit")
    payment = await shop.pay("balance_is_enough", "BALANCE:acc_1", locale=locale)
    assert payment.status is PaymentStatus.CLOSED_REFUNDING
    assert (payment.message.code, payment.message.text) == (MessageCode.CLOSED_REFUNDING, text)
    assert (await shop.look(payment)).status is PaymentStatus.CLOSED_REFUNDING
    assert shop.net_taken() == {}
    assert shop.payments_that_paid("o_1002") == []


async def test_money_that_arrives_after_the_shop_closed_the_order_goes_back(shop: Checkout) -> None:
    payment = await shop.pay("chinese_shop", "WALLET:ALIPAY")
    shop.world.acquirer.close("o_1001")
    shop.settle(payment)
    assert (await shop.look(payment)).status is PaymentStatus.CLOSED_REFUNDING
    assert shop.net_taken() == {}


async def test_an_order_closed_while_the_payer_acts_elsewhere_ends_the_payment_at_the_next_query(
    shop: Checkout,
) -> None:
    payment = await shop.pay("chinese_shop", "WALLET:ALIPAY")
    shop.world.acquirer.close("o_1001")
    assert (await shop.look(payment)).status is PaymentStatus.CLOSED
    assert shop.count("reverse") == 1
    shop.settle(payment)
    assert (await shop.look(payment)).status is PaymentStatus.CLOSED


async def test_an_order_closed_during_a_challenge_ends_the_payment(shop: Checkout) -> None:
    payment = await shop.pay("chinese_shop", "QUICK_PAY:c_2")
    shop.world.acquirer.close("o_1001")
    assert (await shop.look(payment)).status is PaymentStatus.CLOSED
    assert shop.entries == ()


async def _challenge(shop: Checkout) -> Payment:
    return await shop.pay("chinese_shop", "QUICK_PAY:c_2")


async def _action_required(shop: Checkout) -> Payment:
    return await shop.pay("chinese_shop", "WALLET:ALIPAY")


async def _processing(shop: Checkout) -> Payment:
    shop.inject("engine", "stall", on="submit")
    return await shop.pay("balance_is_enough", "BALANCE:acc_1")


async def _never_arrived(shop: Checkout) -> Payment:
    shop.inject("engine", "cut", on="submit")
    return await shop.pay("balance_is_enough", "BALANCE:acc_1")


async def _user_paying(shop: Checkout) -> Payment:
    return await shop.pay("scan_to_pay", "CONSUMER_QR", auth_code="130123456789012349")


async def _succeeded(shop: Checkout) -> Payment:
    return await shop.pay("balance_is_enough", "BALANCE:acc_1")


async def _failed(shop: Checkout) -> Payment:
    shop.inject("engine", "decline", on="submit")
    return await shop.pay("balance_is_enough", "WALLET:ALIPAY")


async def _closed_refunding(shop: Checkout) -> Payment:
    shop.inject("engine", "close_first", on="submit")
    return await shop.pay("balance_is_enough", "BALANCE:acc_1")


async def _closed(shop: Checkout) -> Payment:
    return await shop.cancel(await _action_required(shop))


BEFORE_AND_AFTER: dict[Callable[[Checkout], Awaitable[Payment]], tuple[PaymentStatus, PaymentStatus]] = {
    _challenge: (PaymentStatus.CHALLENGE, PaymentStatus.CLOSED),
    _action_required: (PaymentStatus.ACTION_REQUIRED, PaymentStatus.CLOSED),
    _processing: (PaymentStatus.PROCESSING, PaymentStatus.CLOSED),
    _never_arrived: (PaymentStatus.PROCESSING, PaymentStatus.CLOSED),
    _user_paying: (PaymentStatus.PROCESSING, PaymentStatus.CLOSED),
    _succeeded: (PaymentStatus.SUCCEEDED, PaymentStatus.SUCCEEDED),
    _failed: (PaymentStatus.FAILED, PaymentStatus.FAILED),
    _closed_refunding: (PaymentStatus.CLOSED_REFUNDING, PaymentStatus.CLOSED_REFUNDING),
    _closed: (PaymentStatus.CLOSED, PaymentStatus.CLOSED),
}


@pytest.mark.parametrize("state", BEFORE_AND_AFTER, ids=lambda state: state.__name__)
async def test_a_cancel_ends_live_payments_and_leaves_final_ones(
    shop: Checkout,
    state: Callable[[Checkout], Awaitable[Payment]],
) -> None:
    before, after = BEFORE_AND_AFTER[state]
    payment = await state(shop)
    assert payment.status is before
    taken = shop.net_taken()
    cancelled = await shop.cancel(payment)
    assert cancelled.status is after
    assert (await shop.look(cancelled)).status is after
    assert (await shop.look(payment)).status in (before, after), "an older token repeats its status"
    assert (await shop.follow_to_end(payment)).status is after, "and reaches the same end"
    assert shop.net_taken() == (taken if after is PaymentStatus.SUCCEEDED else {})


async def test_a_cancel_after_the_payer_paid_reports_paid(shop: Checkout) -> None:
    payment = await shop.pay("chinese_shop", "WALLET:ALIPAY")
    shop.settle(payment)
    assert (await shop.cancel(payment)).status is PaymentStatus.SUCCEEDED


async def test_a_cancel_that_the_engine_missed_is_repeated_by_a_later_query(shop: Checkout) -> None:
    payment = await shop.pay("chinese_shop", "WALLET:ALIPAY")
    shop.inject("engine", "swallow", always=True)
    cancelled = await shop.cancel(payment)
    assert (cancelled.status, cancelled.message.code) == (PaymentStatus.PROCESSING, MessageCode.CLOSING)
    assert cancelled.poll_after_ms is not None
    await asyncio.sleep(5)
    assert (await shop.look(cancelled)).status is PaymentStatus.PROCESSING
    shop.clear_faults()
    assert (await shop.look(payment)).status is PaymentStatus.ACTION_REQUIRED, "the older token is not cancelled"
    assert (await shop.follow_to_end(cancelled)).status is PaymentStatus.CLOSED
    assert (await shop.look(payment)).status is PaymentStatus.CLOSED
    assert shop.net_taken() == {}


async def test_no_token_can_pass_a_cancelled_challenge(shop: Checkout) -> None:
    payment = await shop.pay("chinese_shop", "QUICK_PAY:c_2")
    cancelled = await shop.cancel(payment)
    assert cancelled.status is PaymentStatus.CLOSED
    shop.reset_counts()
    assert (await shop.answer(cancelled)).status is PaymentStatus.CLOSED
    assert shop.count("verify") == 0
    assert (await shop.answer(payment)).status is PaymentStatus.CLOSED, (
        "the engine refuses a payment that was reversed before arrival"
    )
    assert shop.net_taken() == {}


@pytest.mark.parametrize("end", ["cancelled", "expired"])
async def test_a_submit_with_the_key_of_a_closed_challenge_takes_no_money(shop: Checkout, end: str) -> None:
    """Neither engine nor risk reports that the payment was closed, but the engine refuses it."""
    request = await shop.new_request("chinese_shop", "QUICK_PAY:c_2")
    payment = await shop.submit(request)
    if end == "expired":
        await asyncio.sleep(301)
    assert (await shop.cancel(payment)).status is PaymentStatus.CLOSED
    again = await shop.submit(request)
    assert again.payment_id == payment.payment_id
    last = await shop.answer(again)
    assert last.status is PaymentStatus.CLOSED
    assert (await shop.follow_to_end(again)).status is PaymentStatus.CLOSED
    assert shop.net_taken() == {}
    assert shop.payments_that_paid("o_1001") == []


async def test_a_cancel_of_a_paid_payment_reverses_nothing(shop: Checkout) -> None:
    payment = await _succeeded(shop)
    await shop.cancel(payment)
    assert shop.count("reverse") == 0


@pytest.mark.parametrize(
    ("result", "status", "code"),
    [
        (
            {"status": "PAID", "payment_id": "pay_other"},
            PaymentStatus.CLOSED_REFUNDING,
            MessageCode.PAID_TWICE_REFUNDING,
        ),
        ({"status": "REFUNDED"}, PaymentStatus.SUCCEEDED, MessageCode.SUCCEEDED_REFUNDED),
        (
            {"status": "REFUNDED", "closed_reason": "EXPIRED"},
            PaymentStatus.CLOSED_REFUNDING,
            MessageCode.CLOSED_REFUNDED,
        ),
        ({"status": "PENDING"}, PaymentStatus.PROCESSING, MessageCode.CONFIRMING),
        ({"status": "PAYING"}, PaymentStatus.PROCESSING, MessageCode.CONFIRMING),
        (
            {"status": "CLOSED", "closed_reason": "EXPIRED"},
            PaymentStatus.CLOSED_REFUNDING,
            MessageCode.CLOSED_REFUNDING,
        ),
    ],
)
async def test_the_acquirers_result_decides_after_a_success_at_the_engine(
    shop: Checkout, result: dict[str, str], status: PaymentStatus, code: MessageCode
) -> None:
    shop.replies["result"] = _result(result)
    payment = await shop.pay("balance_is_enough", "BALANCE:acc_1")
    assert (payment.status, payment.message.code) == (status, code)


def _result(fields: dict[str, str]) -> Reply:
    async def reply(request: Request) -> Response:
        return Response(200, msgspec.json.encode({"order_id": "o_1002", **fields}))

    return reply

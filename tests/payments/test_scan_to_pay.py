"""Scan to pay: scanned codes are polled fast and reversed after 45 s; shown codes are closed."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from cashier.domain.next_action import Await
from cashier.domain.payment_message import MessageCode
from cashier.domain.payment_state import PaymentStatus
from cashier.payments.errors import OrderBusy
from cashier.wire.transport import Request, Response
from tests.payments.checkout import Checkout

pytestmark = pytest.mark.virtual_time

PAYS_AT_THE_THIRD_QUERY = "130123456789012348"
NEVER_PAYS = "130123456789012349"
PAYS_AT_ONCE = "130123456789012340"


async def test_a_payer_at_the_till_is_polled_after_1_2_3_and_then_every_5_seconds(shop: Checkout) -> None:
    request = await shop.new_request("scan_to_pay", "CONSUMER_QR", auth_code=NEVER_PAYS)
    shop.reset_counts()
    payment = await shop.submit(request)
    assert (payment.status, payment.message.code, payment.poll_after_ms) == (
        PaymentStatus.PROCESSING,
        MessageCode.USER_PAYING,
        1_000,
    )
    assert isinstance(payment.next_action, Await)
    shop.reset_counts()
    assert (await shop.follow_to_end(payment)).status is PaymentStatus.CLOSED
    assert shop.times_s("look_up") == [0, 1, 3, 6, 11, 16, 21, 26, 31, 36, 41, 46]
    assert shop.times_s("reverse") == [46], "after 45 s"


async def test_a_scanned_payment_is_reversed_after_45_s_also_while_the_engine_says_processing(shop: Checkout) -> None:
    async def processing(request: Request) -> Response:
        body = {"payment_id": request.target.rpartition("/")[2], "status": "PROCESSING"}
        return Response(200, msgspec.json.encode(body))

    payment = await shop.pay("scan_to_pay", "CONSUMER_QR", auth_code=NEVER_PAYS)
    shop.replies["look_up"] = processing
    await asyncio.sleep(44)
    assert (await shop.look(payment)).status is PaymentStatus.PROCESSING
    assert shop.count("reverse") == 0
    await asyncio.sleep(1)
    assert (await shop.look(payment)).status is PaymentStatus.CLOSED
    assert shop.net_taken() == {}


async def test_after_a_reversal_the_acquirer_is_asked_before_the_status_is_reported(shop: Checkout) -> None:
    payment = await shop.pay("scan_to_pay", "CONSUMER_QR", auth_code=NEVER_PAYS)
    await asyncio.sleep(44)
    assert (await shop.look(payment)).status is PaymentStatus.PROCESSING
    await asyncio.sleep(1)
    shop.reset_counts()
    assert (await shop.look(payment)).status is PaymentStatus.CLOSED
    assert shop.calls[-2:] == ["reverse", "result"]
    assert shop.net_taken() == {}


async def test_a_payment_made_just_before_the_reversal_succeeds(shop: Checkout) -> None:
    payment = await shop.pay("scan_to_pay", "CONSUMER_QR", auth_code=NEVER_PAYS)
    shop.inject("engine", "pay_first", on="reverse")
    assert (await shop.follow_to_end(payment)).status is PaymentStatus.SUCCEEDED
    assert shop.count("reverse") == 1
    assert shop.payments_that_paid("o_1014") == [payment.payment_id]


@pytest.mark.parametrize("fault", ["hang", "error", "reset", "cut", "swallow", "garbage", "arrives_late"])
async def test_a_reversal_with_an_unknown_outcome_is_repeated(shop: Checkout, fault: str) -> None:
    payment = await shop.pay("scan_to_pay", "CONSUMER_QR", auth_code=NEVER_PAYS)
    await asyncio.sleep(45)
    shop.inject("engine", fault, fault, fault, on="reverse")
    assert (await shop.look(payment)).status in (PaymentStatus.PROCESSING, PaymentStatus.CLOSED)
    assert (await shop.follow_to_end(payment)).status is PaymentStatus.CLOSED
    assert shop.net_taken() == {}


async def test_a_slow_payer_has_paid_by_the_third_query(shop: Checkout) -> None:
    payment = await shop.pay("scan_to_pay", "CONSUMER_QR", auth_code=PAYS_AT_THE_THIRD_QUERY)
    assert payment.message.code is MessageCode.USER_PAYING
    assert (await shop.follow_to_end(payment)).status is PaymentStatus.SUCCEEDED
    assert shop.count("reverse") == 0


async def test_an_auth_code_is_used_once(shop: Checkout) -> None:
    assert (await shop.pay("scan_to_pay", "CONSUMER_QR", auth_code=PAYS_AT_ONCE)).status is PaymentStatus.SUCCEEDED
    shop.world.population._orders["o_1020"] = {**shop.world.population._orders["o_1014"], "order_id": "o_1020"}
    request = await shop.new_request(
        "scan_to_pay", "CONSUMER_QR", auth_code=PAYS_AT_ONCE, order_id="o_1020", user_id="u_5"
    )
    refused = await shop.submit(request)
    assert (refused.status, refused.message.code) == (PaymentStatus.FAILED, MessageCode.AUTH_CODE_USED)
    assert shop.payments_that_paid("o_1020") == []


async def test_a_shown_code_is_closed_before_another_method_is_tried(shop: Checkout) -> None:
    scan = await shop.new_request("scan_to_pay", "CONSUMER_QR", auth_code=PAYS_AT_ONCE)
    shown = await shop.pay("scan_to_pay", "MERCHANT_QR:ALIPAY", key="k1")
    assert shown.status is PaymentStatus.ACTION_REQUIRED
    with pytest.raises(OrderBusy) as busy:
        await shop.submit(scan, "k2")
    assert busy.value.payment_id == shown.payment_id
    closed = await shop.cancel(shown)
    assert closed.status is PaymentStatus.CLOSED
    attempt = shop.world.engine.attempt(shown.payment_id)
    assert attempt is not None
    assert (attempt.status, attempt.next_action) == ("FAILED", None), "the code is closed at the engine"
    paid = await shop.submit(scan, "k2")
    assert paid.status is PaymentStatus.SUCCEEDED
    shop.settle(shown)
    assert (await shop.look(closed)).status is PaymentStatus.CLOSED, "a later scan takes nothing"
    assert shop.payments_that_paid("o_1014") == [paid.payment_id]


async def test_a_shown_code_that_is_scanned_just_before_its_reversal_has_paid(shop: Checkout) -> None:
    shown = await shop.pay("scan_to_pay", "MERCHANT_QR:ALIPAY")
    shop.inject("engine", "pay_first", on="reverse")
    assert (await shop.cancel(shown)).status is PaymentStatus.SUCCEEDED
    assert shop.payments_that_paid("o_1014") == [shown.payment_id]


async def test_a_shown_code_expires(shop: Checkout) -> None:
    shown = await shop.pay("scan_to_pay", "MERCHANT_QR:ALIPAY")
    await asyncio.sleep(7_199)
    assert (await shop.look(shown)).status is PaymentStatus.ACTION_REQUIRED
    await asyncio.sleep(2)
    assert (await shop.look(shown)).status is PaymentStatus.CLOSED

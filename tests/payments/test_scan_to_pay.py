"""Scan to pay: people stand and wait. A payer's code is used once, its payment is polled fast and ended; a shop's code makes way."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from cashier.domain.next_action import Await
from cashier.domain.payment_message import MessageCode
from cashier.domain.payment_state import PaymentStatus
from cashier.payments.errors import OrderBusy
from cashier.wire.transport import Request, Response
from tests.payments.checkout import checkout

pytestmark = pytest.mark.looptime

PAYS_AT_THE_THIRD_LOOK = "130123456789012348"
NEVER_PAYS = "130123456789012349"
PAYS_AT_ONCE = "130123456789012340"


async def test_while_the_user_is_paying_it_is_looked_at_after_1_2_3_seconds_and_then_every_5() -> None:
    async with checkout() as shop:
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
        assert shop.times_s("reverse") == [46], "45 s are over"


async def test_people_stand_and_wait_so_it_is_reversed_too_where_the_engine_does_not_say_that_it_is_the_payer_who_takes_time() -> (
    None
):
    async def processing(request: Request) -> Response:
        told = {"payment_id": request.target.rpartition("/")[2], "status": "PROCESSING"}
        return Response(200, msgspec.json.encode(told))

    async with checkout() as shop:
        payment = await shop.pay("scan_to_pay", "CONSUMER_QR", auth_code=NEVER_PAYS)
        shop.replies["look_up"] = processing
        await asyncio.sleep(44)
        assert (await shop.look(payment)).status is PaymentStatus.PROCESSING
        assert shop.count("reverse") == 0
        await asyncio.sleep(1)
        assert (await shop.look(payment)).status is PaymentStatus.CLOSED
        assert shop.net_taken() == {}


async def test_after_the_reversal_it_is_looked_at_again_before_anything_is_told() -> None:
    async with checkout() as shop:
        payment = await shop.pay("scan_to_pay", "CONSUMER_QR", auth_code=NEVER_PAYS)
        await asyncio.sleep(44)
        assert (await shop.look(payment)).status is PaymentStatus.PROCESSING
        await asyncio.sleep(1)
        shop.reset_counts()
        assert (await shop.look(payment)).status is PaymentStatus.CLOSED
        assert shop.calls[-2:] == ["reverse", "result"]
        assert shop.net_taken() == {}


async def test_a_payer_who_is_done_just_before_the_reversal_has_paid() -> None:
    async with checkout() as shop:
        payment = await shop.pay("scan_to_pay", "CONSUMER_QR", auth_code=NEVER_PAYS)
        shop.inject("engine", "pay_first", on="reverse")
        assert (await shop.follow_to_end(payment)).status is PaymentStatus.SUCCEEDED
        assert shop.count("reverse") == 1
        assert shop.payments_that_paid("o_1014") == [payment.payment_id]


@pytest.mark.parametrize("fault", ["hang", "error", "reset", "cut", "swallow", "garbage", "arrives_late"])
async def test_a_reversal_of_which_nobody_knows_the_end_is_asked_for_again(fault: str) -> None:
    async with checkout() as shop:
        payment = await shop.pay("scan_to_pay", "CONSUMER_QR", auth_code=NEVER_PAYS)
        await asyncio.sleep(45)
        shop.inject("engine", fault, fault, fault, on="reverse")
        found = await shop.look(payment)
        assert found.status in (PaymentStatus.PROCESSING, PaymentStatus.CLOSED)
        last = await shop.follow_to_end(payment)
        assert last.status is PaymentStatus.CLOSED
        assert shop.net_taken() == {}


async def test_a_payer_who_takes_a_moment_pays_at_the_third_look() -> None:
    async with checkout() as shop:
        payment = await shop.pay("scan_to_pay", "CONSUMER_QR", auth_code=PAYS_AT_THE_THIRD_LOOK)
        assert payment.message.code is MessageCode.USER_PAYING
        assert (await shop.follow_to_end(payment)).status is PaymentStatus.SUCCEEDED
        assert shop.count("reverse") == 0


async def test_a_code_is_used_once() -> None:
    async with checkout() as shop:
        assert (await shop.pay("scan_to_pay", "CONSUMER_QR", auth_code=PAYS_AT_ONCE)).status is PaymentStatus.SUCCEEDED
        shop.world.cast._orders["o_1020"] = {**shop.world.cast._orders["o_1014"], "order_id": "o_1020"}
        request = await shop.new_request(
            "scan_to_pay", "CONSUMER_QR", auth_code=PAYS_AT_ONCE, order_id="o_1020", user_id="u_5"
        )
        refused = await shop.submit(request)
        assert (refused.status, refused.message.code) == (PaymentStatus.FAILED, MessageCode.AUTH_CODE_USED)
        assert shop.payments_that_paid("o_1020") == []


async def test_a_code_that_the_shop_shows_is_closed_before_another_way_is_tried() -> None:
    async with checkout() as shop:
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
        assert (await shop.look(closed)).status is PaymentStatus.CLOSED, "who scans it now pays nothing"
        assert shop.payments_that_paid("o_1014") == [paid.payment_id]


async def test_a_code_that_was_scanned_just_before_it_is_closed_has_paid_and_no_other_way_is_taken() -> None:
    async with checkout() as shop:
        shown = await shop.pay("scan_to_pay", "MERCHANT_QR:ALIPAY")
        shop.inject("engine", "pay_first", on="reverse")
        assert (await shop.cancel(shown)).status is PaymentStatus.SUCCEEDED
        assert shop.payments_that_paid("o_1014") == [shown.payment_id]


async def test_a_code_that_the_shop_shows_runs_out() -> None:
    async with checkout() as shop:
        shown = await shop.pay("scan_to_pay", "MERCHANT_QR:ALIPAY")
        await asyncio.sleep(7_199)
        assert (await shop.look(shown)).status is PaymentStatus.ACTION_REQUIRED
        await asyncio.sleep(2)
        assert (await shop.look(shown)).status is PaymentStatus.CLOSED

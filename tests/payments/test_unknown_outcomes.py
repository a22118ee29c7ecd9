"""An unknown outcome is PROCESSING until a query or a reversal settles it, never time."""

from __future__ import annotations

import asyncio

import pytest

from cashier.domain.payment_message import MessageCode
from cashier.domain.payment_state import PaymentStatus
from cashier.payments.errors import EngineUnavailable
from tests.payments.checkout import Checkout, connection_refused

pytestmark = pytest.mark.virtual_time

LOST_BEFORE_ARRIVAL = ["cut", "swallow", "error", "overload"]
LOST_AFTER_ARRIVAL = ["reset", "hang", "truncate", "garbage", "wrong_identity"]
CASE, METHOD = "balance_is_enough", "BALANCE:acc_1"


@pytest.mark.parametrize("fault", [*LOST_BEFORE_ARRIVAL, *LOST_AFTER_ARRIVAL, "arrives_late"])
async def test_a_submit_without_a_readable_answer_is_processing_and_not_repeated(shop: Checkout, fault: str) -> None:
    shop.inject("engine", fault, on="submit")
    payment = await shop.pay(CASE, METHOD)
    assert (payment.status, payment.message.code) == (PaymentStatus.PROCESSING, MessageCode.OUTCOME_UNKNOWN)
    assert payment.poll_after_ms is not None
    assert shop.count("submit") == 1
    assert await shop.follow_to_end(payment)
    assert shop.count("submit") == 1


@pytest.mark.parametrize("fault", LOST_AFTER_ARRIVAL)
async def test_the_next_query_finds_a_payment_after_a_lost_answer(shop: Checkout, fault: str) -> None:
    shop.inject("engine", fault, on="submit")
    payment = await shop.pay(CASE, METHOD)
    assert (await shop.look(payment)).status is PaymentStatus.SUCCEEDED
    assert shop.payments_that_paid("o_1002") == [payment.payment_id]


@pytest.mark.parametrize("fault", LOST_BEFORE_ARRIVAL)
async def test_a_submit_that_never_arrived_is_reversed_after_its_arrival_time_and_closed(
    shop: Checkout, fault: str
) -> None:
    shop.inject("engine", fault, on="submit")
    payment = await shop.pay(CASE, METHOD)
    for _ in range(10):
        assert (await shop.look(payment)).status is PaymentStatus.PROCESSING
        await asyncio.sleep(2)
    assert shop.count("reverse") == 0
    await asyncio.sleep(11)
    assert (await shop.look(payment)).status is PaymentStatus.CLOSED
    assert shop.count("reverse") == 1
    assert shop.entries == ()


async def test_a_submit_that_arrives_late_is_found_and_paid(shop: Checkout) -> None:
    shop.inject("engine", "arrives_late", on="submit")
    payment = await shop.pay(CASE, METHOD)
    assert (await shop.look(payment)).status is PaymentStatus.PROCESSING
    await asyncio.sleep(6)
    assert (await shop.look(payment)).status is PaymentStatus.SUCCEEDED
    assert shop.payments_that_paid("o_1002") == [payment.payment_id]


async def test_a_submit_that_arrives_after_its_reversal_takes_nothing(shop: Checkout) -> None:
    shop.inject("engine", "arrives_late", on="submit")
    payment = await shop.pay(CASE, METHOD)
    assert (await shop.cancel(payment)).status is PaymentStatus.CLOSED
    await asyncio.sleep(6)
    assert (await shop.look(payment)).status is PaymentStatus.CLOSED
    assert shop.net_taken() == {}


@pytest.mark.parametrize("fault", [*LOST_BEFORE_ARRIVAL, *LOST_AFTER_ARRIVAL, "arrives_late", "duplicate", "slow_body"])
async def test_a_retry_with_the_same_key_is_charged_once(shop: Checkout, fault: str) -> None:
    shop.inject("engine", fault, on="submit")
    request = await shop.new_request(CASE, METHOD)
    first = await shop.submit(request)
    again = await shop.submit(request)
    assert again.payment_id == first.payment_id
    assert again.status is PaymentStatus.SUCCEEDED
    await asyncio.sleep(10)
    assert (await shop.look(first)).status is PaymentStatus.SUCCEEDED
    assert shop.payments_that_paid("o_1002") == [first.payment_id]


@pytest.mark.parametrize("fault", ["hang", "error", "overload", "garbage", "truncate", "reset"])
async def test_a_silent_engine_leaves_the_payment_processing_for_days(shop: Checkout, fault: str) -> None:
    shop.inject("engine", "reset", on="submit")
    payment = await shop.pay("chinese_shop", "WALLET:ALIPAY")
    shop.inject("engine", fault, always=True)
    for hours in (0, 1, 24, 48):
        await asyncio.sleep(hours * 3_600)
        latest = await shop.look(payment)
        assert latest.status is PaymentStatus.PROCESSING
        assert latest.poll_after_ms is not None
    shop.clear_faults()
    assert (await shop.look(payment)).status is PaymentStatus.CLOSED
    assert shop.net_taken() == {}


async def test_the_acquirers_result_is_enough_while_the_engine_is_silent(shop: Checkout) -> None:
    shop.inject("engine", "reset", on="submit")
    payment = await shop.pay(CASE, METHOD)
    shop.inject("engine", "hang", always=True)
    assert (await shop.look(payment)).status is PaymentStatus.SUCCEEDED


async def test_a_success_waits_for_a_silent_acquirer(shop: Checkout) -> None:
    shop.inject("acquirer", "error", always=True)
    payment = await shop.pay(CASE, METHOD)
    assert (payment.status, payment.message.code) == (PaymentStatus.PROCESSING, MessageCode.CONFIRMING)
    await asyncio.sleep(7_200)
    assert (await shop.look(payment)).status is PaymentStatus.PROCESSING
    shop.clear_faults()
    assert (await shop.look(payment)).status is PaymentStatus.SUCCEEDED


async def test_a_failure_waits_for_a_silent_acquirer(shop: Checkout) -> None:
    payment = await shop.pay("chinese_shop", "WALLET:ALIPAY")
    shop.inject("acquirer", "error", always=True)
    shop.settle(payment, "FAILED")
    assert (await shop.look(payment)).status is PaymentStatus.PROCESSING
    shop.clear_faults()
    assert (await shop.look(payment)).status is PaymentStatus.FAILED


async def test_a_refused_connection_is_an_unavailable_engine_and_sends_nothing(shop: Checkout) -> None:
    request = await shop.new_request(CASE, METHOD)
    shop.replies["submit"] = connection_refused
    with pytest.raises(EngineUnavailable):
        await shop.submit(request)
    assert shop.count("submit") == 1
    assert shop.entries == ()
    del shop.replies["submit"]
    assert (await shop.submit(request)).status is PaymentStatus.SUCCEEDED


async def test_another_method_can_pay_after_a_refused_connection(shop: Checkout) -> None:
    request = await shop.new_request(CASE, METHOD)
    shop.replies["submit"] = connection_refused
    with pytest.raises(EngineUnavailable):
        await shop.submit(request)
    del shop.replies["submit"]
    assert (await shop.pay(CASE, "BALANCE:acc_2", key="k2")).status is PaymentStatus.SUCCEEDED


async def test_a_failed_status_query_is_retried(shop: Checkout) -> None:
    payment = await shop.pay("chinese_shop", "WALLET:ALIPAY")
    shop.settle(payment)
    shop.inject("engine", "reset", on="look_up")
    shop.inject("acquirer", "error")
    shop.reset_counts()
    assert (await shop.look(payment)).status is PaymentStatus.SUCCEEDED
    assert shop.count("look_up") == shop.count("result") == 2

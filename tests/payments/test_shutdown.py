"""Shutdown: running submits end with their result, waiting calls return, nothing is left behind."""

from __future__ import annotations

import asyncio

import pytest

from cashier.domain.payment_state import PaymentStatus
from cashier.payments.errors import AcceptError
from tests.payments.checkout import Checkout, checkout

pytestmark = pytest.mark.virtual_time

CASE, METHOD = "balance_is_enough", "BALANCE:acc_1"


@pytest.mark.parametrize("step", ["look_up", "decide", "submit", "result"])
async def test_a_running_submit_ends_with_its_result(shop: Checkout, step: str) -> None:
    request = await shop.new_request(CASE, METHOD)
    held = shop.held[step] = asyncio.Event()
    submitted = asyncio.create_task(shop.submit(request))
    await asyncio.sleep(0.1)
    assert shop.count(step) == 1
    closing = asyncio.create_task(shop.workers[0].__aexit__(None, None, None))
    await asyncio.sleep(0.5)
    assert not closing.done(), "the submit may move money"
    held.set()
    assert (await submitted).status is PaymentStatus.SUCCEEDED
    await closing
    assert shop.payments_that_paid("o_1002") == [submitted.result().payment_id]


async def test_a_submit_without_an_answer_is_processing_within_the_submit_timeout(shop: Checkout) -> None:
    request = await shop.new_request(CASE, METHOD)
    shop.inject("engine", "hang", on="submit")
    submitted = asyncio.create_task(shop.submit(request))
    await asyncio.sleep(0.1)
    await shop.workers[0].__aexit__(None, None, None)
    assert (await submitted).status is PaymentStatus.PROCESSING
    assert shop.payments_that_paid("o_1002") == [submitted.result().payment_id], "the next worker will report it"


async def test_waiting_calls_return_at_once_and_do_not_delay_the_stop(shop: Checkout) -> None:
    payment = await shop.pay("chinese_shop", "WALLET:ALIPAY")
    polled = [asyncio.create_task(shop.look(payment, 30_000)) for _ in range(50)]
    await asyncio.sleep(1)
    started_s = asyncio.get_running_loop().time()
    await shop.workers[0].__aexit__(None, None, None)
    assert {payment.status for payment in await asyncio.gather(*polled)} == {PaymentStatus.ACTION_REQUIRED}
    assert asyncio.get_running_loop().time() == started_s


async def test_a_challenge_outlives_its_worker() -> None:
    async with checkout(workers=2) as shop:
        payment = await shop.pay("chinese_shop", "QUICK_PAY:c_2")
        await shop.workers[0].__aexit__(None, None, None)
        answered = await shop.payments_of(shop.workers[1]).answer(payment.payment_id, payment.payment_token, "246810")
        assert answered.status is PaymentStatus.SUCCEEDED


async def test_a_submit_cut_off_by_a_crash_is_found_by_its_key_at_another_worker() -> None:
    async with checkout(workers=2) as shop:
        request = await shop.new_request(CASE, METHOD)
        held = shop.held["result"] = asyncio.Event()
        submitted = asyncio.create_task(shop.submit(request))
        await asyncio.sleep(0.1)
        for run in shop.payments._runs._runs.values():
            assert run.task is not None
            run.task.cancel()
        with pytest.raises(AcceptError):
            await submitted
        held.set()
        assert (await shop.submit(request, worker=1)).status is PaymentStatus.SUCCEEDED
        assert shop.count("submit") == 1

"""A stop: what was begun ends and its caller is told, who only waits is sent home, and nothing is left behind."""

from __future__ import annotations

import asyncio

import pytest

from cashier.domain.payment_state import PaymentStatus
from cashier.payments.errors import AcceptError
from tests.payments.checkout import checkout

pytestmark = pytest.mark.looptime

CASE, METHOD = "balance_is_enough", "BALANCE:acc_1"


@pytest.mark.parametrize("step", ["look_up", "decide", "submit", "result"])
async def test_a_submit_under_way_ends_and_its_caller_gets_the_outcome(step: str) -> None:
    async with checkout() as shop:
        request = await shop.new_request(CASE, METHOD)
        held = shop.held[step] = asyncio.Event()
        submitted = asyncio.create_task(shop.submit(request))
        await asyncio.sleep(0.1)
        assert shop.count(step) == 1
        closing = asyncio.create_task(shop.workers[0].__aexit__(None, None, None))
        await asyncio.sleep(0.5)
        assert not closing.done(), "it may be money"
        held.set()
        assert (await submitted).status is PaymentStatus.SUCCEEDED
        await closing
        assert shop.payments_that_paid("o_1002") == [submitted.result().payment_id]


async def test_one_whose_engine_never_answers_is_told_as_processing_within_the_time_of_a_submit() -> None:
    async with checkout() as shop:
        request = await shop.new_request(CASE, METHOD)
        shop.inject("engine", "hang", on="submit")
        submitted = asyncio.create_task(shop.submit(request))
        await asyncio.sleep(0.1)
        await shop.workers[0].__aexit__(None, None, None)
        assert (await submitted).status is PaymentStatus.PROCESSING
        assert shop.payments_that_paid("o_1002") == [submitted.result().payment_id], (
            "as whoever looks is told by the next worker"
        )


async def test_who_waits_is_sent_home_at_once_and_does_not_hold_it_up() -> None:
    async with checkout() as shop:
        payment = await shop.pay("chinese_shop", "WALLET:ALIPAY")
        polled = [asyncio.create_task(shop.look(payment, 30_000)) for _ in range(50)]
        await asyncio.sleep(1)
        began_s = asyncio.get_running_loop().time()
        await shop.workers[0].__aexit__(None, None, None)
        assert {one.status for one in await asyncio.gather(*polled)} == {PaymentStatus.ACTION_REQUIRED}
        assert asyncio.get_running_loop().time() == began_s


async def test_a_challenge_outlives_the_worker_that_asked_it() -> None:
    async with checkout(workers=2) as shop:
        payment = await shop.pay("chinese_shop", "QUICK_PAY:c_2")
        await shop.workers[0].__aexit__(None, None, None)
        answered = await shop.payments_of(shop.workers[1]).answer(payment.payment_id, payment.payment_token, "246810")
        assert answered.status is PaymentStatus.SUCCEEDED


async def test_a_submit_that_is_cut_off_is_met_again_by_its_key_at_another_worker() -> None:
    """As in a crash: all that this worker had under way is gone."""
    async with checkout(workers=2) as shop:
        request = await shop.new_request(CASE, METHOD)
        held = shop.held["result"] = asyncio.Event()
        submitted = asyncio.create_task(shop.submit(request))
        await asyncio.sleep(0.1)
        for running in shop.payments._runs._runs.values():
            running.task.cancel()
        with pytest.raises(AcceptError):
            await submitted
        held.set()
        assert (await shop.submit(request, worker=1)).status is PaymentStatus.SUCCEEDED
        assert shop.count("submit") == 1

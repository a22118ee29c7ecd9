"""A worker looks on after the payments that it sent, whether their payers wait or have left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest

from cashier.domain.payment_state import PaymentStatus
from cashier.payments.background_queries import BackgroundQueries
from cashier.payments.errors import OrderBusy
from tests.payments.checkout import Checkout, checkout, connection_refused

pytestmark = pytest.mark.virtual_time
CASE, WALLET = "chinese_shop", "WALLET:ALIPAY"
NEVER_PAYS = "130123456789012349"

watching = partial(checkout, most_in_background=10)


@pytest.fixture
async def watched() -> AsyncIterator[Checkout]:
    async with watching() as opened:
        yield opened


def background(shop: Checkout, worker: int = 0) -> BackgroundQueries:
    return shop.payments_of(shop.workers[worker])._status_follower._background


async def test_a_scanned_code_is_reversed_after_45_s_though_the_till_has_gone(watched: Checkout) -> None:
    request = await watched.new_request("scan_to_pay", "CONSUMER_QR", auth_code=NEVER_PAYS)
    watched.reset_counts()
    await watched.submit(request)
    await asyncio.sleep(200)
    assert watched.times_s("look_up") == [0, 1, 3, 6, 11, 16, 21, 26, 31, 36, 41, 46]
    assert watched.times_s("reverse") == [46]
    assert (len(background(watched)), background(watched)._counts.settled.value) == (0, 1)


async def test_it_is_reversed_also_if_streams_are_short() -> None:
    async with watching(follow_s=1) as shop:
        await shop.pay("scan_to_pay", "CONSUMER_QR", auth_code=NEVER_PAYS)
        await asyncio.sleep(60)
        assert shop.count("reverse") == 1


async def test_a_submit_that_never_arrived_is_sealed_and_frees_the_order(watched: Checkout) -> None:
    watched.inject("engine", "cut", on="submit")
    await watched.pay(CASE, WALLET)
    await asyncio.sleep(40)
    assert watched.count("reverse") == 1
    watched.reset_counts()
    payment = await watched.pay(CASE, WALLET, key="k2")
    assert watched.count("look_up") == 1, "the order is known to be free"
    await watched.cancel(payment)


@pytest.mark.moves("cashier_payment_queries_total")
async def test_the_end_of_a_payment_reaches_channel_health_without_its_payer(watched: Checkout) -> None:
    payment = await watched.pay(CASE, WALLET)
    assert payment.route is not None
    watched.settle(payment)
    await asyncio.sleep(10)
    records = watched.payments._status_follower._channel_health.records
    assert payment.route.channel_id in records
    assert background(watched)._counts.settled.value == 1


async def test_a_cancel_that_was_not_confirmed_is_asked_for_again_without_the_payer(watched: Checkout) -> None:
    payment = await watched.pay(CASE, WALLET)
    watched.replies["reverse"] = connection_refused
    assert (await watched.cancel(payment)).status is PaymentStatus.PROCESSING
    assert (await watched.look(payment)).status is PaymentStatus.ACTION_REQUIRED, "an older token does not know"
    del watched.replies["reverse"]
    await asyncio.sleep(30)
    assert background(watched)._counts.settled.value == 1
    assert (await watched.look(payment)).status is PaymentStatus.CLOSED


async def test_the_payer_and_the_background_share_the_queries(watched: Checkout) -> None:
    request = await watched.new_request("scan_to_pay", "CONSUMER_QR", auth_code=NEVER_PAYS)
    payment = await watched.submit(request)
    watched.reset_counts()
    statuses = await asyncio.gather(*(watched.follow_to_end(payment) for _ in range(3)))
    assert {status.status for status in statuses} == {PaymentStatus.CLOSED}
    assert watched.times_s("look_up") == [0, 1, 3, 6, 11, 16, 21, 26, 31, 36, 41, 46]
    assert watched.count("reverse") == 1
    assert len(background(watched)) == 0


async def test_a_payer_who_asks_at_the_promised_times_makes_no_further_queries(watched: Checkout) -> None:
    payment = await watched.pay("scan_to_pay", "CONSUMER_QR", auth_code=NEVER_PAYS)
    watched.reset_counts()
    for _ in range(5):
        assert payment.poll_after_ms is not None
        await asyncio.sleep(payment.poll_after_ms / 1_000 + 0.5)
        payment = await watched.look(payment)
    assert watched.count("look_up") == 5 + 1, "only the first came before the payer's"


async def test_queries_end_after_follow_s(watched: Checkout) -> None:
    payment = await watched.pay(CASE, WALLET)
    watched.world.engine.attempt(payment.payment_id)
    await asyncio.sleep(839)
    assert len(background(watched)) == 1
    await asyncio.sleep(200)
    assert len(background(watched)) == 0
    watched.reset_counts()
    await asyncio.sleep(2_000)
    assert watched.calls == []


@pytest.mark.moves("cashier_payment_queries_total")
@pytest.mark.parametrize("most", [0, 1])
async def test_beyond_the_bound_a_payment_is_not_looked_after(most: int) -> None:
    async with checkout(most_in_background=most) as shop:
        await shop.pay("scan_to_pay", "CONSUMER_QR", auth_code=NEVER_PAYS)
        payment = await shop.pay(CASE, WALLET)
        assert (len(background(shop)), background(shop)._counts.unwatched.value) == (most, 2 - most)
        await asyncio.sleep(60)
        assert shop.count("reverse") == most
        assert (await shop.cancel(payment)).status is PaymentStatus.CLOSED


async def test_a_challenge_and_a_payment_that_was_only_looked_at_are_not_queried() -> None:
    async with watching(workers=2) as shop:
        await shop.pay(CASE, "QUICK_PAY:c_2")
        assert len(background(shop)) == 0
        payment = await shop.pay(CASE, WALLET, key="k2")
        other = shop.payments_of(shop.workers[1])
        await other.look(payment.payment_id, payment.payment_token)
        assert (len(background(shop)), len(background(shop, 1))) == (1, 0)


async def test_a_stop_ends_the_background_and_keeps_nobody_waiting(watched: Checkout) -> None:
    started_s = asyncio.get_running_loop().time()
    await watched.pay(CASE, WALLET)
    await watched.workers[0].__aexit__(None, None, None)
    assert asyncio.get_running_loop().time() - started_s < 1
    assert len(background(watched)) == 0
    watched.reset_counts()
    await asyncio.sleep(1_000)
    assert watched.calls == []


async def test_silent_upstreams_are_asked_again_until_they_answer(watched: Checkout) -> None:
    payment = await watched.pay(CASE, WALLET)
    watched.replies |= {"look_up": connection_refused, "result": connection_refused}
    watched.settle(payment)
    await asyncio.sleep(60)
    assert len(background(watched)) == 1
    watched.replies.clear()
    await asyncio.sleep(20)
    assert background(watched)._counts.settled.value == 1


async def test_a_second_key_finds_the_order_free_after_the_payer_of_the_first_left(watched: Checkout) -> None:
    second = await watched.new_request(CASE, "WALLET:WECHAT_PAY")
    first = await watched.pay(CASE, WALLET)
    with pytest.raises(OrderBusy):
        await watched.submit(second, "k2")
    watched.settle(first, "FAILED")
    await asyncio.sleep(10)
    payment = await watched.submit(second, "k2")
    assert payment.status is PaymentStatus.ACTION_REQUIRED
    await watched.cancel(payment)
    assert repr(background(watched)) == "<BackgroundQueries 0 settled=1 refused=0>"


async def test_a_bug_in_a_query_is_reported(watched: Checkout) -> None:
    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))

    async def broken(*_: Any) -> None:
        raise ZeroDivisionError

    payment = await watched.pay(CASE, WALLET)
    background(watched)._query = broken
    await asyncio.sleep(10)
    assert [type(report["exception"]) for report in reports] == [ZeroDivisionError]
    assert len(background(watched)) == 0
    await watched.cancel(payment)

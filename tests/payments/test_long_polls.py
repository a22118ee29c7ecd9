"""Long polls and streams return on a change or in time, and share their queries."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from cashier.domain.payment_resource import Payment
from cashier.domain.payment_state import PaymentStatus
from cashier.payments.errors import TooManyPayments
from tests.payments.checkout import Checkout, checkout
from tests.support.virtual_time import timers_set

pytestmark = pytest.mark.virtual_time


async def pending(shop: Checkout) -> Payment:
    """A payment that is polled every two seconds."""
    payment = await shop.pay("chinese_shop", "WALLET:ALIPAY")
    assert payment.poll_after_ms == 2_000
    shop.reset_counts()
    return payment


def now_s() -> float:
    return asyncio.get_running_loop().time()


async def test_a_long_poll_returns_with_the_query_that_shows_a_change(shop: Checkout) -> None:
    payment, started_s = await pending(shop), now_s()
    polled = asyncio.create_task(shop.look(payment, 30_000))
    await asyncio.sleep(4.5)
    shop.settle(payment)
    assert (await polled).status is PaymentStatus.SUCCEEDED
    assert now_s() - started_s == pytest.approx(6, abs=0.1)
    assert shop.times_s("look_up") == [0, 2, 4, 6]


async def test_a_long_poll_of_a_final_payment_returns_at_once(shop: Checkout) -> None:
    payment = await shop.pay("balance_is_enough", "BALANCE:acc_1")
    started_s = now_s()
    assert (await shop.look(payment, 30_000)).status is PaymentStatus.SUCCEEDED
    assert now_s() == started_s


@pytest.mark.parametrize(("wait_ms", "returns_after_s"), [(0, 0), (1, 0), (5_000, 5), (30_000, 30), (60_000, 30)])
async def test_a_long_poll_without_a_change_returns_after_its_wait_or_the_longest(
    shop: Checkout, wait_ms: int, returns_after_s: int
) -> None:
    payment, started_s = await pending(shop), now_s()
    latest = await shop.look(payment, wait_ms)
    assert latest.status is PaymentStatus.ACTION_REQUIRED
    assert now_s() - started_s == pytest.approx(returns_after_s, abs=0.1)
    assert latest.payment_token == payment.payment_token


async def test_a_long_poll_of_a_challenge_returns_when_another_tab_passes_it(shop: Checkout) -> None:
    payment, started_s = await shop.pay("chinese_shop", "QUICK_PAY:c_2"), now_s()
    polled = asyncio.create_task(shop.look(payment, 30_000))
    await asyncio.sleep(4)
    await shop.answer(payment)
    assert (await polled).status is PaymentStatus.SUCCEEDED
    assert now_s() - started_s < 7


async def test_two_hundred_long_polls_of_one_payment_share_each_query(shop: Checkout) -> None:
    payment = await pending(shop)
    polled = [asyncio.create_task(shop.look(payment, 19_000)) for _ in range(200)]
    await asyncio.sleep(0.5)
    assert shop.payments._status_follower._polls.waiters == 200
    assert len(timers_set()) < 410, "one deadline for each, and one timer for the query"
    payments = await asyncio.gather(*polled)
    assert {payment.status for payment in payments} == {PaymentStatus.ACTION_REQUIRED}
    assert shop.times_s("look_up") == [0, *range(2, 20, 2)]
    assert shop.count("result") == shop.count("look_up")
    shop.settle(payment)
    assert (await shop.look(payment)).status is PaymentStatus.SUCCEEDED


async def test_two_hundred_staggered_long_polls_share_their_later_queries(shop: Checkout) -> None:
    payment = await pending(shop)
    polled = []
    for _ in range(200):
        polled.append(asyncio.create_task(shop.look(payment, 30_000)))
        await asyncio.sleep(0.001)
    first_queries = shop.count("look_up")
    assert first_queries <= 200, "each queries at its start"
    await asyncio.sleep(20)
    assert shop.count("look_up") - first_queries <= 11
    shop.settle(payment)
    assert {(await poll).status for poll in polled} == {PaymentStatus.SUCCEEDED}


async def test_one_query_answers_all_long_polls(shop: Checkout) -> None:
    payment = await pending(shop)
    polled = [asyncio.create_task(shop.look(payment, 30_000)) for _ in range(200)]
    await asyncio.sleep(1)
    shop.settle(payment)
    assert {payment.status for payment in await asyncio.gather(*polled)} == {PaymentStatus.SUCCEEDED}
    assert shop.times_s("look_up") == [0, 2]


async def test_cancelled_long_polls_leave_neither_task_nor_timer(shop: Checkout) -> None:
    payment, tasks = await pending(shop), asyncio.all_tasks()
    polled = [asyncio.create_task(shop.look(payment, 30_000)) for _ in range(10)]
    await asyncio.sleep(1)
    for poll in polled:
        poll.cancel()
    await asyncio.gather(*polled, return_exceptions=True)
    assert shop.payments._status_follower._polls._runs == {}
    assert shop.payments._status_follower._polls.waiters == 0
    assert asyncio.all_tasks() == tasks
    assert timers_set() == []
    shop.reset_counts()
    await asyncio.sleep(10)
    assert shop.calls == [], "no caller, no query"
    await shop.cancel(payment)


async def test_a_cancelled_long_poll_does_not_disturb_another(shop: Checkout) -> None:
    payment = await pending(shop)
    leaving, staying = (asyncio.create_task(shop.look(payment, 30_000)) for _ in range(2))
    await asyncio.sleep(1)
    leaving.cancel()
    shop.settle(payment)
    assert (await staying).status is PaymentStatus.SUCCEEDED
    assert shop.times_s("look_up") == [0, 2]


async def test_stop_waiting_returns_long_polls_and_ends_streams(shop: Checkout) -> None:
    payment = await pending(shop)
    polled = [asyncio.create_task(shop.look(payment, 30_000)) for _ in range(3)]
    followed = asyncio.create_task(_followed(shop, payment))
    await asyncio.sleep(1)
    stopped_s = now_s()
    shop.payments.stop_waiting()
    assert {payment.status for payment in await asyncio.gather(*polled)} == {PaymentStatus.ACTION_REQUIRED}
    assert [latest.status for latest, _ in await followed] == [PaymentStatus.ACTION_REQUIRED]
    assert now_s() == stopped_s
    assert (await shop.look(payment, 30_000)).status is PaymentStatus.ACTION_REQUIRED, "later long polls return at once"
    assert now_s() == stopped_s
    assert (await shop.cancel(payment)).status is PaymentStatus.CLOSED


async def test_a_stream_yields_the_status_at_once_then_changes_until_the_end(shop: Checkout) -> None:
    payment, started_s = await pending(shop), now_s()
    followed = asyncio.create_task(_followed(shop, payment))
    await asyncio.sleep(9)
    shop.settle(payment)
    assert [(latest.status, round(at_s - started_s)) for latest, at_s in await followed] == [
        (PaymentStatus.ACTION_REQUIRED, 0),
        (PaymentStatus.SUCCEEDED, 10),
    ]


async def test_a_stream_yields_every_visible_change(shop: Checkout) -> None:
    payment = await pending(shop)
    followed = asyncio.create_task(_followed(shop, payment))
    await asyncio.sleep(3)
    shop.inject("engine", "error", always=True)
    await asyncio.sleep(10)
    shop.clear_faults()
    await asyncio.sleep(10)
    shop.settle(payment)
    expected = [
        PaymentStatus.ACTION_REQUIRED,
        PaymentStatus.PROCESSING,
        PaymentStatus.ACTION_REQUIRED,
        PaymentStatus.SUCCEEDED,
    ]
    assert [latest.status for latest, _ in await followed] == expected


async def test_a_stream_ends_after_follow_s() -> None:
    async with checkout(follow_s=60) as shop:
        payment, started_s = await pending(shop), now_s()
        assert [latest.status for latest, _ in await _followed(shop, payment)] == [PaymentStatus.ACTION_REQUIRED]
        assert 58 <= now_s() - started_s <= 66
        assert (await shop.cancel(payment)).status is PaymentStatus.CLOSED


async def test_a_closed_stream_leaves_nothing_behind(shop: Checkout) -> None:
    payment, tasks = await pending(shop), asyncio.all_tasks()
    async with aclosing(shop.payments.follow(payment.payment_id, payment.payment_token)) as payments:
        assert (await anext(payments)).status is PaymentStatus.ACTION_REQUIRED
        second = asyncio.ensure_future(anext(payments))
        await asyncio.sleep(1)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
    assert shop.payments._status_follower._polls._runs == {}
    assert timers_set() == []
    assert asyncio.all_tasks() == tasks
    await shop.cancel(payment)


async def test_beyond_most_waiting_a_long_poll_returns_at_once_and_a_stream_is_refused() -> None:
    async with checkout(most_waiting=2) as shop:
        payment = await pending(shop)
        polled = [asyncio.create_task(shop.look(payment, 10_000)) for _ in range(2)]
        await asyncio.sleep(0.5)
        started_s = now_s()
        assert (await shop.look(payment, 30_000)).status is PaymentStatus.ACTION_REQUIRED
        assert now_s() == started_s
        with pytest.raises(TooManyPayments):
            await anext(shop.payments.follow(payment.payment_id, payment.payment_token))
        await asyncio.gather(*polled)
        await shop.cancel(payment)


async def test_a_query_that_finds_no_place_is_made_up_for_by_the_next() -> None:
    async with checkout(most_under_way=1) as shop:
        payment = await pending(shop)
        other = await shop.pay("balance_is_enough", "WALLET:ALIPAY")
        waits = [asyncio.create_task(_followed(shop, payment)), asyncio.create_task(_polled(shop, payment))]
        await asyncio.sleep(1)
        held = shop.held["look_up"] = asyncio.Event()
        blocking = asyncio.create_task(shop.look(other))
        await asyncio.sleep(2.5)
        held.set()
        shop.settle(payment)
        for payments in await asyncio.gather(*waits):
            assert payments[-1][0].status is PaymentStatus.SUCCEEDED
        assert (await shop.cancel(await blocking)).status is PaymentStatus.CLOSED


async def test_the_poll_interval_depends_on_the_kind(shop: Checkout) -> None:
    """A wallet is polled every two seconds, a transfer once a minute."""
    wallet = await shop.pay("chinese_shop", "WALLET:ALIPAY")
    transfer = await shop.pay("indonesian_shop", "VA", "BCA")
    assert (wallet.poll_after_ms, transfer.poll_after_ms) == (2_000, 60_000)
    await asyncio.sleep(400)
    assert (await shop.look(wallet)).poll_after_ms == 10_000
    assert (await shop.look(transfer)).poll_after_ms == 60_000
    for payment in (wallet, transfer):
        assert (await shop.cancel(payment)).status is PaymentStatus.CLOSED


async def _followed(shop: Checkout, payment: Payment) -> list[tuple[Payment, float]]:
    return [(latest, now_s()) async for latest in shop.payments.follow(payment.payment_id, payment.payment_token)]


async def _polled(shop: Checkout, payment: Payment) -> list[tuple[Payment, float]]:
    return [(await shop.look(payment, 20_000), now_s())]

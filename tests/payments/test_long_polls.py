"""Long polls and followers: told when something shows, never later than they want to know; many share one look, and all leave no trace."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from cashier.domain.payment_resource import Payment
from cashier.domain.payment_state import PaymentStatus
from cashier.payments.errors import TooManyPayments
from tests.fanout.scripted import timers_set
from tests.payments.checkout import Checkout, checkout

pytestmark = pytest.mark.looptime


async def waiting(shop: Checkout) -> Payment:
    """Looked at every two seconds."""
    payment = await shop.pay("chinese_shop", "WALLET:ALIPAY")
    assert payment.poll_after_ms == 2_000
    shop.reset_counts()
    return payment


def now_s() -> float:
    return asyncio.get_running_loop().time()


async def test_a_long_poll_comes_back_with_the_look_that_shows_a_change() -> None:
    async with checkout() as shop:
        payment, began_s = await waiting(shop), now_s()
        polled = asyncio.create_task(shop.look(payment, 30_000))
        await asyncio.sleep(4.5)
        shop.settle(payment)
        assert (await polled).status is PaymentStatus.SUCCEEDED
        assert now_s() - began_s == pytest.approx(6, abs=0.1)
        assert shop.times_s("look_up") == [0, 2, 4, 6]


async def test_of_what_is_over_it_comes_back_at_once() -> None:
    async with checkout() as shop:
        payment = await shop.pay("balance_is_enough", "BALANCE:acc_1")
        began_s = now_s()
        assert (await shop.look(payment, 30_000)).status is PaymentStatus.SUCCEEDED
        assert now_s() == began_s


@pytest.mark.parametrize(("wait_ms", "back_after_s"), [(0, 0), (1, 0), (5_000, 5), (30_000, 30), (60_000, 30)])
async def test_of_what_does_not_change_it_comes_back_when_it_wanted_to_or_after_the_longest(
    wait_ms: int, back_after_s: int
) -> None:
    async with checkout() as shop:
        payment, began_s = await waiting(shop), now_s()
        found = await shop.look(payment, wait_ms)
        assert found.status is PaymentStatus.ACTION_REQUIRED
        assert now_s() - began_s == pytest.approx(back_after_s, abs=0.1)
        assert found.payment_token == payment.payment_token


async def test_a_challenge_is_waited_for_until_another_tab_has_passed_it() -> None:
    async with checkout() as shop:
        payment, began_s = await shop.pay("chinese_shop", "QUICK_PAY:c_2"), now_s()
        polled = asyncio.create_task(shop.look(payment, 30_000))
        await asyncio.sleep(4)
        await shop.answer(payment)
        assert (await polled).status is PaymentStatus.SUCCEEDED
        assert now_s() - began_s < 7


async def test_two_hundred_who_wait_for_one_payment_share_one_look_a_step() -> None:
    async with checkout() as shop:
        payment = await waiting(shop)
        polled = [asyncio.create_task(shop.look(payment, 19_000)) for _ in range(200)]
        await asyncio.sleep(0.5)
        assert shop.payments._presenter._polls.waiters == 200
        assert len(timers_set()) < 410, "a deadline for each, and one timer for the look"
        found = await asyncio.gather(*polled)
        assert {one.status for one in found} == {PaymentStatus.ACTION_REQUIRED}
        assert shop.times_s("look_up") == [0, *range(2, 20, 2)]
        assert shop.count("result") == shop.count("look_up")
        shop.settle(payment)
        assert (await shop.look(payment)).status is PaymentStatus.SUCCEEDED


async def test_two_hundred_who_begin_at_different_times_do_not_make_it_more_than_twice_as_many() -> None:
    async with checkout() as shop:
        payment = await waiting(shop)
        polled = []
        for _ in range(200):
            polled.append(asyncio.create_task(shop.look(payment, 30_000)))
            await asyncio.sleep(0.001)
        began = shop.count("look_up")
        assert began <= 200, "each looks for itself when it comes"
        await asyncio.sleep(20)
        assert shop.count("look_up") - began <= 11
        shop.settle(payment)
        assert {(await one).status for one in polled} == {PaymentStatus.SUCCEEDED}


async def test_all_who_wait_are_told_by_the_same_look() -> None:
    async with checkout() as shop:
        payment = await waiting(shop)
        polled = [asyncio.create_task(shop.look(payment, 30_000)) for _ in range(200)]
        await asyncio.sleep(1)
        shop.settle(payment)
        assert {one.status for one in await asyncio.gather(*polled)} == {PaymentStatus.SUCCEEDED}
        assert shop.times_s("look_up") == [0, 2]


async def test_who_is_cancelled_leaves_neither_task_nor_timer() -> None:
    async with checkout() as shop:
        payment, tasks = await waiting(shop), asyncio.all_tasks()
        polled = [asyncio.create_task(shop.look(payment, 30_000)) for _ in range(10)]
        await asyncio.sleep(1)
        for one in polled:
            one.cancel()
        await asyncio.gather(*polled, return_exceptions=True)
        assert shop.payments._presenter._polls._polls == {}
        assert shop.payments._presenter._polls.waiters == 0
        assert asyncio.all_tasks() == tasks
        assert timers_set() == []
        shop.reset_counts()
        await asyncio.sleep(10)
        assert shop.calls == [], "nobody looks for nobody"
        await shop.cancel(payment)


async def test_one_that_leaves_takes_nothing_from_those_who_stay() -> None:
    async with checkout() as shop:
        payment = await waiting(shop)
        leaves, stays = (asyncio.create_task(shop.look(payment, 30_000)) for _ in range(2))
        await asyncio.sleep(1)
        leaves.cancel()
        shop.settle(payment)
        assert (await stays).status is PaymentStatus.SUCCEEDED
        assert shop.times_s("look_up") == [0, 2]


async def test_when_nobody_shall_wait_any_more_polls_come_back_and_followers_end() -> None:
    async with checkout() as shop:
        payment = await waiting(shop)
        polled = [asyncio.create_task(shop.look(payment, 30_000)) for _ in range(3)]
        followed = asyncio.create_task(_followed(shop, payment))
        await asyncio.sleep(1)
        stopped_s = now_s()
        shop.payments.stop_waiting()
        assert {one.status for one in await asyncio.gather(*polled)} == {PaymentStatus.ACTION_REQUIRED}
        assert [one.status for one, _ in await followed] == [PaymentStatus.ACTION_REQUIRED]
        assert now_s() == stopped_s
        assert (await shop.look(payment, 30_000)).status is PaymentStatus.ACTION_REQUIRED, (
            "and who comes later is told at once"
        )
        assert now_s() == stopped_s
        assert (await shop.cancel(payment)).status is PaymentStatus.CLOSED


async def test_a_follower_is_told_at_once_then_what_changes_and_no_more_after_the_end() -> None:
    async with checkout() as shop:
        payment, began_s = await waiting(shop), now_s()
        followed = asyncio.create_task(_followed(shop, payment))
        await asyncio.sleep(9)
        shop.settle(payment)
        told = await followed
        assert [(one.status, round(at_s - began_s)) for one, at_s in told] == [
            (PaymentStatus.ACTION_REQUIRED, 0),
            (PaymentStatus.SUCCEEDED, 10),
        ]


async def test_a_follower_sees_each_thing_that_shows() -> None:
    async with checkout() as shop:
        payment = await waiting(shop)
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
        assert [one.status for one, _ in await followed] == expected


async def test_following_has_an_end_of_its_own() -> None:
    async with checkout(follow_s=60) as shop:
        payment, began_s = await waiting(shop), now_s()
        assert [one.status for one, _ in await _followed(shop, payment)] == [PaymentStatus.ACTION_REQUIRED]
        assert 58 <= now_s() - began_s <= 66
        assert (await shop.cancel(payment)).status is PaymentStatus.CLOSED


async def test_a_follower_that_goes_away_leaves_nothing() -> None:
    async with checkout() as shop:
        payment, tasks = await waiting(shop), asyncio.all_tasks()
        async with aclosing(shop.payments.follow(payment.payment_id, payment.payment_token)) as told:
            assert (await anext(told)).status is PaymentStatus.ACTION_REQUIRED
            second = asyncio.ensure_future(anext(told))
            await asyncio.sleep(1)
            second.cancel()
            await asyncio.gather(second, return_exceptions=True)
        assert shop.payments._presenter._polls._polls == {}
        assert timers_set() == []
        assert asyncio.all_tasks() == tasks
        await shop.cancel(payment)


async def test_beyond_the_most_who_may_wait_a_poll_is_told_at_once_and_a_follower_is_refused() -> None:
    async with checkout(most_waiting=2) as shop:
        payment = await waiting(shop)
        polled = [asyncio.create_task(shop.look(payment, 10_000)) for _ in range(2)]
        await asyncio.sleep(0.5)
        began_s = now_s()
        assert (await shop.look(payment, 30_000)).status is PaymentStatus.ACTION_REQUIRED
        assert now_s() == began_s
        with pytest.raises(TooManyPayments):
            await anext(shop.payments.follow(payment.payment_id, payment.payment_token))
        await asyncio.gather(*polled)
        await shop.cancel(payment)


async def test_a_look_that_is_crowded_out_is_made_up_for_by_the_next_and_ends_nobodys_waiting() -> None:
    async with checkout(most_under_way=1) as shop:
        payment = await waiting(shop)
        other = await shop.pay("balance_is_enough", "WALLET:ALIPAY")
        waits = [asyncio.create_task(_followed(shop, payment)), asyncio.create_task(_polled(shop, payment))]
        await asyncio.sleep(1)
        held = shop.held["look_up"] = asyncio.Event()
        in_the_way = asyncio.create_task(shop.look(other))
        await asyncio.sleep(2.5)
        held.set()
        shop.settle(payment)
        for told in await asyncio.gather(*waits):
            assert told[-1][0].status is PaymentStatus.SUCCEEDED
        assert (await shop.cancel(await in_the_way)).status is PaymentStatus.CLOSED


async def test_the_pace_fits_the_kind() -> None:
    """A wallet every two seconds, a transfer once a minute."""
    async with checkout() as shop:
        wallet = await shop.pay("chinese_shop", "WALLET:ALIPAY")
        transfer = await shop.pay("indonesian_shop", "VA", "BCA")
        assert (wallet.poll_after_ms, transfer.poll_after_ms) == (2_000, 60_000)
        await asyncio.sleep(400)
        assert (await shop.look(wallet)).poll_after_ms == 10_000
        assert (await shop.look(transfer)).poll_after_ms == 60_000
        for payment in (wallet, transfer):
            assert (await shop.cancel(payment)).status is PaymentStatus.CLOSED


async def _followed(shop: Checkout, payment: Payment) -> list[tuple[Payment, float]]:
    return [(told, now_s()) async for told in shop.payments.follow(payment.payment_id, payment.payment_token)]


async def _polled(shop: Checkout, payment: Payment) -> list[tuple[Payment, float]]:
    return [(await shop.look(payment, 20_000), now_s())]

"""One key, one payment: in one worker or in several, at once or later, with a shared store, without one, or with one that is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import msgspec
import pytest

from cashier.domain.money import Money
from cashier.domain.payment_id import payment_id
from cashier.domain.payment_request import Device
from cashier.domain.payment_resource import Payment
from cashier.domain.payment_state import PaymentStatus
from cashier.payments import live_attempts
from cashier.payments.errors import InFlight, KeyReused, TooManyPayments
from tests.payments.checkout import Checkout, SharedStore, checkout

pytestmark = pytest.mark.looptime

CASE, METHOD = "balance_is_enough", "BALANCE:acc_1"


async def test_fifty_at_once_are_one_and_all_get_its_answer() -> None:
    async with checkout() as shop:
        request = await shop.new_request(CASE, METHOD)
        shop.reset_counts()
        found = await asyncio.gather(*(shop.submit(request) for _ in range(50)))
        assert all(one == found[0] for one in found)
        assert found[0].status is PaymentStatus.SUCCEEDED
        assert (shop.count("look_up"), shop.count("decide"), shop.count("submit")) == (1, 1, 1)


async def test_those_that_come_while_it_is_at_the_engine_wait_for_its_answer() -> None:
    async with checkout() as shop:
        request = await shop.new_request(CASE, METHOD)
        held = shop.held["submit"] = asyncio.Event()
        first = asyncio.create_task(shop.submit(request))
        await asyncio.sleep(1)
        assert shop.count("submit") == 1
        second = asyncio.create_task(shop.submit(request))
        await asyncio.sleep(1)
        held.set()
        assert await first == await second
        assert shop.count("submit") == 1


async def test_another_body_is_refused_while_the_first_is_under_way_and_ever_after() -> None:
    async with checkout() as shop:
        request = await shop.new_request(CASE, METHOD)
        others = [
            msgspec.structs.replace(request, method_id="BALANCE:acc_2"),
            msgspec.structs.replace(request, expected_payable=Money("CNY", 1)),
            msgspec.structs.replace(request, return_url="https://shop.example/back"),
            msgspec.structs.replace(request, promotion_ids=()),
        ]
        found = await asyncio.gather(
            shop.submit(request), *(shop.submit(other) for other in others), return_exceptions=True
        )
        assert [type(one) for one in found[1:]] == [KeyReused] * 4
        for other in others:
            with pytest.raises(KeyReused):
                await shop.submit(other)
        assert shop.count("submit") == 1
        assert shop.payments_that_paid("o_1002") == [payment_id("m_1", "o_1002", "k1")]


async def test_what_does_not_decide_who_pays_what_is_not_another_body() -> None:
    async with checkout() as shop:
        first, later = await shop.new_request(CASE, METHOD), await shop.new_request(CASE, METHOD)
        elsewhere = msgspec.structs.replace(later, device=Device(ip="203.0.113.7"), locale="en")
        one, other = await shop.submit(first), await shop.submit(elsewhere)
        assert (one.payment_id, one.status) == (other.payment_id, other.status)
        assert shop.count("submit") == 1


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_key_of_which_only_a_challenge_is_known_stands_for_its_body_all_the_same(workers: int) -> None:
    store = SharedStore()
    async with checkout(workers=workers, store=store) as shop:
        challenged = await shop.pay("chinese_shop", "QUICK_PAY:c_2")
        other = await shop.new_request("chinese_shop", "WALLET:ALIPAY")
        with pytest.raises(KeyReused):
            await shop.submit(other, worker=workers - 1)
        assert shop.count("submit") == 0
        assert (await shop.answer(challenged)).status is PaymentStatus.SUCCEEDED
        assert store.holders == {}


async def test_in_another_worker_and_without_a_store_it_belongs_to_whichever_body_is_sent_first() -> None:
    """There a challenge is in its token and nowhere else. It is charged once all the same."""
    async with checkout(workers=2) as shop:
        challenged = await shop.pay("chinese_shop", "QUICK_PAY:c_2")
        sent = await shop.submit(await shop.new_request("chinese_shop", "WALLET:ALIPAY"), worker=1)
        assert (challenged.status, sent.status) == (PaymentStatus.CHALLENGE, PaymentStatus.ACTION_REQUIRED)
        assert challenged.payment_id == sent.payment_id
        with pytest.raises(KeyReused):
            await shop.answer(challenged)
        shop.settle(sent)
        assert (await shop.look(sent)).status is PaymentStatus.SUCCEEDED
        assert shop.count("submit") == 1


async def test_two_workers_with_one_store_send_one_submit() -> None:
    async with checkout(workers=2, store=SharedStore()) as shop:
        request = await shop.new_request(CASE, METHOD)
        shop.slow_engine(200)
        found = await asyncio.gather(*(shop.submit(request, worker=number % 2) for number in range(20)))
        assert {one.status for one in found} == {PaymentStatus.SUCCEEDED}
        assert (shop.count("decide"), shop.count("submit")) == (1, 1)


@pytest.mark.parametrize("lost", [None, True])
async def test_two_workers_without_one_or_with_a_lost_one_charge_once_all_the_same(lost: bool | None) -> None:
    store = SharedStore() if lost else None
    if store is not None:
        store.lost = True
    async with checkout(workers=2, store=store) as shop:
        request = await shop.new_request(CASE, METHOD)
        shop.slow_engine(200)
        found = await asyncio.gather(*(shop.submit(request, worker=number % 2) for number in range(20)))
        assert {one.status for one in found} <= {PaymentStatus.SUCCEEDED, PaymentStatus.PROCESSING}
        assert shop.count("submit") <= 2
        assert {body["payment_id"] for body in shop.submissions} == {found[0].payment_id}
        assert (await shop.look(found[0])).status is PaymentStatus.SUCCEEDED
        assert shop.payments_that_paid("o_1002") == [found[0].payment_id]


async def test_the_other_worker_is_waited_for_until_the_engine_has_it() -> None:
    store = SharedStore()
    async with checkout(workers=2, store=store) as shop:
        request = await shop.new_request("chinese_shop", "WALLET:ALIPAY")
        held = shop.held["decide"] = asyncio.Event()
        first = asyncio.create_task(shop.submit(request, worker=0))
        await asyncio.sleep(0.01)
        second = asyncio.create_task(shop.submit(request, worker=1))
        await asyncio.sleep(1)
        assert not second.done()
        assert shop.count("decide") == 1
        held.set()
        one, other = await first, await second
        assert (one.payment_id, one.status) == (other.payment_id, other.status)
        assert shop.count("submit") == 1
        assert (await shop.cancel(one)).status is PaymentStatus.CLOSED
        assert store.holders == {}, "nothing is left in the store"


async def test_a_worker_that_takes_too_long_elsewhere_is_in_flight_and_nothing_is_sent() -> None:
    store = SharedStore()
    async with checkout(store=store) as shop:
        request = await shop.new_request(CASE, METHOD)
        key = _place(f"submit {payment_id('m_1', 'o_1002', 'k1')}")
        store.holders[key] = ("another-worker", float("inf"))
        with pytest.raises(InFlight):
            await shop.submit(request)
        assert set(shop.calls) & {"decide", "submit"} == set()
        del store.holders[key]
        assert (await shop.submit(request)).status is PaymentStatus.SUCCEEDED


async def test_a_worker_that_died_in_the_middle_is_taken_over_from_when_its_time_is_up() -> None:
    store = SharedStore()
    async with checkout(store=store) as shop:
        request = await shop.new_request(CASE, METHOD)
        now_s = asyncio.get_running_loop().time()
        store.holders[_place(f"submit {payment_id('m_1', 'o_1002', 'k1')}")] = ("a-dead-worker", now_s + 5)
        assert (await shop.submit(request)).status is PaymentStatus.SUCCEEDED
        assert asyncio.get_running_loop().time() >= now_s + 5


async def test_a_client_that_goes_away_does_not_stop_what_it_began() -> None:
    async with checkout() as shop:
        request = await shop.new_request(CASE, METHOD)
        held = shop.held["submit"] = asyncio.Event()
        client = asyncio.create_task(shop.submit(request))
        await asyncio.sleep(1)
        client.cancel()
        with pytest.raises(asyncio.CancelledError):
            await client
        held.set()
        found = await shop.submit(request)
        assert found.status is PaymentStatus.SUCCEEDED
        assert shop.count("submit") == 1


async def test_no_more_are_taken_on_than_may_be_under_way() -> None:
    async with checkout(most_under_way=1) as shop:
        one, other = await shop.new_request(CASE, METHOD), await shop.new_request("chinese_shop", "WALLET:ALIPAY")
        held = shop.held["decide"] = asyncio.Event()
        first = asyncio.create_task(shop.submit(one))
        await asyncio.sleep(1)
        with pytest.raises(TooManyPayments):
            await shop.submit(other)
        held.set()
        assert (await first).status is PaymentStatus.SUCCEEDED


def _place(key: str) -> bytes:
    return live_attempts._store_key(key)


async def test_the_token_of_a_body_that_never_arrived_says_and_ends_nothing_of_another_that_did() -> None:
    async with checkout(workers=2) as shop:  # two, and no store: nobody knows of the other's body
        shop.inject("engine", "cut", on="submit")
        lost = await shop.pay(CASE, METHOD)
        assert lost.status is PaymentStatus.PROCESSING
        taken = await shop.submit(await shop.new_request(CASE, "WALLET:ALIPAY"), worker=1)
        assert (taken.status, taken.payment_id) == (PaymentStatus.ACTION_REQUIRED, lost.payment_id)
        for asked in (shop.look(lost), shop.cancel(lost), shop.look(lost, 5_000)):
            with pytest.raises(KeyReused):
                await asked
        assert shop.count("reverse") == 0
        shop.settle(taken)
        assert (await shop.look(taken)).status is PaymentStatus.SUCCEEDED


async def test_who_follows_a_body_that_never_arrived_hears_no_more_once_another_was_taken() -> None:
    async with checkout(workers=2) as shop:
        shop.inject("engine", "cut", on="submit")
        lost = await shop.pay(CASE, METHOD)
        heard = [payment async for payment in _following(shop, lost)]
        assert [payment.status for payment in heard] == [PaymentStatus.PROCESSING]


async def _following(shop: Checkout, lost: Payment) -> AsyncIterator[Payment]:
    """Another body is taken as soon as the first answer is heard."""
    async with aclosing(shop.payments.follow(lost.payment_id, lost.payment_token)) as payments:
        async for payment in payments:
            yield payment
            shop.settle(await shop.submit(await shop.new_request(CASE, "WALLET:ALIPAY"), worker=1))

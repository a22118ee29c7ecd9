"""A second attempt on an order is refused with the id of the live one."""

from __future__ import annotations

import asyncio

import pytest

from cashier.domain.offer_diff import ChangeType
from cashier.domain.payment_state import PaymentStatus
from cashier.payments import attempt_leases
from cashier.payments.errors import ConsultChanged, OrderBusy
from tests.payments.checkout import Checkout, SharedStore, checkout

pytestmark = pytest.mark.virtual_time
CASE = "chinese_shop"


@pytest.mark.parametrize("shared", [False, True])
async def test_a_second_attempt_is_refused_before_risk_is_called(shared: bool) -> None:
    store = SharedStore() if shared else None
    async with checkout(workers=2, store=store) as shop:
        second = await shop.new_request(CASE, "WALLET:WECHAT_PAY")
        first = await shop.pay(CASE, "WALLET:ALIPAY")
        assert first.status is PaymentStatus.ACTION_REQUIRED
        shop.reset_counts()
        with pytest.raises(OrderBusy) as busy:
            await shop.submit(second, "k2", worker=1)
        assert busy.value.payment_id == first.payment_id
        assert shop.count("decide") == shop.count("submit") == 0
        if shared:
            assert set(shop.calls) == {"look_up"}, "the guard has a hint, and the engine confirms it"
        else:
            assert shop.count("order") == 1, "the order is in progress"
        assert (await shop.cancel(first)).status is PaymentStatus.CLOSED
        paid = await shop.submit(second, "k2", worker=1)
        shop.settle(paid)
        assert (await shop.look(paid)).status is PaymentStatus.SUCCEEDED


async def test_an_attempt_of_another_worker_that_passes_every_check_is_refused_by_the_engine() -> None:
    async with checkout(workers=2) as shop:
        request = await shop.new_request(CASE, "WALLET:ALIPAY")
        late_request = await shop.new_request(CASE, "WALLET:WECHAT_PAY")
        held = shop.held["decide"] = asyncio.Event()
        late = asyncio.create_task(shop.submit(late_request, "k2", worker=1))
        await asyncio.sleep(0.1)
        del shop.held["decide"]
        first = await shop.submit(request, "k1")
        held.set()
        with pytest.raises(OrderBusy) as busy:
            await late
        assert busy.value.payment_id == first.payment_id
        assert shop.count("submit") == 2, "only the engine knew"
        assert (await shop.cancel(first)).status is PaymentStatus.CLOSED


async def test_of_many_concurrent_attempts_one_is_accepted_and_all_others_get_its_id() -> None:
    async with checkout(workers=2) as shop:
        request = await shop.new_request(CASE, "WALLET:ALIPAY")
        results = await asyncio.gather(
            *(shop.submit(request, f"k{n}", worker=n % 2) for n in range(50)), return_exceptions=True
        )
        [accepted] = [result for result in results if not isinstance(result, BaseException)]
        assert {result.payment_id for result in results if isinstance(result, OrderBusy)} == {accepted.payment_id}
        assert sum(isinstance(result, OrderBusy) for result in results) == 49
        shop.settle(accepted)
        assert (await shop.look(accepted)).status is PaymentStatus.SUCCEEDED


async def test_an_order_in_progress_elsewhere_names_that_payment(shop: Checkout) -> None:
    request = await shop.new_request(CASE, "WALLET:ALIPAY")
    shop.world.population._orders["o_1001"] |= {"status": "PAYING", "payment_id": "pay_elsewhere"}
    with pytest.raises(OrderBusy) as busy:
        await shop.submit(request)
    assert busy.value.payment_id == "pay_elsewhere"
    assert shop.count("submit") == 0


async def test_an_order_in_progress_by_an_unnamed_payment_is_a_changed_order_state(shop: Checkout) -> None:
    request = await shop.new_request(CASE, "WALLET:ALIPAY")
    shop.world.population._orders["o_1001"] |= {"status": "PAYING"}
    with pytest.raises(ConsultChanged) as changed:
        await shop.submit(request)
    assert [change.what for change in changed.value.changes] == [ChangeType.ORDER_STATE]
    assert shop.count("submit") == 0


async def test_an_order_in_progress_by_the_same_attempt_is_not_busy(shop: Checkout) -> None:
    """An earlier submit reaches the engine between the look-up and the recheck."""
    request = await shop.new_request(CASE, "WALLET:ALIPAY")
    shop.inject("engine", "arrives_late", on="submit")
    first = await shop.submit(request)
    assert first.status is PaymentStatus.PROCESSING
    await asyncio.sleep(4.9)
    shop.slow_engine(200)
    again = await shop.submit(request)
    assert (again.payment_id, again.status) == (first.payment_id, PaymentStatus.ACTION_REQUIRED)
    assert shop.count("decide") == shop.count("submit") == 1
    assert (await shop.cancel(again)).status is PaymentStatus.CLOSED


@pytest.mark.parametrize("end", ["FAILED", "cancelled", "expired"])
async def test_a_hint_of_an_attempt_that_is_over_does_not_block_another(end: str) -> None:
    store = SharedStore()
    async with checkout(workers=2, store=store) as shop:
        first = await shop.pay(CASE, "WALLET:ALIPAY")
        if end == "FAILED":
            shop.settle(first, "FAILED")
        elif end == "cancelled":
            shop.world.engine.reverse(first.payment_id)
        else:
            await asyncio.sleep(841)
        assert store.holder("o_1001") == first.payment_id, "no query has noticed the end"
        paid = await shop.pay(CASE, "WALLET:WECHAT_PAY", key="k2")
        assert paid.status is PaymentStatus.ACTION_REQUIRED
        shop.settle(paid)
        assert (await shop.follow_to_end(paid)).status is PaymentStatus.SUCCEEDED


@pytest.mark.parametrize("holder", ["pay_aaaaaaaaaaaaaaaaaaaaaaaaaa", "unknown", "../orders/o_1001/result"])
async def test_an_unknown_holder_blocks_nothing_and_only_payment_ids_are_looked_up(holder: str) -> None:
    store = SharedStore()
    async with checkout(store=store) as shop:
        store.holders[attempt_leases._store_key("m_1/o_1001")] = (holder, float("inf"))
        request = await shop.new_request(CASE, "WALLET:ALIPAY")
        shop.reset_counts()
        payment = await shop.submit(request)
        assert payment.status is PaymentStatus.ACTION_REQUIRED
        assert shop.count("look_up") == (2 if holder.startswith("pay_") else 1)
        assert (await shop.cancel(payment)).status is PaymentStatus.CLOSED


async def test_without_the_store_a_second_attempt_is_refused_later() -> None:
    store = SharedStore()
    async with checkout(workers=2, store=store) as shop:
        second = await shop.new_request(CASE, "WALLET:WECHAT_PAY")
        first = await shop.pay(CASE, "WALLET:ALIPAY")
        store.lost = True
        with pytest.raises(OrderBusy) as busy:
            await shop.submit(second, "k2", worker=1)
        assert busy.value.payment_id == first.payment_id
        assert shop.count("submit") == 1
        shop.settle(first)
        assert (await shop.look(first)).status is PaymentStatus.SUCCEEDED


async def test_an_abandoned_challenge_does_not_block_another_attempt() -> None:
    store = SharedStore()
    async with checkout(workers=2, store=store) as shop:
        abandoned = await shop.pay(CASE, "QUICK_PAY:c_2")
        assert abandoned.status is PaymentStatus.CHALLENGE
        assert store.holder("o_1001") is None
        paid = await shop.pay(CASE, "WALLET:ALIPAY", key="k2")
        shop.settle(paid)
        assert (await shop.look(paid)).status is PaymentStatus.SUCCEEDED
        with pytest.raises(ConsultChanged) as changed:
            await shop.answer(abandoned)
        assert [change.what for change in changed.value.changes] == [ChangeType.ORDER_STATE]
        assert shop.payments_that_paid("o_1001") == [paid.payment_id]
        assert (await shop.look(abandoned)).status is PaymentStatus.CLOSED

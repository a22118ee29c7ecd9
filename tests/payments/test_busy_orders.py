"""While one attempt on an order lives another one hears of it, by its id: from the guard, from the order, or from the engine itself."""

from __future__ import annotations

import asyncio

import pytest

from cashier.domain.offer_diff import ChangeType
from cashier.domain.payment_state import PaymentStatus
from cashier.payments import live_attempts
from cashier.payments.errors import ConsultChanged, OrderBusy
from tests.payments.checkout import SharedStore, checkout

pytestmark = pytest.mark.looptime
CASE = "chinese_shop"


@pytest.mark.parametrize("shared", [False, True])
async def test_a_second_attempt_is_told_of_the_first_before_risk_is_asked(shared: bool) -> None:
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
            assert shop.calls == ["look_up", "look_up"], "the guard knows, and the engine has said that it lives"
        else:
            assert shop.count("order") == 1, "the order knows"
        assert (await shop.cancel(first)).status is PaymentStatus.CLOSED
        paid = await shop.submit(second, "k2", worker=1)
        shop.settle(paid)
        assert (await shop.look(paid)).status is PaymentStatus.SUCCEEDED


async def test_one_that_slips_through_every_check_is_told_by_the_engine() -> None:
    async with checkout() as shop:
        one, other = await shop.new_request(CASE, "WALLET:ALIPAY"), await shop.new_request(CASE, "WALLET:WECHAT_PAY")
        held = shop.held["decide"] = asyncio.Event()
        late = asyncio.create_task(shop.submit(other, "k2"))
        await asyncio.sleep(0.1)
        del shop.held["decide"]
        first = await shop.submit(one, "k1")
        held.set()
        with pytest.raises(OrderBusy) as busy:
            await late
        assert busy.value.payment_id == first.payment_id
        assert shop.count("submit") == 2, "only the engine could tell"
        assert (await shop.cancel(first)).status is PaymentStatus.CLOSED


async def test_of_many_with_a_key_each_one_lives_and_all_others_hear_of_it() -> None:
    async with checkout(workers=2) as shop:
        request = await shop.new_request(CASE, "WALLET:ALIPAY")
        found = await asyncio.gather(
            *(shop.submit(request, f"k{n}", worker=n % 2) for n in range(50)), return_exceptions=True
        )
        won = [one for one in found if not isinstance(one, BaseException)]
        assert len(won) == 1
        assert {one.payment_id for one in found if isinstance(one, OrderBusy)} == {won[0].payment_id}
        assert sum(isinstance(one, OrderBusy) for one in found) == 49
        shop.settle(won[0])
        assert (await shop.look(won[0])).status is PaymentStatus.SUCCEEDED


async def test_an_order_that_somebody_else_is_paying_names_that_payment() -> None:
    async with checkout() as shop:
        request = await shop.new_request(CASE, "WALLET:ALIPAY")
        shop.world.cast._orders["o_1001"] |= {"status": "PAYING", "payment_id": "pay_elsewhere"}
        with pytest.raises(OrderBusy) as busy:
            await shop.submit(request)
        assert busy.value.payment_id == "pay_elsewhere"
        assert shop.count("submit") == 0


async def test_one_in_progress_of_which_nobody_says_whose_it_is_has_changed_its_state() -> None:
    async with checkout() as shop:
        request = await shop.new_request(CASE, "WALLET:ALIPAY")
        shop.world.cast._orders["o_1001"] |= {"status": "PAYING"}
        with pytest.raises(ConsultChanged) as changed:
            await shop.submit(request)
        assert [change.what for change in changed.value.changes] == [ChangeType.ORDER_STATE]
        assert shop.count("submit") == 0


async def test_an_order_that_waits_for_this_very_attempt_is_its_own_and_not_busy() -> None:
    """The engine got it between the look and the checks: an earlier submit was on its way."""
    async with checkout() as shop:
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
async def test_what_the_guard_still_names_though_it_is_over_keeps_nobody_out(end: str) -> None:
    store = SharedStore()
    async with checkout(workers=2, store=store) as shop:
        first = await shop.pay(CASE, "WALLET:ALIPAY")
        if end == "FAILED":
            shop.settle(first, "FAILED")
        elif end == "cancelled":
            shop.world.engine.reverse(first.payment_id)
        else:
            await asyncio.sleep(841)
        assert store.holder("o_1001") == first.payment_id, "nobody has looked since"
        paid = await shop.pay(CASE, "WALLET:WECHAT_PAY", key="k2")
        assert paid.status is PaymentStatus.ACTION_REQUIRED
        shop.settle(paid)
        assert (await shop.follow_to_end(paid)).status is PaymentStatus.SUCCEEDED


@pytest.mark.parametrize("holder", ["pay_aaaaaaaaaaaaaaaaaaaaaaaaaa", "nobody", "../orders/o_1001/result"])
async def test_a_holder_that_nobody_knows_keeps_nobody_out_and_only_ids_of_ours_are_asked_about(holder: str) -> None:
    store = SharedStore()
    async with checkout(store=store) as shop:
        store.holders[live_attempts._store_key("m_1/o_1001")] = (holder, float("inf"))
        request = await shop.new_request(CASE, "WALLET:ALIPAY")
        shop.reset_counts()
        payment = await shop.submit(request)
        assert payment.status is PaymentStatus.ACTION_REQUIRED
        assert shop.count("look_up") == (2 if holder.startswith("pay_") else 1)
        assert (await shop.cancel(payment)).status is PaymentStatus.CLOSED


async def test_a_store_that_is_lost_changes_nothing_but_how_early_one_hears() -> None:
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


async def test_a_payer_who_walks_away_from_a_challenge_keeps_no_other_attempt_out() -> None:
    store = SharedStore()
    async with checkout(workers=2, store=store) as shop:
        left = await shop.pay(CASE, "QUICK_PAY:c_2")
        assert left.status is PaymentStatus.CHALLENGE
        assert store.holder("o_1001") is None
        paid = await shop.pay(CASE, "WALLET:ALIPAY", key="k2")
        shop.settle(paid)
        assert (await shop.look(paid)).status is PaymentStatus.SUCCEEDED
        with pytest.raises(ConsultChanged) as changed:
            await shop.answer(left)
        assert [change.what for change in changed.value.changes] == [ChangeType.ORDER_STATE]
        assert shop.payments_that_paid("o_1001") == [paid.payment_id]
        assert (await shop.look(left)).status is PaymentStatus.CLOSED

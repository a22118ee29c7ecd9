"""One key, one payment: concurrently or later, in several workers, with or without a store."""

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
from cashier.payments import attempt_leases
from cashier.payments.errors import InFlight, KeyReused, TooManyPayments
from tests.payments.checkout import Checkout, SharedStore, checkout, without_fingerprint

pytestmark = pytest.mark.virtual_time

CASE, METHOD = "balance_is_enough", "BALANCE:acc_1"


async def test_fifty_concurrent_submits_are_one_and_share_its_result(shop: Checkout) -> None:
    request = await shop.new_request(CASE, METHOD)
    shop.reset_counts()
    payments = await asyncio.gather(*(shop.submit(request) for _ in range(50)))
    assert all(payment == payments[0] for payment in payments)
    assert payments[0].status is PaymentStatus.SUCCEEDED
    assert (shop.count("look_up"), shop.count("decide"), shop.count("submit")) == (1, 1, 1)


async def test_a_retry_during_the_submit_waits_for_its_result(shop: Checkout) -> None:
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


async def test_another_body_is_refused_during_the_first_submit_and_after_it(shop: Checkout) -> None:
    request = await shop.new_request(CASE, METHOD)
    others = [
        msgspec.structs.replace(request, method_id="BALANCE:acc_2"),
        msgspec.structs.replace(request, expected_payable=Money("CNY", 1)),
        msgspec.structs.replace(request, return_url="https://shop.example/back"),
        msgspec.structs.replace(request, promotion_ids=()),
    ]
    results = await asyncio.gather(
        shop.submit(request), *(shop.submit(changed) for changed in others), return_exceptions=True
    )
    assert [type(result) for result in results[1:]] == [KeyReused] * 4
    for changed in others:
        with pytest.raises(KeyReused):
            await shop.submit(changed)
    assert shop.count("submit") == 1
    assert shop.payments_that_paid("o_1002") == [payment_id("m_1", "o_1002", "k1")]


async def test_a_body_sent_by_another_worker_is_found_while_another_body_is_under_way_here() -> None:
    async with checkout(workers=2) as shop:
        sent = await shop.new_request(CASE, METHOD)
        other = msgspec.structs.replace(sent, locale="en", promotion_ids=("another",))
        held = shop.held["look_up"] = asyncio.Event()
        refused = asyncio.create_task(shop.submit(other))
        await asyncio.sleep(0.1)
        del shop.held["look_up"]
        paid = await shop.submit(sent, worker=1)
        assert (await shop.submit(sent)).status is paid.status is PaymentStatus.SUCCEEDED
        held.set()
        with pytest.raises(KeyReused):
            await refused
        assert shop.count("submit") == 1


async def test_device_and_locale_do_not_make_another_body(shop: Checkout) -> None:
    first, later = await shop.new_request(CASE, METHOD), await shop.new_request(CASE, METHOD)
    elsewhere = msgspec.structs.replace(later, device=Device(ip="203.0.113.7"), locale="en")
    paid, again = await shop.submit(first), await shop.submit(elsewhere)
    assert (paid.payment_id, paid.status) == (again.payment_id, again.status)
    assert shop.count("submit") == 1


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_key_with_only_a_challenge_is_bound_to_its_body(workers: int) -> None:
    store = SharedStore()
    async with checkout(workers=workers, store=store) as shop:
        challenged = await shop.pay("chinese_shop", "QUICK_PAY:c_2")
        other = await shop.new_request("chinese_shop", "WALLET:ALIPAY")
        with pytest.raises(KeyReused):
            await shop.submit(other, worker=workers - 1)
        assert shop.count("submit") == 0
        assert (await shop.answer(challenged)).status is PaymentStatus.SUCCEEDED
        assert store.holder("body") is None


async def test_without_a_store_a_key_in_two_workers_belongs_to_the_body_sent_first() -> None:
    """Only the token knows the challenge then. The payer is still charged once."""
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


async def test_two_workers_with_a_store_send_one_submit() -> None:
    async with checkout(workers=2, store=SharedStore()) as shop:
        request = await shop.new_request(CASE, METHOD)
        shop.slow_engine(200)
        payments = await asyncio.gather(*(shop.submit(request, worker=number % 2) for number in range(20)))
        assert {payment.status for payment in payments} == {PaymentStatus.SUCCEEDED}
        assert (shop.count("decide"), shop.count("submit")) == (1, 1)


@pytest.mark.parametrize("lost", [None, True])
async def test_two_workers_without_a_store_or_with_a_lost_one_charge_once(lost: bool | None) -> None:
    store = SharedStore() if lost else None
    if store is not None:
        store.lost = True
    async with checkout(workers=2, store=store) as shop:
        request = await shop.new_request(CASE, METHOD)
        shop.slow_engine(200)
        payments = await asyncio.gather(*(shop.submit(request, worker=number % 2) for number in range(20)))
        assert {payment.status for payment in payments} <= {PaymentStatus.SUCCEEDED, PaymentStatus.PROCESSING}
        assert shop.count("submit") <= 2
        assert {body["payment_id"] for body in shop.submissions} == {payments[0].payment_id}
        assert (await shop.look(payments[0])).status is PaymentStatus.SUCCEEDED
        assert shop.payments_that_paid("o_1002") == [payments[0].payment_id]


async def test_a_second_worker_waits_until_the_engine_has_the_payment() -> None:
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
        paid, again = await first, await second
        assert (paid.payment_id, paid.status) == (again.payment_id, again.status)
        assert shop.count("submit") == 1
        assert (await shop.cancel(paid)).status is PaymentStatus.CLOSED
        assert store.holders == {}, "no claim is left in the store"


async def test_a_submit_that_another_worker_holds_too_long_is_in_flight_and_sends_nothing() -> None:
    store = SharedStore()
    async with checkout(store=store) as shop:
        request = await shop.new_request(CASE, METHOD)
        key = _submit_claim(payment_id("m_1", "o_1002", "k1"))
        store.holders[key] = ("another-worker", float("inf"))
        with pytest.raises(InFlight):
            await shop.submit(request)
        assert set(shop.calls) & {"decide", "submit"} == set()
        del store.holders[key]
        assert (await shop.submit(request)).status is PaymentStatus.SUCCEEDED


async def test_a_dead_workers_claim_on_a_submit_expires() -> None:
    store = SharedStore()
    async with checkout(store=store) as shop:
        request = await shop.new_request(CASE, METHOD)
        now_s = asyncio.get_running_loop().time()
        store.holders[_submit_claim(payment_id("m_1", "o_1002", "k1"))] = ("a-dead-worker", now_s + 5)
        assert (await shop.submit(request)).status is PaymentStatus.SUCCEEDED
        assert asyncio.get_running_loop().time() >= now_s + 5


async def test_a_disconnected_client_does_not_stop_its_submit(shop: Checkout) -> None:
    request = await shop.new_request(CASE, METHOD)
    held = shop.held["submit"] = asyncio.Event()
    client = asyncio.create_task(shop.submit(request))
    await asyncio.sleep(1)
    client.cancel()
    with pytest.raises(asyncio.CancelledError):
        await client
    held.set()
    payment = await shop.submit(request)
    assert payment.status is PaymentStatus.SUCCEEDED
    assert shop.count("submit") == 1


async def test_the_number_of_concurrent_submits_is_bounded() -> None:
    async with checkout(most_under_way=1) as shop:
        request, refused = await shop.new_request(CASE, METHOD), await shop.new_request("chinese_shop", "WALLET:ALIPAY")
        held = shop.held["decide"] = asyncio.Event()
        first = asyncio.create_task(shop.submit(request))
        await asyncio.sleep(1)
        with pytest.raises(TooManyPayments):
            await shop.submit(refused)
        held.set()
        assert (await first).status is PaymentStatus.SUCCEEDED


def _submit_claim(payment: str) -> bytes:
    return attempt_leases._store_key(f"submit {payment}")


async def test_the_token_of_a_body_that_never_arrived_can_neither_query_nor_cancel_another_body() -> None:
    # Without a store neither worker knows the other's body.
    async with checkout(workers=2) as shop:
        shop.inject("engine", "cut", on="submit")
        lost = await shop.pay(CASE, METHOD)
        assert lost.status is PaymentStatus.PROCESSING
        taken = await shop.submit(await shop.new_request(CASE, "WALLET:ALIPAY"), worker=1)
        assert (taken.status, taken.payment_id) == (PaymentStatus.ACTION_REQUIRED, lost.payment_id)
        for call in (shop.look(lost), shop.cancel(lost), shop.look(lost, 5_000)):
            with pytest.raises(KeyReused):
                await call
        assert shop.count("reverse") == 0
        shop.settle(taken)
        assert (await shop.look(taken)).status is PaymentStatus.SUCCEEDED


async def test_following_a_body_that_never_arrived_ends_once_another_is_accepted() -> None:
    async with checkout(workers=2) as shop:
        shop.inject("engine", "cut", on="submit")
        lost = await shop.pay(CASE, METHOD)
        payments = [payment async for payment in _following(shop, lost)]
        assert [payment.status for payment in payments] == [PaymentStatus.PROCESSING]


async def _following(shop: Checkout, lost: Payment) -> AsyncIterator[Payment]:
    """Submit another body after the first status."""
    async with aclosing(shop.payments.follow(lost.payment_id, lost.payment_token)) as payments:
        async for payment in payments:
            yield payment
            shop.settle(await shop.submit(await shop.new_request(CASE, "WALLET:ALIPAY"), worker=1))


@pytest.mark.parametrize("reported", [True, False])
async def test_a_worker_whose_body_the_engine_refused_finds_the_one_that_was_first(*, reported: bool) -> None:
    """`reported`: the engine says which body it has."""
    async with checkout(workers=2) as shop:
        if not reported:
            shop.replies = dict.fromkeys(("submit", "look_up"), without_fingerprint(shop))
        first = await shop.new_request(CASE, METHOD)
        other = msgspec.structs.replace(first, return_url="https://shop.example/back")
        held = shop.held["decide"] = asyncio.Event()
        late = asyncio.create_task(shop.submit(other))
        await asyncio.sleep(1)
        del shop.held["decide"]
        paid = await shop.submit(first, worker=1)
        held.set()
        with pytest.raises(KeyReused):
            await late
        again = await shop.submit(first)
        assert (again.payment_id, again.status) == (paid.payment_id, PaymentStatus.SUCCEEDED)
        assert shop.payments_that_paid("o_1002") == [paid.payment_id]

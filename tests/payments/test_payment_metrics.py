"""What is counted about payments: each end and each route once, and what is not known."""

from __future__ import annotations

import asyncio

import pytest

from cashier.domain.payment_state import PaymentStatus
from tests.payments.checkout import Checkout, checkout, connection_refused

pytestmark = pytest.mark.virtual_time

CASE, WALLET = "chinese_shop", "WALLET:ALIPAY"
PAYMENTS, ROUTES = "cashier_payments_total", "cashier_route_total"
UNKNOWN, OLDEST = "cashier_payments_unknown", "cashier_payment_unknown_oldest_seconds"


def counted(shop: Checkout, name: str) -> dict[tuple[str, ...], object]:
    children = shop.workers[0].metrics.snapshot().get(name, {})
    return {labels: count for labels, count in children.items() if count}


@pytest.mark.moves("cashier_payments_total")
@pytest.mark.parametrize("result", ["SUCCEEDED", "FAILED"])
async def test_an_end_counts_once_by_kind_and_status(shop: Checkout, result: str) -> None:
    payment = await shop.pay(CASE, WALLET)
    await shop.look(payment)
    assert counted(shop, PAYMENTS) == {}, "it has not ended"
    shop.settle(payment, result)
    for _ in range(3):
        assert (await shop.look(payment)).status.value == result
    assert counted(shop, PAYMENTS) == {("WALLET", result): 1}


@pytest.mark.moves("cashier_payments_total")
async def test_a_cancelled_payment_counts_as_closed(shop: Checkout) -> None:
    payment = await shop.pay(CASE, WALLET)
    closed = await shop.cancel(payment)
    assert closed.status is PaymentStatus.CLOSED
    assert counted(shop, PAYMENTS) == {("WALLET", "CLOSED"): 1}


@pytest.mark.moves("cashier_route_total")
async def test_a_payment_counts_once_by_its_rule_and_channel(shop: Checkout) -> None:
    await shop.consult(CASE)
    assert counted(shop, ROUTES) == {}
    request = await shop.new_request(CASE, WALLET)
    payment = await shop.submit(request)
    route = payment.route
    assert route is not None
    await shop.submit(request)
    await shop.look(payment)
    assert counted(shop, ROUTES) == {(route.rule, route.channel_id): 1}


@pytest.mark.moves("cashier_payments_unknown", "cashier_payment_unknown_oldest_seconds")
async def test_a_payment_is_unknown_while_no_upstream_says_how_it_ended() -> None:
    async with checkout(most_in_background=10) as shop:
        gauges = [shop.workers[0].metrics.gauge(name) for name in (UNKNOWN, OLDEST)]

        def sampled() -> list[float]:
            shop.workers[0].metrics.snapshot()
            return [gauge.value for gauge in gauges]

        waits = await shop.pay(CASE, WALLET)
        await asyncio.sleep(2)
        assert sampled() == [0, 0], "that its payer has not paid is known"
        shop.replies |= {"look_up": connection_refused, "result": connection_refused}
        await asyncio.sleep(60)
        unknown, age_s = sampled()
        assert unknown == 1
        assert age_s == pytest.approx(62, abs=1)
        shop.replies.clear()
        shop.settle(waits)
        await asyncio.sleep(60)
        assert sampled() == [0, 0]

"""An order that lags behind its own result, and an engine that accepts everything."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import msgspec
import pytest

from cashier.domain.payment_state import PaymentStatus
from cashier.payments import live_attempts
from cashier.payments.errors import AcceptError, OrderBusy
from cashier.payments.live_attempts import LiveAttempts
from cashier.wire.transport import Request, Response
from tests.payments.checkout import Checkout, SharedStore, checkout
from tests.payments.test_live_attempts import FIRST, ORDER, SECOND, LenientEngine, two_requests

pytestmark = pytest.mark.virtual_time


def report_result(shop: Checkout, **result: Any) -> None:
    """What the acquirer reports about the order. Its order itself stays PENDING."""
    body = msgspec.json.encode({"order_id": "o_1001", **result})

    async def reply(_: Request) -> Response:
        return Response(200, body)

    shop.replies["result"] = reply


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("confirmed", ["at once", "by a look", "never"])
async def test_no_second_payment_is_sent_for_an_order_that_is_paid(workers: int, confirmed: str) -> None:
    async with checkout(workers=workers, store=SharedStore() if workers > 1 else None) as shop:
        engine = LenientEngine(shop, "SUCCEEDED")
        first, second = await two_requests(shop)
        if confirmed == "at once":
            report_result(shop, status="PAID", payment_id=FIRST)
        paid = await shop.submit(first, "k1")
        if confirmed == "by a look":
            report_result(shop, status="PAID", payment_id=FIRST)
            paid = await shop.look(paid)
        assert (paid.status is PaymentStatus.SUCCEEDED) == (confirmed != "never")
        for worker in range(workers):
            with pytest.raises(OrderBusy) as busy:
                await shop.submit(second, "k2", worker=worker)
            assert busy.value.payment_id == FIRST
        assert engine.taking == [FIRST]
        assert shop.count("decide") == 1, "risk was not asked about the second"
        again = await shop.submit(first, "k1")
        assert (again.payment_id, again.status) == (FIRST, paid.status)


async def test_an_order_that_another_payment_paid_is_known_from_any_query(shop: Checkout) -> None:
    engine = LenientEngine(shop)
    first, second = await two_requests(shop)
    refused = await shop.submit(first, "k1")
    engine.fail(FIRST)
    report_result(shop, status="PAID", payment_id=SECOND)
    assert (await shop.look(refused)).status is PaymentStatus.FAILED
    with pytest.raises(OrderBusy) as busy:
        await shop.submit(first, "k3")
    assert busy.value.payment_id == SECOND
    assert shop.count("submit") == 1
    assert (await shop.submit(second, "k2")).payment_id == SECOND, "the payment itself goes on"


async def test_an_order_whose_payment_shows_during_the_checks_gets_no_second_one(shop: Checkout) -> None:
    engine = LenientEngine(shop)
    first, second = await two_requests(shop)
    decide = shop._sandbox

    async def paid_meanwhile(request: Request) -> Response:
        shop.payments._attempt_guard._live_attempts.note_paid(ORDER, FIRST, math.inf)
        return await decide(request)

    shop.replies["decide"] = paid_meanwhile
    with pytest.raises(AcceptError):
        await shop.submit(second, "k2")
    assert engine.taking == []
    assert (await shop.submit(first, "k1")).payment_id == FIRST


@pytest.mark.parametrize("workers", [1, 2])
async def test_an_order_that_is_payable_again_after_a_minute_is_paid_again(workers: int) -> None:
    """It does not lag: the acquirer starts it anew, as a sandbox does that is started again."""
    async with checkout(workers=workers, store=SharedStore() if workers > 1 else None) as shop:
        engine = LenientEngine(shop, "SUCCEEDED")
        first, second = await two_requests(shop)
        report_result(shop, status="PAID", payment_id=FIRST)
        await shop.submit(first, "k1")
        await asyncio.sleep(61)
        engine.payments.clear()
        report_result(shop, status="PENDING")
        again = await shop.submit(second, "k2", worker=workers - 1)
        assert again.payment_id == SECOND
        report_result(shop, status="PAID", payment_id=SECOND)
        assert (await shop.look(again)).status is PaymentStatus.SUCCEEDED


def test_the_oldest_paid_order_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_attempts, "MOST_PAID", 2)
    attempts = LiveAttempts()
    for order in ("a", "b", "a", "c"):
        attempts.note_paid(order, "pay", 60)
    assert [attempts.paid_by(order, 59) for order in "abc"] == ["pay", None, "pay"]
    assert attempts.paid_by("a", 60) is None

"""An engine that cannot refuse what it does not have, `seals = false`: only reports end it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cashier.core import Cashier
from cashier.domain.next_action import Await
from cashier.domain.payment_message import MessageCode
from cashier.domain.payment_resource import Payment
from cashier.domain.payment_state import PaymentStatus
from cashier.payments.errors import OrderBusy
from cashier.settings.loader import configuration, load
from cashier.settings.schema import ConfigurationError
from cashier.wire.transport import Request, Response
from tests.payments.checkout import Checkout, checkout

pytestmark = pytest.mark.looptime

CASE, METHOD = "balance_is_enough", "BALANCE:acc_1"
CLOSING = (PaymentStatus.PROCESSING, MessageCode.CLOSING)
CLOSED = (PaymentStatus.CLOSED, MessageCode.CLOSED)


@asynccontextmanager
async def unsealing_checkout(workers: int = 1) -> AsyncIterator[Checkout]:
    async with checkout(workers=workers) as shop:
        for worker in shop.workers:
            engine: Any = shop.payments_of(worker)._ports.engine
            engine._engine._seals = False
        shop.inject("engine", "no_seal", always=True)
        yield shop


async def lost(shop: Checkout, fault: str) -> Payment:
    """A payment whose submit had this fault."""
    shop.inject("engine", fault, on="submit")
    payment = await shop.pay(CASE, METHOD)
    shop.inject("engine", "no_seal", always=True)
    return payment


async def test_a_cancelled_submit_that_arrives_late_is_never_called_closed_before() -> None:
    async with unsealing_checkout() as shop:
        payment = await lost(shop, "arrives_late")
        cancelled = await shop.cancel(payment)
        assert (cancelled.status, cancelled.message.code) == CLOSING
        assert cancelled.poll_after_ms is not None
        await asyncio.sleep(6)
        assert (await shop.look(cancelled)).status is PaymentStatus.SUCCEEDED, "the money moved"
        assert shop.payments_that_paid("o_1002") == [payment.payment_id]


async def test_time_ends_nothing_and_polling_has_an_end() -> None:
    async with unsealing_checkout() as shop:
        payment = await lost(shop, "cut")
        await asyncio.sleep(40)
        overdue = await shop.look(payment)
        assert (overdue.status, overdue.message.code) == CLOSING
        assert isinstance(overdue.next_action, Await)
        polled_until_s = overdue.next_action.until.timestamp() - shop.world.clock().timestamp()
        await asyncio.sleep(polled_until_s + 1)
        late = await shop.look(payment)
        assert (late.status, late.next_action, late.poll_after_ms) == (PaymentStatus.PROCESSING, None, 60_000)


async def test_no_second_attempt_is_sent_while_the_first_may_arrive() -> None:
    async with unsealing_checkout() as shop:
        payment = await lost(shop, "cut")
        cancelled = await shop.cancel(payment)
        assert (cancelled.status, cancelled.message.code) == CLOSING
        other = await shop.new_request(CASE, "BALANCE:acc_2")
        with pytest.raises(OrderBusy):
            await shop.submit(other, "k2")
        assert shop.count("submit") == 1


@pytest.mark.parametrize("sent", [True, False])
async def test_the_end_of_the_order_ends_it_after_the_time_to_arrive(sent: bool) -> None:
    async with unsealing_checkout(workers=2) as shop:
        payment = await (lost(shop, "cut") if sent else shop.pay("chinese_shop", "QUICK_PAY:c_2"))
        cancelled = await shop.cancel(payment)
        assert (cancelled.status, cancelled.message.code) == CLOSING
        shop.world.acquirer.close(payment.order_id)
        assert (await shop.look(cancelled)).status is PaymentStatus.PROCESSING, "it may be on its way"
        await asyncio.sleep(331)
        other = shop.payments_of(shop.workers[1])
        ends = [
            await shop.look(cancelled),
            await shop.look(payment),
            await other.look(payment.payment_id, payment.payment_token),
        ]
        ends.append(await shop.look(ends[0]))
        assert {(end.status, end.message.code) for end in ends} == {CLOSED}
        assert shop.net_taken() == {}


ORDER_OVER = ["ORDER_PAID", "ORDER_CLOSED", "ORDER_EXPIRED", "ORDER_REFUNDED"]


@pytest.mark.parametrize("code", [*ORDER_OVER, "DECLINED", "BALANCE_INSUFFICIENT", "X_NEW"])
async def test_a_submit_that_is_refused_after_that_end_has_ended_as_it_was_reported(code: str) -> None:
    async with unsealing_checkout(workers=2) as shop:
        request = await shop.new_request(CASE, METHOD)
        shop.inject("engine", "cut", on="submit")
        sent = await shop.submit(request)
        shop.inject("engine", "no_seal", always=True)
        shop.world.acquirer.close(sent.order_id)
        await asyncio.sleep(400)
        closed = await shop.look(sent)
        assert (closed.status, closed.message.code) == CLOSED
        body = {"payment_id": sent.payment_id, "status": "FAILED", "failure": {"code": code, "text": ""}}

        async def refused(_: Request) -> Response:
            return Response(200, json.dumps(body).encode())

        shop.replies["look_up"] = refused
        callers = [shop.look(closed), shop.look(sent), shop.submit(request)]
        if code in ORDER_OVER:
            other = shop.payments_of(shop.workers[1])
            callers += [shop.submit(request, worker=1), other.look(sent.payment_id, sent.payment_token)]
        ends = [await caller for caller in callers]
        assert {end.status for end in ends} == {PaymentStatus.CLOSED}
        assert len({end.message.code for end in ends}) == 1


async def test_money_that_comes_after_that_end_is_told() -> None:
    async with unsealing_checkout() as shop:
        payment = await shop.pay("chinese_shop", "QUICK_PAY:c_2")
        shop.world.acquirer.close(payment.order_id)
        await asyncio.sleep(331)
        closed = await shop.look(payment)
        assert (closed.status, closed.message.code) == CLOSED
        shop.world.acquirer._change(
            payment.order_id, status="CLOSED", payment_id=payment.payment_id, paid={"currency": "CNY", "value": 1}
        )
        assert (await shop.look(closed)).status is PaymentStatus.CLOSED_REFUNDING


async def test_a_live_payment_is_reversed_as_ever() -> None:
    async with unsealing_checkout() as shop:
        payment = await shop.pay("chinese_shop", "WALLET:ALIPAY")
        assert (await shop.cancel(payment)).message.code is MessageCode.CANCELLED


@pytest.mark.parametrize(("line", "seals"), [("", True), ("seals = true", True), ("seals = false", False)])
async def test_the_setting_reaches_the_engine(tmp_path: Path, line: str, seals: bool) -> None:
    file = tmp_path / "cashier.toml"
    template = (Path(__file__).parents[2] / "cashier/defaults/cashier.toml").read_text("utf-8")
    file.write_text(template.replace("[sources.engine]\n", f"[sources.engine]\n{line}\n"), "utf-8")
    engine: Any = Cashier(config=load(file)).payments._ports.engine  # type: ignore[union-attr]
    assert engine._engine._seals is seals


@pytest.mark.parametrize("service", ["risk", "acquirer"])
def test_only_the_engine_has_the_setting(service: str) -> None:
    url = {"url": "http://127.0.0.1:9100"}
    sources = {name: url | ({"seals": False} if name == service else {}) for name in ("risk", "engine", "acquirer")}
    with pytest.raises(ConfigurationError, match=rf"\[sources\.{service}\] seals: only the engine reverses payments"):
        configuration({"sources": sources}, "a test")


async def test_a_replaced_submit_that_may_arrive_yet_keeps_its_order_busy() -> None:
    async with unsealing_checkout() as shop:
        payment = await lost(shop, "arrives_late")
        with pytest.raises(OrderBusy) as busy:
            await shop.replace(CASE, payment.payment_id)
        assert busy.value.payment_id == payment.payment_id
        await asyncio.sleep(6)
        replaced = await shop.replace(CASE, payment.payment_id)
        assert (replaced.status, replaced.consultation) == (PaymentStatus.SUCCEEDED, None)
        assert shop.payments_that_paid("o_1002") == [payment.payment_id]

"""What goes wrong around the money: done and the answer lost, not done, done late, done twice, too late, for a closed order."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import aiohttp
import msgspec
import pytest

from cashier.sandbox.contract_shapes import Json
from cashier.sandbox.engine_rules import SubmitBody
from cashier.sandbox.in_process import InjectedFault
from cashier.sandbox.in_process_payments import LocalPayments
from cashier.sandbox.upstream_answer import UpstreamAnswer
from cashier.sandbox.weather import Fault, FaultProfile, PaymentFault, PlannedFault, Weather
from cashier.sandbox.world import World
from tests.sandbox.paying import channel, result, submission

WALLET = (channel("ch_wallet_alipay"),)
SCAN: dict[str, Any] = {
    "order_id": "o_1014",
    "merchant_id": "m_2",
    "legs": (channel("ch_cqr_wechat", value=2_800),),
    "auth_code": "134567890123456780",
}


@pytest.fixture
def payments(world: World, weather: Weather) -> LocalPayments:
    return LocalPayments(world, weather)


def body(sent: SubmitBody) -> Json:
    told: Json = msgspec.to_builtins(sent)
    return told


def befall(weather: Weather, fault: Fault | PaymentFault, on: str = "submit", source: str = "engine") -> None:
    weather.change(source, FaultProfile(weather.start(source).latency, next=(PlannedFault(fault, on),)))


async def submit(payments: LocalPayments, sent: SubmitBody) -> UpstreamAnswer:
    return await payments.submit(body(sent), sent.payment_id)


async def status(payments: LocalPayments) -> str | int:
    """Of `pay_1`: its status, or 404."""
    answer = await payments.look_up("pay_1")
    return str(answer.body["status"]) if answer.status == 200 else answer.status


@pytest.mark.parametrize("fault", [Fault.RESET, Fault.TRUNCATE])
async def test_an_answer_is_lost_after_the_money_was_taken(
    payments: LocalPayments, world: World, weather: Weather, fault: Fault
) -> None:
    befall(weather, fault)
    with pytest.raises(InjectedFault):
        await submit(payments, submission(world))
    assert await status(payments) == "SUCCEEDED"
    assert result(world).status == "PAID"


async def test_garbage_is_answered_after_the_money_was_taken(
    payments: LocalPayments, world: World, weather: Weather
) -> None:
    befall(weather, Fault.GARBAGE)
    assert (await submit(payments, submission(world))).body == {"unexpected": []}
    assert await status(payments) == "SUCCEEDED"


@pytest.mark.parametrize("fault", [Fault.ERROR, Fault.OVERLOAD, PaymentFault.CUT])
async def test_nothing_was_done_and_the_same_payment_goes_through_when_it_is_sent_again(
    payments: LocalPayments, world: World, weather: Weather, fault: Fault | PaymentFault
) -> None:
    befall(weather, fault)
    with pytest.raises(InjectedFault) as trouble:
        await submit(payments, submission(world))
    assert trouble.value.fault is fault
    assert await status(payments) == 404
    assert (await submit(payments, submission(world))).body["status"] == "SUCCEEDED"


@pytest.mark.looptime
@pytest.mark.parametrize(("fault", "then"), [(Fault.HANG, "SUCCEEDED"), (PaymentFault.SWALLOW, 404)])
async def test_silence_says_nothing_of_what_was_done(
    payments: LocalPayments, world: World, weather: Weather, fault: Fault | PaymentFault, then: str | int
) -> None:
    befall(weather, fault)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(submit(payments, submission(world)), 60)
    assert await status(payments) == then


async def test_a_payment_that_was_not_there_arrives_late(
    payments: LocalPayments, world: World, weather: Weather
) -> None:
    befall(weather, PaymentFault.ARRIVES_LATE)
    with pytest.raises(InjectedFault):
        await submit(payments, submission(world))
    assert await status(payments) == 404
    world.clock.advance(timedelta(seconds=5))
    assert await status(payments) == "SUCCEEDED"
    assert result(world).status == "PAID"


async def test_a_payment_that_arrives_after_its_reverse_takes_nothing(
    payments: LocalPayments, world: World, weather: Weather
) -> None:
    befall(weather, PaymentFault.ARRIVES_LATE)
    with pytest.raises(InjectedFault):
        await submit(payments, submission(world))
    assert (await payments.reverse("pay_1")).status == 404
    world.clock.advance(timedelta(seconds=5))
    assert await status(payments) == "FAILED"
    assert [entry.what for entry in world.ledger.entries] == ["REFUSED"]


async def test_a_payment_that_arrives_twice_takes_money_once(
    payments: LocalPayments, world: World, weather: Weather
) -> None:
    befall(weather, PaymentFault.DUPLICATE)
    assert (await submit(payments, submission(world))).body["status"] == "SUCCEEDED"
    world.clock.advance(timedelta(seconds=5))
    assert await status(payments) == "SUCCEEDED"
    assert world.audit() == []
    assert len([entry for entry in world.ledger.entries if entry.what == "TAKEN"]) == 1


async def test_a_bank_that_says_no_leaves_the_order_to_be_paid(
    payments: LocalPayments, world: World, weather: Weather
) -> None:
    befall(weather, PaymentFault.DECLINE)
    assert (await submit(payments, submission(world))).body["failure"]["code"] == "CHANNEL_DECLINED"
    assert result(world).status == "PENDING"


@pytest.mark.parametrize(("sent", "says"), [(SCAN, "USER_PAYING"), ({}, "PROCESSING")])
async def test_a_stalled_payment_is_under_way_until_it_is_reversed(
    payments: LocalPayments, world: World, weather: Weather, sent: dict[str, Any], says: str
) -> None:
    befall(weather, PaymentFault.STALL)
    await submit(payments, submission(world, **sent))
    world.clock.advance(timedelta(hours=1))
    assert [await status(payments) for _ in range(5)] == [says] * 5
    assert (await payments.reverse("pay_1")).body["status"] == "FAILED"


async def test_a_reverse_comes_too_late_for_money_that_came_just_before(
    payments: LocalPayments, world: World, weather: Weather
) -> None:
    await submit(payments, submission(world, **SCAN | {"auth_code": "139"}))
    befall(weather, PaymentFault.PAY_FIRST, on="reverse")
    assert (await payments.reverse("pay_1")).body["status"] == "SUCCEEDED"
    assert result(world, "o_1014").status == "PAID"


@pytest.mark.parametrize("legs", [WALLET, (channel("ch_quick_cmb", "c_2"),)])
async def test_an_order_that_closes_just_before_its_money_comes_gives_it_back(
    payments: LocalPayments, world: World, weather: Weather, legs: tuple[Json, ...]
) -> None:
    befall(weather, PaymentFault.CLOSE_FIRST)
    await submit(payments, submission(world, legs=legs))
    world.engine.settle("pay_1", "SUCCEEDED")
    assert await status(payments) == "SUCCEEDED"
    assert (await payments.result("o_1001")).body["status"] == "CLOSED_REFUNDING"
    assert world.audit() == []


async def test_a_risk_decision_that_is_cut_off_was_not_made(
    payments: LocalPayments, world: World, weather: Weather
) -> None:
    befall(weather, PaymentFault.CUT, on="decide", source="risk")
    parties = {"payment_id": "pay_1", "order_id": "o_1001", "user_id": "u_1", "merchant_id": "m_1", "kind": "QUICK_PAY"}
    asked = parties | {"amount": {"currency": "CNY", "value": 12_800}}
    with pytest.raises(InjectedFault):
        await payments.decide(asked)
    assert "payments=0" in repr(world.risk)
    told = (await payments.decide(asked)).body["challenge"]["challenge_id"]
    assert (await payments.verify(told, {"payment_id": "pay_1", "value": "246810"})).body["status"] == "PASSED"
    assert (await payments.verify("none", {"payment_id": "pay_1", "value": "246810"})).status == 404


async def test_a_body_that_breaks_the_contract_is_refused_as_over_http(
    payments: LocalPayments, client: aiohttp.ClientSession
) -> None:
    broken = {"payment_id": "pay_1"}
    told = await payments.submit(broken, "pay_1")
    async with client.post("/payments", json=broken, headers={"Idempotency-Key": "pay_1"}) as response:
        assert (told.status, told.body) == (response.status, await response.json())


@pytest.mark.parametrize(("fault", "then"), [("reset", 200), ("cut", 404), ("arrives_late", 404)])
async def test_over_http_a_lost_connection_says_nothing_of_what_was_done(
    client: aiohttp.ClientSession, world: World, fault: str, then: int
) -> None:
    async with client.put("/weather/engine", json={"next": [{"fault": fault, "on": "submit"}]}) as response:
        assert (await response.json())["engine"]["next"] == [{"fault": fault, "on": "submit"}]
    sent = submission(world)
    with pytest.raises(aiohttp.ClientError):
        await client.post("/payments", json=body(sent), headers={"Idempotency-Key": "pay_1"})
    async with client.get("/payments/pay_1") as response:
        assert response.status == then
    async with client.post("/clock", json={"advance_s": 5}) as response:
        assert response.status == 200
    async with client.get("/payments/pay_1") as response:
        assert response.status == (404 if fault == "cut" else 200)
    async with client.get("/weather") as response:
        assert (await response.json())["engine"]["next"] == []


async def test_over_http_a_swallowed_request_hangs_and_leaves_nothing(
    client: aiohttp.ClientSession, world: World
) -> None:
    await client.put("/weather/engine", json={"next": ["swallow"]})
    sent = asyncio.create_task(
        client.post("/payments", json=body(submission(world)), headers={"Idempotency-Key": "pay_1"})
    )
    while "swallow" in str(await (await client.get("/weather")).json()):
        assert not sent.done()
    sent.cancel()
    await asyncio.gather(sent, return_exceptions=True)
    assert (await client.get("/payments/pay_1")).status == 404

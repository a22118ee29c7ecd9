"""Payment faults: done with a lost answer, not done, done late, done twice, for a closed order."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import aiohttp
import msgspec
import pytest

from cashier.sandbox.decline_rules import SubmitBody
from cashier.sandbox.in_process_payments import LocalPayments
from cashier.sandbox.in_process_sources import InjectedFault
from cashier.sandbox.records import Json
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


def body(submitted: SubmitBody) -> Json:
    builtins: Json = msgspec.to_builtins(submitted)
    return builtins


def plan_fault(weather: Weather, fault: Fault | PaymentFault, on: str = "submit", source: str = "engine") -> None:
    weather.change(source, FaultProfile(weather.start(source).latency, next=(PlannedFault(fault, on),)))


async def submit(payments: LocalPayments, submitted: SubmitBody) -> UpstreamAnswer:
    return await payments.submit(body(submitted), submitted.payment_id)


async def status(payments: LocalPayments) -> str | int:
    """The status of `pay_1`, or 404."""
    answer = await payments.look_up("pay_1")
    return str(answer.body["status"]) if answer.status == 200 else answer.status


@pytest.mark.parametrize("fault", [Fault.RESET, Fault.TRUNCATE])
async def test_the_money_is_taken_when_the_answer_is_lost(
    payments: LocalPayments, world: World, weather: Weather, fault: Fault
) -> None:
    plan_fault(weather, fault)
    with pytest.raises(InjectedFault):
        await submit(payments, submission(world))
    assert await status(payments) == "SUCCEEDED"
    assert result(world).status == "PAID"


async def test_the_money_is_taken_when_the_answer_is_garbage(
    payments: LocalPayments, world: World, weather: Weather
) -> None:
    plan_fault(weather, Fault.GARBAGE)
    assert (await submit(payments, submission(world))).body == {"unexpected": []}
    assert await status(payments) == "SUCCEEDED"


@pytest.mark.parametrize("fault", [Fault.ERROR, Fault.OVERLOAD, PaymentFault.CUT])
async def test_a_payment_that_was_not_done_can_be_sent_again(
    payments: LocalPayments, world: World, weather: Weather, fault: Fault | PaymentFault
) -> None:
    plan_fault(weather, fault)
    with pytest.raises(InjectedFault) as raised:
        await submit(payments, submission(world))
    assert raised.value.fault is fault
    assert await status(payments) == 404
    assert (await submit(payments, submission(world))).body["status"] == "SUCCEEDED"


@pytest.mark.virtual_time
@pytest.mark.parametrize(("fault", "expected"), [(Fault.HANG, "SUCCEEDED"), (PaymentFault.SWALLOW, 404)])
async def test_a_hang_can_mean_done_or_not_done(
    payments: LocalPayments, world: World, weather: Weather, fault: Fault | PaymentFault, expected: str | int
) -> None:
    plan_fault(weather, fault)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(submit(payments, submission(world)), 60)
    assert await status(payments) == expected


async def test_an_unknown_payment_can_arrive_late(payments: LocalPayments, world: World, weather: Weather) -> None:
    plan_fault(weather, PaymentFault.ARRIVES_LATE)
    with pytest.raises(InjectedFault):
        await submit(payments, submission(world))
    assert await status(payments) == 404
    world.clock.advance(timedelta(seconds=5))
    assert await status(payments) == "SUCCEEDED"
    assert result(world).status == "PAID"


async def test_a_payment_that_arrives_after_its_reverse_takes_nothing(
    payments: LocalPayments, world: World, weather: Weather
) -> None:
    plan_fault(weather, PaymentFault.ARRIVES_LATE)
    with pytest.raises(InjectedFault):
        await submit(payments, submission(world))
    assert (await payments.reverse("pay_1")).status == 404
    world.clock.advance(timedelta(seconds=5))
    assert await status(payments) == "FAILED"
    assert [entry.what for entry in world.ledger.entries] == ["REFUSED"]


async def test_a_payment_that_arrives_twice_takes_money_once(
    payments: LocalPayments, world: World, weather: Weather
) -> None:
    plan_fault(weather, PaymentFault.DUPLICATE)
    assert (await submit(payments, submission(world))).body["status"] == "SUCCEEDED"
    world.clock.advance(timedelta(seconds=5))
    assert await status(payments) == "SUCCEEDED"
    assert world.audit() == []
    assert len([entry for entry in world.ledger.entries if entry.what == "TAKEN"]) == 1


async def test_a_declined_payment_leaves_the_order_payable(
    payments: LocalPayments, world: World, weather: Weather
) -> None:
    plan_fault(weather, PaymentFault.DECLINE)
    assert (await submit(payments, submission(world))).body["failure"]["code"] == "CHANNEL_DECLINED"
    assert result(world).status == "PENDING"


@pytest.mark.parametrize(("fields", "expected"), [(SCAN, "USER_PAYING"), ({}, "PROCESSING")])
async def test_a_stalled_payment_stays_live_until_reversed(
    payments: LocalPayments, world: World, weather: Weather, fields: dict[str, Any], expected: str
) -> None:
    plan_fault(weather, PaymentFault.STALL)
    await submit(payments, submission(world, **fields))
    world.clock.advance(timedelta(hours=1))
    assert [await status(payments) for _ in range(5)] == [expected] * 5
    assert (await payments.reverse("pay_1")).body["status"] == "FAILED"


async def test_a_reverse_is_too_late_for_a_payment_made_just_before(
    payments: LocalPayments, world: World, weather: Weather
) -> None:
    await submit(payments, submission(world, **SCAN | {"auth_code": "139"}))
    plan_fault(weather, PaymentFault.PAY_FIRST, on="reverse")
    assert (await payments.reverse("pay_1")).body["status"] == "SUCCEEDED"
    assert result(world, "o_1014").status == "PAID"


@pytest.mark.parametrize("legs", [WALLET, (channel("ch_quick_cmb", "c_2"),)])
async def test_an_order_closed_just_before_the_payment_returns_the_money(
    payments: LocalPayments, world: World, weather: Weather, legs: tuple[Json, ...]
) -> None:
    plan_fault(weather, PaymentFault.CLOSE_FIRST)
    await submit(payments, submission(world, legs=legs))
    world.engine.settle("pay_1", "SUCCEEDED")
    assert await status(payments) == "SUCCEEDED"
    assert (await payments.result("o_1001")).body["status"] == "CLOSED_REFUNDING"
    assert world.audit() == []


async def test_a_cut_risk_decision_is_not_made(payments: LocalPayments, world: World, weather: Weather) -> None:
    plan_fault(weather, PaymentFault.CUT, on="decide", source="risk")
    parties = {"payment_id": "pay_1", "order_id": "o_1001", "user_id": "u_1", "merchant_id": "m_1", "kind": "QUICK_PAY"}
    inquiry = parties | {"amount": {"currency": "CNY", "value": 12_800}}
    with pytest.raises(InjectedFault):
        await payments.decide(inquiry)
    assert "payments=0" in repr(world.risk)
    challenge_id = (await payments.decide(inquiry)).body["challenge"]["challenge_id"]
    assert (await payments.verify(challenge_id, {"payment_id": "pay_1", "value": "246810"})).body["status"] == "PASSED"
    assert (await payments.verify("none", {"payment_id": "pay_1", "value": "246810"})).status == 404


async def test_a_body_that_breaks_the_contract_is_refused_as_over_http(
    payments: LocalPayments, client: aiohttp.ClientSession
) -> None:
    broken = {"payment_id": "pay_1"}
    answer = await payments.submit(broken, "pay_1")
    async with client.post("/payments", json=broken, headers={"Idempotency-Key": "pay_1"}) as response:
        assert (answer.status, answer.body) == (response.status, await response.json())


@pytest.mark.parametrize(("fault", "expected"), [("reset", 200), ("cut", 404), ("arrives_late", 404)])
async def test_over_http_a_lost_connection_can_mean_done_or_not_done(
    client: aiohttp.ClientSession, world: World, fault: str, expected: int
) -> None:
    async with client.put("/weather/engine", json={"next": [{"fault": fault, "on": "submit"}]}) as response:
        assert (await response.json())["engine"]["next"] == [{"fault": fault, "on": "submit"}]
    submitted = submission(world)
    with pytest.raises(aiohttp.ClientError):
        await client.post("/payments", json=body(submitted), headers={"Idempotency-Key": "pay_1"})
    async with client.get("/payments/pay_1") as response:
        assert response.status == expected
    async with client.post("/clock", json={"advance_s": 5}) as response:
        assert response.status == 200
    async with client.get("/payments/pay_1") as response:
        assert response.status == (404 if fault == "cut" else 200)
    async with client.get("/weather") as response:
        assert (await response.json())["engine"]["next"] == []


async def test_over_http_a_swallowed_request_hangs_and_does_nothing(
    client: aiohttp.ClientSession, world: World
) -> None:
    await client.put("/weather/engine", json={"next": ["swallow"]})
    request = asyncio.create_task(
        client.post("/payments", json=body(submission(world)), headers={"Idempotency-Key": "pay_1"})
    )
    while "swallow" in str(await (await client.get("/weather")).json()):
        assert not request.done()
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    assert (await client.get("/payments/pay_1")).status == 404

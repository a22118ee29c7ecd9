"""The sources in the process: the same answers and the same weather as over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import aiohttp
import pytest

from cashier.sandbox.in_process_sources import InjectedFault, LocalUpstreams
from cashier.sandbox.records import Json
from cashier.sandbox.weather import Constant, Fault, FaultProfile, Weather
from cashier.sandbox.world import World


class Amount(NamedTuple):
    currency: str
    value: int


CALLS: dict[str, tuple[dict[str, Any], str]] = {
    "order": ({"order_id": "o_1001"}, "/orders/o_1001"),
    "merchant": ({"merchant_id": "m_1"}, "/merchants/m_1"),
    "member": ({"user_id": "u_1"}, "/members/u_1"),
    "card": ({"user_id": "u_1"}, "/members/u_1/cards"),
    "balance": ({"user_id": "u_1"}, "/members/u_1/balances"),
    "marketing": (
        {"user_id": "u_1", "merchant_id": "m_1", "amount": Amount("CNY", 12_800)},
        "/members/u_1/promotions?merchant_id=m_1&currency=CNY&value=12800",
    ),
    "channel": ({"currency": "CNY", "country": "CN"}, "/channels?currency=CNY&country=CN"),
    "quota": ({"user_id": "u_1", "currency": "CNY"}, "/members/u_1/quotas?currency=CNY"),
}


@pytest.fixture
def local(world: World, weather: Weather) -> LocalUpstreams:
    return LocalUpstreams(world, weather)


def fault_on_cards(weather: Weather, fault: Fault) -> None:
    weather.change("card", FaultProfile(Constant(0), faults={fault: 10_000}))


async def call(local: LocalUpstreams, source: str) -> Json | None:
    return await local[source](**CALLS[source][0])


def test_there_is_one_function_for_each_source_of_a_consultation(local: LocalUpstreams) -> None:
    assert set(local) == set(CALLS)
    assert len(local) == len(CALLS)


@pytest.mark.parametrize("source", CALLS)
async def test_a_function_returns_the_body_of_the_http_answer(
    local: LocalUpstreams, client: aiohttp.ClientSession, source: str
) -> None:
    answer = await call(local, source)
    async with client.get(CALLS[source][1]) as response:
        assert await response.json() == answer


async def test_a_404_is_none(local: LocalUpstreams) -> None:
    assert await local["card"](user_id="u_5") is None
    assert await local["order"](order_id="o_404") is None


async def test_an_amount_may_be_an_object_or_a_mapping(local: LocalUpstreams) -> None:
    mapping = {"currency": "CNY", "value": 12_800}
    assert await local["marketing"](user_id="u_1", merchant_id="m_1", amount=mapping) == await call(local, "marketing")


async def test_a_malformed_parameter_is_the_callers_bug(local: LocalUpstreams) -> None:
    with pytest.raises(ValueError, match="currency must be three capital letters"):
        await local["quota"](user_id="u_1", currency="yuan")


@pytest.mark.virtual_time
async def test_an_answer_has_the_latency_of_the_weather(local: LocalUpstreams, weather: Weather) -> None:
    weather.change("card", FaultProfile(Constant(40)))
    weather.change("order", FaultProfile(Constant(25)))
    start = asyncio.get_running_loop().time()
    await asyncio.gather(call(local, "card"), call(local, "order"))
    assert asyncio.get_running_loop().time() - start == pytest.approx(0.040)


@pytest.mark.virtual_time
async def test_a_slow_body_takes_a_second(local: LocalUpstreams, weather: Weather) -> None:
    complete = await call(local, "card")
    fault_on_cards(weather, Fault.SLOW_BODY)
    start = asyncio.get_running_loop().time()
    assert await call(local, "card") == complete
    assert asyncio.get_running_loop().time() - start == pytest.approx(1.0)


@pytest.mark.virtual_time
async def test_a_hang_waits_until_it_is_cancelled(local: LocalUpstreams, weather: Weather) -> None:
    fault_on_cards(weather, Fault.HANG)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(call(local, "card"), 3_600)


@pytest.mark.parametrize("fault", [Fault.ERROR, Fault.OVERLOAD, Fault.TRUNCATE, Fault.RESET])
async def test_a_suppressed_answer_raises_its_fault(local: LocalUpstreams, weather: Weather, fault: Fault) -> None:
    fault_on_cards(weather, fault)
    with pytest.raises(InjectedFault) as raised:
        await call(local, "card")
    assert (raised.value.source, raised.value.fault) == ("card", fault)
    assert (raised.value.retry_after_s is not None) == (fault is Fault.OVERLOAD)


async def test_garbage_has_none_of_the_agreed_fields(local: LocalUpstreams, weather: Weather) -> None:
    fault_on_cards(weather, Fault.GARBAGE)
    answer = await call(local, "card")
    assert answer is not None
    assert not {"user_id", "cards", "agreements"} & set(answer)


async def test_a_wrong_identity_is_about_another_user(local: LocalUpstreams, weather: Weather) -> None:
    fault_on_cards(weather, Fault.WRONG_IDENTITY)
    answer = await call(local, "card")
    assert answer is not None
    assert answer["user_id"] != "u_1"
    weather.restore()
    restored = await call(local, "card")
    assert restored is not None
    assert restored["user_id"] == "u_1", "the shared answer is unchanged"

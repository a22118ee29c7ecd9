"""Faults as a client sees them on a real socket, and a server that stops under any fault."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from cashier.sandbox.server import create_app, serve
from cashier.sandbox.source_table import SOURCES
from cashier.sandbox.weather import CallConditions, Weather
from cashier.sandbox.weather_presets import weather_named
from cashier.sandbox.world import World

CARDS = b"GET /members/u_1/cards HTTP/1.1\r\nHost: sandbox\r\n\r\n"
ALL = 10_000

Send = Callable[[bytes], Awaitable[asyncio.StreamReader]]


class WatchedWeather(Weather):
    """Sets `drawn` when a call has drawn its conditions; from then on it is inside the server."""

    drawn: asyncio.Event

    def draw(self, source: str) -> CallConditions:
        self.drawn.set()
        return super().draw(source)


@pytest.fixture
def weather() -> Weather:
    weather = WatchedWeather(weather_named("still")._start, seed=7)
    weather.drawn = asyncio.Event()
    return weather


@pytest.fixture
async def send(port: int) -> AsyncIterator[Send]:
    """Send raw bytes on a new connection."""
    writers: list[asyncio.StreamWriter] = []

    async def send(request: bytes) -> asyncio.StreamReader:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writers.append(writer)
        writer.write(request)
        return reader

    yield send
    for writer in writers:
        writer.close()


async def put(client: aiohttp.ClientSession, source: str, body: object) -> tuple[int, Any]:
    async with client.put(f"/weather/{source}", json=body) as response:
        return response.status, await response.json()


async def read_head(reader: asyncio.StreamReader) -> bytes:
    return await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)


def content_length(head: bytes) -> int:
    return int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])


def request_tasks() -> set[asyncio.Task[Any]]:
    return {task for task in asyncio.all_tasks() if "_handle_request" in repr(task.get_coro())}


async def test_an_error_is_a_500_with_a_code(client: aiohttp.ClientSession) -> None:
    await put(client, "card", {"faults": {"error": ALL}})
    async with client.get("/members/u_1/cards") as response:
        assert (response.status, await response.json()) == (500, {"code": "INTERNAL"})


async def test_an_overload_is_a_503_with_retry_after(client: aiohttp.ClientSession) -> None:
    await put(client, "card", {"faults": {"overload": ALL}})
    async with client.get("/members/u_1/cards") as response:
        assert (response.status, response.headers["Retry-After"]) == (503, "1")


async def test_garbage_is_a_200_that_breaks_the_contract(client: aiohttp.ClientSession) -> None:
    await put(client, "card", {"faults": {"garbage": ALL}})
    seen = set()
    for _ in range(20):
        async with client.get("/members/u_1/cards") as response:
            assert response.status == 200
            seen.add(await response.read())
    assert len(seen) == 3
    assert all(b'"agreements"' not in body or body.startswith(b"\xff") for body in seen)


async def test_a_wrong_identity_is_a_complete_answer_about_another_user(client: aiohttp.ClientSession) -> None:
    await put(client, "card", {"faults": {"wrong_identity": ALL}})
    async with client.get("/members/u_1/cards") as response:
        answer = await response.json()
    assert answer["user_id"] != "u_1"
    assert len(answer["cards"]) == 5


async def test_a_truncated_answer_is_shorter_than_its_content_length(client: aiohttp.ClientSession, send: Send) -> None:
    await put(client, "card", {"faults": {"truncate": ALL}})
    reader = await send(CARDS)
    announced = content_length(await read_head(reader))
    received = await asyncio.wait_for(reader.read(), 30)
    assert 0 < len(received) < announced


async def test_a_reset_ends_the_connection_without_an_answer(client: aiohttp.ClientSession, send: Send) -> None:
    await put(client, "card", {"faults": {"reset": ALL}})
    reader = await send(CARDS)
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(), 30)


async def test_a_slow_body_arrives_complete_in_pieces(
    client: aiohttp.ClientSession, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cashier.sandbox.response_faults.SLOW_BODY_PAUSE_S", 0.001)
    async with client.get("/members/u_1/cards") as response:
        complete = await response.read()
    await put(client, "card", {"faults": {"slow_body": ALL}})
    reader = await send(CARDS)
    length = content_length(await read_head(reader))
    first = await asyncio.wait_for(reader.read(length), 30)
    assert 0 < len(first) < length
    assert first + await asyncio.wait_for(reader.readexactly(length - len(first)), 30) == complete


async def test_a_hang_affects_only_its_source(client: aiohttp.ClientSession, send: Send) -> None:
    await put(client, "card", {"faults": {"hang": ALL}})
    reader = await send(CARDS)
    hanging = asyncio.create_task(reader.read(1))
    async with client.get("/members/u_1") as response:
        assert response.status == 200
    assert not hanging.done()
    hanging.cancel()
    await asyncio.gather(hanging, return_exceptions=True)


async def test_a_hang_ends_when_its_client_disconnects(
    port: int, weather: WatchedWeather, client: aiohttp.ClientSession
) -> None:
    await put(client, "card", {"faults": {"hang": ALL}})
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(CARDS)
    await asyncio.wait_for(weather.drawn.wait(), 30)
    hanging = request_tasks()
    assert hanging
    writer.close()
    _, pending = await asyncio.wait(hanging, timeout=30)
    assert not pending


@pytest.mark.parametrize(
    "profile",
    [{"faults": {"hang": ALL}}, {"latency": {"shape": "constant", "ms": 600_000}}, {"faults": {"slow_body": ALL}}],
)
async def test_no_fault_keeps_the_server_from_stopping(world: World, weather: WatchedWeather, profile: object) -> None:
    async with asyncio.timeout(30):
        async with serve(port=0, world=world, weather=weather) as port:
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
                await put(client, "card", profile)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(CARDS)
            await weather.drawn.wait()
        await asyncio.gather(reader.read(), return_exceptions=True)
        writer.close()
    assert not request_tasks()


async def test_a_hang_ends_with_the_server_even_without_handler_cancellation(
    world: World, weather: WatchedWeather
) -> None:
    runner = web.AppRunner(create_app(world, weather), access_log=None, shutdown_timeout=60)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
        await put(client, "card", {"faults": {"hang": ALL}})
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(CARDS)
    await asyncio.wait_for(weather.drawn.wait(), 30)
    await asyncio.wait_for(runner.cleanup(), 30)
    assert await reader.read() == b""
    writer.close()


@pytest.mark.parametrize("fault", ["hang", "truncate", "reset", "garbage"])
async def test_the_work_is_done_when_its_answer_is_lost(
    client: aiohttp.ClientSession, world: World, weather: WatchedWeather, fault: str
) -> None:
    await put(client, "risk", {"faults": {fault: ALL}})
    inquiry = {"payment_id": "pay_1", "order_id": "o_1", "user_id": "u_7", "merchant_id": "m_1", "kind": "CARD"}
    body = inquiry | {"amount": {"currency": "CNY", "value": 1}}

    async def lose_the_answer() -> None:
        async with client.post("/risk/decisions", json=body) as response:
            await response.read()

    request = asyncio.create_task(lose_the_answer())
    await asyncio.wait_for(weather.drawn.wait(), 30)
    assert "payments=1" in repr(world.risk)
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)


@pytest.mark.parametrize("fault", ["error", "overload"])
async def test_the_work_is_not_done_when_it_is_refused(client: aiohttp.ClientSession, world: World, fault: str) -> None:
    await put(client, "engine", {"faults": {fault: ALL}})
    async with client.post("/payments/pay_1/reverse") as response:
        assert response.status >= 500
    assert world.engine._reversed_before_arrival == {}


async def test_weather_can_be_changed_and_restored_while_the_server_runs(client: aiohttp.ClientSession) -> None:
    before = (await (await client.get("/weather")).json())["card"]
    status, answer = await put(
        client, "card", {"latency": {"shape": "uniform", "low_ms": 0, "high_ms": 1}, "faults": {"error": ALL}}
    )
    assert (status, answer["card"]["faults"], answer["card"]["latency"]["shape"]) == (200, {"error": ALL}, "uniform")
    assert (await client.get("/members/u_1/cards")).status == 500
    async with client.delete("/weather/card") as response:
        assert (await response.json())["card"] == before
    assert (await client.get("/members/u_1/cards")).status == 200
    await put(client, "card", {"faults": {"error": ALL}})
    async with client.delete("/weather") as response:
        assert set(await response.json()) == set(SOURCES)
    assert (await client.get("/members/u_1/cards")).status == 200


async def test_missing_parts_of_a_change_are_reset_to_the_start(
    client: aiohttp.ClientSession,
) -> None:
    await put(client, "card", {"faults": {"error": ALL}})
    _, answer = await put(client, "card", {"latency": {"shape": "constant", "ms": 1}})
    assert answer["card"]["faults"] == {}


@pytest.mark.parametrize(
    ("source", "body", "field", "nearest"),
    [
        ("crad", {}, "source", "card"),
        ("card", {"faults": {"hnag": 1}}, "faults.hnag", "hang"),
        ("card", {"faults": {"hang": 10_001}}, "faults.hang", 10_000),
    ],
)
async def test_an_invalid_profile_gets_a_400_and_changes_nothing(
    client: aiohttp.ClientSession, source: str, body: object, field: str, nearest: object
) -> None:
    before = await (await client.get("/weather")).json()
    status, answer = await put(client, source, body)
    assert (status, answer["code"], answer["field"], answer["nearest"]) == (400, "BAD_WEATHER", field, nearest)
    assert await (await client.get("/weather")).json() == before


async def test_a_misspelt_source_cannot_be_restored(client: aiohttp.ClientSession) -> None:
    async with client.delete("/weather/crad") as response:
        assert (response.status, (await response.json())["nearest"]) == (400, "card")


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("order", "/orders/o_1001"),
        ("acquirer", "/orders/o_1001/result"),
        ("merchant", "/merchants/m_1"),
        ("member", "/members/u_1"),
        ("card", "/members/u_1/cards"),
        ("balance", "/members/u_1/balances"),
        ("marketing", "/members/u_1/promotions?merchant_id=m_1&currency=CNY&value=1"),
        ("channel", "/channels?currency=CNY&country=CN"),
        ("quota", "/members/u_1/quotas?currency=CNY"),
        ("engine", "/payments/pay_none"),
    ],
)
async def test_every_endpoint_is_under_the_weather_of_its_own_source(
    client: aiohttp.ClientSession, source: str, path: str
) -> None:
    await put(client, source, {"faults": {"error": ALL}})
    async with client.get(path) as response:
        assert response.status == 500
    await put(client, source, {"faults": {}})
    for other_source in (name for name in SOURCES if name != source):
        await put(client, other_source, {"faults": {"error": ALL}})
    async with client.get(path) as response:
        assert response.status != 500

"""The merchant's service that creates orders: once per key, also if the network fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from cashier.domain.money import Money
from cashier.pages import order_creation
from cashier.pages.order_creation import OrderNotCreated, Orders, OrdersByHttp, Sale
from cashier.sandbox.server import serve
from cashier.sandbox.world import World
from cashier.wire.http1 import Http1Client, Http1Settings
from cashier.wire.transport import CallHeaders
from tests.wire.client_side import PATIENT

SALE = Sale(merchant_id="m_5", terminal_id="till-1", amount=Money("CNY", 1_250), note="Two buns")
HEADERS = CallHeaders("r-1")


class Service:
    """Answers with `answers` in turn; None closes the connection."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, str] | None] = []
        self.requests: list[tuple[str, bytes, str, str]] = []
        self.url = ""
        # Of a request whose answer is withheld: has come, may be answered.
        self.came, self.may_answer = asyncio.Event(), asyncio.Event()
        self.may_answer.set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        headers = request.headers
        self.requests.append(
            (request.path_qs, await request.read(), headers["Idempotency-Key"], headers["X-Request-Id"])
        )
        self.came.set()
        await self.may_answer.wait()
        answer = self.answers.pop(0)
        if answer is None:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        return web.Response(status=answer[0], text=answer[1])


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a hang is a call that takes too long."""
    monkeypatch.setattr(order_creation, "_BUDGET_MS", 30_000)
    monkeypatch.setattr(order_creation, "Http1Client", lambda urls: Http1Client(urls, Http1Settings(**PATIENT)))


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    fake = Service()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", fake.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hooks/orders?shop=1"
    yield fake
    await runner.cleanup()


async def create(url: str, key: str = "k1") -> str:
    orders = OrdersByHttp(url)
    try:
        return (await orders(SALE, key, HEADERS)).order_id
    finally:
        await orders.close()


async def test_the_sandbox_creates_the_order_once_per_key() -> None:
    world = World()
    async with serve(port=0, world=world) as port:
        url = f"http://127.0.0.1:{port}/orders"
        first, again, other = [await create(url, key) for key in ("k1", "k1", "k2")]
    assert first == again != other
    order = world.acquirer.order(first)
    assert order is not None
    assert (order["merchant_id"], order["amount"]["value"], order["title"]) == ("m_5", 1_250, "Two buns")


async def test_the_service_gets_the_sale_and_its_key(service: Service) -> None:
    service.answers = [(201, '{"order_id": "o_1", "more": 1}')]
    assert await create(service.url) == "o_1"
    ((path, body, key, request_id),) = service.requests
    assert (path, key, request_id) == ("/hooks/orders?shop=1", "k1", "r-1")
    assert body == (
        b'{"merchant_id":"m_5","amount":{"currency":"CNY","value":1250},"terminal_id":"till-1","note":"Two buns"}'
    )


@pytest.mark.parametrize("first", [None, (500, ""), (503, "")])
async def test_a_request_without_an_answer_is_sent_once_more_with_its_key(
    service: Service, first: tuple[int, str] | None
) -> None:
    service.answers = [first, (200, '{"order_id": "o_1"}')]
    assert await create(service.url) == "o_1"
    assert service.requests[0] == service.requests[1]


@pytest.mark.parametrize(
    "answers",
    [
        [(422, '{"order_id": "o_1"}')],
        [(200, "{}")],
        [(200, '{"order_id": "a/b"}')],
        [(200, "<html>")],
        [(302, "")],
        [None, None],
        [(500, ""), (500, "")],
    ],
)
async def test_what_is_no_order_is_none(service: Service, answers: list[tuple[int, str] | None]) -> None:
    service.answers = [*answers]
    with pytest.raises(OrderNotCreated):
        await create(service.url)
    assert len(service.requests) == len(answers)


async def test_a_url_that_a_reload_replaces_still_answers_the_calls_under_way(service: Service) -> None:
    """Else the cashier would enter the amount again, and there would be two orders."""
    service.answers, orders = [(200, '{"order_id": "o_1"}'), (200, '{"order_id": "o_2"}')], Orders()
    service.may_answer.clear()
    first = asyncio.create_task(orders.create(service.url, SALE, "k1", HEADERS))
    await service.came.wait()
    client = orders._by_http
    second = asyncio.create_task(orders.create(f"{service.url}&more=1", SALE, "k2", HEADERS))
    await asyncio.sleep(0)
    service.may_answer.set()
    assert [(await each).order_id for each in (first, second)] == ["o_1", "o_2"]
    assert client is not None
    with pytest.raises(OrderNotCreated):
        await client(SALE, "k3", HEADERS)
    assert len(service.requests) == 2, "it is closed"
    await orders.close()


async def test_orders_can_be_created_again_after_a_close(service: Service) -> None:
    """As by an application that is started again, on another loop too."""
    service.answers, orders = [(200, '{"order_id": "o_1"}')] * 2, Orders()
    for key in ("k1", "k2"):
        assert (await orders.create(service.url, SALE, key, HEADERS)).order_id == "o_1"
        await orders.close()


async def test_the_address_of_the_service_stays_out_of_logs() -> None:
    orders = OrdersByHttp("https://shop.example/orders?key=secret")
    assert "secret" not in repr(orders)
    await orders.close()

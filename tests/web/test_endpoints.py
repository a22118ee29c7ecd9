"""Everything but the hot route, mounting, and the life of a door."""

from __future__ import annotations

import asyncio

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.types import ASGIApp, Message

from cashier.web import CashierApp, app, owning_app
from tests.web.calling import JSON, Got, call
from tests.web.offers import FakeEngine, opener


async def get(door: ASGIApp, path: str, method: str = "GET", root_path: str = "") -> Got:
    return await call(door, b"", headers={}, method=method, path=path, root_path=root_path)


class Life:
    """The lifespan of an application, in a task of its own."""

    def __init__(self, door: CashierApp) -> None:
        self.orders: asyncio.Queue[Message] = asyncio.Queue()
        self.said: asyncio.Queue[str] = asyncio.Queue()
        self.task = asyncio.create_task(self._run(door))

    async def _run(self, door: CashierApp) -> None:
        async def send(message: Message) -> None:
            self.said.put_nowait(message["type"])

        await door({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, self.orders.get, send)

    async def order(self, what: str) -> str:
        self.orders.put_nowait({"type": f"lifespan.{what}"})
        return await self.said.get()


async def test_it_is_healthy_whenever_it_answers() -> None:
    engine = FakeEngine()
    engine.ready = False
    assert (await get(app(engine), "/healthz")).status == 200


async def test_it_is_ready_when_the_engine_is_and_nobody_stops_it() -> None:
    engine = FakeEngine()
    door = app(engine)
    assert (await get(door, "/readyz")).status == 200
    engine.ready = False
    assert (await get(door, "/readyz")).problem() == (503, "NOT_READY")
    engine.ready, door.draining = True, True
    got = await get(door, "/readyz")
    assert got.problem() == (503, "NOT_READY")
    assert "draining" in got.json["detail"]
    assert (await call(door)).status == 200, "who comes while it drains is served"


@pytest.mark.parametrize(
    "path", ["/", "/v1/consult/", "/v1/consultx", "/v1", "//v1/consult", "/healthz/", "/v1/payments/", "/v1/payment"]
)
async def test_where_nothing_is_a_problem_says_so(path: str) -> None:
    assert (await get(app(FakeEngine()), path)).problem() == (404, "NOT_FOUND")


async def test_another_method_is_told_which_are_allowed() -> None:
    got = await get(app(FakeEngine()), "/healthz", "POST")
    assert got.problem() == (405, "METHOD_NOT_ALLOWED")
    assert {method.strip() for method in got.headers["allow"].split(",")} == {"GET", "HEAD"}


async def test_pages_carry_a_request_id_too() -> None:
    got = await call(app(FakeEngine()), headers={"X-Request-Id": "r-1"}, method="GET", path="/nowhere")
    assert got.headers["x-request-id"] == "r-1"


@pytest.mark.parametrize("framework", [Starlette, FastAPI])
async def test_it_serves_under_any_mount(framework: type[Starlette]) -> None:
    outer = framework()
    outer.mount("/pay", app(FakeEngine()))
    assert (await call(outer, path="/pay/v1/consult")).status == 200
    assert (await get(outer, "/pay/v1/consult")).problem() == (405, "METHOD_NOT_ALLOWED")
    assert (await get(outer, "/pay/healthz")).status == 200
    assert (await get(outer, "/pay/nowhere")).problem() == (404, "NOT_FOUND")
    assert (await call(outer, path="/v1/consult")).status == 404


async def test_it_serves_behind_a_proxy_that_took_its_prefix_away_or_left_it() -> None:
    door = app(FakeEngine())
    assert (await call(door, path="/v1/consult", root_path="/pay")).status == 200
    assert (await call(door, path="/pay/v1/consult", root_path="/pay")).status == 200


async def test_an_engine_that_was_handed_in_is_left_alone() -> None:
    life = Life(app(FakeEngine()))
    assert await life.order("startup") == "lifespan.startup.complete"
    assert await life.order("shutdown") == "lifespan.shutdown.complete"
    await life.task


async def test_an_owned_engine_is_opened_and_closed_with_the_server() -> None:
    said: list[str] = []
    door = owning_app(opener(FakeEngine(), said))
    assert (await get(door, "/readyz")).problem() == (503, "NOT_READY")
    assert (await call(door)).problem() == (503, "NOT_READY")
    life = Life(door)
    assert await life.order("startup") == "lifespan.startup.complete"
    assert (await get(door, "/readyz")).status == 200
    assert (await call(door, headers=JSON)).status == 200
    assert said == ["opened"]
    assert await life.order("shutdown") == "lifespan.shutdown.complete"
    assert said == ["opened", "closed"]
    await life.task

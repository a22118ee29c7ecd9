"""A `Cashier` that is closed and opened again, as repeated test clients of its host do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import structlog.testing
from fastapi import FastAPI
from fastapi.testclient import TestClient

import cashier.web
from cashier import Cashier, ConsultRequest, NotOpen, Product, Terminal
from cashier.fanout.load_shedding import DegradationLadder
from cashier.fanout.loop_lag import LoopLagMonitor
from cashier.sandbox import LocalUpstreams, World, weather_named
from cashier.settings.loader import configuration
from tests.support.sandbox_payments import sandbox_call

BODY = {
    "order_id": "o_1001",
    "user_id": "u_1",
    "merchant_id": "m_1",
    "product": "STANDARD_CASHIER",
    "terminal": "APP",
}
REQUEST = ConsultRequest(
    order_id="o_1001", user_id="u_1", merchant_id="m_1", product=Product.STANDARD_CASHIER, terminal=Terminal.APP
)


@pytest.fixture
def core() -> Cashier:
    world, weather = World(), weather_named("still")
    return Cashier(
        sources={
            **LocalUpstreams(world, weather),
            **dict.fromkeys(("risk", "engine", "acquirer"), sandbox_call(world, weather)),
        }
    )


@pytest.fixture
def shop(core: Cashier) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with core:
            yield

    application = FastAPI(lifespan=lifespan)
    application.mount("/pay", cashier.web.app(core))
    return application


@pytest.fixture
def log() -> Iterator[list[structlog.typing.EventDict]]:
    with structlog.testing.capture_logs() as entries:
        yield entries


def test_every_test_client_of_a_host_is_served(shop: FastAPI, log: list[structlog.typing.EventDict]) -> None:
    for _ in range(3):
        with TestClient(shop) as client:
            assert client.get("/pay/readyz").status_code == 200
            answer = client.post("/pay/v1/consult", json=BODY)
            assert answer.status_code == 200, answer.text
            assert answer.json()["payable"]
    assert not [entry for entry in log if entry["log_level"] in ("error", "critical")]


def test_a_token_of_the_first_opening_pays_in_the_second(shop: FastAPI) -> None:
    with TestClient(shop) as client:
        consultation = client.post("/pay/v1/consult", json=BODY).json()
    method = next(one for one in consultation["methods"] if one["availability"] == "AVAILABLE")
    payment = {
        **BODY,
        "consult_token": consultation["consult_token"],
        "method_id": method["method_id"],
        "promotion_ids": [discount["promotion_id"] for discount in method["amount"]["discounts"]],
        "expected_payable": method["amount"]["payable"],
        "return_url": "https://shop.example/back",
    }
    with TestClient(shop) as client:
        answer = client.post("/pay/v1/payments", json=payment, headers={"Idempotency-Key": "k1"})
        assert answer.status_code in (200, 202), answer.text
        assert answer.json()["status"] not in ("FAILED", "CLOSED")


@pytest.mark.parametrize("path", ["/v1/consult", "/v1/payments", "/v1/invalidate"])
@pytest.mark.parametrize("opened_before", [False, True])
def test_a_mount_without_its_lifespan_is_not_ready(
    shop: FastAPI, path: str, opened_before: bool, log: list[structlog.typing.EventDict]
) -> None:
    if opened_before:
        with TestClient(shop):
            pass
    client = TestClient(shop)  # without `with`: the lifespan does not run
    for headers in ({}, {"accept": "text/event-stream"}):
        answer = client.post(f"/pay{path}", json=BODY, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (503, "NOT_READY")
        assert answer.headers["retry-after"] == "1"
    assert client.get("/pay/readyz").status_code == 503
    assert client.get("/pay/healthz").status_code == 200
    assert not log


async def test_a_second_opening_beside_the_first_is_refused(core: Cashier) -> None:
    async with core:
        with pytest.raises(RuntimeError, match="already open"):
            await core.__aenter__()
        assert (await core.consult(REQUEST)).payable  # and the first one lives


async def test_concurrent_openings_leave_one_open(core: Cashier) -> None:
    outcomes = await asyncio.gather(core.__aenter__(), core.__aenter__(), return_exceptions=True)
    assert [outcome for outcome in outcomes if isinstance(outcome, Cashier)] == [core]
    assert (await core.consult(REQUEST)).payable
    await core.__aexit__(None, None, None)


def test_each_event_loop_may_open_it_in_turn(core: Cashier) -> None:
    async def consult() -> bool:
        async with core:
            return (await core.consult(REQUEST)).payable

    assert all(asyncio.run(consult()) for _ in range(3))


async def test_a_closed_cashier_says_that_it_is_not_open(core: Cashier) -> None:
    with pytest.raises(NotOpen, match="not open"):
        await core.consult(REQUEST)
    async with core:
        pass
    with pytest.raises(NotOpen, match="not open"):
        await core.consult(REQUEST)
    with pytest.raises(NotOpen, match="not open"):
        core.stream(REQUEST)


async def test_a_failed_opening_can_be_repeated(core: Cashier, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(Exception):
        pass

    def interrupt(_: object) -> None:
        raise Interrupted

    ladder = core._loop_lag = LoopLagMonitor(DegradationLadder())
    with monkeypatch.context() as patched:
        patched.setattr(LoopLagMonitor, "start", interrupt)
        with pytest.raises(Interrupted):
            await core.__aenter__()
    async with core:
        assert (await core.consult(REQUEST)).payable
    assert core._loop_lag is ladder


async def test_reopening_keeps_the_configuration_of_the_last_reload(core: Cashier) -> None:
    later = configuration({"consult": {"locale": "zh-CN"}}, "a test")
    async with core:
        core.reload(later)
    async with core:
        assert core.config is later
        answer = await core.consult(REQUEST)
        assert any(character >= "一" for character in answer.methods[0].title)

"""A payment as server-sent events, over ASGI. The reader of any: `test_consultation_stream`."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from cashier.domain.payment_state import PaymentStatus
from cashier.payments.errors import EngineUnavailable
from cashier.tokens.jws import TokenRefused
from cashier.web import CashierApp, app
from cashier.web.sse import HEARTBEAT_S, STALL_S
from tests.web.asgi_client import CapturedResponse, call, scope
from tests.web.fake_payments import ID, LIVE, PAID, PAYMENT_PATH, TOKEN, FakePayments
from tests.web.fake_service import FakeService
from tests.web.test_consultation_stream import EventReader, events
from tests.web.test_openapi import check, fetch_document

EVENTS = f"{PAYMENT_PATH}/events"
TOKEN_HEADER = {"x-payment-token": TOKEN}


@pytest.fixture
def payments() -> FakePayments:
    return FakePayments()


@pytest.fixture
def application(payments: FakePayments) -> CashierApp:
    return app(FakeService(payments))


async def follow(application: CashierApp, **headers: str) -> CapturedResponse:
    return await call(application, b"", headers=TOKEN_HEADER | headers, method="GET", path=EVENTS)


def reader(application: CashierApp) -> EventReader:
    return EventReader(application, scope("GET", EVENTS, TOKEN_HEADER), b"")


async def assert_nothing_left(application: CashierApp, payments: FakePayments) -> None:
    await asyncio.sleep(0.1)
    assert payments.closed.is_set()
    assert repr(application).count("requests=0 sweeping=False") == 2
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_each_event_is_complete_and_numbered_and_the_stream_ends_with_end(
    application: CashierApp, payments: FakePayments
) -> None:
    payments.publish(LIVE, replace(LIVE, status=PaymentStatus.ACTION_REQUIRED), PAID, None)
    response = await follow(application)
    assert response.status == 200
    assert response.ended
    first, second, third, end = events(response.body)
    assert (first.name, first.event_id, first.data["status"], first.data["payment_id"]) == (
        "payment",
        "1",
        "PROCESSING",
        ID,
    )
    assert (second.event_id, second.data["status"]) == ("2", "ACTION_REQUIRED")
    assert (third.event_id, third.data["status"]) == ("3", "SUCCEEDED")
    assert end == ("end", "end", {"reason": "FINAL"})
    document = await fetch_document()
    for event in (first, second, third):
        check(document, {"$ref": "#/components/schemas/Payment"}, event.data)


async def test_the_headers_of_a_stream_forbid_caching_and_buffering(
    application: CashierApp, payments: FakePayments
) -> None:
    payments.publish(PAID, None)
    response = await follow(application, **{"x-request-id": "r-1"})
    assert response.headers.pop("server-timing").startswith("total;dur=")
    assert response.headers == {
        "content-type": "text/event-stream",
        "cache-control": "no-store",
        "x-accel-buffering": "no",
        "x-request-id": "r-1",
    }
    assert payments.calls[0].request_id == "r-1"


async def test_a_stream_without_a_final_payment_ends_with_timeout(
    application: CashierApp, payments: FakePayments
) -> None:
    payments.publish(LIVE, None)
    assert events((await follow(application)).body)[-1].data == {"reason": "TIMEOUT"}


async def test_a_server_stop_ends_the_stream_with_stopping(application: CashierApp, payments: FakePayments) -> None:
    payments.publish(LIVE)
    following = reader(application)
    await following.wait_for_events(1)
    application.draining = True
    application.stop_waiting()
    await following.finished()
    assert payments.stopped
    assert events(following.response.body)[-1].data == {"reason": "STOPPING"}
    # A final payment ends with FINAL, also during a stop.
    payments.publish(PAID, None)
    assert events((await follow(application)).body)[-1].data == {"reason": "FINAL"}


def test_stop_waiting_without_payments_does_nothing() -> None:
    app(FakeService()).stop_waiting()


@pytest.mark.parametrize(
    ("error", "code"),
    [(EngineUnavailable(), "ENGINE_UNAVAILABLE"), (ZeroDivisionError("the secret is 4711"), "INTERNAL")],
)
async def test_an_error_after_the_first_event_ends_the_stream_with_an_error_event(
    application: CashierApp, payments: FakePayments, error: Exception, code: str
) -> None:
    payments.publish(LIVE, error)
    with capture_logs() as logs:
        response = await follow(application, **{"x-request-id": "r-1"})
    assert response.ended
    first, last = events(response.body)
    assert first.name == "payment"
    assert (last.name, last.event_id, last.data["code"]) == ("error", None, code)
    assert b"4711" not in response.body
    assert [log["request_id"] for log in logs] == (["r-1"] if code == "INTERNAL" else [])
    check(await fetch_document(), {"$ref": "#/components/schemas/Problem"}, last.data)


async def test_an_error_before_the_first_event_is_a_problem_response(
    application: CashierApp, payments: FakePayments
) -> None:
    payments.publish(TokenRefused("TOKEN_EXPIRED"))
    assert (await follow(application)).problem() == (403, "TOKEN_EXPIRED")
    payments.publish(None)
    with capture_logs():
        assert (await follow(application)).problem() == (500, "INTERNAL")


@pytest.mark.looptime
async def test_a_silent_stream_sends_heartbeats_and_goes_on(application: CashierApp, payments: FakePayments) -> None:
    payments.publish(LIVE)
    following = reader(application)
    assert (await following.wait_for_events(1))[0].name == "payment"
    await asyncio.sleep(HEARTBEAT_S * 3.5)
    head, *heartbeats = following.response.body.decode().split("\n\n")
    assert head.startswith("event: payment")
    assert heartbeats == [":", ":", ":", ""]
    payments.publish(PAID, None)
    await following.finished()
    assert following.response.body.count(b"event: ") == 3
    assert payments.closed.is_set()
    await assert_nothing_left(application, payments)


@pytest.mark.looptime
async def test_a_disconnect_ends_the_stream_and_leaves_nothing_behind(
    application: CashierApp, payments: FakePayments
) -> None:
    payments.publish(LIVE)
    following = reader(application)
    await following.wait_for_events(1)
    following.incoming.disconnect()
    await following.finished()
    await assert_nothing_left(application, payments)


@pytest.mark.looptime
async def test_a_heartbeat_detects_a_stalled_reader(application: CashierApp, payments: FakePayments) -> None:
    payments.publish(LIVE)
    following = reader(application)
    await following.wait_for_events(1)
    following.reads.clear()
    began = asyncio.get_running_loop().time()
    with capture_logs():
        await following.finished()
    assert asyncio.get_running_loop().time() - began == pytest.approx(HEARTBEAT_S + STALL_S)
    await assert_nothing_left(application, payments)

"""A payment as server-sent events, called as a server would call it, mostly in virtual time."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from cashier.domain.payment_state import PaymentStatus
from cashier.payments.errors import EngineUnavailable
from cashier.tokens.jws import TokenRefused
from cashier.web import CashierApp, app
from cashier.web.payment_stream import HEARTBEAT_S
from cashier.web.sse import STALL_S
from tests.web.calling import Got, call, scope
from tests.web.offers import FakeEngine
from tests.web.payments import ID, LIVE, ONE, PAID, TOKEN, FakePayments
from tests.web.test_consultation_stream import Reader, events
from tests.web.test_openapi import check, described

EVENTS = f"{ONE}/events"
HELD = {"x-payment-token": TOKEN}


@pytest.fixture
def payments() -> FakePayments:
    return FakePayments()


@pytest.fixture
def door(payments: FakePayments) -> CashierApp:
    return app(FakeEngine(payments))


async def follow(door: CashierApp, **headers: str) -> Got:
    return await call(door, b"", headers=HELD | headers, method="GET", path=EVENTS)


def reader(door: CashierApp) -> Reader:
    return Reader(door, scope("GET", EVENTS, HELD), b"")


async def nothing_is_left(door: CashierApp, payments: FakePayments) -> None:
    await asyncio.sleep(0.1)
    assert payments.closed.is_set()
    assert repr(door).count("requests=0 sweeping=False") == 2
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_each_payment_is_whole_and_numbered_and_then_comes_the_end(
    door: CashierApp, payments: FakePayments
) -> None:
    payments.show(LIVE, replace(LIVE, status=PaymentStatus.ACTION_REQUIRED), PAID, None)
    got = await follow(door)
    assert got.status == 200
    assert got.ended
    first, second, third, end = events(got.body)
    assert (first.name, first.number, first.told["status"], first.told["payment_id"]) == (
        "payment",
        "1",
        "PROCESSING",
        ID,
    )
    assert (second.number, second.told["status"]) == ("2", "ACTION_REQUIRED")
    assert (third.number, third.told["status"]) == ("3", "SUCCEEDED")
    assert end == ("end", None, {"reason": "FINAL"})
    document = await described()
    for each in (first, second, third):
        check(document, {"$ref": "#/components/schemas/Payment"}, each.told)


async def test_its_headers_say_that_it_is_a_stream_that_nobody_may_hold_back_or_keep(
    door: CashierApp, payments: FakePayments
) -> None:
    payments.show(PAID, None)
    got = await follow(door, **{"x-request-id": "r-1"})
    assert got.headers.pop("server-timing").startswith("total;dur=")
    assert got.headers == {
        "content-type": "text/event-stream",
        "cache-control": "no-store",
        "x-accel-buffering": "no",
        "x-request-id": "r-1",
    }
    assert payments.asked[0].request_id == "r-1"


async def test_who_has_followed_for_long_enough_may_follow_again(door: CashierApp, payments: FakePayments) -> None:
    payments.show(LIVE, None)
    assert events((await follow(door)).body)[-1].told == {"reason": "TIMEOUT"}


async def test_a_stop_is_told_from_that(door: CashierApp, payments: FakePayments) -> None:
    payments.show(LIVE)
    following = reader(door)
    await following.until(1)
    door.draining = True
    door.stop_waiting()
    await following.over()
    assert payments.stopped
    assert events(following.got.body)[-1].told == {"reason": "STOPPING"}
    # What is over is over, whoever stops.
    payments.show(PAID, None)
    assert events((await follow(door)).body)[-1].told == {"reason": "FINAL"}


def test_a_door_without_payments_has_nobody_to_stop() -> None:
    app(FakeEngine()).stop_waiting()


@pytest.mark.parametrize(
    ("error", "code"),
    [(EngineUnavailable(), "ENGINE_UNAVAILABLE"), (ZeroDivisionError("the secret is 4711"), "INTERNAL")],
)
async def test_what_breaks_after_the_first_is_told_in_the_stream_and_ends_it(
    door: CashierApp, payments: FakePayments, error: Exception, code: str
) -> None:
    payments.show(LIVE, error)
    with capture_logs() as logs:
        got = await follow(door, **{"x-request-id": "r-1"})
    assert got.ended
    first, last = events(got.body)
    assert first.name == "payment"
    assert (last.name, last.number, last.told["code"]) == ("error", None, code)
    assert b"4711" not in got.body
    assert [log["request_id"] for log in logs] == (["r-1"] if code == "INTERNAL" else [])
    check(await described(), {"$ref": "#/components/schemas/Problem"}, last.told)


async def test_what_goes_wrong_before_the_first_is_an_ordinary_problem(
    door: CashierApp, payments: FakePayments
) -> None:
    payments.show(TokenRefused("TOKEN_EXPIRED"))
    assert (await follow(door)).problem() == (403, "TOKEN_EXPIRED")
    payments.show(None)
    with capture_logs():
        assert (await follow(door)).problem() == (500, "INTERNAL")


@pytest.mark.looptime
async def test_a_silent_stream_beats_and_is_not_ended_by_it(door: CashierApp, payments: FakePayments) -> None:
    payments.show(LIVE)
    following = reader(door)
    assert (await following.until(1))[0].name == "payment"
    await asyncio.sleep(HEARTBEAT_S * 3.5)
    head, *beats = following.got.body.decode().split("\n\n")
    assert head.startswith("event: payment")
    assert beats == [":", ":", ":", ""]
    payments.show(PAID, None)
    await following.over()
    assert following.got.body.count(b"event: ") == 3
    assert payments.closed.is_set()
    await nothing_is_left(door, payments)


@pytest.mark.looptime
async def test_a_payment_is_out_before_the_next_one_is_known(door: CashierApp, payments: FakePayments) -> None:
    payments.show(LIVE)
    following = reader(door)
    assert [event.number for event in await following.until(1)] == ["1"]
    payments.show(LIVE)
    assert [event.number for event in await following.until(2)] == ["1", "2"]
    payments.show(PAID, None)
    await following.over()


@pytest.mark.looptime
@pytest.mark.parametrize("when", ["before the first", "between", "while it does not read"])
async def test_a_client_that_leaves_is_followed_by_nobody(door: CashierApp, payments: FakePayments, when: str) -> None:
    following = reader(door)
    await payments.entered.wait()
    if when != "before the first":
        payments.show(LIVE)
        await following.until(1)
    if when == "while it does not read":
        following.reads.clear()
        payments.show(LIVE)
        await following.blocked.wait()
    await asyncio.sleep(1)
    began = asyncio.get_running_loop().time()
    following.wire.hang_up()
    await following.over()
    assert asyncio.get_running_loop().time() - began < 0.2
    assert (following.got.status is None) == (when == "before the first")
    await nothing_is_left(door, payments)


@pytest.mark.looptime
async def test_a_reader_that_stalls_is_given_up_after_a_while(door: CashierApp, payments: FakePayments) -> None:
    payments.show(LIVE)
    following = reader(door)
    await following.until(1)
    following.reads.clear()
    payments.show(LIVE)
    await following.blocked.wait()
    began = asyncio.get_running_loop().time()
    with capture_logs() as logs:
        await following.over()
    assert asyncio.get_running_loop().time() - began == pytest.approx(STALL_S)
    assert [log["event"] for log in logs] == ["event stream reader stalled"]
    await nothing_is_left(door, payments)


@pytest.mark.looptime
async def test_a_stall_is_noticed_by_a_beat_too(door: CashierApp, payments: FakePayments) -> None:
    payments.show(LIVE)
    following = reader(door)
    await following.until(1)
    following.reads.clear()
    began = asyncio.get_running_loop().time()
    with capture_logs():
        await following.over()
    assert asyncio.get_running_loop().time() - began == pytest.approx(HEARTBEAT_S + STALL_S)
    await nothing_is_left(door, payments)


@pytest.mark.looptime
async def test_being_cancelled_by_the_server_is_not_mistaken_for_a_client_that_left(
    door: CashierApp, payments: FakePayments
) -> None:
    payments.show(LIVE)
    following = reader(door)
    await following.until(1)
    following.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await following.over()
    await nothing_is_left(door, payments)

"""One worker, no shared store, an engine that accepts everything: one live attempt per order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from cashier.domain.payment_id import payment_id
from cashier.domain.payment_state import FINAL, PaymentStatus
from cashier.payments.errors import ConsultChanged, EngineUnavailable, InFlight, OrderBusy, TooManyPayments
from cashier.payments.live_attempts import LiveAttempts
from cashier.source_errors import TimedOut, Unreachable
from cashier.wire.transport import Request, Response
from tests.payments.checkout import Checkout, SharedStore, checkout, connection_refused

pytestmark = pytest.mark.virtual_time
CASE = "chinese_shop"
ORDER = "m_1/o_1001"
FIRST, SECOND = payment_id("m_1", "o_1001", "k1"), payment_id("m_1", "o_1001", "k2")
QUEUED = ("card", "decide", "submit")


class LenientEngine:
    """Accepts every submit, and forbids nothing. The acquirer does not know of it.

    `status`: of each payment. `lost`: submits that do not arrive and get no answer. `silent`: it
    does not answer look-ups.
    """

    def __init__(self, shop: Checkout, status: str = "PROCESSING") -> None:
        self.payments: dict[str, dict[str, Any]] = {}
        self.lost: set[str] = set()
        self.silent = False
        self._status = status
        shop.replies |= {"submit": self.submit, "look_up": self.look_up, "reverse": self.reverse}

    @property
    def taking(self) -> list[str]:
        """Payments that may still take money, or took it."""
        return [name for name, payment in self.payments.items() if payment["status"] != "FAILED"]

    async def submit(self, request: Request) -> Response:
        name = msgspec.json.decode(request.body)["payment_id"]
        if name in self.lost:
            raise TimedOut("lost")
        self.payments[name] = {"payment_id": name, "status": self._status}
        if self._status == "ACTION_REQUIRED":
            self.payments[name]["next_action"] = {"type": "REDIRECT", "method": "GET", "url": "https://wallet.example"}
        return _response(self.payments[name])

    async def look_up(self, request: Request) -> Response:
        if self.silent:
            raise Unreachable("silent")
        return _response(self.payments.get(request.target.split("/")[2]))

    async def reverse(self, request: Request) -> Response:
        name = request.target.split("/")[2]
        if self.silent:
            raise Unreachable("silent")
        if name in self.payments:
            self.fail(name, "REVERSED")
        return _response(self.payments.get(name))

    def fail(self, name: str, code: str = "DECLINED") -> None:
        self.payments[name] = {"payment_id": name, "status": "FAILED", "failure": {"code": code, "text": ""}}


def _response(payment: dict[str, Any] | None) -> Response:
    if payment is None:
        return Response(404, msgspec.json.encode({"code": "PAYMENT_NOT_FOUND"}))
    return Response(200, msgspec.json.encode(payment))


async def two_requests(shop: Checkout) -> tuple[Any, Any]:
    return await shop.new_request(CASE, "WALLET:ALIPAY"), await shop.new_request(CASE, "WALLET:WECHAT_PAY")


@pytest.mark.parametrize("during", QUEUED)
async def test_a_second_key_waits_for_the_first_and_finds_its_payment(shop: Checkout, during: str) -> None:
    engine = LenientEngine(shop)
    first, second = await two_requests(shop)
    shop.held[during] = asyncio.Event()
    shop.reset_counts()
    runs = [asyncio.create_task(shop.submit(first, "k1"))]
    await asyncio.sleep(0.1)
    runs += [asyncio.create_task(shop.submit(request, key)) for key, request in (("k2", second), ("k3", first))]
    await asyncio.sleep(0.1)
    assert shop.count("submit") == (during == "submit")
    shop.held[during].set()
    accepted, *busy = await asyncio.gather(*runs, return_exceptions=True)
    assert not isinstance(accepted, BaseException)
    assert [error.payment_id for error in busy if isinstance(error, OrderBusy)] == [FIRST, FIRST]
    assert shop.count("submit") == shop.count("decide") == 1
    assert engine.taking == [FIRST]


async def test_two_terminals_share_the_order(shop: Checkout) -> None:
    LenientEngine(shop)
    requests = [await shop.new_request(CASE, "WALLET:ALIPAY", terminal=terminal) for terminal in ("APP", "H5")]
    results = await asyncio.gather(
        *(shop.submit(request, f"k{n}") for n, request in enumerate(requests)), return_exceptions=True
    )
    assert sum(isinstance(result, OrderBusy) for result in results) == 1
    assert shop.count("submit") == 1


async def test_a_first_key_that_ends_in_its_checks_gives_way(shop: Checkout) -> None:
    LenientEngine(shop)
    first, second = await two_requests(shop)
    shop.held["decide"] = asyncio.Event()
    runs = [asyncio.create_task(shop.submit(first, "k1"))]
    await asyncio.sleep(0.1)
    shop.replies["decide"] = connection_refused
    runs.append(asyncio.create_task(shop.submit(second, "k2")))
    await asyncio.sleep(0.1)
    shop.held["decide"].set()
    await asyncio.sleep(0)
    del shop.replies["decide"]
    refused, accepted = await asyncio.gather(*runs, return_exceptions=True)
    assert isinstance(refused, BaseException)
    assert not isinstance(accepted, BaseException)
    assert accepted.payment_id == SECOND


async def test_no_key_waits_longer_than_a_submit_may_take(shop: Checkout) -> None:
    LenientEngine(shop)
    first, second = await two_requests(shop)
    shop.payments._attempt_guard._live_attempts.claim(ORDER, FIRST)  # a run that does not end
    with pytest.raises(OrderBusy):
        await shop.submit(second, "k2")
    assert shop.count("submit") == 0
    assert (await shop.submit(first, "k1")).payment_id == FIRST


@pytest.mark.parametrize("status", ["PROCESSING", "ACTION_REQUIRED", "USER_PAYING", "SUCCEEDED"])
async def test_a_second_key_is_refused_while_the_first_may_take_money(shop: Checkout, status: str) -> None:
    engine = LenientEngine(shop, status)
    first, second = await two_requests(shop)
    assert (await shop.submit(first, "k1")).status not in FINAL
    for _ in range(3):
        with pytest.raises(OrderBusy) as busy:
            await shop.submit(second, "k2")
        assert busy.value.payment_id == FIRST
        await asyncio.sleep(20)
    assert engine.taking == [FIRST]
    assert shop.count("submit") == 1


@pytest.mark.parametrize("age_s", [0, 5, 25])
async def test_a_submit_still_on_its_way_keeps_the_second_key_out(shop: Checkout, age_s: int) -> None:
    engine = LenientEngine(shop)
    engine.lost.add(FIRST)
    first, second = await two_requests(shop)
    payment = await shop.submit(first, "k1")
    assert payment.status is PaymentStatus.PROCESSING
    await asyncio.sleep(age_s)
    with pytest.raises(OrderBusy):
        await shop.submit(second, "k2")
    await asyncio.sleep(31 - age_s)
    assert (await shop.submit(second, "k2")).payment_id == SECOND, "the first was sealed"
    assert shop.count("reverse") == 1
    assert engine.taking == [SECOND]
    assert (await shop.look(payment)).status is PaymentStatus.CLOSED


async def test_an_attempt_that_is_replaced_during_its_checks_is_not_sent(shop: Checkout) -> None:
    engine = LenientEngine(shop)
    first, second = await two_requests(shop)
    held = shop.held["decide"] = asyncio.Event()
    replaced = asyncio.create_task(shop.submit(first, "k1"))
    await asyncio.sleep(0.1)
    await shop.payments._attempt_guard.mark_ended(ORDER, FIRST)
    del shop.held["decide"]
    assert (await shop.submit(second, "k2")).payment_id == SECOND
    held.set()
    with pytest.raises(OrderBusy) as busy:
        await replaced
    assert busy.value.payment_id == SECOND
    assert engine.taking == [SECOND]


async def test_another_body_under_the_first_key_counts_until_it_has_failed(shop: Checkout) -> None:
    """Another worker sent it at the same time, and the engine refused the body of this one."""
    engine = LenientEngine(shop)
    engine.lost.add(FIRST)
    first, second = await two_requests(shop)
    await shop.submit(first, "k1")
    engine.payments[FIRST] = {"payment_id": FIRST, "status": "PROCESSING", "fingerprint": "another"}
    with pytest.raises(OrderBusy):
        await shop.submit(second, "k2")
    engine.payments[FIRST] |= {"status": "FAILED", "failure": {"code": "DECLINED", "text": ""}}
    assert (await shop.submit(second, "k2")).payment_id == SECOND


async def test_a_silent_engine_confirms_no_end(shop: Checkout) -> None:
    engine = LenientEngine(shop)
    first, second = await two_requests(shop)
    await shop.submit(first, "k1")
    engine.silent = True
    with pytest.raises(EngineUnavailable):
        await shop.submit(second, "k2")
    shop.replies["look_up"] = _look_up_of(engine, SECOND)  # silent about the first alone
    with pytest.raises(OrderBusy):
        await shop.submit(second, "k2")
    assert shop.count("submit") == 1


def _look_up_of(engine: LenientEngine, name: str) -> Callable[[Request], Any]:
    async def look_up(request: Request) -> Response:
        if not request.target.endswith(name):
            raise Unreachable("silent")
        return _response(engine.payments.get(name))

    return look_up


@pytest.mark.parametrize("end", ["FAILED", "reversed", "cancelled"])
async def test_a_second_key_is_sent_after_the_end_of_the_first(shop: Checkout, end: str) -> None:
    engine = LenientEngine(shop)
    first, second = await two_requests(shop)
    payment = await shop.submit(first, "k1")
    if end == "cancelled":
        assert (await shop.cancel(payment)).status is PaymentStatus.CLOSED
    else:
        engine.fail(FIRST, "DECLINED" if end == "FAILED" else "REVERSED")
    assert (await shop.submit(second, "k2")).payment_id == SECOND
    assert engine.taking == [SECOND]


async def test_a_cancel_that_could_not_end_the_first_keeps_the_second_key_out(shop: Checkout) -> None:
    engine = LenientEngine(shop)
    first, second = await two_requests(shop)
    payment = await shop.submit(first, "k1")
    shop.replies["reverse"] = connection_refused
    assert (await shop.cancel(payment)).status is PaymentStatus.PROCESSING
    with pytest.raises(OrderBusy):
        await shop.submit(second, "k2")
    shop.replies["reverse"] = engine.reverse
    assert (await shop.submit(second, "k2")).payment_id == SECOND, "the second key asked for the reversal again"
    assert engine.taking == [SECOND]


async def test_a_stop_during_the_submit_leaves_the_attempt_live(shop: Checkout) -> None:
    LenientEngine(shop)
    first, second = await two_requests(shop)
    shop.held["submit"] = asyncio.Event()
    caller = asyncio.create_task(shop.submit(first, "k1"))
    await asyncio.sleep(0.1)
    shop.payments._runs._runs[FIRST].task.cancel()  # type: ignore[union-attr]
    with pytest.raises(InFlight):
        await caller
    del shop.held["submit"]
    with pytest.raises(OrderBusy):
        await shop.submit(second, "k2")


async def test_a_challenge_keeps_no_other_key_out_and_one_of_two_passed_ones_is_sent(shop: Checkout) -> None:
    LenientEngine(shop)
    request = await shop.new_request(CASE, "QUICK_PAY:c_2")
    challenged = [await shop.submit(request, key) for key in ("k1", "k2")]
    assert {payment.status for payment in challenged} == {PaymentStatus.CHALLENGE}
    results = await asyncio.gather(*map(shop.answer, challenged), return_exceptions=True)
    assert sum(isinstance(result, OrderBusy) for result in results) == 1
    assert shop.count("submit") == 1


async def test_a_payment_that_was_only_looked_at_counts_as_live() -> None:
    async with checkout(workers=2) as shop:
        engine = LenientEngine(shop)
        first, second = await two_requests(shop)
        payment = await shop.submit(first, "k1")
        other = shop.payments_of(shop.workers[1])
        await other.look(payment.payment_id, payment.payment_token)
        with pytest.raises(OrderBusy):
            await other.submit(second, "k2")
        engine.fail(FIRST)
        assert (await other.submit(second, "k2")).payment_id == SECOND


async def test_an_engine_that_is_silent_about_another_workers_attempt_gets_no_second_one() -> None:
    async with checkout(workers=2, store=SharedStore()) as shop:
        engine = LenientEngine(shop)
        first, second = await two_requests(shop)
        await shop.submit(first, "k1")
        shop.replies["look_up"] = _look_up_of(engine, SECOND)
        with pytest.raises(EngineUnavailable):
            await shop.submit(second, "k2", worker=1)
        assert shop.count("submit") == 1


@pytest.mark.parametrize("during", QUEUED)
async def test_with_a_shared_store_a_second_worker_waits_for_the_first_one(during: str) -> None:
    async with checkout(workers=2, store=SharedStore()) as shop:
        engine = LenientEngine(shop)
        first, second = await two_requests(shop)
        held = shop.held[during] = asyncio.Event()
        runs = [asyncio.create_task(shop.submit(first, "k1"))]
        await asyncio.sleep(0.1)
        runs.append(asyncio.create_task(shop.submit(second, "k2", worker=1)))
        await asyncio.sleep(0.1)
        held.set()
        accepted, busy = await asyncio.gather(*runs, return_exceptions=True)
        assert not isinstance(accepted, BaseException)
        assert isinstance(busy, OrderBusy)
        assert engine.taking == [FIRST]


async def test_with_a_shared_store_a_submit_on_its_way_keeps_a_second_worker_out() -> None:
    async with checkout(workers=2, store=SharedStore()) as shop:
        engine = LenientEngine(shop)
        engine.lost.add(FIRST)
        first, second = await two_requests(shop)
        await shop.submit(first, "k1")
        with pytest.raises(OrderBusy):
            await shop.submit(second, "k2", worker=1)
        await asyncio.sleep(31)
        assert (await shop.submit(second, "k2", worker=1)).payment_id == SECOND
        assert engine.taking == [SECOND]


async def test_a_store_that_releases_nothing_stops_no_payment() -> None:
    class Stuck(SharedStore):
        async def run_script(self, script: str, key: bytes, *arguments: str | int) -> Any:
            return (
                b"pay_aaaaaaaaaaaaaaaaaaaaaaaaaa" if b"/" in key else await super().run_script(script, key, *arguments)
            )

    async with checkout(store=Stuck()) as shop:
        payment = await shop.pay(CASE, "WALLET:ALIPAY")
        assert (await shop.cancel(payment)).status is PaymentStatus.CLOSED


async def test_a_paid_order_is_no_busy_order(shop: Checkout) -> None:
    first, second = await two_requests(shop)
    payment = await shop.submit(first, "k1")
    shop.settle(payment)
    with pytest.raises(ConsultChanged):
        await shop.submit(second, "k2")
    assert shop.count("submit") == 1


async def test_a_full_memory_forgets_acknowledged_attempts_first_and_then_refuses(shop: Checkout) -> None:
    engine = LenientEngine(shop)
    live = shop.payments._attempt_guard._live_attempts = LiveAttempts(most_attempts=1)
    first, second = await two_requests(shop)
    await shop.submit(first, "k1")
    assert live.claim("m_1/o_2", "pay_2") is None, "the engine knows the forgotten one"
    assert (len(live), live.forgotten) == (1, 1)
    engine.payments.clear()
    with pytest.raises(TooManyPayments):
        await shop.submit(second, "k2")
    assert live.release_unsent("m_1/o_2", "pay_2")
    assert (await shop.submit(second, "k2")).payment_id == SECOND
    assert repr(live) == "<LiveAttempts 1 forgotten=1>"

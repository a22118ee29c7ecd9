"""Broken obligations of the engine are logged by name and counted, once per payment."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import structlog.testing
from hypothesis import given
from hypothesis import strategies as st

from cashier.domain.engine_contract import EnginePayment, EngineStatus
from cashier.payments.engine_obligations import AttemptSightings, Obligation, Window
from cashier.payments.errors import KeyReused
from cashier.wire.transport import Request, Response
from tests.payments.checkout import Checkout, checkout

pytestmark = pytest.mark.looptime

CASE, METHOD = "chinese_shop", "WALLET:ALIPAY"

BREACHES = "cashier_engine_breaches_total"


def breaches(shop: Checkout) -> dict[tuple[str, ...], Any]:
    """By obligation, as the metrics of the first worker count them."""
    counted = shop.workers[0].metrics.snapshot()[BREACHES]
    assert len(counted) == len(Obligation)
    return {labels: count for labels, count in counted.items() if count}


@asynccontextmanager
async def breach_of(obligation: Obligation, payments: int = 1) -> AsyncIterator[Checkout]:
    """A checkout at whose end exactly this obligation was broken, for this number of payments."""
    with structlog.testing.capture_logs() as entries:
        async with checkout() as shop:
            yield shop
            assert breaches(shop) == {(obligation.value,): payments}
    logged = [entry for entry in entries if entry["event"] == "the engine broke an obligation"]
    assert [(entry["log_level"], entry["obligation"]) for entry in logged] == [("error", obligation.value)] * payments


def report(shop: Checkout, call: str, **fields: Any) -> None:
    """From now on the engine answers this to a call, about whichever payment was asked for."""

    async def reply(request: Request) -> Response:
        if request.target == "/payments":
            payment_id = msgspec.json.decode(request.body)["payment_id"]
        else:
            payment_id = request.target.split("/")[2]
        return Response(200, msgspec.json.encode({"payment_id": payment_id, **fields}))

    shop.replies[call] = reply


@pytest.mark.moves("cashier_engine_breaches_total")
async def test_an_honest_engine_breaks_none() -> None:
    async with checkout(workers=2) as shop:
        for key, result in (("k1", "FAILED"), ("k2", "SUCCEEDED")):
            payment = await shop.pay(CASE, METHOD, key=key)
            await shop.look(payment)
            shop.settle(payment, result)
            await shop.look(payment)
        cancelled = await shop.pay("balance_is_enough", "QUICK_PAY:c_2")
        await shop.look(await shop.cancel(cancelled))
        assert not breaches(shop)


@pytest.mark.parametrize(
    "later",
    [
        {"status": "SUCCEEDED"},
        {"status": "PROCESSING"},
        {"status": "FAILED", "failure": {"code": "EXPIRED", "text": ""}},
    ],
)
async def test_a_final_result_that_changes(later: dict[str, Any]) -> None:
    async with breach_of(Obligation.FINAL_STAYS_FINAL) as shop:
        payment = await shop.pay(CASE, METHOD)
        shop.settle(payment, "FAILED")
        failed = await shop.look(payment)
        report(shop, "look_up", **later)
        for _ in range(3):
            await shop.look(failed)


async def test_a_sealed_payment_that_appears() -> None:
    async with breach_of(Obligation.SEALED_STAYS_REFUSED) as shop:
        payment = await shop.pay(CASE, "QUICK_PAY:c_2")
        cancelled = await shop.cancel(payment)
        report(shop, "look_up", status="SUCCEEDED")
        for token in (payment, cancelled):
            await shop.look(token)


async def test_a_submit_that_is_answered_with_another_body() -> None:
    async with breach_of(Obligation.SAME_ID_SAME_PAYMENT) as shop:
        report(shop, "submit", status="SUCCEEDED", fingerprint="another")
        for _ in range(2):
            with pytest.raises(KeyReused):
                await shop.pay("balance_is_enough", "BALANCE:acc_1")


@pytest.mark.parametrize("wrong", [{"payment_id": "pay_other"}, {"order_id": "o_other"}])
async def test_a_submit_that_is_answered_about_another_payment_or_order(wrong: dict[str, str]) -> None:
    async with breach_of(Obligation.SAME_ID_SAME_PAYMENT) as shop:
        report(shop, "submit", status="SUCCEEDED", **wrong)
        await shop.pay("balance_is_enough", "BALANCE:acc_1")


async def test_a_payment_that_was_sent_here_and_has_another_body_later() -> None:
    async with breach_of(Obligation.SAME_ID_SAME_PAYMENT) as shop:
        payment = await shop.pay(CASE, METHOD)
        report(shop, "look_up", status="PROCESSING", fingerprint="another")
        with pytest.raises(KeyReused):
            await shop.look(payment)
        shop.replies.clear()
        await shop.cancel(payment)


async def test_another_body_under_a_key_that_another_worker_sent_is_the_callers_fault() -> None:
    async with checkout(workers=2) as shop:
        other = await shop.new_request(CASE, "QUICK_PAY:c_2")
        payment = await shop.submit(await shop.new_request(CASE, METHOD), worker=1)
        with pytest.raises(KeyReused):
            await shop.submit(other)
        assert not breaches(shop)
        await shop.cancel(payment)


async def test_two_payments_of_one_order_that_both_succeeded() -> None:
    async with breach_of(Obligation.ONE_LIVE_ATTEMPT, payments=2) as shop:
        report(shop, "submit", status="FAILED")
        first = await shop.pay(CASE, METHOD, key="k1")
        second = await shop.pay(CASE, METHOD, key="k2")
        # Not remembered as ended, or the change itself would be the breach.
        engine: Any = shop.payments._ports.engine
        engine._ended.clear()
        report(shop, "look_up", status="SUCCEEDED")
        for payment in (first, second, first, second):
            await shop.look(payment)


def alternating(first: EngineStatus, second: EngineStatus, third: EngineStatus) -> str | None:
    """Attempts a, b and again a, each asked after the answer about the one before."""
    sightings = AttemptSightings()
    found = None
    for number, (payment_id, status) in enumerate((("a", first), ("b", second), ("a", third))):
        found = sightings.note("m", "o", _payment(payment_id, status), Window(2 * number, 2 * number + 1)) or found
    return found


def _payment(payment_id: str, status: EngineStatus) -> EnginePayment:
    return EnginePayment(payment_id=payment_id, status=status)


LIVE = (EngineStatus.PROCESSING, EngineStatus.USER_PAYING)


@pytest.mark.parametrize("second", [*LIVE, EngineStatus.SUCCEEDED])
@pytest.mark.parametrize("third", [*LIVE, EngineStatus.SUCCEEDED])
def test_an_attempt_that_is_live_before_and_after_another_was_live_beside_it(
    second: EngineStatus, third: EngineStatus
) -> None:
    assert alternating(EngineStatus.PROCESSING, second, third) == "b"


def test_an_attempt_that_ended_before_the_next_one_is_no_breach() -> None:
    assert alternating(EngineStatus.FAILED, EngineStatus.PROCESSING, EngineStatus.FAILED) is None
    assert alternating(EngineStatus.PROCESSING, EngineStatus.PROCESSING, EngineStatus.FAILED) is None


def test_orders_of_two_merchants_with_one_id_are_two_orders() -> None:
    sightings = AttemptSightings()
    for number, (merchant, payment_id) in enumerate((("m", "a"), ("n", "b"), ("m", "a"))):
        payment = _payment(payment_id, EngineStatus.SUCCEEDED)
        assert sightings.note(merchant, "o", payment, Window(2 * number, 2 * number + 1)) is None


@given(
    st.lists(st.tuples(st.integers(1, 3), st.sampled_from(["fails", "succeeds"]), st.integers(0, 5)), max_size=12),
    st.randoms(use_true_random=False),
)
def test_an_engine_with_one_live_attempt_at_a_time_is_never_accused(
    attempts: list[tuple[int, str, int]], random: Any
) -> None:
    """Answers are asked while attempts come and go, and are read in any order and much later."""
    answers: list[tuple[EnginePayment, int, int]] = []
    tick = 0
    for number, (looks, end, overlap) in enumerate(attempts):
        states = [EngineStatus.PROCESSING] * looks
        states.append(EngineStatus.FAILED if end == "fails" else EngineStatus.SUCCEEDED)
        for status in states:
            tick += 10
            # True at `tick`: asked before, answered after.
            asked, answered = (
                tick - 1 - random.randrange(10 * overlap + 1),
                tick + 1 + random.randrange(10 * overlap + 1),
            )
            answers.append((_payment(f"p{number}", status), asked, answered))
        if end == "succeeds":
            break
    sightings = AttemptSightings()
    for payment, asked, answered in sorted(answers, key=lambda answer: answer[2]):
        assert sightings.note("m", "o", payment, Window(asked, answered)) is None


def test_what_is_remembered_of_orders_and_breaches_is_bounded() -> None:
    sightings = AttemptSightings()
    for number in range(30_000):
        window = Window(2 * number, 2 * number + 1)
        sightings.note("m", f"o{number % 20_000}", _payment(f"p{number}", EngineStatus.PROCESSING), window)
    assert repr(sightings) == "<AttemptSightings orders=10000>"
    for number in range(100):
        sightings.note("m", "o", _payment(f"p{number}", EngineStatus.PROCESSING), Window(number, number))
    assert len(sightings._orders["m", "o"]) == 8

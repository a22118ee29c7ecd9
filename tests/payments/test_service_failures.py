"""Why risk, engine or acquirer gave no credible answer is in the log, once, for each reason."""

from __future__ import annotations

from typing import Any

import pytest
import structlog.testing

from cashier.domain.payment_state import PaymentStatus
from cashier.payments.errors import CheckUnavailable, EngineUnavailable
from cashier.wire.transport import Request, Response
from tests.payments.checkout import Checkout, checkout, connection_refused
from tests.support.sandbox_payments import sandbox_call

pytestmark = pytest.mark.virtual_time

CASE, METHOD = "balance_is_enough", "BALANCE:acc_1"


def lines(entries: Any, source: str) -> list[tuple[str, str]]:
    return [
        (entry["cause"], entry["reason"])
        for entry in entries
        if entry["event"] == "no answer from a source" and entry["source"] == source
    ]


def with_other_words(shop: Checkout, old: bytes, new: bytes) -> Any:
    """The sandbox's answers in an upstream's own words."""
    sandbox = sandbox_call(shop.world, shop.weather)

    async def reply(request: Request) -> Response:
        answer = await sandbox(request)
        return Response(answer.status, answer.body.replace(old, new))

    return reply


async def test_an_acquirer_with_its_own_status_words_is_named_and_not_only_confirmed_for_ever() -> None:
    with structlog.testing.capture_logs() as entries:
        async with checkout() as shop:
            shop.replies["result"] = with_other_words(shop, b'"PAID"', b'"TRADE_SUCCESS"')
            payment = await shop.pay(CASE, METHOD)
            for _ in range(4):
                payment = await shop.look(payment)
            assert payment.status is PaymentStatus.PROCESSING
            (report,) = [report for report in shop.workers[0].failures if report.source == "acquirer"]
            assert report.times >= 4
    ((cause, reason),) = lines(entries, "acquirer")
    assert cause == "GARBLED"
    assert reason.endswith("at $.status")
    assert "TRADE_SUCCESS" not in reason


@pytest.mark.parametrize(
    ("call", "reply", "cause", "reason"),
    [
        ("decide", Response(500, b""), "UNREACHABLE", "status 500"),
        ("decide", Response(200, b'{"decision": "MAYBE", "decision_id": "d"}'), "GARBLED", "at $.decision"),
        ("decide", Response(404, b""), "GARBLED", "status 404"),
    ],
)
async def test_a_risk_service_without_a_decision_is_logged(call: str, reply: Response, cause: str, reason: str) -> None:
    async def answer(_: Request) -> Response:
        return reply

    with structlog.testing.capture_logs() as entries:
        async with checkout() as shop:
            shop.replies[call] = answer
            with pytest.raises(CheckUnavailable):
                await shop.pay(CASE, METHOD)
    ((logged_cause, logged_reason),) = lines(entries, "risk")
    assert logged_cause == cause
    assert reason in logged_reason


async def test_an_engine_that_refuses_connections_is_logged() -> None:
    with structlog.testing.capture_logs() as entries:
        async with checkout() as shop:
            shop.replies["submit"] = connection_refused
            with pytest.raises(EngineUnavailable):
                await shop.pay(CASE, METHOD)
    assert ("UNREACHABLE", "connection refused") in lines(entries, "engine")


async def test_an_engine_answer_that_cannot_be_read_is_logged() -> None:
    with structlog.testing.capture_logs() as entries:
        async with checkout() as shop:
            shop.replies["submit"] = with_other_words(shop, b'"SUCCEEDED"', b'"OK"')
            assert (await shop.pay(CASE, METHOD)).status is PaymentStatus.PROCESSING
    ((cause, reason),) = lines(entries, "engine")
    assert cause == "GARBLED"
    assert reason.endswith("at $.status")

"""One log line for each step of a payment, with its ids and codes, and nothing of the payer."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from cashier.payments.errors import CheckUnavailable
from cashier.payments.step_feed import PaymentStep
from cashier.sandbox import CASES
from tests.payments.checkout import OTP, Checkout

pytestmark = pytest.mark.virtual_time

CASE, METHOD = "balance_is_enough", "BALANCE:acc_1"
CHALLENGED = "chinese_shop", "QUICK_PAY:c_2"


def steps(lines: list[Any]) -> list[tuple[str, str]]:
    return [(line["step"], line["event"]) for line in lines if "step" in line and line["log_level"] != "debug"]


async def test_each_step_of_a_submit_is_a_line_with_its_ids(shop: Checkout) -> None:
    request = await shop.new_request(CASE, METHOD)
    with capture_logs() as lines:
        payment = await shop.payments.submit(
            request, "k1", request_id="r-1", traceparent=f"00-{'a' * 32}-{'b' * 16}-01"
        )
    assert steps(lines) == [
        ("recheck", "offer rechecked"),
        ("risk", "accepted by risk"),
        ("submit", "engine answered"),
        ("status", "payment ended"),
    ]
    lines = [line for line in lines if "step" in line]
    for line in lines:
        assert (line["payment_id"], line["order_id"]) == (payment.payment_id, "o_1002")
        assert (line["kind"], line["request_id"], line["trace_id"]) == ("BALANCE", "r-1", "a" * 32)
    assert lines[-1]["status"] == payment.status.value


async def test_operators_get_each_step_with_the_look_up_that_the_log_leaves_out(shop: Checkout) -> None:
    bodies: list[bytes] = []
    shop.workers[0].payment_steps.send = bodies.append
    with capture_logs() as lines:
        payment = await shop.pay(CASE, METHOD)
    found = [msgspec.json.decode(body, type=PaymentStep) for body in bodies]
    assert [(step.step, step.event) for step in found] == [("look_up", "payment looked up"), *steps(lines)]
    assert {(step.payment_id, step.order_id, step.kind) for step in found} == {
        (payment.payment_id, "o_1002", "BALANCE")
    }
    assert found[0].fields["engine"] == "NEVER_ARRIVED"
    assert found[-1].fields["status"] == payment.status.value
    for step, line in zip(
        found[1:], (line for line in lines if line.get("step") not in (None, "look_up")), strict=True
    ):
        assert step.fields.items() <= line.items()
    shop.workers[0].payment_steps.send = None
    await shop.look(payment)
    assert len(bodies) == len(found)


async def test_a_challenge_and_each_answer_is_a_line_without_the_answer(shop: Checkout) -> None:
    with capture_logs() as lines:
        payment = await shop.pay(*CHALLENGED)
        payment = await shop.answer(payment, "000000")
        await shop.answer(payment)
    assert [line["outcome"] for line in lines if line["event"] == "challenge answered"] == ["WrongAnswer", "Passed"]
    assert [line["attempts_left"] for line in lines if line["event"] == "challenge required by risk"] == [3]
    for secret in ("000000", OTP, "c_2", payment.payment_token, *_ids(CHALLENGED[0])):
        assert secret not in str(lines)


async def test_polls_are_lines_only_if_they_find_a_change(shop: Checkout) -> None:
    shop.inject("engine", "cut", on="submit")
    payment = await shop.pay(CASE, METHOD)
    with capture_logs() as lines:
        for _ in range(5):
            await shop.look(payment)
    assert len(steps(lines)) <= 1


async def test_an_unknown_outcome_and_its_resolution_are_lines(shop: Checkout) -> None:
    shop.inject("engine", "reset", on="submit")
    with capture_logs() as lines:
        payment = await shop.pay(CASE, METHOD)
        await shop.look(payment)
    events = [event for _, event in steps(lines)]
    assert "submit outcome unknown" in events
    assert events.index("submit outcome unknown") < events.index("unknown outcome resolved")
    assert events.count("payment ended") == 1


async def test_a_refusal_is_a_line_with_its_code(shop: Checkout) -> None:
    request = await shop.new_request(CASE, METHOD)
    shop.inject("risk", "error", always=True)
    with capture_logs() as lines, pytest.raises(CheckUnavailable):
        await shop.submit(request)
    refused = [line for line in lines if line["event"] == "payment refused"]
    assert [(line["code"], line["step"]) for line in refused] == [("CHECK_UNAVAILABLE", "submit")]


async def test_a_cancellation_is_a_line_and_so_is_its_outcome(shop: Checkout) -> None:
    payment = await shop.pay(*CHALLENGED)
    with capture_logs() as lines:
        await shop.cancel(payment)
    assert steps(lines)[0] == ("cancel", "cancellation asked for")
    assert "CANCEL_ASKED" in next(line["flags"] for line in lines if line.get("step") == "status")


def _ids(case: str) -> tuple[str, str]:
    request = CASES[case].request
    return str(request["user_id"]), str(request["merchant_id"])

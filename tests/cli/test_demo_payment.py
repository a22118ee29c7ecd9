"""The demonstration's payment: the sandbox's ledger against the offer, and an end in every case."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from cashier.cli import demo_payment
from cashier.cli.checkout_client import SelectedMethod
from cashier.cli.demo_payment import ledger_lines
from tests.support.scripted_service import Json, amount, cny, consultation, method, payment, problem, serving

CHOSEN = SelectedMethod({}, amount(11_930, fee=130, p_1=1_000), {})


def entry(what: str, source: str | None, value: int, payment_id: str = "pay_1") -> Json:
    return {"payment_id": payment_id, "what": what, "amount": cny(value)} | ({"from": source} if source else {})


DISCOUNT = entry("TAKEN", "PROMOTION:p_1", 1_000)
PAID = entry("SUCCEEDED", None, 11_930)


def printed(*entries: Json, wrong: tuple[str, ...] = (), width: int = 140) -> str:
    lines = ledger_lines({"entries": entries, "wrong": wrong}, "pay_1", CHOSEN, width)
    return "\n".join(line.plain for line in lines)


def test_the_money_taken_is_the_order_less_the_discounts_plus_the_fee() -> None:
    of_another = entry("TAKEN", "CHANNEL:ch_9", 1, "pay_2")
    balance, channel = entry("TAKEN", "BALANCE:a", 10_000), entry("TAKEN", "CHANNEL:ch_1", 1_930)
    assert printed(DISCOUNT, balance, channel, PAID, of_another) == (
        "    ledger  money taken 119.30 = order 128.00 − discounts 10.00 + fee 1.30  from BALANCE:a, CHANNEL:ch_1\n"
        "    audit   nothing is wrong"
    )


def test_a_different_sum_shows_as_unequal() -> None:
    assert "money taken 119.29 ≠ order 128.00 − discounts 10.00 + fee 1.30" in printed(
        DISCOUNT, entry("TAKEN", "CHANNEL:ch_1", 11_929)
    )
    assert "money taken 119.30 ≠ order 128.00 − discounts 0.00 + fee 1.30" in printed(
        entry("TAKEN", "CHANNEL:ch_1", 11_930)
    )


def test_a_refund_counts_against_the_money_taken_and_faults_of_the_audit_show() -> None:
    refunded = [entry("TAKEN", "CHANNEL:ch_1", 11_930), entry("REFUNDED", "CHANNEL:ch_1", 11_930)]
    assert printed(*refunded, wrong=("pay_1 keeps 1",)).startswith("    ledger  money taken 0.00 ≠")
    assert printed(*refunded, wrong=("pay_1 keeps 1",)).endswith("audit   pay_1 keeps 1")


async def demo_output(consulted: Json, *answers: Json) -> str:
    out = io.StringIO()
    async with serving(consulted, *answers) as script:
        await demo_payment.pay(Console(file=out, width=120), script.url, script.url, {"order_id": "o_1"})
    return out.getvalue()


async def test_an_order_that_cannot_be_paid_shows_its_reason_and_ends() -> None:
    assert "ORDER_PAID: It is paid." in await demo_output(
        consultation(blocked={"code": "ORDER_PAID", "message": "It is paid."})
    )
    assert "404 ORDER_UNKNOWN" in await demo_output(problem(404, "ORDER_UNKNOWN"))
    assert "402 RISK_REJECTED" in await demo_output(consultation(method("BALANCE:a")), problem(402, "RISK_REJECTED"))


async def test_a_payment_that_never_ends_is_left_with_a_hint_how_to_resume_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_payment, "TIMEOUT_S", 0.05)
    out = await demo_output(consultation(method("BALANCE:a")), payment("PROCESSING"))
    assert "cashier payment pay_1 --url" in out

"""The demonstration's payment: what the sandbox's books say is held against what was offered, and whatever happens it goes on."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.text import Text

from cashier.cli import demo_payment
from cashier.cli.demo_payment import books
from cashier.cli.payer import Chosen
from tests.support.scripted_service import Json, amount, cny, consultation, method, payment, problem, serving

FOUND = Chosen({}, amount(11_930, fee=130, p_1=1_000), {})


def entry(what: str, source: str | None, value: int, payment_id: str = "pay_1") -> Json:
    return {"payment_id": payment_id, "what": what, "amount": cny(value)} | ({"from": source} if source else {})


OFF = entry("TAKEN", "PROMOTION:p_1", 1_000)
PAID = entry("SUCCEEDED", None, 11_930)


def told(*entries: Json, wrong: tuple[str, ...] = ()) -> str:
    return Text.from_markup(books({"entries": entries, "wrong": wrong}, "pay_1", FOUND)).plain


def test_what_was_taken_is_the_order_less_the_discounts_plus_the_fee() -> None:
    of_another = entry("TAKEN", "CHANNEL:ch_9", 1, "pay_2")
    assert told(OFF, entry("TAKEN", "BALANCE:a", 10_000), entry("TAKEN", "CHANNEL:ch_1", 1_930), PAID, of_another) == (
        "ledger  money taken 119.30 = order 128.00 − discounts 10.00 + fee 1.30  from BALANCE:a, CHANNEL:ch_1\naudit   nothing is wrong"
    )


def test_any_other_sum_is_said_to_be_another() -> None:
    assert "money taken 119.29 ≠ order 128.00 − discounts 10.00 + fee 1.30" in told(
        OFF, entry("TAKEN", "CHANNEL:ch_1", 11_929)
    )
    assert "money taken 119.30 ≠ order 128.00 − discounts 0.00 + fee 1.30" in told(
        entry("TAKEN", "CHANNEL:ch_1", 11_930)
    )


def test_what_went_back_was_not_taken_and_what_is_wrong_is_said() -> None:
    back = [entry("TAKEN", "CHANNEL:ch_1", 11_930), entry("REFUNDED", "CHANNEL:ch_1", 11_930)]
    assert told(*back, wrong=("pay_1 keeps 1",)).startswith("ledger  money taken 0.00 ≠")
    assert told(*back, wrong=("pay_1 keeps 1",)).endswith("audit   pay_1 keeps 1")


async def shown(consulted: Json, *answers: Json) -> str:
    out = io.StringIO()
    async with serving(consulted, *answers) as script:
        await demo_payment.pay(Console(file=out, width=120), script.url, script.url, {"order_id": "o_1"})
    return out.getvalue()


async def test_where_nothing_can_be_paid_it_says_so_and_goes_on() -> None:
    assert "ORDER_PAID: It is paid." in await shown(
        consultation(blocked={"code": "ORDER_PAID", "message": "It is paid."})
    )
    assert "404 ORDER_UNKNOWN" in await shown(problem(404, "ORDER_UNKNOWN"))
    assert "402 RISK_REJECTED" in await shown(consultation(method("BALANCE:a")), problem(402, "RISK_REJECTED"))


async def test_a_payment_without_an_end_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_payment, "LONGEST_S", 0.05)
    assert "cashier payment pay_1 --url" in await shown(consultation(method("BALANCE:a")), payment("PROCESSING"))

"""Broken payment services: what the payer gets, what the log says once, and what is never done.

A payment is called paid or failed only when a service says so. It is never charged twice: in
every fault the engine receives one transfer, and after the repair the payment ends as it really
did.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest
import structlog.testing
from aiohttp import web

from cashier import Cashier
from cashier.sandbox import World
from cashier.sandbox.records import Json
from tests.company.company import Company, Serve, open_company
from tests.company.faults import Break, instead, json, mistaken, page, spoiled
from tests.company.payer import Payer

# Enough on a busy machine; only a service that hangs takes as long.
PATIENCE_MS = 2_000
SHORT_MS = 400


class Shop(NamedTuple):
    company: Company
    payer: Payer
    entries: list[Any]

    def lines(self, service: str) -> list[tuple[str, str]]:
        """Cause and reason of each log line about this service. There is none about another."""
        lines = [entry for entry in self.entries if entry["event"] == "no answer from a source"]
        assert {entry["source"] for entry in lines} <= {service}
        for entry in lines:
            assert entry["address"].startswith(self.company.environ[f"{service.upper()}_URL"])
        return [(entry["cause"], entry["reason"]) for entry in lines]

    def repair(self, service: str) -> None:
        self.company.faults.pop(service, None)
        self.company.records.mistaken.discard(service)

    @property
    def transfers(self) -> int:
        """The number of payments that the engine received."""
        return self.company.requests["engine"].count("POST /transfers")

    @property
    def charged(self) -> int:
        return sum(entry.what == "ORDER_PAID" for entry in self.company.world.ledger.entries)


@asynccontextmanager
async def shop(**accept: int) -> AsyncIterator[Shop]:
    def patient(table: Any) -> None:
        table["accept"] = {"check_ms": PATIENCE_MS, "submit_ms": PATIENCE_MS, "look_ms": PATIENCE_MS, **accept}
        for service in ("engine", "acquirer"):
            table["sources"][service]["tries"] = {"attempts": 1, "attempt_ms": PATIENCE_MS}

    with structlog.testing.capture_logs() as entries:
        async with open_company(World()) as company, Cashier(config=company.configuration(patient)) as cashier:
            yield Shop(company, Payer(cashier), entries)
            assert company.world.audit() == []


def raised(service: str, operation: str, exception: str) -> str:
    return rf"^adapter adapters\.{service}(:\w+)?: {operation}\(\) raised {exception} \({service}\.py, line \d+\)$"


RISK: list[tuple[str, Break, str, str]] = [
    ("a score in words", spoiled('"score": 120', '"score": "low"'), "GARBLED", raised("risk", "decide", "ValueError")),
    ("above the scale", spoiled('"score": 120', '"score": 1200'), "GARBLED", raised("risk", "decide", "ValueError")),
    ("its fault", instead(json({"fault": "no model"})), "GARBLED", raised("risk", "decide", "KeyError")),
    ("a page", instead(page), "GARBLED", raised("risk", "decide", "DecodeError")),
    ("refused", instead(lambda: page(403)), "GARBLED", "status 403: the service refuses our credential"),
    ("busy", instead(lambda: page(503)), "OVERLOADED", "status 503"),
    ("another's", mistaken, "WRONG_IDENTITY", "^adapter adapters.risk:Scores: a score of another payment$"),
]  # fmt: skip


@pytest.mark.parametrize(("break_", "cause", "reason"), [pytest.param(*rest, id=what) for what, *rest in RISK])
async def test_without_a_score_nothing_is_sent_and_the_same_key_pays_after_the_repair(
    break_: Break, cause: str, reason: str
) -> None:
    async with shop() as open_shop:
        choice = await open_shop.payer.choose("balance_is_enough", "BALANCE:acc_1")
        break_(open_shop.company, "risk")
        for _ in range(2):
            status, problem = await open_shop.payer.submit(choice)
            assert (status, problem["code"], problem["silent"]) == (503, "CHECK_UNAVAILABLE", ["risk"])
        assert open_shop.transfers == 0
        ((logged_cause, logged_reason),) = open_shop.lines("risk")
        assert logged_cause == cause
        assert re.search(reason, logged_reason), logged_reason
        open_shop.repair("risk")
        status, payment = await open_shop.payer.submit(choice)
        assert (payment["status"], open_shop.transfers, open_shop.charged) == ("SUCCEEDED", 1, 1)


async def test_a_step_up_that_cannot_be_read_is_no_challenge() -> None:
    async with shop() as open_shop:
        choice = await open_shop.payer.choose("chinese_shop", "QUICK_PAY:c_2")
        spoiled("|S|", "|X|", at="/step-up")(open_shop.company, "risk")
        status, problem = await open_shop.payer.submit(choice)
        assert (status, problem["code"]) == (503, "CHECK_UNAVAILABLE")
        ((cause, reason),) = open_shop.lines("risk")
        assert cause == "GARBLED"
        assert re.search(raised("risk", "decide", "KeyError"), reason), reason
        open_shop.repair("risk")
        _, payment = await open_shop.payer.submit(choice)
        assert payment["status"] == "CHALLENGE"
        instead(lambda: web.Response(text="PERHAPS 2"))(open_shop.company, "risk")
        status, problem = await open_shop.payer.answer(payment)
        assert (status, problem["code"]) == (503, "CHECK_UNAVAILABLE")
        assert open_shop.transfers == 0
        open_shop.repair("risk")
        _, payment = await open_shop.payer.answer(payment)
        assert (payment["status"], open_shop.charged) == ("SUCCEEDED", 1)


CREATE = "POST /transfers"
ENGINE: list[tuple[str, Break, str, str]] = [
    ("an unknown state", spoiled(": 50", ": 77", CREATE), "GARBLED", raised("engine", "submit", "KeyError")),
    ("without a state", spoiled('"state"', '"st"', CREATE), "GARBLED", raised("engine", "submit", "KeyError")),
    ("no JSON", spoiled("{", "<", CREATE), "GARBLED", raised("engine", "submit", "DecodeError")),
    ("an unknown action", spoiled('"REDIRECT"', '"JUMP"', CREATE), "GARBLED", r"adapters\.engine: .*next_action"),
    ("another's", mistaken, "WRONG_IDENTITY", "^adapter adapters.engine: an answer about another payment$"),
]  # fmt: skip


@pytest.mark.parametrize(("break_", "cause", "reason"), [pytest.param(*rest, id=what) for what, *rest in ENGINE])
async def test_a_transfer_with_an_unreadable_answer_is_in_progress_and_never_sent_again(
    break_: Break, cause: str, reason: str
) -> None:
    async with shop() as open_shop:
        method_id = "WALLET:WECHAT_PAY" if "next_action" in reason else "BALANCE:acc_1"
        choice = await open_shop.payer.choose("balance_is_enough", method_id)
        break_(open_shop.company, "engine")
        status, payment = await open_shop.payer.submit(choice)
        assert (status, payment["status"]) == (202, "PROCESSING")
        ((logged_cause, logged_reason),) = open_shop.lines("engine")
        assert logged_cause == cause
        assert re.search(reason, logged_reason), logged_reason
        open_shop.repair("engine")
        _, again = await open_shop.payer.submit(choice)
        assert again["payment_id"] == payment["payment_id"]
        if again["status"] == "ACTION_REQUIRED":
            open_shop.company.world.engine.settle(payment["payment_id"], "SUCCEEDED")
        await seen(open_shop, payment, "SUCCEEDED")
        assert (open_shop.transfers, open_shop.charged) == (1, 1)


@pytest.mark.parametrize(
    ("break_", "cause", "reason"),
    [
        (instead(page), "GARBLED", raised("engine", "look_up", "DecodeError")),
        (instead(json({"error": "locked"})), "GARBLED", raised("engine", "look_up", "KeyError")),
        (instead(lambda: page(502)), "UNREACHABLE", "^status 502$"),
    ],
)
async def test_an_engine_that_cannot_be_read_at_all_is_sent_nothing(break_: Break, cause: str, reason: str) -> None:
    async with shop() as open_shop:
        choice = await open_shop.payer.choose("balance_is_enough", "BALANCE:acc_1")
        break_(open_shop.company, "engine")
        for _ in range(2):
            status, problem = await open_shop.payer.submit(choice)
            assert (status, problem["code"]) == (503, "ENGINE_UNAVAILABLE")
        ((logged_cause, logged_reason),) = open_shop.lines("engine")
        assert logged_cause == cause
        assert re.search(reason, logged_reason), logged_reason
        assert open_shop.transfers == 0
        open_shop.repair("engine")
        _, payment = await open_shop.payer.submit(choice)
        assert (payment["status"], open_shop.transfers, open_shop.charged) == ("SUCCEEDED", 1, 1)


async def test_a_transfer_refused_in_the_engines_own_form_is_never_called_failed_and_can_be_cancelled() -> None:
    async with shop() as open_shop:
        choice = await open_shop.payer.choose("balance_is_enough", "BALANCE:acc_1")
        instead(json({"problem": "maintenance"}, 422), CREATE)(open_shop.company, "engine")
        status, payment = await open_shop.payer.submit(choice)
        assert (status, payment["status"]) == (202, "PROCESSING")
        ((_, reason),) = open_shop.lines("engine")
        assert reason == "adapter adapters.engine: status 422 is not among its statuses"
        _, payment = await open_shop.payer.cancel(payment)
        assert (payment["status"], open_shop.charged) == ("CLOSED", 0)
        assert any(request.startswith("PUT /barred/") for request in open_shop.company.requests["engine"])


async def test_an_engine_that_hangs_after_it_took_the_money_was_charged_once() -> None:
    async with shop(submit_ms=SHORT_MS) as open_shop:
        choice = await open_shop.payer.choose("balance_is_enough", "BALANCE:acc_1")

        async def take_and_hang(request: web.Request, serve: Serve) -> web.StreamResponse:
            response = await serve(request)
            return await open_shop.company.hang(request, serve) if request.method == "POST" else response

        open_shop.company.faults["engine"] = take_and_hang
        status, payment = await open_shop.payer.submit(choice)
        assert (status, payment["status"]) == (202, "PROCESSING")
        _, same = await open_shop.payer.submit(choice)
        assert same["payment_id"] == payment["payment_id"]
        ((cause, _),) = open_shop.lines("engine")
        assert cause == "TIMEOUT"
        open_shop.repair("engine")
        payment = await seen(open_shop, payment, "SUCCEEDED")
        assert (open_shop.transfers, open_shop.charged) == (1, 1)


ACQUIRER: list[tuple[str, Break, str, str]] = [
    ("words of its own", spoiled("settled", "posted"), "GARBLED", raised("acquirer", "result", "KeyError")),
    ("its fault", instead(json({"sorry": "closed at night"})), "GARBLED", raised("acquirer", "result", "KeyError")),
    ("a part of a cent", spoiled(" CNY", "5 CNY"), "GARBLED", raised("acquirer", "result", "ValueError")),
    ("a page", instead(page), "GARBLED", raised("acquirer", "result", "DecodeError")),
    ("another's", mistaken, "WRONG_IDENTITY", "another order"),
]  # fmt: skip


@pytest.mark.parametrize(("break_", "cause", "reason"), [pytest.param(*rest, id=what) for what, *rest in ACQUIRER])
async def test_an_unreadable_result_is_confirming_and_named_and_then_paid(
    break_: Break, cause: str, reason: str
) -> None:
    async with shop() as open_shop:
        choice = await open_shop.payer.choose("balance_is_enough", "BALANCE:acc_1")
        break_(open_shop.company, "acquirer")
        _, payment = await open_shop.payer.submit(choice)
        for _ in range(3):
            _, payment = await open_shop.payer.look(payment)
            assert (payment["status"], payment["message"]["code"]) == ("PROCESSING", "CONFIRMING")
        ((logged_cause, logged_reason),) = open_shop.lines("acquirer")
        assert logged_cause == cause
        assert re.search(reason, logged_reason), logged_reason
        open_shop.repair("acquirer")
        payment = await seen(open_shop, payment, "SUCCEEDED")
        assert (open_shop.transfers, open_shop.charged) == (1, 1)


@pytest.mark.parametrize(("service", "budget"), [("risk", "decide_ms"), ("acquirer", "look_ms")])
async def test_a_payment_service_that_hangs_is_named_once(service: str, budget: str) -> None:
    async with shop(**{budget: SHORT_MS}) as open_shop:
        choice = await open_shop.payer.choose("balance_is_enough", "BALANCE:acc_1")
        open_shop.company.faults[service] = open_shop.company.hang
        status, answer = await open_shop.payer.submit(choice)
        expected = (503, "CHECK_UNAVAILABLE") if service == "risk" else (202, None)
        assert (status, answer.get("code")) == expected
        assert answer["status"] in (503, "PROCESSING")
        ((cause, _),) = open_shop.lines(service)
        assert cause == "TIMEOUT"
        assert open_shop.charged <= 1


async def seen(open_shop: Shop, payment: Json, status: str) -> Json:
    """The payment once it has this status. A result is kept for a moment."""
    for _ in range(100):
        _, payment = await open_shop.payer.look(payment, wait_ms=100)
        if payment["status"] == status:
            break
    assert payment["status"] == status
    return payment

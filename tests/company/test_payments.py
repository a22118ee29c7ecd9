"""Payments over the company's three payment services: each kind, its end, and its cancellation."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, NamedTuple

import pytest

from cashier import Cashier
from cashier.sandbox import World
from cashier.sandbox.records import Json
from cashier.sandbox.risk import RESEND_AFTER_S
from tests.company.company import Company, open_company
from tests.company.payer import Payer


class Shop(NamedTuple):
    company: Company
    payer: Payer

    @property
    def world(self) -> World:
        return self.company.world

    def result(self, payment: Json) -> Any:
        return self.world.acquirer.result(payment["order_id"])


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    async with open_company(World()) as company, Cashier(config=company.configuration()) as cashier:
        yield Shop(company, Payer(cashier))
        assert company.world.audit() == []
        assert cashier.failures == ()


PAID: list[tuple[str, str, str | None, Json]] = [
    ("chinese_shop", "QUICK_PAY:c_2", None, {}),
    ("kuwaiti_shop", "QUICK_PAY:c_9651", None, {}),
    ("japanese_shop", "BALANCE:acc_812+QUICK_PAY", None, {}),
    ("chinese_shop", "AGREEMENT:ag_1", None, {}),
    ("chinese_shop", "CARD", None, {"card_token": "tok_1"}),
    ("chinese_shop", "CARD", None, {"card_token": "tok_3ds_1", "return_url": "https://shop.example/back"}),
    ("on_a_computer", "NET_BANKING", "CMB", {}),
    ("indonesian_shop", "VA", "BCA", {}),
    ("japanese_shop", "OTC", "LAWSON", {}),
    ("chinese_shop", "WALLET:WECHAT_PAY", None, {}),
    ("in_instalments", "INSTALMENT:FLEXI_PAY", "t_3", {}),
    ("nothing_to_pay", "FREE", None, {}),
    ("discounted_to_zero", "FREE", None, {}),
    ("balance_is_enough", "BALANCE:acc_1", None, {}),
    ("scan_to_pay", "MERCHANT_QR:ALIPAY", None, {}),
    ("scan_to_pay", "CONSUMER_QR", None, {"auth_code": "280123456789012340"}),
    ("scan_to_pay", "CONSUMER_QR", None, {"auth_code": "280123456789012348"}),
]


@pytest.mark.parametrize(("case", "method_id", "option_id", "means"), PAID)
async def test_each_kind_is_paid_through_to_the_acquirers_result(
    shop: Shop, case: str, method_id: str, option_id: str | None, means: Json
) -> None:
    choice = await shop.payer.choose(case, method_id, option_id, means)
    status, payment = await shop.payer.submit(choice)
    assert status == 202 or payment["status"] == "SUCCEEDED"
    if payment["status"] == "CHALLENGE":
        _, wrong = await shop.payer.answer(payment, "000000")
        assert wrong["challenge"]["attempts_left"] == payment["challenge"]["attempts_left"] - 1
        _, payment = await shop.payer.answer(wrong)
    for _ in range(5):
        if payment["status"] == "ACTION_REQUIRED":
            shop.world.engine.settle(payment["payment_id"], "SUCCEEDED")
        if payment["status"] == "SUCCEEDED":
            break
        _, payment = await shop.payer.look(payment)
    assert payment["status"] == "SUCCEEDED"
    result = shop.result(payment)
    assert (result["status"], result["payment_id"]) == ("PAID", payment["payment_id"])
    assert result["paid"] == payment["amount"]
    posted = [request for request in shop.company.requests["engine"] if request == "POST /transfers"]
    assert len(posted) == 1


@pytest.mark.parametrize(
    ("case", "method_id", "option_id", "means"),
    [
        ("on_a_computer", "NET_BANKING", "CMB", {}),
        ("indonesian_shop", "VA", "BCA", {}),
        ("chinese_shop", "WALLET:WECHAT_PAY", None, {}),
        ("scan_to_pay", "CONSUMER_QR", None, {"auth_code": "280123456789012349"}),
    ],
)
async def test_a_live_payment_is_cancelled_by_the_engines_own_id_and_the_order_can_be_paid_again(
    shop: Shop, case: str, method_id: str, option_id: str | None, means: Json
) -> None:
    choice = await shop.payer.choose(case, method_id, option_id, means)
    _, payment = await shop.payer.submit(choice)
    status, cancelled = await shop.payer.cancel(payment)
    assert (status, cancelled["status"]) == (200, "CLOSED")
    assert any("/cancellation" in request for request in shop.company.requests["engine"])
    assert shop.result(payment)["status"] == "PENDING"
    if "auth_code" in means:  # a code is shown once
        means = {"auth_code": "281123456789012349"}
    _, again = await shop.payer.submit(await shop.payer.choose(case, method_id, option_id, means), "k-2")
    assert again["payment_id"] != payment["payment_id"]
    assert again["status"] == payment["status"]


async def test_a_payment_that_never_arrived_is_barred_before_it_can() -> None:
    async with open_company(World()) as company:

        async def lose(request: Any, serve: Any) -> Any:
            if request.method == "POST":
                request.transport.close()
            return await serve(request) if request.method != "POST" else None

        async with Cashier(config=company.configuration(impatient)) as cashier:
            payer = Payer(cashier)
            company.faults["engine"] = lose
            status, payment = await payer.submit(await payer.choose("balance_is_enough", "BALANCE:acc_1"))
            assert (status, payment["status"]) == (202, "PROCESSING")
            del company.faults["engine"]
            status, cancelled = await payer.cancel(payment)
            assert (status, cancelled["status"]) == (200, "CLOSED")
            assert f"PUT /barred/{payment['payment_id']}" in company.requests["engine"]
            assert company.world.audit() == []
            assert not any(entry.source for entry in company.world.ledger.entries)


def impatient(table: Any) -> None:
    table["accept"] = {"submit_ms": 1000}


async def test_an_order_with_a_live_payment_and_a_reused_key_are_refused(shop: Shop) -> None:
    choice = await shop.payer.choose("chinese_shop", "WALLET:WECHAT_PAY")
    other = await shop.payer.choose("chinese_shop", "WALLET:UNIONPAY")
    _, payment = await shop.payer.submit(choice)
    status, problem = await shop.payer.submit(other, "k-2")
    assert (status, problem["code"], problem["payment_id"]) == (409, "ORDER_BUSY", payment["payment_id"])
    status, problem = await shop.payer.submit(other)
    assert (status, problem["code"]) == (422, "KEY_REUSED")
    status, same = await shop.payer.submit(choice)
    assert same["payment_id"] == payment["payment_id"]


async def test_a_high_score_is_a_rejection_and_nothing_is_sent(shop: Shop) -> None:
    choice = await shop.payer.choose("listed_by_risk", "WALLET:WECHAT_PAY")
    status, problem = await shop.payer.submit(choice)
    assert (status, problem["code"]) == (402, "RISK_REJECTED")
    assert "SCORE" not in str(problem)
    assert not any(request.startswith("POST") for request in shop.company.requests["engine"])


@pytest.mark.parametrize(
    ("case", "method_id", "option_id"),
    [
        ("on_a_computer", "NET_BANKING", "CMB"),
        ("indonesian_shop", "VA", "BCA"),
        ("chinese_shop", "WALLET:WECHAT_PAY", None),
    ],
)
async def test_a_payer_finds_resumes_and_replaces_what_a_lost_tab_left_behind(
    shop: Shop, case: str, method_id: str, option_id: str | None
) -> None:
    choice = await shop.payer.choose(case, method_id, option_id)
    _, lost = await shop.payer.submit(choice)
    status, found = await shop.payer.find(case)
    assert (status, found["method_id"], found["option_id"]) == (200, method_id, option_id)
    assert [found[name] for name in ("payment_id", "status", "amount")] == [
        lost[name] for name in ("payment_id", "status", "amount")
    ]
    # The company's clock dates the end of a code some milliseconds after ours.
    for payment in (found, lost):
        payment["next_action"].pop("expires_at", None)
    assert found["next_action"] == lost["next_action"]
    assert (await shop.payer.find(case, user_id="u_other"))[0] == 404
    status, resumed = await shop.payer.take_over(case, found, "resume")
    assert (status, resumed["next_action"]["type"]) == (202, lost["next_action"]["type"])
    status, replaced = await shop.payer.take_over(case, found, "replace")
    assert (status, replaced["status"], replaced["consultation"]["payable"]) == (200, "CLOSED", True)
    for payment in (lost, resumed):
        assert (await shop.payer.look(payment))[1]["status"] == "CLOSED"
    _, again = await shop.payer.submit(await shop.payer.choose(case, method_id, option_id), "k-2")
    shop.world.engine.settle(again["payment_id"], "SUCCEEDED")
    assert (await shop.payer.look(again))[1]["status"] == "SUCCEEDED"


async def test_the_code_of_a_step_up_is_sent_again(shop: Shop) -> None:
    _, payment = await shop.payer.submit(await shop.payer.choose("chinese_shop", "QUICK_PAY:c_2"))
    assert await shop.payer.resend(payment) == (200, {"resend_after_s": RESEND_AFTER_S, "sent": False})
    shop.world.clock.advance(timedelta(seconds=RESEND_AFTER_S))
    assert await shop.payer.resend(payment) == (200, {"resend_after_s": RESEND_AFTER_S, "sent": True})
    _, payment = await shop.payer.answer(payment)
    assert payment["status"] == "SUCCEEDED"
    status, problem = await shop.payer.resend(payment)
    assert (status, problem["code"]) == (409, "NOT_RESENDABLE")


async def test_a_challenge_is_replaced_by_barring_its_reference(shop: Shop) -> None:
    _, challenged = await shop.payer.submit(await shop.payer.choose("chinese_shop", "QUICK_PAY:c_2"))
    assert challenged["status"] == "CHALLENGE"
    status, problem = await shop.payer.take_over("chinese_shop", challenged, "resume")
    assert (status, problem["code"]) == (409, "NOT_RESUMABLE")
    status, replaced = await shop.payer.take_over("chinese_shop", challenged, "replace")
    assert (status, replaced["status"], replaced["payment_token"]) == (200, "CLOSED", None)
    assert f"PUT /barred/{challenged['payment_id']}" in shop.company.requests["engine"]

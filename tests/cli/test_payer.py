"""The payer at the command line, against a service whose answers are written beforehand: what it asks, what it shows, when it stops."""

from __future__ import annotations

import asyncio
import io
import re
from contextlib import suppress
from typing import Any

import pytest
from rich.console import Console

from cashier.cli import payer, payment_commands
from cashier.cli.payer import ChosenMethod, CannotPay, Payer, PaymentChoice, choose
from cashier.cli.service_client import RequestFailed, ServiceReply
from tests.support.scripted_service import (
    Heard,
    Json,
    amount,
    challenge,
    cny,
    consultation,
    method,
    option,
    payment,
    problem,
    serving,
)

REQUEST = {
    "order_id": "o_1",
    "user_id": "u_1",
    "merchant_id": "m_1",
    "product": "STANDARD_CASHIER",
    "terminal": "APP",
    "amount": cny(12_800),
}
LATER = "2036-11-02T12:00:00+00:00"
BY_CARD = method("QUICK_PAY:c_2")


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payer, "PAUSE_S", 0.0)


class Paid:
    """One command, from a consultation to its end: what came last, what was printed and what the service heard."""

    def __init__(self) -> None:
        self.out = io.StringIO()
        self.console = Console(file=self.out, width=100, highlight=False)
        self.proven: list[Json] = []
        self.told: ServiceReply | None = None
        self.heard: list[Heard] = []
        self.payer = Payer(prove=self.prove)

    def prove(self, asked: Json) -> str:
        self.proven.append(asked)
        return "246810"

    @property
    def printed(self) -> str:
        """With its spaces counted as one."""
        return re.sub(r" +", " ", self.out.getvalue())


async def pay(*answers: Json, ways: Json | None = None, wish: PaymentChoice | None = None, by: Payer | None = None) -> Paid:
    paid = Paid()
    async with serving(ways or consultation(BY_CARD), *answers) as script:
        paid.told = await payment_commands.consult_and_pay(
            paid.console, script.url, REQUEST, wish or PaymentChoice(), "k_1", by or paid.payer
        )
        paid.heard = script.heard
    return paid


def chosen(*ways: Json, **wish: Any) -> ChosenMethod:
    return choose(REQUEST, consultation(*ways), PaymentChoice(**wish))


def test_the_first_way_that_can_be_used_is_taken() -> None:
    refused, taken = method("WALLET:w", availability="UNAVAILABLE"), method("QUICK_PAY:c_2", 10_000)
    assert chosen(refused, taken, method("BALANCE:a")).body == {
        **{name: REQUEST[name] for name in ("order_id", "user_id", "merchant_id", "product", "terminal")},
        "consult_token": "c.t",
        "method_id": "QUICK_PAY:c_2",
        "promotion_ids": ("p_1",),
        "expected_payable": cny(10_000),
    }


def test_a_way_that_takes_what_is_not_there_is_passed_over_unless_it_is_named() -> None:
    card, scanned = (
        method("CARD:any", required_fields=["card_token"]),
        method("CONSUMER_QR", required_fields=["auth_code"]),
    )
    assert chosen(card, scanned, BY_CARD).method["method_id"] == "QUICK_PAY:c_2"
    assert chosen(BY_CARD, card, scanned, auth_code="28").body["method_id"] == "CONSUMER_QR"
    assert chosen(card, scanned, BY_CARD, auth_code="28").body["auth_code"] == "28"
    assert chosen(card, scanned, BY_CARD, card_token="tok_1").body["card_token"] == "tok_1"
    with pytest.raises(CannotPay, match="CARD:any takes --card-token: the card's token from a vault"):
        chosen(card, method_id="CARD:any")
    with pytest.raises(CannotPay, match="CONSUMER_QR takes --auth-code"):
        chosen(scanned, method_id="CONSUMER_QR")


def test_an_option_is_taken_where_there_has_to_be_one_and_costs_what_it_costs() -> None:
    banks = [option("BOC", "UNAVAILABLE"), option("ICBC", costs=amount(12_000, fee=200)), option("ABC")]
    bank = method("NET_BANKING", 12_800, options=banks, required_fields=["option_id"])
    first = chosen(bank).body
    assert (first["option_id"], first["expected_payable"], first["promotion_ids"]) == ("ICBC", cny(12_000), ())
    named = chosen(bank, option_id="ABC").body
    assert (named["option_id"], named["expected_payable"]) == ("ABC", cny(12_800))
    with pytest.raises(CannotPay, match="has no option 'BOC' that is available; there are ICBC, ABC"):
        chosen(bank, option_id="BOC")
    completed = method("BALANCE:a+card", options=[option("c_1")])
    assert "option_id" not in chosen(completed).body


def test_promotions_can_be_named_or_done_without() -> None:
    assert chosen(BY_CARD, promotion_ids=("p_9",)).body["promotion_ids"] == ("p_9",)
    assert chosen(BY_CARD, promotion_ids=()).body["promotion_ids"] == ()


@pytest.mark.parametrize(
    ("ways", "wish", "why"),
    [
        ([], PaymentChoice(), "no way to pay is available"),
        ([BY_CARD], PaymentChoice(method_id="CARD"), "there is no way 'CARD'; there are QUICK_PAY:c_2"),
        (
            [method("WALLET:w", availability="UNAVAILABLE")],
            PaymentChoice(method_id="WALLET:w"),
            "WALLET:w is unavailable: This card has expired.",
        ),
        (
            [method("WALLET:w", amount=None, availability="UNDETERMINED")],
            PaymentChoice(method_id="WALLET:w"),
            "WALLET:w is undetermined",
        ),
    ],
)
def test_what_cannot_be_paid_is_said_in_a_line(ways: list[Json], wish: PaymentChoice, why: str) -> None:
    with pytest.raises(CannotPay, match=re.escape(why)):
        choose(REQUEST, consultation(*ways), wish)


def test_an_order_that_cannot_be_paid_says_why() -> None:
    with pytest.raises(CannotPay, match=re.escape("ORDER_PAID: It is paid.")):
        choose(REQUEST, consultation(blocked={"code": "ORDER_PAID", "message": "It is paid."}), PaymentChoice())


async def test_a_challenge_is_answered_and_the_payment_followed_to_its_end() -> None:
    asked = payment("CHALLENGE", challenge=challenge())
    paid = await pay(asked, payment("PROCESSING", payment_token="t_2"), payment("SUCCEEDED", "Paid."))
    assert paid.told is not None
    assert paid.told.body["status"] == "SUCCEEDED"
    assert paid.proven == [challenge()]
    assert [(heard.method, heard.path, heard.key, heard.token) for heard in paid.heard] == [
        ("POST", "", "k_1", None),
        ("POST", "/pay_1/challenge", None, None),
        ("GET", f"/pay_1?wait_ms={payer.WAIT_MS}", None, "t_2"),
    ]
    assert paid.heard[1].body == {"payment_token": "t_1", "value": "246810"}
    printed = paid.printed
    assert "1 of 1 ways to pay are available" in printed
    assert "128.00 − 10.00 = 118.00 CNY" in printed
    assert "Idempotency-Key k_1" in printed
    assert re.search(
        r" submit 202 CHALLENGE [\d.]+ ms It is CHALLENGE. *\n route cheapest_healthy → ch_1, else ch_2\n SMS_OTP",
        printed,
    )
    assert re.search(r" look 200 SUCCEEDED [\d.]+ ms Paid.", printed)
    assert printed.count("cheapest_healthy") == 1
    assert "246810" not in printed


async def test_a_wrong_answer_is_asked_for_again_as_often_as_the_service_allows() -> None:
    asked = [payment("CHALLENGE", challenge=challenge(left)) for left in (3, 2, 1)]
    paid = await pay(*asked, payment("FAILED"))
    assert [each["attempts_left"] for each in paid.proven] == [3, 2, 1]
    assert "1 answer left" in paid.printed


async def test_looks_that_show_nothing_new_are_not_printed() -> None:
    paid = await pay(*[payment("PROCESSING") for _ in range(5)], payment("SUCCEEDED"))
    assert len(paid.heard) == 6
    assert paid.printed.count("PROCESSING ") == 1


@pytest.mark.parametrize("code", ["ENGINE_UNAVAILABLE", "IN_FLIGHT"])
async def test_a_submit_that_may_not_have_come_through_is_sent_again_under_the_same_key(code: str) -> None:
    paid = await pay(problem(503, code), problem(503, code), payment("SUCCEEDED"))
    assert [(heard.key, heard.body) for heard in paid.heard] == [("k_1", paid.heard[0].body)] * 3
    assert paid.told is not None
    assert paid.told.body["status"] == "SUCCEEDED"


async def test_a_submit_is_not_sent_for_ever() -> None:
    paid = await pay(*[problem(503, "ENGINE_UNAVAILABLE") for _ in range(9)])
    assert len(paid.heard) == payer.SUBMITS
    assert paid.told is not None
    assert paid.told.body["code"] == "ENGINE_UNAVAILABLE"


@pytest.mark.parametrize(
    ("status", "code"), [(402, "RISK_REJECTED"), (409, "ORDER_BUSY"), (422, "KEY_REUSED"), (503, "CHECK_UNAVAILABLE")]
)
async def test_a_refusal_ends_it_and_is_shown(status: int, code: str) -> None:
    paid = await pay(problem(status, code))
    assert len(paid.heard) == 1
    assert f"{status} {code} Because of {code}." in paid.printed


async def test_what_has_changed_since_is_shown() -> None:
    changes = [
        {"what": "PRICE_CHANGED", "from": cny(11_800), "to": cny(12_000), "subject": "fee", "reason": None},
        {
            "what": "METHOD_CLOSED",
            "from": "AVAILABLE",
            "to": None,
            "subject": "QUICK_PAY:c_2",
            "reason": "CHANNEL_CLOSED",
        },
    ]
    printed = (await pay(problem(409, "CONSULT_CHANGED", changes=changes))).printed
    assert "PRICE_CHANGED 118.00 CNY → 120.00 CNY fee" in printed
    assert "METHOD_CLOSED AVAILABLE → nothing QUICK_PAY:c_2 CHANNEL_CLOSED" in printed


async def test_a_consultation_that_is_refused_ends_it() -> None:
    paid = await pay(ways=problem(404, "ORDER_UNKNOWN"))
    assert paid.told is not None
    assert (paid.told.status, paid.heard) == (404, [])
    assert "404 ORDER_UNKNOWN" in paid.printed


async def test_a_look_that_fails_is_no_end_of_the_payment() -> None:
    lost = [problem(503, "OVERLOADED")] * (payer.LOOKS_LOST - 1)
    paid = await pay(payment("PROCESSING"), *lost, payment("PROCESSING"), *lost, payment("SUCCEEDED"))
    assert paid.told is not None
    assert paid.told.body["status"] == "SUCCEEDED"


@pytest.mark.parametrize("answers", [[problem(503, "OVERLOADED")] * payer.LOOKS_LOST, [problem(403, "TOKEN_EXPIRED")]])
async def test_where_no_look_succeeds_it_says_how_to_go_on(answers: list[Json]) -> None:
    paid = await pay(payment("PROCESSING"), *answers)
    assert len(paid.heard) == 1 + len(answers)
    assert re.search(r"cashier payment pay_1 --url http://\S+ --token t_1\n", paid.printed)


async def test_who_is_interrupted_is_told_how_to_go_on() -> None:
    paid = Paid()
    async with serving(consultation(BY_CARD), payment("PROCESSING", payment_token="t" * 400)) as script:
        working = asyncio.create_task(
            payment_commands.consult_and_pay(paid.console, script.url, REQUEST, PaymentChoice(), "k_1", paid.payer)
        )
        while len(script.heard) < 2:  # noqa: ASYNC110 - nobody sets an event in another's server
            await asyncio.sleep(0.001)
        working.cancel()
        with suppress(asyncio.CancelledError):
            await working
    assert f"--token {'t' * 400}\n" in paid.printed


async def test_a_service_that_goes_away_is_said() -> None:
    paid = Paid()
    with pytest.raises(RequestFailed):
        await payment_commands.consult_and_pay(paid.console, "http://127.0.0.1:1", REQUEST, PaymentChoice(), "k_1", paid.payer)


async def test_it_can_be_cancelled_after_a_while_and_is_once() -> None:
    asked = [
        payment("ACTION_REQUIRED"),
        payment("PROCESSING", "It is being closed."),
        payment("PROCESSING"),
        payment("CLOSED"),
    ]
    paid = await pay(*asked, by=Payer(prove=lambda _: "", cancels_after_s=0.0))
    assert [(heard.method, heard.path) for heard in paid.heard] == [
        ("POST", ""),
        ("POST", "/pay_1/cancel"),
        *[("GET", f"/pay_1?wait_ms={payer.WAIT_MS}")] * 2,
    ]
    assert re.search(r"cancel 202 PROCESSING [\d.]+ ms It is being closed.", paid.printed)


async def test_no_look_waits_longer_than_until_the_cancel() -> None:
    asked = [payment("ACTION_REQUIRED"), payment("ACTION_REQUIRED"), problem(403, "TOKEN_EXPIRED")]
    paid = await pay(*asked, by=Payer(prove=lambda _: "", cancels_after_s=1.0))
    assert 0 < int(paid.heard[1].path.partition("wait_ms=")[2]) <= 1000


async def test_what_there_is_to_do_elsewhere_is_done_once() -> None:
    acted: list[Json] = []

    async def act(asked: Json) -> None:
        acted.append(asked["next_action"])

    first, other = ({"type": "DISPLAY_QR", "data": data, "expires_at": LATER} for data in ("1", "2"))
    asked = [payment("ACTION_REQUIRED", next_action=action) for action in (first, first, other)]
    await pay(*asked, payment("SUCCEEDED"), by=Payer(prove=lambda _: "", act=act))
    assert acted == [first, other]


@pytest.mark.parametrize("cancel", [False, True])
async def test_a_payment_that_was_begun_before_is_gone_on_with(cancel: bool) -> None:
    paid = Paid()
    async with serving(consultation(), payment("PROCESSING"), payment("CLOSED", "It is closed.")) as script:
        told = await payment_commands.resume(paid.console, script.url, "pay_1", "t_0", cancel, paid.payer)
        first = script.heard[0]
    if cancel:
        assert (first.method, first.path, first.body) == ("POST", "/pay_1/cancel", {"payment_token": "t_0"})
    else:
        assert (first.method, first.path, first.token) == ("GET", "/pay_1?wait_ms=0", "t_0")
    assert told.body["status"] == "CLOSED"
    assert "It is closed." in paid.printed


ACTIONS: list[tuple[Json, list[str]]] = [
    (
        {
            "type": "REDIRECT",
            "method": "POST",
            "url": f"https://bank.example/{'x' * 200}",
            "fields": {"a": "1", "b": "2"},
        },
        ["open in a browser (POST with a, b)\n", f" https://bank.example/{'x' * 200}\n"],
    ),
    (
        {"type": "REDIRECT", "method": "GET", "url": "https://w.example/", "applink": "w://pay"},
        ["(GET)\n", "or in the app w://pay\n"],
    ),
    (
        {"type": "DISPLAY_QR", "data": "https://qr.example/1", "expires_at": LATER},
        ["as a QR code, until 20", " https://qr.example/1\n"],
    ),
    (
        {
            "type": "DISPLAY_CODE",
            "code": "123",
            "institution": "Lawson",
            "expires_at": LATER,
            "instructions_url": "https://l.example/",
        },
        ["pay at Lawson with the code 123, until 20", " https://l.example/\n"],
    ),
    (
        {
            "type": "DISPLAY_VA",
            "bank": "BCA",
            "account_no": "88",
            "account_name": "Shop",
            "amount": cny(100),
            "expires_at": LATER,
        },
        ["transfer 1.00 CNY to BCA 88 (Shop), until 20"],
    ),
    ({"type": "SDK", "payload": {"a": [1]}}, ['for the provider\'s own software: {"a":[1]}']),
    ({"type": "AWAIT", "poll_after_ms": 1000, "until": LATER}, ["it is looked at again until 20"]),
]


@pytest.mark.parametrize(("action", "said"), ACTIONS)
async def test_what_the_payer_has_to_do_is_said_in_words_and_addresses_are_whole(action: Json, said: list[str]) -> None:
    printed = (await pay(payment("ACTION_REQUIRED", next_action=action), payment("SUCCEEDED"))).printed
    for text in said:
        assert text in printed


def test_an_answer_that_was_given_is_not_asked_for() -> None:
    assert payment_commands.challenge_answerer("246810")(challenge()) == "246810"


def test_where_nobody_sits_at_the_terminal_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("246810\n"))
    with pytest.raises(CannotPay, match="SMS_OTP asks for an answer: give it with --otp"):
        payment_commands.challenge_answerer(None)(challenge())

"""The payer at the command line against a scripted service: its requests, its output, its end."""

from __future__ import annotations

import asyncio
import io
import re
from contextlib import suppress
from typing import Any

import pytest
from rich.console import Console

from cashier.cli import checkout_client as payer_module
from cashier.cli import payment_session, service_client
from cashier.cli.checkout_client import CannotPay, Payer, PayerPreference, SelectedMethod, choose
from cashier.cli.service_client import RequestFailed, ServiceReply
from tests.support.scripted_service import (
    Json,
    RecordedRequest,
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
    monkeypatch.setattr(payer_module, "PAUSE_S", 0.0)


class PaymentRun:
    """One command from a consultation to its end: the last reply, the output, the requests
    received."""

    def __init__(self) -> None:
        self.out = io.StringIO()
        self.console = Console(file=self.out, width=100, highlight=False)
        self.challenges: list[Json] = []
        self.reply: ServiceReply | None = None
        self.requests: list[RecordedRequest] = []
        self.payer = Payer(answer_challenge=self.answer_challenge)

    def answer_challenge(self, challenge: Json) -> str:
        self.challenges.append(challenge)
        return "246810"

    @property
    def printed(self) -> str:
        """The output with runs of spaces as one."""
        return re.sub(r" +", " ", self.out.getvalue())


async def pay(
    *answers: Json, consulted: Json | None = None, choice: PayerPreference | None = None, payer: Payer | None = None
) -> PaymentRun:
    run = PaymentRun()
    async with serving(consulted or consultation(BY_CARD), *answers) as script:
        run.reply = await payment_session.consult_and_pay(
            run.console, script.url, REQUEST, choice or PayerPreference(), "k_1", payer or run.payer
        )
        run.requests = script.requests
    return run


def chosen(*methods: Json, **choice: Any) -> SelectedMethod:
    return choose(REQUEST, consultation(*methods), PayerPreference(**choice))


def test_the_first_available_method_is_chosen() -> None:
    refused, available = method("WALLET:w", availability="UNAVAILABLE"), method("QUICK_PAY:c_2", 10_000)
    assert chosen(refused, available, method("BALANCE:a")).body == {
        **{name: REQUEST[name] for name in ("order_id", "user_id", "merchant_id", "product", "terminal")},
        "consult_token": "c.t",
        "method_id": "QUICK_PAY:c_2",
        "expected_payable": cny(10_000),
    }


def test_a_method_with_a_missing_field_is_skipped_unless_it_is_named() -> None:
    card, scanned = (
        method("CARD:any", required_fields=["card_token"]),
        method("CONSUMER_QR", required_fields=["auth_code"]),
    )
    assert chosen(card, scanned, BY_CARD).method["method_id"] == "QUICK_PAY:c_2"
    assert chosen(BY_CARD, card, scanned, auth_code="28").body["method_id"] == "CONSUMER_QR"
    assert chosen(card, scanned, BY_CARD, auth_code="28").body["auth_code"] == "28"
    assert chosen(card, scanned, BY_CARD, card_token="tok_1").body["card_token"] == "tok_1"
    with pytest.raises(CannotPay, match="CARD:any needs --card-token: the card's token from a vault"):
        chosen(card, method_id="CARD:any")
    with pytest.raises(CannotPay, match="CONSUMER_QR needs --auth-code"):
        chosen(scanned, method_id="CONSUMER_QR")


def test_an_option_is_chosen_where_one_is_needed_and_its_price_counts() -> None:
    banks = [option("BOC", "UNAVAILABLE"), option("ICBC", costs=amount(12_000, fee=200)), option("ABC")]
    bank = method("NET_BANKING", 12_800, options=banks, required_fields=["option_id"])
    first = chosen(bank).body
    assert (first["option_id"], first["expected_payable"]) == ("ICBC", cny(12_000))
    named = chosen(bank, option_id="ABC").body
    assert (named["option_id"], named["expected_payable"]) == ("ABC", cny(12_800))
    with pytest.raises(CannotPay, match="has no available option 'BOC'; the available options are ICBC, ABC"):
        chosen(bank, option_id="BOC")
    completed = method("BALANCE:a+card", options=[option("c_1")])
    assert "option_id" not in chosen(completed).body


@pytest.mark.parametrize("chosen", [[], ["p_2"]])
def test_a_choice_of_promotions_is_submitted_as_it_was_consulted(chosen: list[str]) -> None:
    answer = consultation(method("WALLET:ALIPAY"))
    body = choose({**REQUEST, "chosen_promotions": chosen}, answer, PayerPreference()).body
    assert body["chosen_promotions"] == chosen
    assert "chosen_promotions" not in choose(REQUEST, answer, PayerPreference()).body


def test_promotions_can_be_named_or_left_out() -> None:
    assert chosen(BY_CARD, promotion_ids=("p_9",)).body["promotion_ids"] == ("p_9",)
    assert chosen(BY_CARD, promotion_ids=()).body["promotion_ids"] == ()


@pytest.mark.parametrize(
    ("methods", "choice", "why"),
    [
        ([], PayerPreference(), "no payment method is available"),
        (
            [BY_CARD],
            PayerPreference(method_id="CARD"),
            "there is no payment method 'CARD'; the offered methods are QUICK_PAY:c_2",
        ),
        (
            [method("WALLET:w", availability="UNAVAILABLE")],
            PayerPreference(method_id="WALLET:w"),
            "WALLET:w is unavailable: This card has expired.",
        ),
        (
            [method("WALLET:w", amount=None, availability="UNDETERMINED")],
            PayerPreference(method_id="WALLET:w"),
            "WALLET:w is undetermined",
        ),
    ],
)
def test_an_unusable_choice_has_a_reason_in_one_line(methods: list[Json], choice: PayerPreference, why: str) -> None:
    with pytest.raises(CannotPay, match=re.escape(why)):
        choose(REQUEST, consultation(*methods), choice)


def test_a_blocked_order_has_its_code_as_the_reason() -> None:
    with pytest.raises(CannotPay, match=re.escape("ORDER_PAID: It is run.")):
        choose(REQUEST, consultation(blocked={"code": "ORDER_PAID", "message": "It is run."}), PayerPreference())


async def test_a_challenge_is_answered_and_the_payment_followed_to_its_end() -> None:
    asked = payment("CHALLENGE", challenge=challenge())
    run = await pay(asked, payment("PROCESSING", payment_token="t_2"), payment("SUCCEEDED", "Paid."))
    assert run.reply is not None
    assert run.reply.body["status"] == "SUCCEEDED"
    assert run.challenges == [challenge()]
    assert [(sent.method, sent.path, sent.key, sent.token) for sent in run.requests] == [
        ("POST", "", "k_1", None),
        ("POST", "/pay_1/challenge", None, None),
        ("GET", f"/pay_1?wait_ms={payer_module.WAIT_MS}", None, "t_2"),
    ]
    assert run.requests[1].body == {"payment_token": "t_1", "value": "246810"}
    printed = run.printed
    assert "1 of 1 methods available" in printed
    assert "128.00 − 10.00 = 118.00 CNY" in printed
    assert "Idempotency-Key k_1" in printed
    assert re.search(
        r" submit 202 CHALLENGE [\d.]+ ms It is CHALLENGE. *\n route cheapest_healthy → ch_1, else ch_2\n SMS_OTP",
        printed,
    )
    assert re.search(r" status 200 SUCCEEDED [\d.]+ ms Paid.", printed)
    assert printed.count("cheapest_healthy") == 1
    assert "246810" not in printed


async def test_a_wrong_answer_is_retried_while_attempts_are_left() -> None:
    asked = [payment("CHALLENGE", challenge=challenge(left)) for left in (3, 2, 1)]
    run = await pay(*asked, payment("FAILED"))
    assert [challenge["attempts_left"] for challenge in run.challenges] == [3, 2, 1]
    assert "1 attempt left" in run.printed


async def test_an_unchanged_status_is_not_printed_again() -> None:
    run = await pay(*[payment("PROCESSING") for _ in range(5)], payment("SUCCEEDED"))
    assert len(run.requests) == 6
    assert run.printed.count("PROCESSING ") == 1


@pytest.mark.parametrize("code", ["ENGINE_UNAVAILABLE", "IN_FLIGHT"])
async def test_a_submit_without_a_payment_is_repeated_under_the_same_key(code: str) -> None:
    run = await pay(problem(503, code), problem(503, code), payment("SUCCEEDED"))
    assert [(sent.key, sent.body) for sent in run.requests] == [("k_1", run.requests[0].body)] * 3
    assert run.reply is not None
    assert run.reply.body["status"] == "SUCCEEDED"


async def test_a_submit_is_repeated_a_bounded_number_of_times() -> None:
    run = await pay(*[problem(503, "ENGINE_UNAVAILABLE") for _ in range(9)])
    assert len(run.requests) == payer_module.SUBMITS
    assert run.reply is not None
    assert run.reply.body["code"] == "ENGINE_UNAVAILABLE"


@pytest.mark.parametrize(
    ("status", "code"), [(402, "RISK_REJECTED"), (409, "ORDER_BUSY"), (422, "KEY_REUSED"), (503, "CHECK_UNAVAILABLE")]
)
async def test_a_refusal_ends_the_payment_and_is_printed(status: int, code: str) -> None:
    run = await pay(problem(status, code))
    assert len(run.requests) == 1
    assert f"{status} {code} Because of {code}." in run.printed


async def test_changes_since_the_consultation_are_printed() -> None:
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


async def test_a_refused_consultation_ends_the_command() -> None:
    run = await pay(consulted=problem(404, "ORDER_UNKNOWN"))
    assert run.reply is not None
    assert (run.reply.status, run.requests) == (404, [])
    assert "404 ORDER_UNKNOWN" in run.printed


async def test_a_failed_status_request_does_not_end_the_payment() -> None:
    failed = [problem(503, "OVERLOADED")] * (payer_module.MOST_FAILED_POLLS - 1)
    run = await pay(payment("PROCESSING"), *failed, payment("PROCESSING"), *failed, payment("SUCCEEDED"))
    assert run.reply is not None
    assert run.reply.body["status"] == "SUCCEEDED"


@pytest.mark.parametrize(
    "answers", [[problem(503, "OVERLOADED")] * payer_module.MOST_FAILED_POLLS, [problem(403, "TOKEN_EXPIRED")]]
)
async def test_without_a_status_the_output_says_how_to_resume(answers: list[Json]) -> None:
    run = await pay(payment("PROCESSING"), *answers)
    assert len(run.requests) == 1 + len(answers)
    assert re.search(r"\n export CASHIER_PAYMENT_TOKEN=t_1\n cashier payment pay_1 --url http://\S+\n", run.printed)


async def test_an_interrupted_command_says_how_to_resume() -> None:
    run = PaymentRun()
    async with serving(consultation(BY_CARD), payment("PROCESSING", payment_token="t" * 400)) as script:
        working = asyncio.create_task(
            payment_session.consult_and_pay(run.console, script.url, REQUEST, PayerPreference(), "k_1", run.payer)
        )
        while len(script.requests) < 2:  # noqa: ASYNC110 - the server sets no event
            await asyncio.sleep(0.001)
        working.cancel()
        with suppress(asyncio.CancelledError):
            await working
    assert re.search(r"\n export CASHIER_PAYMENT_TOKEN=t{400}\n cashier payment pay_1 --url \S+\n", run.printed)


async def test_an_unreachable_service_raises() -> None:
    run = PaymentRun()
    with pytest.raises(RequestFailed):
        await payment_session.consult_and_pay(
            run.console, "http://127.0.0.1:1", REQUEST, PayerPreference(), "k_1", run.payer
        )


async def test_a_payment_is_cancelled_once_after_the_given_time() -> None:
    asked = [
        payment("ACTION_REQUIRED"),
        payment("PROCESSING", "It is being closed."),
        payment("PROCESSING"),
        payment("CLOSED"),
    ]
    run = await pay(*asked, payer=Payer(answer_challenge=lambda _: "", cancel_after_s=0.0))
    assert [(sent.method, sent.path) for sent in run.requests] == [
        ("POST", ""),
        ("POST", "/pay_1/cancel"),
        *[("GET", f"/pay_1?wait_ms={payer_module.WAIT_MS}")] * 2,
    ]
    assert re.search(r"cancel 202 PROCESSING [\d.]+ ms It is being closed.", run.printed)


async def test_no_status_request_waits_beyond_the_cancellation() -> None:
    asked = [payment("ACTION_REQUIRED"), payment("ACTION_REQUIRED"), problem(403, "TOKEN_EXPIRED")]
    run = await pay(*asked, payer=Payer(answer_challenge=lambda _: "", cancel_after_s=1.0))
    assert 0 < int(run.requests[1].path.partition("wait_ms=")[2]) <= 1000


async def test_each_next_action_is_performed_once() -> None:
    acted: list[Json] = []

    async def act(payment: Json) -> None:
        acted.append(payment["next_action"])

    first, other = ({"type": "DISPLAY_QR", "data": data, "expires_at": LATER} for data in ("1", "2"))
    asked = [payment("ACTION_REQUIRED", next_action=action) for action in (first, first, other)]
    await pay(*asked, payment("SUCCEEDED"), payer=Payer(answer_challenge=lambda _: "", act=act))
    assert acted == [first, other]


@pytest.mark.parametrize("cancel", [False, True])
async def test_an_existing_payment_is_followed_or_cancelled(cancel: bool) -> None:
    run = PaymentRun()
    async with serving(consultation(), payment("PROCESSING"), payment("CLOSED", "It is closed.")) as script:
        reply = await payment_session.resume(run.console, script.url, "pay_1", "t_0", cancel, run.payer)
        first = script.requests[0]
    if cancel:
        assert (first.method, first.path, first.body) == ("POST", "/pay_1/cancel", {"payment_token": "t_0"})
    else:
        assert (first.method, first.path, first.token) == ("GET", "/pay_1?wait_ms=0", "t_0")
    assert reply.body["status"] == "CLOSED"
    assert "It is closed." in run.printed


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
    ({"type": "SDK", "payload": {"a": [1]}}, ["pass to the provider's SDK:\n", ' {"a":[1]}\n']),
    ({"type": "AWAIT", "poll_after_ms": 1000, "until": LATER}, ["the status is polled until 20"]),
]


@pytest.mark.parametrize(("action", "texts"), ACTIONS)
async def test_a_next_action_is_printed_as_a_sentence_and_its_address_whole(action: Json, texts: list[str]) -> None:
    printed = (await pay(payment("ACTION_REQUIRED", next_action=action), payment("SUCCEEDED"))).printed
    for text in texts:
        assert text in printed


def test_a_given_otp_answers_without_a_prompt() -> None:
    assert payment_session.challenge_answerer("246810")(challenge()) == "246810"


def test_without_a_terminal_there_is_no_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("246810\n"))
    with pytest.raises(CannotPay, match="SMS_OTP needs an answer: give it with --otp"):
        payment_session.challenge_answerer(None)(challenge())


@pytest.mark.parametrize("value", [2**70, "\udcff"])
async def test_a_request_that_json_cannot_carry_is_refused_before_it_is_sent(value: object) -> None:
    with pytest.raises(RequestFailed, match="the request is no JSON"):
        await service_client.consult("http://127.0.0.1:9", REQUEST | {"order_id": value})

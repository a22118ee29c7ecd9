"""Payments from the command line, against a service and a sandbox as real processes.

The commands themselves run in this process.
"""

from __future__ import annotations

import asyncio
import json
import re
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cashier.cli import service_client, weather_printer
from cashier.cli.checkout_client import PayerPreference, choose
from cashier.cli.commands import cli
from cashier.sandbox import CASES, PRESETS, Fault, PaymentFault, weather_named
from cashier.sandbox.fault_descriptions import DESCRIPTIONS
from tests.support.command_processes import configured, running


@pytest.fixture(scope="module")
def sandbox() -> Iterator[str]:
    with running("sandbox", "--port", "0", "--weather", "still") as command:
        yield command.address("Sandbox on")


@pytest.fixture(scope="module")
def service(sandbox: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running("serve", "--config", str(configured(tmp_path_factory.mktemp("cli"), sandbox))) as command:
        yield command.address("Serving on")


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, list(words))


def ledger(sandbox: str) -> Any:
    with urllib.request.urlopen(f"{sandbox}/ledger") as answer:
        return json.load(answer)


def paid(sandbox: str, order_id: str) -> list[int]:
    return [
        entry["amount"]["value"]
        for entry in ledger(sandbox)["entries"]
        if entry["order_id"] == order_id and entry["what"] == "ORDER_PAID"
    ]


def test_only_the_right_answer_to_a_challenge_pays(sandbox: str, service: str) -> None:
    unanswered = run("pay", "--url", service)
    assert (unanswered.exit_code, unanswered.stderr) == (1, "SMS_OTP needs an answer: give it with --otp\n")
    wrong = run("pay", "--url", service, "--otp", "000000")
    assert (wrong.exit_code, wrong.stderr) == (1, "")
    assert re.search(r"challenge +202 +CHALLENGE .*\n.*2 attempts left", wrong.stdout)
    assert "FAILED" in wrong.stdout
    assert paid(sandbox, "o_1001") == []
    right = run("pay", "--url", service, "--otp", "246810", "--method", "QUICK_PAY:c_2")
    assert (right.exit_code, right.stderr) == (0, ""), right.stdout
    assert re.search(r"submit +202 +CHALLENGE .*\n +SMS_OTP +138\*\*\*\*1234 +3 attempts left, until", right.stdout)
    assert re.search(r"challenge +200 +SUCCEEDED +[\d.]+ ms +Paid\.", right.stdout)
    assert len(paid(sandbox, "o_1001")) == 1


def test_after_a_lost_response_the_payment_is_looked_up_and_the_money_taken_once(sandbox: str, service: str) -> None:
    assert run("weather", "engine", "reset", "--next", "--on", "submit", "--url", sandbox).exit_code == 0
    found = run("pay", "--url", service, "--case", "guest_order", "--key", "k_lost")
    assert found.exit_code == 0, found.stdout
    assert "Idempotency-Key k_lost" in found.stdout
    assert re.search(r"submit +202 +PROCESSING .*Please do not pay again", found.stdout)
    assert re.search(r"status +200 +SUCCEEDED", found.stdout)
    assert len(paid(sandbox, "o_1017")) == 1
    assert ledger(sandbox)["wrong"] == []


def test_an_unscanned_code_is_cancelled_and_the_order_paid_by_another_method(sandbox: str, service: str) -> None:
    at_the_till = ("pay", "--url", service, "--case", "scan_to_pay")
    closed = run(*at_the_till, "--method", "MERCHANT_QR:UNIONPAY", "--cancel-after", "0", "--json")
    assert closed.exit_code == 1
    payment = json.loads(closed.stdout)
    assert payment["status"] == "CLOSED"
    again = run("payment", payment["payment_id"], "--url", service, "--token", payment["payment_token"])
    assert again.exit_code == 1
    variable = {"CASHIER_PAYMENT_TOKEN": payment["payment_token"]}
    by_variable = CliRunner().invoke(cli, ["payment", payment["payment_id"], "--url", service], env=variable)
    assert re.search(r"status +200 +CLOSED", by_variable.stdout)
    assert "CASHIER_PAYMENT_TOKEN" in run("payment", "--help").stdout
    assert re.search(r"status +200 +CLOSED", again.stdout)
    assert run(*at_the_till, "--auth-code", "2800000000000001").exit_code == 0
    assert len(paid(sandbox, "o_1014")) == 1


def test_an_order_of_zero_is_paid_without_an_instrument(sandbox: str, service: str) -> None:
    free = run("pay", "--url", service, "--case", "nothing_to_pay")
    assert free.exit_code == 0, free.stdout
    assert "Nothing to pay" in free.stdout
    assert paid(sandbox, "o_1030") == [0]


def test_by_instalments_the_first_term_is_chosen_and_its_terms_are_printed(service: str) -> None:
    by_instalments = ("pay", "--url", service, "--case", "in_instalments", "--method", "INSTALMENT:FLEXI_PAY")
    for option, terms in (
        ((), "3 instalments of 540.48, the last 540.50, at 13.70 % a year"),
        (("--option", "t_6"), "6 instalments of 276.05, the last 276.08, at 15.27 % a year"),
    ):
        shown = run(*by_instalments, *option, "--cancel-after", "0")
        assert terms in shown.stdout
    refused = run(*by_instalments, "--option", "t_12")
    assert refused.stderr.count("\n") == 1
    assert "the available options are t_3, t_6" in refused.stderr


async def place_and_forget(service: str, option_id: str) -> None:
    """Submit, and lose the token."""
    request = dict(CASES["indonesian_shop"].request)
    answer, _ = await service_client.consult(service, request)
    chosen = choose(request, answer, PayerPreference(method_id="VA", option_id=option_id))
    async with service_client.payments_client(service) as payments:
        reply = await payments.submit(chosen.body, f"k_{option_id}")
    assert reply.body["status"] == "ACTION_REQUIRED"


def test_a_payment_whose_token_is_lost_is_found_replaced_and_resumed(sandbox: str, service: str) -> None:
    attempt = ("attempt", "--url", service, "--case", "indonesian_shop")
    nothing = run(*attempt, "--json")
    assert (nothing.exit_code, json.loads(nothing.stdout)["code"]) == (1, "NOT_FOUND")
    asyncio.run(place_and_forget(service, "BCA"))
    found = run(*attempt)
    assert found.exit_code == 0
    assert re.search(r"find +200 +ACTION_REQUIRED", found.stdout)
    assert "transfer 235,000.00 IDR to BCA" in found.stdout
    assert "payment_token" not in run(*attempt, "--json").stdout
    stranger = run(*attempt, "--user-id", "u_1", "--json")
    assert (stranger.exit_code, json.loads(stranger.stdout)["code"]) == (1, "NOT_FOUND")
    replaced = run(*attempt, "--replace", "--json")
    body = json.loads(replaced.stdout)
    assert (replaced.exit_code, body["status"], body["consultation"]["payable"]) == (0, "CLOSED", True)
    asyncio.run(place_and_forget(service, "BNI"))
    live = json.loads(run(*attempt, "--json").stdout)
    asyncio.run(service_client.settle(sandbox, live["payment_id"]))
    resumed = run(*attempt, "--resume")
    assert resumed.exit_code == 0
    assert re.search(r"resume +200 +SUCCEEDED", resumed.stdout)
    both = run("attempt", "--url", service, "--resume", "--replace")
    assert (both.exit_code, both.stderr) == (1, "--resume and --replace exclude each other: choose one\n")


def test_a_walk_in_pays_by_the_code_that_they_show_after_the_shown_one_was_closed(sandbox: str, service: str) -> None:
    at_the_till = ("pay", "--url", service, "--case", "walk_in")
    closed = run(*at_the_till, "--method", "MERCHANT_QR:ALIPAY", "--cancel-after", "0", "--json")
    assert json.loads(closed.stdout)["status"] == "CLOSED"
    by_code = run(*at_the_till, "--auth-code", "2800000000000010")
    assert by_code.exit_code == 0, by_code.stdout
    assert paid(sandbox, "o_1022") == [4_600]
    entries = [entry for entry in ledger(sandbox)["entries"] if entry["order_id"] == "o_1022"]
    assert not any("user_id" in entry for entry in entries)
    assert ledger(sandbox)["wrong"] == []


def test_an_order_of_no_case_is_paid_by_its_ids(sandbox: str, service: str) -> None:
    ids = ("--order-id", "o_100001", "--user-id", "u_100001", "--merchant-id", "m_100001")
    result = run("pay", "--url", service, *ids, "--otp", "246810", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["order_id"] == "o_100001"
    assert len(paid(sandbox, "o_100001")) == 1


def test_a_problem_is_printed_as_json_with_the_json_option(service: str) -> None:
    found = run("pay", "--url", service, "--case", "listed_by_risk", "--json")
    assert found.exit_code == 1
    assert json.loads(found.stdout)["code"] == "RISK_REJECTED"
    forged = run("payment", "pay_" + "a" * 26, "--url", service, "--token", "forged")
    assert forged.exit_code == 1
    assert "403 TOKEN_MALFORMED" in forged.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("pay", "--case", "nope"), "there is no case 'nope'"),
        (
            ("pay", "--url", "http://127.0.0.1:1"),
            "nothing listens on 127.0.0.1:1; start it with `cashier serve`",
        ),
        (
            ("payment", "pay_1", "--token", "t", "--url", "http://127.0.0.1:1"),
            "nothing listens on 127.0.0.1:1; start it with `cashier serve`",
        ),
        (("weather", "quota", "slow", "--next"), "--next takes a fault of one call, not `slow` or `restore`"),
        (("weather", "quota", "--next"), "--next takes a fault of one call, not `slow` or `restore`"),
        (("weather", "restore", "quota"), "`cashier weather quota restore` restores one"),
        (("weather", "restore", "--next"), "--next takes a fault of one call, not `slow` or `restore`"),
        (("sandbox", "--replay", "/nonexistent"), "/nonexistent has no recording; make one with `cashier record`"),
        (("sandbox", "--only", "card, quot"), "did you mean 'quota'?"),
        (("weather", "quota", "hang", "--on", "read"), "--on names the call for --next: give both"),
    ],
)
def test_a_mistake_ends_in_one_clear_line(words: tuple[str, ...], message: str) -> None:
    found = run(*words)
    assert found.exit_code == 1
    assert message in found.stderr
    assert found.stderr.count("\n") == 1


def test_an_order_that_is_paid_cannot_be_paid_again(service: str) -> None:
    found = run("pay", "--url", service, "--case", "order_paid")
    assert found.exit_code == 1
    assert "nothing can be paid" in found.stdout
    assert found.stderr == "ORDER_PAID: This order has been paid.\n"


def test_a_fault_of_the_next_call_comes_on_top_of_the_weather(sandbox: str) -> None:
    try:
        run("weather", "risk", "slow", "--ms", "3", "--url", sandbox)
        run("weather", "risk", "cut", "--next", "--on", "verify", "--url", sandbox)
        weather = json.loads(run("weather", "risk", "overload", "--next", "--json", "--url", sandbox).stdout)
    finally:
        run("weather", "restore", "--url", sandbox)
    assert weather["risk"]["latency"] == {"shape": "constant", "ms": 3}
    assert weather["risk"]["next"] == [{"fault": "cut", "on": "verify"}, {"fault": "overload"}]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("engine", "declien", "--next"), "did you mean 'decline'?"),
        (("engine", "reset", "--next", "--on", "submits"), "did you mean 'submit'?"),
        (("acquirer", "stall", "--next"), "fault 'stall' exists only for engine; acquirer has hang, error, "),
        (("quota", "stall"), "fault 'stall' exists only for engine; quota has hang, error, "),
        (("quota", "hangs"), "fault 'hangs' is not one of hang, error, "),
        (("quota", "hangs"), "did you mean 'hang'?"),
        (("engine", "reset", "--next", "--on", "read"), "--on 'read' is not one of submit, look_up, reverse\n"),
        (("quota", "teapot"), "reset\n"),
        (("qouta",), "source 'qouta' is not one of"),
        (("engin", "reset", "--next"), "did you mean 'engine'?"),
    ],
)
def test_an_unknown_fault_is_refused_with_the_nearest_one(sandbox: str, words: tuple[str, ...], message: str) -> None:
    found = run("weather", *words, "--url", sandbox)
    assert found.exit_code == 1
    assert message in found.stderr


def test_the_weather_is_printed_in_one_line(sandbox: str) -> None:
    def printed(*words: str) -> str:
        found = run("weather", *words, "--url", sandbox)
        assert (found.exit_code, found.stderr) == (0, "")
        return found.stdout

    try:
        assert printed("quota") == "quota: calls take 0 ms; no faults\n"
        assert printed("quota", "hang") == "quota: every call hangs\n"
        assert printed("quota") == "quota: calls take 0 ms; every call hangs\n"
        assert printed("card", "error", "--share", "0.3") == "card: in 30 % of the cases a call fails with 500\n"
        assert printed("card", "slow", "--ms", "90") == "card: calls take 90 ms\n"
        assert printed("engine", "cut", "--next") == "engine: the next call is reset and not carried out\n"
        assert printed("quota") == "quota: calls take 0 ms; every call hangs\n"
        assert printed("quota", "restore") == "quota: restored\n"
        assert json.loads(printed("quota", "--json"))["quota"]["faults"] == {}
        assert printed("card") == "card: calls take 90 ms; no faults\n"
    finally:
        assert printed("restore") == "all sources restored\n"
    assert printed("card") == "card: calls take 0 ms; no faults\n"


@pytest.mark.parametrize("preset", PRESETS)
def test_the_weather_of_each_preset_can_be_shown(preset: str) -> None:
    for source, profile in weather_named(preset).to_json().items():
        line = weather_printer.profile_line(source, profile)
        assert line.startswith(f"{source}: calls take ")
        assert ("no faults" in line) == (preset != "stormy")


def test_every_fault_has_its_effect_on_a_call() -> None:
    assert set(weather_printer.EFFECTS) == {*Fault, *PaymentFault}


def test_the_help_lists_every_fault_with_its_meaning() -> None:
    assert set(DESCRIPTIONS) == {*Fault, *PaymentFault}
    help_text = run("weather", "--help").stdout
    for fault, meaning in DESCRIPTIONS.items():
        assert re.search(rf"^ +{fault.value} +{re.escape(meaning)}$", help_text, re.MULTILINE), fault

"""A broken service of a consultation: what the payer gets, what the log says, what is untouched.

The payer's offer is that of a consultation in which this one source gives no answer.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import pytest
import structlog.testing
from aiohttp import web

from cashier import Cashier
from cashier.sandbox import World
from cashier.source_errors import Overloaded, SourceError, TimedOut, Unreachable
from tests.company.company import Company, open_company
from tests.company.faults import Break, instead, json, mistaken, page, spoiled
from tests.company.payer import Payer, timeless
from tests.company.services import balance, card, marketing, member, merchant, order

REQUIRED = ("order", "merchant", "member")
CONSULTED = (*REQUIRED, "card", "balance", "channel", "quota", "marketing")


def cards(**fields: str) -> Callable[[], web.Response]:
    row = {"ref": "c_1", "bankNo": "102", "bankName": "ICBC", "dc": "D", "scheme": "VISA", "tail": "6222", "max": ""}
    row |= {"thru": "1130", "st": "0", "shop": "m_1", "route": "ch_x", **fields}
    return lambda: card.sealed({"holder": "u_1", "rows": [row]})


def soap_fault(code: str) -> Callable[[], web.Response]:
    return lambda: order.envelope(order.fault(code))


def accounts(row: str, count: int) -> Callable[[], web.Response]:
    return lambda: balance.signed(f"holder;u_1\n{row}\nend;{count}\n")


def not_modified() -> web.Response:
    return web.Response(status=304, headers={"ETag": '"1"'})


def failed_search() -> web.Response:
    return marketing.lines([{"line": "error", "why": "no shard"}, {"line": "end", "customer": "u_1", "hits": 1}])


def raised(source: str, exception: str) -> str:
    """What the log says of an exception: adapter, function, kind, file and line."""
    return rf"adapter adapters\.{source}(:\w+)?: (parse|answer)\(\) raised {exception} \({source}\.py, line \d+\)"


FAULTS: list[tuple[str, str, Break, str, str]] = [
    ("order", "without its total", spoiled("Total", "Sum"), "GARBLED", raised("order", "KeyError")),
    ("order", "half a cent", spoiled(">128.00<", ">128.005<"), "GARBLED", raised("order", "ValueError")),
    ("order", "a page", instead(page), "GARBLED", "neither an order nor a fault"),
    ("order", "no XML", spoiled("</s:Body>", ""), "GARBLED", raised("order", "ParseError")),
    ("order", "its fault", instead(soap_fault("Server.Db")), "GARBLED", "the SOAP fault Server.Db"),
    ("order", "busy", instead(soap_fault("Server.Busy")), "OVERLOADED", "the SOAP fault Server.Busy"),
    ("order", "another's", mistaken, "WRONG_IDENTITY", "another order"),
    ("merchant", "an unknown state", spoiled("st=1", "st=7"), "GARBLED", raised("merchant", "KeyError")),
    ("merchant", "its fault", instead(lambda: merchant.answer(rc="91")), "GARBLED", "return code 91"),
    ("merchant", "a page", instead(page), "GARBLED", raised("merchant", "ValueError")),
    ("merchant", "another's", mistaken, "WRONG_IDENTITY", "another merchant"),
    ("member", "a tier in words", spoiled("T3", "high"), "GARBLED", raised("member", "ValueError")),
    ("member", "its fault", instead(json({"outcome": "backup"})), "GARBLED", "an outcome other than found"),
    ("member", "never ready", instead(lambda: member.later("j1")), "GARBLED", "not ready after 20 looks"),
    ("member", "nowhere to ask", instead(lambda: web.Response(status=202)), "GARBLED", raised("member", "KeyError")),
    ("member", "another's", mistaken, "WRONG_IDENTITY", "another user"),
    ("card", "a month 13", instead(cards(thru="1330")), "GARBLED", r"at \$\.cards\[0\]\.expiry"),
    ("card", "neither kind", instead(cards(dc="P")), "GARBLED", raised("card", "KeyError")),
    ("card", "no base64", spoiled('"blob": "', '"blob": "!'), "GARBLED", raised("card", "Error")),
    ("card", "its fault", instead(json({"err": 7})), "GARBLED", "an answer without a blob"),
    ("card", "a gateway's 404", instead(lambda: page(404)), "GARBLED", raised("card", "DecodeError")),
    ("card", "another's", mistaken, "WRONG_IDENTITY", "another holder"),
    ("balance", "tampered", spoiled("100,00", "900,00"), "GARBLED", "without a valid seal"),
    ("balance", "cut short", instead(accounts("acc_1;current", 2)), "GARBLED", "an incomplete export"),
    (
        "balance",
        "no comma",
        instead(accounts("acc_1;gift;open;1.00;CNY", 1)),
        "GARBLED",
        raised("balance", "ValueError"),
    ),
    ("balance", "closed", instead(lambda: page(503)), "OVERLOADED", "^status 503$"),
    ("balance", "another's", mistaken, "WRONG_IDENTITY", "another user"),
    ("channel", "no providers", spoiled('"type": "provider"', '"type": "p"'), "GARBLED", raised("channel", "KeyError")),
    ("channel", "cut short", spoiled('"total": 26', '"total": 27'), "GARBLED", "an incomplete list of routes"),
    ("channel", "half a basis point", spoiled('"0.25"', '"0.255"'), "GARBLED", raised("channel", "ValueError")),
    ("channel", "an untimely 304", instead(not_modified), "GARBLED", raised("channel", "KeyError")),
    ("channel", "another's", mistaken, "WRONG_IDENTITY", "routes of another market"),
    ("quota", "an unknown bank", spoiled("bank=308", "bank=399"), "GARBLED", raised("quota", "KeyError")),
    ("quota", "another window", spoiled('"1d"', '"1w"'), "GARBLED", raised("quota", "KeyError")),
    ("quota", "another column", spoiled('"cap"', '"limit"'), "GARBLED", raised("quota", "KeyError")),
    ("quota", "its fault", instead(json({"ccy": "CNY", "error": 3})), "GARBLED", raised("quota", "KeyError")),
    ("quota", "refused", instead(lambda: page(422)), "GARBLED", "status 422 is not among its statuses"),
    ("quota", "another's", mistaken, "WRONG_IDENTITY", "another user"),
    ("marketing", "broken off", spoiled('"hits": 7', '"hits": 8'), "GARBLED", "a search that broke off"),
    ("marketing", "its fault", instead(failed_search), "GARBLED", "neither an offer nor a push"),
    ("marketing", "neither yes nor no", spoiled('"yes"', '"y"'), "GARBLED", raised("marketing", "KeyError")),
    (
        "marketing",
        "500 % off",
        spoiled('"5.00 %"', '"500.00 %"'),
        "GARBLED",
        r"at \$\.promotions\[1\]\.percent_off_bps",
    ),
    ("marketing", "another's", mistaken, "WRONG_IDENTITY", "another user"),
]


# The reason of a method says which of these it was.
ERRORS: dict[str, type[SourceError]] = {"TIMEOUT": TimedOut, "OVERLOADED": Overloaded}


class Outcome(NamedTuple):
    """`answers`: status and body of each consultation. `lines`: what the log says of sources."""

    answers: list[tuple[int, Any]]
    lines: list[dict[str, Any]]


@pytest.fixture
async def company() -> AsyncIterator[Company]:
    async with open_company(World()) as opened:
        yield opened


async def outcome_of(company: Company, change: Callable[[Any], object] = lambda table: None) -> Outcome:
    with structlog.testing.capture_logs() as entries:
        async with Cashier(config=company.configuration(change)) as cashier:
            answers = [await Payer(cashier).consult("chinese_shop") for _ in range(3)]
    lines = [dict(entry) for entry in entries if entry["log_level"] == "warning" and "source" in entry]
    return Outcome(answers, lines)


async def offer_without(company: Company, source: str, cause: str) -> tuple[int, Any]:
    """The answer of a consultation over services of the contract, one of which is down."""

    async def down(**asked: Any) -> Any:
        raise ERRORS.get(cause, Unreachable)("down")

    async with company.over_the_contract(**{source: down}) as direct:
        return await Payer(direct).consult("chinese_shop")


async def assert_only_one_source_fails(company: Company, source: str, outcome: Outcome, cause: str) -> None:
    expected_status, expected = await offer_without(company, source, cause)
    assert expected_status == (503 if source in REQUIRED else 200)
    for answer_status, answer in outcome.answers:
        assert answer_status == expected_status
        assert (answer.get("code"), timeless(answer)) == (expected.get("code"), timeless(expected))
    first = {row["name"]: row["status"] for row in outcome.answers[0][1]["sources"]}
    assert first.pop(source) == ("ERROR" if cause == "OVERLOADED" else cause)
    # Without a required source the others may not be needed.
    assert set(first.values()) <= {"FRESH", "SKIPPED" if source in REQUIRED else "FRESH"}
    later = [row for _, answer in outcome.answers[1:] for row in answer["sources"] if row["name"] != source]
    assert {row["status"] for row in later} <= {"FRESH", "CACHED", "SKIPPED" if source in REQUIRED else "FRESH"}


@pytest.mark.parametrize(
    ("source", "break_", "cause", "reason"),
    [pytest.param(source, *rest, id=f"{source}: {what}") for source, what, *rest in FAULTS],
)
async def test_a_broken_service_silences_its_source_and_is_named_once(
    company: Company, source: str, break_: Break, cause: str, reason: str
) -> None:
    break_(company, source)
    outcome = await outcome_of(company)
    await assert_only_one_source_fails(company, source, outcome, cause)
    (line,) = outcome.lines
    assert (line["event"], line["source"], line["cause"]) == ("no answer from a source", source, cause)
    assert line["address"].startswith(company.environ[f"{source.upper()}_URL"])
    assert re.search(reason, line["reason"]), line["reason"]
    assert reason.startswith("^status") or line["reason"].startswith(f"adapter adapters.{source}")
    assert not re.search("u_1|6222|somebody_else", line["reason"])


@pytest.mark.parametrize("source", CONSULTED)
async def test_a_service_that_hangs_costs_its_own_timeout_and_is_named_once(company: Company, source: str) -> None:
    def impatient(table: Any) -> None:
        # Time enough for a busy machine to connect: without a connection it is no timeout.
        table["sources"][source]["timeout_ms"] = 250

    company.faults[source] = company.hang
    outcome = await outcome_of(company, impatient)
    await assert_only_one_source_fails(company, source, outcome, "TIMEOUT")
    (line,) = outcome.lines
    assert (line["source"], line["cause"], line["reason"]) == (source, "TIMEOUT", "no answer within the timeout")


def test_every_source_is_broken_in_its_shape_by_its_own_fault_and_by_a_wrong_identity() -> None:
    for source in CONSULTED:
        faults = [(break_, cause) for name, _, break_, cause, _ in FAULTS if name == source]
        assert (mistaken, "WRONG_IDENTITY") in faults
        assert len(faults) >= 4


async def test_a_row_that_cannot_be_understood_leaves_only_its_methods_undetermined(company: Company) -> None:
    spoiled("QUICK_PAY;card=c_1", "TAP;card=c_1")(company, "quota")
    spoiled('"paused"', '"on fire"')(company, "channel")
    ((status, offer), *_), lines = await outcome_of(company)
    assert status == 200
    assert {row["status"] for row in offer["sources"]} == {"FRESH"}
    availability = {method["method_id"]: method["availability"] for method in offer["methods"]}
    assert availability["QUICK_PAY:c_2"] == "AVAILABLE"
    assert [method_id for method_id in availability if availability[method_id] == "UNDETERMINED"] == [
        "QUICK_PAY:c_1",
        "QUICK_PAY:c_5",
    ]
    assert sorted(line["source"] for line in lines) == ["channel", "quota"]

"""Why a source has no answer can be read in the log and from the `Cashier`, before and after its
breaker opens; other sources are untouched.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog.testing
import trustme
from aiohttp import web

from cashier import Cashier, ConsultRequest, Product, RequiredSourceUnavailable, Terminal
from cashier.fanout.ask import SourceStatus
from cashier.fanout.failure_log import FailureReport
from cashier.sandbox import LocalUpstreams, World, weather_named
from cashier.sandbox.records import Json
from cashier.source_errors import Unreachable
from tests.support.scripted_service import served

REQUEST = ConsultRequest(
    order_id="o_1001", user_id="u_1", merchant_id="m_1", product=Product.STANDARD_CASHIER, terminal=Terminal.APP
)
CARDS = {"user_id": "u_1", "cards": [], "agreements": []}
CARD = {"card_id": "c_1", "bank": "ICBC", "bank_name": "ICBC", "type": "DEBIT", "brand": "UNIONPAY", "last4": "6222"}
CARD |= {"expiry": "2030-11", "status": "ACTIVE"}
# More than a breaker needs to open.
CALLS = 30
# A slow machine's time to look up a name that does not exist, and to shake hands.
PATIENT = {"deadline_ms": 9_000, "max_deadline_ms": 9_000, "grace_ms": 8_000}


def answering(status: int, body: Json, tls: bool = False) -> Callable[[], Any]:
    """A server of cards that gives one answer to every request."""

    async def answer(_: web.Request) -> web.Response:
        return web.json_response(body, status=status)

    def start() -> Any:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", answer)
        context = None
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            trustme.CA().issue_cert("localhost").configure_cert(context)
        return served(application, context)

    return start


def at(url: str) -> Callable[[], Any]:
    @asynccontextmanager
    async def nothing() -> AsyncIterator[str]:
        yield url

    return nothing


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


async def failures_of(server: Callable[[], Any], calls: int = CALLS) -> tuple[list[FailureReport], list[Any], Any]:
    """Reports and log lines of the cards at `server`, and the last consultation."""
    others = dict(LocalUpstreams(World(), weather_named("still")).items())
    del others["card"]
    async with server() as url:
        with structlog.testing.capture_logs() as entries:
            card = {"url": url, "timeout_ms": 8_000, "breaker": {"open_s": 60, "open_max_s": 60}}
            async with Cashier(sources=others, config={"sources": {"card": card}, "consult": PATIENT}) as cashier:
                answers = [await cashier.consult(REQUEST) for _ in range(calls)]
                reports = list(cashier.failures)
    lines = [entry for entry in entries if entry["event"] == "no answer from a source"]
    return reports, lines, answers[-1]


@pytest.mark.parametrize(
    ("server", "cause", "code", "reason"),
    [
        (at("http://no-such-host.invalid"), "UNREACHABLE", "DNS", "not known"),
        (at(f"http://127.0.0.1:{closed_port()}"), "UNREACHABLE", "REFUSED", "Connect call failed"),
        (answering(200, CARDS, tls=True), "UNREACHABLE", "TLS", "CERTIFICATE_VERIFY_FAILED"),
        (answering(500, {}), "UNREACHABLE", "STATUS_5XX", "status 500"),
        (answering(503, {}), "OVERLOADED", "OVERLOADED", "status 503"),
        (answering(302, {}), "GARBLED", "STATUS_3XX", "status 302"),
        (answering(404, {"code": "NO_SUCH_PATH"}), "GARBLED", "WRONG_PATH", "404"),
        (answering(200, {**CARDS, "user_id": "u_2"}), "WRONG_IDENTITY", "WRONG_IDENTITY", "another user"),
        (answering(200, {"user_id": "u_1"}), "GARBLED", "FIELD", "Object missing required field `cards`"),
        (answering(200, {**CARDS, "cards": [{**CARD, "expiry": "12/30"}]}), "GARBLED", "FIELD", "at $.cards[0].expiry"),
        (
            answering(200, {**CARDS, "cards": [{**CARD, "last4": 6222}]}),
            "GARBLED",
            "FIELD",
            "Expected `str`, got `int`",
        ),
        (answering(200, {**CARDS, "cards": [{**CARD, "type": "PREPAID"}]}), "GARBLED", "FIELD", "at $.cards[0].type"),
    ],
)
async def test_the_reason_is_logged_once_and_survives_the_breaker(
    server: Callable[[], Any], cause: str, code: str, reason: str
) -> None:
    reports, lines, answer = await failures_of(server)
    statuses = {report.name: report.status for report in answer.sources}
    assert statuses.pop("card") is SourceStatus.BREAKER_OPEN
    assert set(statuses.values()) <= {SourceStatus.FRESH, SourceStatus.CACHED, SourceStatus.STALE}
    assert answer.payable
    line, *others = lines
    # A source whose every answer names another subject is not connected to again at once.
    assert all(other["reason"].endswith("its last answers were broken") for other in others)
    assert line["log_level"] == "warning"
    assert (line["source"], line["cause"], line["code"]) == ("card", cause, code)
    assert reason in line["reason"]
    (report,) = [report for report in reports if report.reason == line["reason"]]
    assert (report.source, report.cause.value, report.code.value) == ("card", cause, code)
    assert sum(report.times for report in reports) >= 20
    assert not re.search(r"\b6222\b", line["reason"])
    assert "PREPAID" not in line["reason"]


async def test_a_hanging_source_is_logged_as_one_without_an_answer() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    with listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        others = dict(LocalUpstreams(World(), weather_named("still")).items())
        del others["card"]
        config = {"sources": {"card": {"url": url, "timeout_ms": 30}}}
        with structlog.testing.capture_logs() as entries:
            async with Cashier(sources=others, config=config) as cashier:
                for _ in range(3):
                    assert (await cashier.consult(REQUEST)).payable
                (report,) = cashier.failures
    assert (report.cause.value, report.reason) == ("TIMEOUT", "no answer within the timeout")
    assert [entry["reason"] for entry in entries if entry["event"] == "no answer from a source"] == [report.reason]


async def test_a_required_source_that_fails_is_logged_too() -> None:
    others = dict(LocalUpstreams(World(), weather_named("still")).items())
    del others["member"]
    async with answering(500, {})() as url:
        with structlog.testing.capture_logs() as entries:
            async with Cashier(sources=others, config={"sources": {"member": {"url": url}}}) as cashier:
                with pytest.raises(RequiredSourceUnavailable):
                    await cashier.consult(REQUEST)
    assert [(entry["source"], entry["reason"]) for entry in entries if "source" in entry] == [("member", "status 500")]


async def test_the_end_of_a_failure_is_logged_with_its_length() -> None:
    upstreams = dict(LocalUpstreams(World(), weather_named("still")).items())
    cards, failing = upstreams["card"], [True]

    async def card(**inputs: Any) -> Any:
        if failing:
            raise Unreachable("down")
        return await cards(**inputs)

    with structlog.testing.capture_logs() as entries:
        async with Cashier(sources={**upstreams, "card": card}) as cashier:
            guard = cashier.pipelines["card"].guard
            for closes in (False, True):
                while guard.endpoints[0].breaker.closed is not closes:
                    await cashier.consult(REQUEST)
                failing.clear()
                guard.probe_soon()
    first, last = [entry for entry in entries if entry.get("source") == "card"]
    assert (first["event"], first["log_level"]) == ("no answer from a source", "warning")
    assert (last["event"], last["log_level"]) == ("source answers again", "info")
    assert last["address"] == first["address"]
    assert 0 <= last["failed_s"] < 60

"""The page of the sources: its tables say what the code does, and its example adapter works."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

import cashier.sources
from cashier.contract.examples import examples
from cashier.contract.source_facts import SOURCE_FACTS, asked_table
from cashier.domain.engine_contract import EngineAnswered, Submission
from cashier.domain.facts import Cards
from cashier.fanout.ask import Importance
from cashier.fanout.guard import Guard
from cashier.fanout.guarded_source import Mechanisms
from cashier.fanout.load_shedding import DegradationLadder
from cashier.fanout.scatter import _STATUS
from cashier.source_errors import (
    Garbled,
    Overloaded,
    SourceError,
    TimedOut,
    Unanswered,
    Unreachable,
    WrongIdentity,
)
from cashier.sources.adapter_settings import AdapterSettings
from cashier.sources.adapter_upstream import AdapterBatchUpstream, AdapterUpstream
from cashier.sources.batch_call import BatchWireUpstream
from cashier.sources.card import CARD
from cashier.sources.engine import EngineClient
from cashier.sources.idempotent_retry import RetrySettings
from cashier.sources.service_adapter import AdapterTransport, ServiceAdapter
from cashier.sources.service_object import local_transport
from cashier.sources.source_upstream import FunctionUpstream, WireUpstream
from cashier.wire.transport import Request, Response
from tests.wire.client_side import until

from .adapter_rig import CARDS, HEADERS, KNOWN, AnsweringTransport, adapter_of, form_1, outcome_of

PAGE = (Path(cashier.sources.__file__).parent / "README.md").read_text("utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
ANSWER = Response(200, b'{"user_id":"u_1","cards":[],"agreements":[]}')


def table(first: str) -> dict[str, dict[str, str]]:
    """The table with this first cell in its head: by first cell the others by column."""
    [(head, body)] = re.findall(rf"^(\| {re.escape(first)} \|.*)\n\|[-|]+\n((?:\|.*\n)*)", PAGE, re.MULTILINE)
    columns = [cell.strip() for cell in head.strip("|").split(" | ")]
    rows = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in body.splitlines()]
    assert all(len(row) == len(columns) for row in rows)
    return {row[0]: dict(zip(columns[1:], row[1:], strict=True)) for row in rows}


async def function(user_id: str) -> dict[str, Any]:
    return CARDS | {"user_id": user_id}


def posting() -> SimpleNamespace:
    return form_1(request=lambda asked: Request("/", "POST", b"{}"), parameters=lambda asked: {"uid": asked["user_id"]})


def reading() -> SimpleNamespace:
    return form_1(parameters=lambda asked: {"uid": asked["user_id"]})


# By column: the upstream over a transport, and that of a batch.
WAYS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any] | None]] = {
    "service of the contract": (
        lambda transport: WireUpstream(CARD, transport),
        lambda transport: BatchWireUpstream(CARD, transport, "/batch"),
    ),
    "adapter, only GETs": (
        lambda transport: AdapterUpstream(adapter_of(reading()), transport),
        lambda transport: AdapterBatchUpstream(adapter_of(reading()), transport, "/batch"),
    ),
    "adapter, another request": (
        lambda transport: AdapterUpstream(adapter_of(posting()), transport),
        lambda transport: AdapterBatchUpstream(adapter_of(posting()), transport, "/batch"),
    ),
    "function": (lambda transport: FunctionUpstream(CARD, function, ("user_id",)), None),
}
BY_WAY = pytest.mark.parametrize("way", WAYS)
CONSULTED = table("source of a consultation")


def says(row: str, way: str) -> bool:
    assert CONSULTED[row][way] in ("yes", "no")
    return CONSULTED[row][way] == "yes"


def guard_of(upstream: Any) -> Guard:
    return Guard("card", upstream, 5000, Mechanisms(), DegradationLadder(), Importance.GATING)


async def outcome_over(guard: Guard) -> Any:
    ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    guard.start(KNOWN, HEADERS, 5000, lambda outcome, *_: ended.set_result(outcome))
    async with asyncio.timeout(30):
        return await ended


@BY_WAY
async def test_the_table_says_what_each_way_sends_and_what_can_be_stored(way: str) -> None:
    transport = AnsweringTransport(ANSWER)
    upstream = WAYS[way][0](transport)
    assert (upstream.addresses == transport.addresses) is says("several addresses, connections, TLS, discovery", way)
    stored: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
    upstream.call(KNOWN, HEADERS, 70, lambda outcome, none=False, body=None: stored.set_result(body))
    assert (await stored is not None) is says("kept in the shared cache", way)
    assert (transport.sent == [(HEADERS, 70)]) is says("time left and trace are sent along", way)
    assert (WAYS[way][1] is not None) is says("batch form", way)


@BY_WAY
async def test_the_table_says_whether_a_way_is_called_again(way: str) -> None:
    calls: list[str] = []

    async def failing(user_id: str) -> None:
        calls.append(user_id)
        raise Unreachable("refused")

    async def hanging(user_id: str) -> None:
        calls.append(user_id)
        await asyncio.Event().wait()

    for row, response, in_process in (
        ("called again after a failure", Unreachable("refused"), failing),
        ("called again beside a slow call (hedged)", None, hanging),
    ):
        calls.clear()
        transport = AnsweringTransport(response)
        upstream = WAYS[way][0](transport) if way != "function" else FunctionUpstream(CARD, in_process, ("user_id",))
        guard = guard_of(upstream)
        if response is not None:
            await outcome_over(guard)
        else:
            call: Any = guard.start(KNOWN, HEADERS, 5000, lambda *_: None)
            await until(lambda: len(transport.requests) + len(calls) > 0)  # noqa: B023  awaited at once
            call.hedge(guard.clock_ns())
            for _ in range(5):
                await asyncio.sleep(0)
        assert (len(transport.requests) + len(calls) == 2) is says(row, way)
        guard.close()


@BY_WAY
async def test_every_way_is_checked(way: str) -> None:
    assert says("fields, identity and duplicates are checked", way)
    other = {"user_id": "u_2", "cards": [], "agreements": []}

    async def about_another(user_id: str) -> dict[str, Any]:
        return other

    adapters = {"adapter, only GETs": form_1(other), "adapter, another request": form_1(other)}
    transport = AnsweringTransport(Response(200, b'{"user_id":"u_2","cards":[],"agreements":[]}'))
    upstream: Any = WireUpstream(CARD, transport)
    if way in adapters:
        upstream = AdapterUpstream(adapter_of(adapters[way]), transport)
    elif way == "function":
        upstream = FunctionUpstream(CARD, about_another, ("user_id",))
    assert isinstance(await outcome_over(guard_of(upstream)), WrongIdentity)


RAISED: dict[str, BaseException] = {
    "`Unreachable`": Unreachable("x"),
    "`TimedOut`": TimedOut("x"),
    "`Overloaded`": Overloaded("x", 3.0),
    "`Garbled`": Garbled("x"),
    "`WrongIdentity`": WrongIdentity("x"),
    "any other exception, in an adapter": ZeroDivisionError(),
    "any other exception, in a function": ZeroDivisionError(),
}
ERRORS = table("raised")


@pytest.mark.parametrize("raised", RAISED)
async def test_the_table_of_errors_says_what_each_becomes(raised: str) -> None:
    calls = []

    async def failing(user_id: str) -> None:
        calls.append(user_id)
        raise RAISED[raised]

    def parse(asked: Any) -> None:
        calls.append(asked["user_id"])
        raise RAISED[raised]

    upstreams: list[Any] = []
    if raised != "any other exception, in an adapter":
        upstreams.append(FunctionUpstream(CARD, failing, ("user_id",)))
    if raised != "any other exception, in a function":
        upstreams.append(AdapterUpstream(adapter_of(form_1(parse)), AnsweringTransport(ANSWER)))
    handler = asyncio.get_running_loop().get_exception_handler()
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    for upstream in upstreams:
        calls.clear()
        outcome = await outcome_over(guard_of(upstream))
        assert isinstance(outcome, SourceError)
        assert f"`{_STATUS[outcome.cause]}`" == ERRORS[raised]["`sources[].status`"]
        assert ("yes" if len(calls) == 2 else "no") == ERRORS[raised]["called again at the same address"]
    asyncio.get_running_loop().set_exception_handler(handler)


def test_every_error_that_may_be_raised_is_in_the_table() -> None:
    assert {
        f"`{kind.__name__}`" for kind in (Unreachable, TimedOut, Overloaded, Garbled, WrongIdentity)
    } <= ERRORS.keys()


def test_the_table_of_what_is_asked_is_that_of_the_plan() -> None:
    assert f"\n{asked_table()}\n" in PAGE
    assert {name for name, facts in SOURCE_FACTS.items() if facts.cache is None} == {"risk", "engine", "acquirer"}


def test_every_link_inside_the_page_leads_to_a_section() -> None:
    headings = {re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-") for text in re.findall(r"^#+ (.*)$", PAGE, re.M)}
    assert set(re.findall(r"\]\(#([\w-]+)\)", PAGE)) <= headings


async def test_the_example_adapter_reads_another_shape() -> None:
    example = EXAMPLES[0]
    module: dict[str, Any] = {}
    exec(example, module)  # noqa: S102 — the example of the page
    adapter = module["Wallet"](AdapterSettings("card", {"key": "k"}, ""))
    item = b'{"no":"c_1","bank":"ICBC","bankName":"ICBC","tail":"1234","validThru":"2031-05"}'
    transport = AnsweringTransport(Response(200, b'{"uid":"u_1","items":[%s]}' % item))
    cards, _, _ = await outcome_of(adapter, transport)
    assert [card.last4 for card in cards.cards] == ["1234"]
    assert transport.requests == [Request("/wallet?uid=u_1", headers=(("Authorization", "Bearer k"),))]
    assert (await outcome_of(adapter, AnsweringTransport(Response(410, b""))))[:2] == (Cards("u_1", (), ()), True)
    other, _, _ = await outcome_of(adapter, AnsweringTransport(Response(200, b'{"uid":"u_2","items":[]}')))
    assert isinstance(other, WrongIdentity)


PAID = table("`risk`, `engine`, `acquirer`")
ENGINE_WAYS = ("service of the contract", "adapter", "object", "function")


def engine_over(way: str, calls: list[str]) -> EngineClient:
    """An engine that never answers, and counts what it is called for."""

    class FailingEngine:
        async def submit(self, submission: Any, *context: Any) -> Any:
            calls.append("submit")
            raise Unreachable("refused")

        async def look_up(self, payment_id: str, order_id: str, *context: Any) -> Any:
            calls.append("look_up")
            raise Unreachable("refused")

        async def reverse(self, payment_id: str, order_id: str, *context: Any) -> Any:
            calls.append("reverse")
            raise Unreachable("refused")

    async def failing(request: Request) -> Response:
        calls.append(operation_of(request))
        raise Unreachable("refused")

    class CountingTransport(AnsweringTransport):
        def send(self, request: Request, *arguments: Any) -> Any:
            calls.append(operation_of(request))
            return super().send(request, *arguments)

    match way:
        case "service of the contract":
            transport: Any = CountingTransport(Unreachable("refused"))
        case "adapter":
            transport = AdapterTransport(ServiceAdapter("engine", "a", FailingEngine()), AnsweringTransport(ANSWER))
        case "object":
            transport = local_transport("engine", FailingEngine())
        case _:
            transport = local_transport("engine", failing)
    return EngineClient(transport, RetrySettings(attempts=3))


def operation_of(request: Request) -> str:
    return {"/payments": "submit", "/payments/pay_1": "look_up"}.get(request.target, "reverse")


@pytest.mark.virtual_time
@pytest.mark.parametrize("way", ENGINE_WAYS)
async def test_the_table_says_what_a_payment_service_is_called_for_again(way: str) -> None:
    calls: list[str] = []
    engine = engine_over(way, calls)
    submission = msgspec.convert(examples()["engine_submit"]["body"], Submission)
    assert not isinstance(await engine.submit(submission, HEADERS, 1000), EngineAnswered)
    assert isinstance(await engine.look_up("pay_1", "o_1001", HEADERS, 1000), Unanswered)
    assert isinstance(await engine.reverse("pay_1", "o_1001", HEADERS, 1000), Unanswered)
    again = {operation for operation in calls if calls.count(operation) > 1}
    assert ("submit" in again) is (PAID["`submit`, `decide`, `verify` and `resend` are called again"][way] == "yes")
    row = "`look_up`, `reverse` and `result` are called again without an answer"
    assert ({"look_up", "reverse"} <= again) is (PAID[row][way] == "yes")

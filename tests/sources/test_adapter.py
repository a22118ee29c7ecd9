"""Adapters: their two forms, what they may return, and what becomes of everything else."""

from __future__ import annotations

import asyncio
import gc
import json
from collections import UserDict
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple

import pytest

from cashier.domain.facts import Card, Cards, CardType, Channels, Marketing, Quotas
from cashier.domain.money import Money
from cashier.source_errors import Garbled, Overloaded, Shed, SourceError, TimedOut, Unreachable, WrongIdentity
from cashier.sources.adapter_hooks import AdapterHooks
from cashier.sources.adapter_upstream import MAX_REQUESTS, AdapterUpstream
from cashier.wire.transport import Request, Response
from tests.wire.client_side import until

from .adapter_rig import (
    CARD,
    CARDS,
    HEADERS,
    KNOWN,
    AnsweringTransport,
    adapter_of,
    detail_of,
    form_1,
    form_2,
    outcome_of,
    responding,
)

CARD_FACT = Card("c_1", "ICBC", "ICBC", CardType.DEBIT, "UNIONPAY", "6222", "2031-05", "ACTIVE")
FACT = Cards("u_1", (CARD_FACT,), ())


@dataclass
class CardsRecord:
    user_id: str
    cards: list[Any]
    agreements: list[Any]


class CardsTuple(NamedTuple):
    user_id: str
    cards: tuple[Any, ...]
    agreements: frozenset[Any]


@pytest.mark.parametrize(
    "value",
    [
        CARDS,
        MappingProxyType(CARDS),
        UserDict(CARDS),
        {**CARDS, "trace": {"a": 1}, "cards": (CARD,)},
        FACT,
        {**CARDS, "cards": [CARD_FACT]},
        CardsRecord("u_1", [CARD_FACT], []),
        CardsTuple("u_1", (CARD,), frozenset()),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("form", [form_1, form_2])
async def test_the_contracts_mapping_in_any_mapping_type_becomes_the_fact(value: Any, form: Any) -> None:
    outcome, not_found, body = await outcome_of(form(value))
    assert outcome == FACT
    assert not_found is False
    assert body is not None
    assert adapter_of(form()).parse_stored(False, body, KNOWN) == FACT


@pytest.mark.parametrize("form", [form_1, form_2])
@pytest.mark.parametrize("status", [200, 404])
async def test_none_means_that_there_is_none_whatever_the_status(form: Any, status: int) -> None:
    outcome = await outcome_of(form(None), AnsweringTransport(Response(status, b'{"code":1}')))
    assert outcome == (Cards("u_1", (), ()), True, b"")
    assert adapter_of(form()).parse_stored(True, b"", KNOWN) == Cards("u_1", (), ())


async def test_an_old_adapter_that_builds_prepared_facts_is_checked_like_any_other() -> None:
    quota = {"scope": {"kind": "WALLET"}, "single": Money("CNY", 5)}
    quotas, _, _ = await outcome_of(form_1({"user_id": "u_1", "quotas": [quota]}), source="quota")
    assert isinstance(quotas, Quotas)
    prepared = Quotas.prepared(quota for by in quotas.by_kind.values() for several in by.values() for quota in several)
    assert (await outcome_of(form_1(prepared), source="quota"))[0] == quotas
    foreign = Quotas.prepared([type(quota)(quota.scope, Money("JPY", 5)) for quota in quotas.by_kind["WALLET"][None]])
    assert "another currency" in await detail_of(form_1(foreign), source="quota")
    assert (await outcome_of(form_1(Channels.prepared(())), source="channel"))[0] == Channels.prepared(())


async def test_an_old_adapters_empty_struct_for_a_404_is_negative() -> None:
    def parse(status: int, body: bytes, asked: Any) -> Any:
        assert status == 404
        return Cards(asked["user_id"], (), ())

    adapter = SimpleNamespace(request=lambda asked: Request("/"), parse=parse)
    outcome = await outcome_of(adapter, AnsweringTransport(Response(404, b"")))
    assert outcome[:2] == (Cards("u_1", (), ()), True)
    assert adapter_of(adapter).parse_stored(True, outcome[2] or b"", KNOWN) == outcome[0]


class Explosive(dict[str, Any]):
    def items(self) -> Any:
        raise RuntimeError("the card 6222020200112230")


class Endless(UserDict[str, Any]):
    def items(self) -> Any:
        while True:
            yield "more", 1


def recursive() -> dict[str, Any]:
    value: dict[str, Any] = {**CARDS}
    value["cards"] = [value]
    return value


async def coroutine() -> dict[str, Any]:
    return CARDS


def generator() -> Any:
    yield CARD


WRONG_VALUES: list[tuple[Any, str]] = [
    ([CARD], "is a list instead of a mapping"),
    ("{}", "is a str instead of a mapping"),
    (b"{}", "is a bytes instead of a mapping"),
    (42, "is an int instead of a mapping"),
    (lambda asked: Cards, "is a StructMeta instead of a mapping"),
    (lambda asked: coroutine(), "is a coroutine instead of a mapping"),
    (lambda asked: generator(), "is a generator instead of a mapping"),
    (lambda asked: {**CARDS, "cards": generator()}, "is a generator at $.cards"),
    (lambda asked: {**CARDS, "cards": [coroutine()]}, "is a coroutine at $.cards[0]"),
    ({}, "Object missing required field `user_id`"),
    ({"user_id": "u_1"}, "Object missing required field `cards`"),
    ({**CARDS, "cards": None}, "at $.cards"),
    ({**CARDS, "cards": [{**CARD, "expiry": "12/30"}]}, "at $.cards[0].expiry"),
    ({**CARDS, "cards": [{**CARD, "expiry": date(2031, 5, 1)}]}, "at $.cards[0].expiry"),
    ({**CARDS, "cards": [{**CARD, "bank": b"ICBC"}]}, "is a bytes at $.cards[0].bank"),
    ({**CARDS, "cards": [{**CARD, "last4": 6222}]}, "Expected `str`, got `int` at $.cards[0].last4"),
    ({**CARDS, "cards": [{**CARD, "last4": Decimal(6222)}]}, "is a Decimal at $.cards[0].last4"),
    ({**CARDS, "cards": [{**CARD, "x": float("nan")}]}, "is a number that is not finite at $.cards[0].x"),
    ({**CARDS, "cards": [{**CARD, "x": datetime(2031, 5, 1)}]}, "is a time without an offset"),  # noqa: DTZ001
    ({**CARDS, "cards": [{**CARD, 5: 1}]}, "is a key that is an int at $.cards[0]"),
    ({**CARDS, "cards": [{**CARD, "bank": "\ud800"}]}, "raised UnicodeEncodeError"),
    ({**CARDS, "cards": [Card("c_1", "B", "B", CardType.DEBIT, "U", "6222", "12/30", "ACTIVE")]}, "expiry"),
    ({**CARDS, "cards": [CARD, CARD]}, "two cards with one card_id"),
    ({**CARDS, "user_id": "u_2"}, "an answer about another user"),
    (Cards("u_2", (), ()), "an answer about another user"),
    (recursive(), "is a value nested deeper than"),
    ({**CARDS, "cards": [0] * 200_000}, "is more than 100000 values"),
    ({**CARDS, "x": "x" * (1 << 23)}, "is an answer of more than"),
    (Endless(), "is more than 100000 values"),
    (Explosive(CARDS), "raised RuntimeError"),
    ({**CARDS, "cards": [Explosive(CARD)]}, "raised RuntimeError"),
]


@pytest.mark.parametrize(("value", "fault"), WRONG_VALUES, ids=[fault for _, fault in WRONG_VALUES])
@pytest.mark.parametrize("form", [form_1, form_2])
async def test_any_other_value_is_garbled_with_adapter_and_place(value: Any, fault: str, form: Any) -> None:
    detail = await detail_of(form(value))
    assert detail.startswith("adapter my.cards: ")
    assert fault in detail
    assert "6222" not in detail


class Halt(BaseException):
    pass


RAISED = [
    KeyError("6222"), RuntimeError("6222"), ZeroDivisionError(), AssertionError(), RecursionError(), MemoryError(),
    StopIteration(), StopAsyncIteration(), GeneratorExit(), SystemExit(3), asyncio.CancelledError(), TimeoutError(),
    OSError(111, "6222"), UnicodeDecodeError("ascii", b"6222", 0, 1, "x"), ExceptionGroup("6222", [ValueError()]),
    Halt(), NotImplementedError(), LookupError(), BaseExceptionGroup("x", [Halt()]),
]  # fmt: skip


@pytest.mark.parametrize("raised", RAISED, ids=lambda raised: type(raised).__name__)
async def test_whatever_a_function_raises_is_garbled_with_its_name_and_place(raised: BaseException) -> None:
    def request(asked: Any) -> Request:
        raise raised

    name = type(raised).__name__
    # Inside a coroutine Python itself makes a RuntimeError of it, which has no line.
    in_task = "RuntimeError" if isinstance(raised, StopIteration) else f"{name} ("
    for adapter, function, shown in (
        (form_1(request=request), "request", f"{name} ("),
        (form_1(raised), "parse", f"{name} ("),
        (form_2(raised), "answer", in_task),
    ):
        outcome, _, _ = await outcome_of(adapter)
        assert type(outcome) is Garbled
        assert outcome.detail.startswith(f"adapter my.cards: {function}() raised {shown}")
        assert "6222" not in outcome.detail


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (Garbled("x"), Garbled),
        (WrongIdentity("x"), WrongIdentity),
        (Overloaded("x", 2), Overloaded),
        (Unreachable("x", sent=False), Unreachable),
        (TimedOut("x"), TimedOut),
        (Shed("x"), Unreachable),  # only the fan-out decides not to ask
        (SourceError("x"), Garbled),
    ],
)
@pytest.mark.parametrize("form", [form_1, form_2])
async def test_a_source_error_of_the_adapter_is_the_outcome(
    raised: SourceError, kind: type[SourceError], form: Any
) -> None:
    adapter = form(raised)
    for _ in range(2):  # the same object again
        outcome, _, _ = await outcome_of(adapter)
        assert type(outcome) is kind
        assert outcome.detail == "adapter my.cards: x"


@pytest.mark.parametrize(
    ("quoted", "shown"),
    [
        ("no card 4111111111111111 of 13912345678", "no card … of …"),
        ("card 4111 1111 1111 1111 expired", "card … expired"),
        ("card 4111-1111-1111-1111 expired", "card … expired"),
        ("tell payer@example.com: it", "tell … it"),
        ("code 1042 at 10.244.17.100:9100, status 503", "code 1042 at 10.244.17.100:9100, status 503"),
        (KeyError("13912345678"), "'…'"),
        ("x" * 5_000, "x" * 200),
    ],
)
def test_what_looks_like_a_persons_is_not_in_the_text_of_an_error(quoted: Any, shown: str) -> None:
    error = Garbled(quoted)
    assert error.detail == str(error)
    assert error.detail.startswith(shown)
    assert len(error.detail) <= 1_000


@pytest.mark.parametrize("read", ["[]", "get"])
@pytest.mark.parametrize("form", [form_1, form_2])
async def test_an_input_that_the_source_does_not_need_is_not_there(read: str, form: Any) -> None:
    def foreign(asked: Any) -> Any:
        assert "merchant_id" not in asked
        assert dict(asked) == {"user_id": "u_1"}
        return asked["merchant_id"] if read == "[]" else asked.get("merchant_id", "m_1")

    detail = await detail_of(form(foreign))
    assert "reads 'merchant_id', but card has only user_id" in detail


async def test_asked_cannot_be_changed() -> None:
    def change(asked: Any) -> Any:
        asked["user_id"] = "u_2"

    assert "raised TypeError" in await detail_of(form_1(change))


async def test_each_source_is_asked_what_its_row_needs() -> None:
    asked_by_source: dict[str, Any] = {}
    for source in ("order", "member", "quota", "marketing", "channel"):
        await outcome_of(
            form_1(lambda asked, source=source: asked_by_source.__setitem__(source, dict(asked))), source=source
        )
    assert asked_by_source["order"] == {"order_id": "o_1"}
    assert asked_by_source["channel"] == {"currency": "CNY", "country": "CN"}
    assert asked_by_source["quota"] == {"user_id": "u_1", "currency": "CNY"}
    assert asked_by_source["marketing"] == {"user_id": "u_1", "merchant_id": "m_1", "amount": Money("CNY", 12800)}


class Pretender:
    @property  # type: ignore[misc]  # on purpose
    def __class__(self) -> Any:
        raise RuntimeError("6222")


@pytest.mark.parametrize("form", [form_1, form_2])
async def test_an_object_that_raises_when_its_type_is_read_is_contained(form: Any) -> None:
    assert "the answer of" in await detail_of(form(lambda asked: Pretender()))
    assert "the request raised RuntimeError" in await detail_of(form_1(request=lambda asked: Pretender()))


async def test_a_source_error_without_a_detail_is_contained() -> None:
    class Odd(Garbled):
        @property
        def detail(self) -> str:
            raise RuntimeError

        @detail.setter
        def detail(self, value: str) -> None: ...

    assert await detail_of(form_1(Odd("x"))) == "adapter my.cards: Odd"


@pytest.mark.parametrize(
    ("request_", "fault"),
    [
        (None, "made no request but None"),
        ("/cards", "made no request but a str"),
        (SimpleNamespace(target="/", method="GET", body=b"", headers=()), "made no request but a SimpleNamespace"),
        (lambda asked: coroutine(), "made no request but a coroutine"),
        (Request("cards/u_1"), "its target is no percent-encoded path"),
        (Request("/a b"), "its target is no percent-encoded path"),
        (Request("/ü"), "its target is no percent-encoded path"),
        (Request("/a\r\nX: 1"), "its target is no percent-encoded path"),
        (Request("/a#b"), "its target is no percent-encoded path"),
        (Request("http://elsewhere/"), "its target is no percent-encoded path"),
        (Request(b"/"), "target holds a bytes"),  # type: ignore[arg-type]  # wrong on purpose
        (Request("/", "DELETE"), "its method is not one of GET, POST, PUT"),
        (Request("/", "get"), "its method is not one of GET, POST, PUT"),
        (Request("/", "POST", "{}"), "body holds a str"),  # type: ignore[arg-type]  # wrong on purpose
        (Request("/", "POST", {}), "body holds a dict"),  # type: ignore[arg-type]  # wrong on purpose
        (Request("/", headers={"A": 1}), "headers holds an int"),  # type: ignore[arg-type]  # wrong on purpose
        (Request("/", headers="A: 1"), "headers holds None"),  # type: ignore[arg-type]  # wrong on purpose
        (Request("/", headers=(("Authorization", "a\r\nb"),)), "the value of header Authorization"),
        (Request("/", headers=(("Authorization", "ü"),)), "the value of header Authorization"),
        (Request("/", headers=(("Host", "x"),)), "header 'Host' has an invalid, reserved or repeated name"),
        (Request("/", headers=(("X-Deadline-Ms", "1"),)), "reserved"),
        (Request("/", headers=(("Connection", "close"),)), "reserved"),
    ],
    ids=lambda value: type(value).__name__ if callable(value) else repr(value),
)
async def test_a_request_that_cannot_be_sent_is_garbled_at_once(request_: Any, fault: str) -> None:
    async def answer(asked: Any, call: Any) -> Any:
        while True:
            try:
                return await call(request_(asked) if callable(request_) else request_)
            except Exception:  # noqa: BLE001, S112 - a careless retry
                continue

    for adapter in (
        form_1(request=lambda asked: request_(asked) if callable(request_) else request_),
        SimpleNamespace(answer=answer),
    ):
        transport = AnsweringTransport()
        detail = await detail_of(adapter, transport)
        assert detail.startswith("adapter my.cards made ")
        assert fault in detail
        assert not transport.requests


async def test_a_request_may_have_headers_as_a_mapping_and_only_gets_are_repeated() -> None:
    transport = AnsweringTransport()
    sent = Request("/a", "POST", b"{}", headers={"Authorization": "Bearer x y"})  # type: ignore[arg-type]  # for ease
    await outcome_of(form_1(request=lambda asked: sent), transport)
    await outcome_of(form_1(), transport)
    await outcome_of(form_1(request=lambda asked: Request("/a", safe=False)), transport)
    assert transport.requests == [
        Request("/a", "POST", b"{}", False, (("Authorization", "Bearer x y"),)),
        Request("/"),
        Request("/", safe=False).__class__("/a", safe=False),
    ]


async def test_parse_sees_headers_and_the_statuses_that_it_declares() -> None:
    seen: list[Any] = []

    def parse(response: Response, asked: Any) -> Any:
        seen.append((response.status, response.headers["X-Page"], response.json()))
        return CARDS

    adapter = SimpleNamespace(request=lambda asked: Request("/"), parse=parse, statuses={200, 206})
    assert (await outcome_of(adapter, AnsweringTransport(responding(206, b"[1]", **{"x-page": "2"}))))[0] == FACT
    assert seen == [(206, "2", [1])]
    assert (
        await detail_of(adapter, AnsweringTransport(responding(404)))
        == "adapter my.cards: status 404 is not among its statuses"
    )
    outcome, _, _ = await outcome_of(adapter, AnsweringTransport(Response(503, b"", 2.0)))
    assert isinstance(outcome, Overloaded)
    assert outcome.retry_after_s == 2.0
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("adapter", "fault"),
    [
        (SimpleNamespace(), "has no function request and no parse"),
        (SimpleNamespace(request=lambda asked: None), "has no function parse"),
        (form_1(answer=form_2().answer), "has answer and request and parse: leave one form out"),
        (form_2(parameters=lambda asked: {}), "batches need request and parse"),
        (SimpleNamespace(answer=lambda asked, call: None), "answer of adapter 'my.cards' is not async"),
        (SimpleNamespace(request=form_2().answer, parse=1), "request of adapter 'my.cards' takes other parameters"),
        (SimpleNamespace(request=lambda asked: 1, parse=1), "parse of adapter 'my.cards' is no function"),
        (
            SimpleNamespace(request=lambda asked: 1, parse=lambda response: 1),
            "it has to be parse(response, asked) or parse(status, body, asked)",
        ),
        (SimpleNamespace(request=lambda asked: 1, parse=lambda status, body, asked=None: 1), "takes other parameters"),
        (SimpleNamespace(request=lambda asked: 1, parse=lambda *arguments: 1), "takes other parameters"),
        (SimpleNamespace(request=lambda asked: 1, parse=form_2().answer), "parse of adapter 'my.cards' is async"),
        (form_1(open=lambda: None), "open of adapter 'my.cards' is not async"),
        (form_1(statuses="200"), "statuses of adapter 'my.cards' must be a set of HTTP statuses"),
        (form_1(statuses=200), "statuses of adapter 'my.cards' must be a set of HTTP statuses"),
        (form_1(statuses=[100]), "statuses of adapter 'my.cards' must be a set of HTTP statuses"),
        (form_1(statuses=[]), "statuses of adapter 'my.cards' must be a set of HTTP statuses"),
    ],
)
def test_a_form_that_is_none_is_refused_at_start(adapter: Any, fault: str) -> None:
    with pytest.raises(ValueError, match=r"my\.cards") as refused:
        adapter_of(adapter)
    assert fault in str(refused.value)


# Form 2: several requests


async def test_an_answer_may_take_pages_and_a_token() -> None:
    async def answer(asked: Any, call: Any) -> Any:
        token = (await call(Request("/token", "POST", b"{}"))).json()["token"]
        cards: list[Any] = []
        while True:
            page = await call(Request(f"/p?n={len(cards)}", headers=(("Authorization", f"Bearer {token}"),)))
            cards += page.json()
            if "next" not in page.headers:
                return {**CARDS, "cards": cards}

    transport = AnsweringTransport(
        responding(body=b'{"token":"t"}'),
        responding(body=json.dumps([CARD]).encode(), next="1"),
        responding(body=json.dumps([{**CARD, "card_id": "c_2"}]).encode()),
    )
    outcome, _, _ = await outcome_of(SimpleNamespace(answer=answer), transport)
    assert [card.card_id for card in outcome.cards] == ["c_1", "c_2"]
    assert [(request.method, request.target, request.safe) for request in transport.requests] == [
        ("POST", "/token", False), ("GET", "/p?n=0", True), ("GET", "/p?n=1", True),
    ]  # fmt: skip
    assert all(headers is HEADERS and 1 <= budget_ms <= 100 for headers, budget_ms in transport.sent)


async def test_an_error_of_a_call_may_be_passed_on_or_handled() -> None:
    refused = Unreachable("10.0.0.1: refused", sent=False)

    async def passes_on(asked: Any, call: Any) -> Any:
        await call(Request("/"))

    async def handles(asked: Any, call: Any) -> Any:
        try:
            await call(Request("/"))
        except Unreachable:
            return CARDS

    assert (await outcome_of(SimpleNamespace(answer=passes_on), AnsweringTransport(refused)))[0] is refused
    assert (await outcome_of(SimpleNamespace(answer=handles), AnsweringTransport(refused)))[0] == FACT
    outcome, _, _ = await outcome_of(SimpleNamespace(answer=passes_on), AnsweringTransport(Response(503, b"")))
    assert isinstance(outcome, Overloaded)


async def test_an_adapter_that_asks_without_end_is_garbled() -> None:
    async def answer(asked: Any, call: Any) -> Any:
        while True:
            try:
                await call(Request("/"))
            except Exception:  # noqa: BLE001, S112 - a careless retry
                continue

    transport = AnsweringTransport(Unreachable("no"))
    assert "makes more than 64 requests" in await detail_of(SimpleNamespace(answer=answer), transport)
    assert len(transport.requests) == MAX_REQUESTS


async def test_an_abandoned_answer_is_cancelled_with_all_its_requests() -> None:
    ended = asyncio.Event()

    async def answer(asked: Any, call: Any) -> Any:
        try:
            await asyncio.gather(call(Request("/a")), call(Request("/b")))
        finally:
            ended.set()

    transport = AnsweringTransport(None)
    call = AdapterUpstream(adapter_of(SimpleNamespace(answer=answer)), transport).call(
        KNOWN, HEADERS, 100, lambda *outcome: pytest.fail("an abandoned call was answered")
    )
    await until(lambda: len(transport.requests) == 2)
    call.abandon()
    await ended.wait()
    assert transport.abandoned >= 2


@pytest.mark.parametrize("raised", [RuntimeError(), SystemExit()], ids=repr)
async def test_what_an_abandoned_answer_raises_goes_nowhere(raised: BaseException) -> None:
    contexts: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: contexts.append(context))
    ended = asyncio.Event()

    async def answer(asked: Any, call: Any) -> Any:
        try:
            await call(Request("/"))
        finally:
            ended.set()
            raise raised

    transport = AnsweringTransport(None)
    call = AdapterUpstream(adapter_of(SimpleNamespace(answer=answer)), transport).call(
        KNOWN, HEADERS, 100, lambda *outcome: pytest.fail("an abandoned call was answered")
    )
    await until(lambda: bool(transport.requests))
    call.abandon()
    await ended.wait()
    del call
    gc.collect()
    await asyncio.sleep(0)
    assert contexts == []


async def test_requests_after_the_end_are_not_sent() -> None:
    kept: list[Any] = []
    left_behind: list[asyncio.Task[Any]] = []

    async def answer(asked: Any, call: Any) -> Any:
        kept.append(call)
        left_behind.append(asyncio.ensure_future(call(Request("/late"))))
        await asyncio.sleep(0)
        return CARDS

    transport = AnsweringTransport(None)
    assert (await outcome_of(SimpleNamespace(answer=answer), transport))[0] == FACT
    with pytest.raises(asyncio.CancelledError):
        await left_behind[0]
    with pytest.raises(asyncio.CancelledError):
        await kept[0](Request("/later"))
    assert [request.target for request in transport.requests] == ["/late"]
    assert transport.abandoned


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_only_gets_allow_another_attempt(method: str) -> None:
    async def answer(asked: Any, call: Any) -> Any:
        await call(Request("/", method))

    for adapter in (form_1(request=lambda asked: Request("/", method)), SimpleNamespace(answer=answer)):
        upstream = AdapterUpstream(adapter_of(adapter), AnsweringTransport(Unreachable("no")))
        ended: asyncio.Future[SourceError] = asyncio.get_running_loop().create_future()
        call = upstream.call(KNOWN, HEADERS, 100, lambda outcome, *_: ended.set_result(outcome))  # noqa: B023
        error = await ended
        assert (call.repeatable, error.final) == (method == "GET", method != "GET")


async def test_a_second_attempt_beside_the_first_sends_only_gets() -> None:
    async def answer(asked: Any, call: Any) -> Any:
        await call(Request("/list"))
        await call(Request("/token", "POST"))

    transport = AnsweringTransport()
    ended: asyncio.Future[SourceError] = asyncio.get_running_loop().create_future()
    call = AdapterUpstream(adapter_of(SimpleNamespace(answer=answer)), transport).call(
        KNOWN, HEADERS, 100, lambda outcome, *_: ended.set_result(outcome)
    )
    call.beside_another = True
    assert (await ended).cause.value == "SKIPPED"
    assert [request.target for request in transport.requests] == ["/list"]


# Hooks


class Hooked:
    def __init__(self, *opens: Any) -> None:
        self.opens = list(opens)
        self.closed = 0
        self.request, self.parse = form_1().request, form_1().parse

    async def open(self) -> None:
        step = self.opens.pop(0)
        if isinstance(step, BaseException):
            raise step
        if step is not None:
            await step.wait()

    async def close(self) -> None:
        self.closed += 1
        raise RuntimeError


async def opened(adapter: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[AdapterHooks, Any, list[dict[str, Any]]]:
    monkeypatch.setattr("cashier.sources.adapter_hooks.WAIT_S", 0.01)
    monkeypatch.setattr("cashier.sources.adapter_hooks.FIRST_PAUSE_S", 0.001)
    lines: list[dict[str, Any]] = []
    loaded = adapter_of(adapter)
    hooks = AdapterHooks(loaded, lambda event, **fields: lines.append(fields))
    await hooks.open()
    return hooks, loaded, lines


async def call_once(loaded: Any) -> Any:
    ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    AdapterUpstream(loaded, AnsweringTransport()).call(
        KNOWN, HEADERS, 100, lambda outcome, *_: ended.set_result(outcome)
    )
    return await ended


async def test_an_adapter_that_opens_later_is_unreachable_until_then(monkeypatch: pytest.MonkeyPatch) -> None:
    ready = asyncio.Event()
    hooks, loaded, lines = await opened(Hooked(ready), monkeypatch)
    error = await call_once(loaded)
    assert isinstance(error, Unreachable)
    assert error.detail == "adapter my.cards: open() has not ended"
    assert [line["reason"] for line in lines] == [error.detail]
    ready.set()
    await until(lambda: loaded.unopened is None)
    assert await call_once(loaded) == FACT
    await hooks.close()


@pytest.mark.parametrize("fault", [OSError("no key"), SystemExit(), asyncio.CancelledError()], ids=repr)
async def test_an_adapter_that_does_not_open_is_tried_again(
    fault: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cashier.sources.adapter_hooks.FIRST_PAUSE_S", 0.0)
    adapter = Hooked(fault, fault, None)
    hooks, loaded, lines = await opened(adapter, monkeypatch)
    await until(lambda: loaded.unopened is None)
    assert f"open() raised {type(fault).__name__}" in lines[0]["reason"]
    assert lines[0]["source"] == "card"
    await hooks.close()
    assert adapter.closed == 1
    assert "close() raised RuntimeError" in lines[-1]["reason"]


async def test_a_stop_waits_for_no_adapter_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = Hooked(asyncio.Event())
    hooks, _, _ = await opened(adapter, monkeypatch)
    async with asyncio.timeout(5):
        await hooks.close()


async def test_marketing_takes_times_and_sets() -> None:
    promotion = {
        "promotion_id": "p", "type": "COUPON", "title": "x", "threshold": Money("CNY", 0), "group": "g",
        "stackable": True, "kinds": {"WALLET"}, "amount_off": {"currency": "CNY", "value": 1},
        "expires_at": datetime(2031, 5, 1, tzinfo=UTC),
    }  # fmt: skip
    answer = {"user_id": "u_1", "promotions": [promotion], "boosts": ()}
    outcome, _, _ = await outcome_of(form_1(answer), source="marketing")
    assert isinstance(outcome, Marketing)
    assert outcome.promotions[0].expires_at == promotion["expires_at"]

"""The batch form of a source: what is sent for many questions, and what is believed of what comes back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from cashier.consultation.plan import SOURCE_SPECS
from cashier.domain.facts import Balances
from cashier.domain.money import Money
from cashier.fanout.batch import Batch, Outcome
from cashier.sandbox import World, serve, weather_named
from cashier.source_errors import Garbled, Overloaded, SourceError, Unreachable, WrongIdentity
from cashier.sources.balance import BALANCE
from cashier.sources.batch_call import BatchSettings, BatchWireUpstream
from cashier.sources.channel import CHANNEL
from cashier.sources.source import Source
from cashier.sources.source_upstream import WireUpstream
from cashier.wire.http1 import Http1Client
from cashier.wire.transport import CallHeaders, OnResponse, Request, Response

SOURCES = {question.source.name: question.source for question in SOURCE_SPECS}
PATHS = {
    "order": "/batch/orders",
    "merchant": "/batch/merchants",
    "member": "/batch/members",
    "card": "/batch/cards",
    "balance": "/batch/balances",
    "quota": "/batch/quotas",
    "marketing": "/batch/promotions",
}
U_1, U_2 = {"user_id": "u_1"}, {"user_id": "u_2"}
CALL_HEADERS = CallHeaders("test")


class Wire:
    """A transport that answers what it is told to, when it is told to, and knows what it was asked."""

    addresses = ("first", "second")
    address_index = 1
    sent = True

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.asked: list[tuple[Any, int, int]] = []
        self.replies: list[OnResponse] = []

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    def send(
        self, request: Request, call_headers: CallHeaders, budget_ms: int, reply: OnResponse, avoid: int = 0
    ) -> Wire:
        self.requests.append(request)
        self.asked.append((call_headers, budget_ms, avoid))
        self.replies.append(reply)
        return self

    def abandon(self) -> None: ...


def balances(user_id: str) -> dict[str, Any]:
    return {"ok": {"user_id": user_id, "accounts": []}}


def outcomes_of(response: Response | SourceError, source: Source = BALANCE) -> Sequence[Outcome] | SourceError:
    """What becomes of the questions of two users when the call for both is answered with `response`."""
    wire = Wire()
    heard: list[Sequence[Outcome] | SourceError] = []
    BatchWireUpstream(source, wire, "/batch").call_many([U_1, U_2], CALL_HEADERS, 100, heard.append)
    wire.replies[0](response)
    (outcomes,) = heard
    return outcomes


def answered(*parts: object) -> Sequence[Outcome]:
    outcomes = outcomes_of(Response(200, json.dumps({"answers": parts}).encode()))
    assert not isinstance(outcomes, SourceError), outcomes
    return outcomes


def test_one_post_that_may_be_repeated_takes_the_parameters_of_all() -> None:
    wire = Wire()
    leg = BatchWireUpstream(BALANCE, wire, "/batch/balances").call_many(
        [U_1, U_2, U_1], CALL_HEADERS, 70, lambda outcomes: None, 2
    )
    (request,) = wire.requests
    assert (request.method, request.target, request.safe) == ("POST", "/batch/balances", True)
    assert json.loads(request.body) == {"requests": [U_1, U_2, U_1]}
    assert wire.asked == [(CALL_HEADERS, 70, 2)]
    assert leg.address_index == 1


def test_amounts_go_out_flat_in_minor_units() -> None:
    wire = Wire()
    asked = {"user_id": "u_1", "merchant_id": "m_1", "amount": Money("CNY", 12_800), "currency": "CNY", "country": "CN"}
    BatchWireUpstream(SOURCES["marketing"], wire, "/batch").call_many([asked], CALL_HEADERS, 70, lambda outcomes: None)
    flat = {"user_id": "u_1", "merchant_id": "m_1", "currency": "CNY", "value": 12_800}
    assert json.loads(wire.requests[0].body) == {"requests": [flat]}


def test_each_part_is_read_as_an_answer_of_its_own_with_its_bytes() -> None:
    outcomes = answered(balances("u_1"), {"error": {"status": 404, "code": "NOT_FOUND"}})
    assert outcomes[0] == (Balances("u_1", ()), False, b'{"user_id": "u_1", "accounts": []}')
    assert outcomes[1][:2] == (Balances("u_2", ()), True)


def test_a_part_may_say_that_there_is_no_error() -> None:
    assert answered({**balances("u_1"), "error": None}, balances("u_2"))[0][0] == Balances("u_1", ())


def test_the_bytes_of_a_part_are_read_again_as_they_were_read_at_first() -> None:
    many = BatchWireUpstream(BALANCE, Wire(), "/batch")
    for (outcome, not_found, body), known in zip(
        answered(balances("u_1"), {"error": {"status": 404}}), (U_1, U_2), strict=True
    ):
        assert body is not None
        assert many.parse_stored(not_found, body, known) == outcome
    assert isinstance(many.parse_stored(False, b'{"user_id": "u_2", "accounts": []}', U_1), WrongIdentity)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(429, Overloaded), (503, Overloaded), (500, Unreachable), (504, Unreachable), (400, Garbled), (200, Garbled)],
)
def test_a_status_in_a_part_means_what_it_means_of_a_call_and_only_for_its_key(
    status: int, kind: type[SourceError]
) -> None:
    refused, other = answered({"error": {"status": status, "code": "X"}}, balances("u_2"))
    assert type(refused[0]) is kind
    assert refused[1:] == (False, None)
    assert other[0] == Balances("u_2", ())


@pytest.mark.parametrize(
    "part",
    [
        None,
        [],
        "ok",
        7,
        {},
        {"ok": None},
        {"ok": []},
        {"ok": {"user_id": "u_1"}},
        {"ok": {"user_id": 1, "accounts": []}},
        {"error": {}},
        {"error": {"status": "404"}},
        {"error": 404},
        {"error": {"status": 503.5}, "ok": {"user_id": "u_1", "accounts": []}},
    ],
)
def test_a_part_that_is_none_fails_its_key_alone(part: object) -> None:
    bad, good = answered(part, balances("u_2"))
    assert type(bad[0]) is Garbled
    assert good[0] == Balances("u_2", ())


def test_a_part_about_somebody_else_is_thrown_away_and_the_others_are_believed() -> None:
    assert type(answered(balances("u_3"), balances("u_2"))[0][0]) is WrongIdentity


def test_answers_in_another_order_are_believed_by_nobody() -> None:
    assert [type(outcome) for outcome, _, _ in answered(balances("u_2"), balances("u_1"))] == [
        WrongIdentity,
        WrongIdentity,
    ]


@pytest.mark.parametrize("parts", [[], ["u_1"], ["u_1", "u_2", "u_2"]])
def test_more_or_fewer_answers_than_requests_are_no_answer_to_any(parts: list[str]) -> None:
    body = json.dumps({"answers": [balances(user_id) for user_id in parts]}).encode()
    assert type(outcomes_of(Response(200, body))) is Garbled


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"answers": {}}', b'{"answers": [{"ok": {}}, ', b"\xff", b'{"answers": null}']
)
def test_an_envelope_that_is_none_garbles_all_without_a_word_of_it(body: bytes) -> None:
    outcome = outcomes_of(Response(200, body))
    assert type(outcome) is Garbled
    assert "ok" not in outcome.detail


@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, Garbled), (400, Garbled), (413, Garbled), (429, Overloaded), (503, Overloaded), (500, Unreachable)],
)
def test_the_status_of_the_call_is_everybodys_and_a_404_of_it_says_of_nobody_that_there_is_none(
    status: int, kind: type[SourceError]
) -> None:
    body = json.dumps({"answers": [balances("u_1"), balances("u_2")]}).encode()
    outcome = outcomes_of(Response(status, body, 2.0))
    assert type(outcome) is kind
    assert not isinstance(outcome, Overloaded) or outcome.retry_after_s == 2.0


def test_what_happened_to_the_call_is_everybodys() -> None:
    lost = Unreachable("lost")
    assert outcomes_of(lost) is lost


class Odd:
    """An adapter of somebody's own, which trips over one user."""

    def request(self, asked: Any) -> Request:
        return Request("/")

    def parameters(self, asked: Any) -> dict[str, Any]:
        return dict(asked)

    def parse(self, status: int, body: bytes, asked: Any) -> Any:
        assert asked["user_id"] != "u_1", "a bug"
        return body


async def test_an_adapter_that_trips_over_one_part_is_reported_and_costs_one_key() -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    wire = Wire()
    heard: list[Any] = []
    BatchWireUpstream(Odd(), wire, "/batch").call_many([U_1, U_2], CALL_HEADERS, 100, heard.append)
    wire.replies[0](Response(200, b'{"answers":[{"ok":1},{"ok":2}]}'))
    ((first, second),) = heard
    assert type(first[0]) is Garbled
    assert second == (b"2", False, b"2")
    assert [type(context["exception"]) for context in told] == [AssertionError]


class NotForBatches:
    def request(self, asked: Any) -> Request:
        return Request("/")

    def parse(self, status: int, body: bytes, asked: Any) -> Any: ...


@pytest.mark.parametrize("adapter", [NotForBatches(), CHANNEL], ids=["an adapter of somebody's own", "channel"])
def test_what_cannot_say_what_its_batch_takes_is_a_fault_of_the_configuration(adapter: Any) -> None:
    with pytest.raises(ValueError, match=r"no function parameters\(inputs\)"):
        BatchWireUpstream(adapter, Wire(), "/batch")


@pytest.mark.parametrize(
    "wrong", [{}, {"path": "batch"}, {"path": "/a b"}, {"path": "/b", "max": 0}, {"path": "/b", "wait": 1}]
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    assert msgspec.convert({"path": "/batch/cards", "max": 20}, BatchSettings).wait_ms == 2
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(wrong, BatchSettings)


# Over real sockets, against the sandbox, which shares no code with us


async def heard_from(call: Callable[..., Any], questions: list[dict[str, Any]]) -> list[Any]:
    """The outcomes of calls that are made in one loop turn."""
    loop = asyncio.get_running_loop()
    ended: list[asyncio.Future[Any]] = [loop.create_future() for _ in questions]
    for question, future in zip(questions, ended, strict=True):

        def heard(
            outcome: Any, not_found: bool = False, body: bytes | None = None, future: asyncio.Future[Any] = future
        ) -> None:
            future.set_result((outcome, not_found))

        call(question, CALL_HEADERS, 5_000, heard)
    return await asyncio.gather(*ended)


@pytest.mark.parametrize("name", PATHS)
async def test_a_batch_over_sockets_brings_what_single_calls_bring(name: str) -> None:
    people = [
        ("o_1001", "u_1", "m_1"),
        ("o_404", "u_404", "m_404"),
        ("o_100002", "u_100002", "m_2"),
        ("o_1001", "u_1", "m_1"),
    ]
    amount = Money("CNY", 12_800)
    questions = [
        {
            "order_id": order,
            "user_id": user,
            "merchant_id": merchant,
            "amount": amount,
            "currency": "CNY",
            "country": "CN",
        }
        for order, user, merchant in people
    ]
    async with serve(port=0, world=World(), weather=weather_named("still")) as port:
        wire = Http1Client([f"http://127.0.0.1:{port}"])
        batch = Batch(BatchWireUpstream(SOURCES[name], wire, PATHS[name]), BatchSettings(path=PATHS[name]))
        together = await heard_from(batch.call, questions)
        alone = await heard_from(WireUpstream(SOURCES[name], wire).call, questions)
        await wire.close()
    assert (batch.calls, batch.keys) == (1, 4)
    assert together == alone
    assert together[1][1], "nobody of that name is known"
    assert not any(isinstance(outcome, SourceError) for outcome, _ in together)

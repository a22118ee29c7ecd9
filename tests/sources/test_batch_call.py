"""The batch form of a source: the request for many keys, and the outcomes of its parts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from cashier.consultation.source_table import SOURCE_SPECS
from cashier.domain.facts import Balances
from cashier.domain.money import Money
from cashier.fanout.batch import Batch, Outcome
from cashier.sandbox import World, serve, weather_named
from cashier.sandbox.source_table import SOURCE_READS
from cashier.source_errors import Garbled, Overloaded, SourceError, Unreachable, WrongIdentity
from cashier.sources.adapter import Adapter
from cashier.sources.adapter_upstream import AdapterBatchUpstream
from cashier.sources.balance import BALANCE
from cashier.sources.batch_call import BatchSettings, BatchWireUpstream
from cashier.sources.channel import CHANNEL
from cashier.sources.source import Source
from cashier.sources.source_upstream import WireUpstream
from cashier.wire.http1 import Http1Client, Http1Settings
from cashier.wire.transport import CallHeaders, OnResponse, Request, Response
from tests.wire.client_side import PATIENT

SOURCES = {spec.source.name: spec.source for spec in SOURCE_SPECS}
PATHS = {name: path for name in SOURCES if (path := SOURCE_READS[name].batch) is not None}
U_1, U_2 = {"user_id": "u_1"}, {"user_id": "u_2"}
CALL_HEADERS = CallHeaders("test")


class ScriptedTransport:
    """A transport that records calls and is answered by the test."""

    addresses = ("first", "second")
    address_index = 1
    sent = True

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.calls: list[tuple[Any, int, int]] = []
        self.callbacks: list[OnResponse] = []

    async def open(self) -> None: ...

    async def is_reachable(self) -> bool:
        return True

    async def close(self) -> None: ...

    def send(
        self, request: Request, call_headers: CallHeaders, budget_ms: int, on_response: OnResponse, avoid: int = 0
    ) -> ScriptedTransport:
        self.requests.append(request)
        self.calls.append((call_headers, budget_ms, avoid))
        self.callbacks.append(on_response)
        return self

    def abandon(self) -> None: ...


def balances(user_id: str) -> dict[str, Any]:
    return {"ok": {"user_id": user_id, "accounts": []}}


def outcomes_of(response: Response | SourceError, source: Source = BALANCE) -> Sequence[Outcome] | SourceError:
    """The outcomes for two users if the call for both is answered with `response`."""
    transport = ScriptedTransport()
    received: list[Sequence[Outcome] | SourceError] = []
    BatchWireUpstream(source, transport, "/batch").call_many([U_1, U_2], CALL_HEADERS, 100, received.append)
    transport.callbacks[0](response)
    (outcomes,) = received
    return outcomes


def answered(*parts: object) -> Sequence[Outcome]:
    outcomes = outcomes_of(Response(200, json.dumps({"answers": parts}).encode()))
    assert not isinstance(outcomes, SourceError), outcomes
    return outcomes


def test_one_safe_post_carries_the_parameters_of_all_requests() -> None:
    transport = ScriptedTransport()
    call = BatchWireUpstream(BALANCE, transport, "/batch/balances").call_many(
        [U_1, U_2, U_1], CALL_HEADERS, 70, lambda outcomes: None, 2
    )
    (request,) = transport.requests
    assert (request.method, request.target, request.safe) == ("POST", "/batch/balances", True)
    assert json.loads(request.body) == {"requests": [U_1, U_2, U_1]}
    assert transport.calls == [(CALL_HEADERS, 70, 2)]
    assert call.address_index == 1


def test_amounts_are_sent_flat_in_minor_units() -> None:
    transport = ScriptedTransport()
    inputs = {
        "user_id": "u_1",
        "merchant_id": "m_1",
        "amount": Money("CNY", 12_800),
        "currency": "CNY",
        "country": "CN",
    }
    BatchWireUpstream(SOURCES["marketing"], transport, "/batch").call_many(
        [inputs], CALL_HEADERS, 70, lambda outcomes: None
    )
    flat = {"user_id": "u_1", "merchant_id": "m_1", "currency": "CNY", "value": 12_800}
    assert json.loads(transport.requests[0].body) == {"requests": [flat]}


def test_each_part_is_parsed_as_a_single_answer_and_keeps_its_bytes() -> None:
    outcomes = answered(balances("u_1"), {"error": {"status": 404, "code": "NOT_FOUND"}})
    assert outcomes[0] == (Balances("u_1", ()), False, b'{"user_id": "u_1", "accounts": []}')
    assert outcomes[1][:2] == (Balances("u_2", ()), True)


def test_a_part_may_have_a_null_error() -> None:
    assert answered({**balances("u_1"), "error": None}, balances("u_2"))[0][0] == Balances("u_1", ())


def test_the_stored_bytes_of_a_part_parse_to_the_same_outcome() -> None:
    upstream = BatchWireUpstream(BALANCE, ScriptedTransport(), "/batch")
    for (outcome, not_found, body), known in zip(
        answered(balances("u_1"), {"error": {"status": 404}}), (U_1, U_2), strict=True
    ):
        assert body is not None
        assert upstream.parse_stored(not_found, body, known) == outcome
    assert isinstance(upstream.parse_stored(False, b'{"user_id": "u_2", "accounts": []}', U_1), WrongIdentity)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(429, Overloaded), (503, Overloaded), (500, Unreachable), (504, Unreachable), (400, Garbled), (200, Garbled)],
)
def test_a_status_in_a_part_means_the_same_as_of_a_call_for_its_key_only(status: int, kind: type[SourceError]) -> None:
    refused, second = answered({"error": {"status": status, "code": "X"}}, balances("u_2"))
    assert type(refused[0]) is kind
    assert refused[1:] == (False, None)
    assert second[0] == Balances("u_2", ())


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
def test_a_malformed_part_fails_its_own_key_only(part: object) -> None:
    bad, good = answered(part, balances("u_2"))
    assert type(bad[0]) is Garbled
    assert good[0] == Balances("u_2", ())


def test_a_part_about_another_user_is_discarded_and_the_others_stand() -> None:
    assert type(answered(balances("u_3"), balances("u_2"))[0][0]) is WrongIdentity


def test_answers_in_another_order_have_the_wrong_identity() -> None:
    assert [type(outcome) for outcome, _, _ in answered(balances("u_2"), balances("u_1"))] == [
        WrongIdentity,
        WrongIdentity,
    ]


@pytest.mark.parametrize("parts", [[], ["u_1"], ["u_1", "u_2", "u_2"]])
def test_another_number_of_answers_than_requests_garbles_all(parts: list[str]) -> None:
    body = json.dumps({"answers": [balances(user_id) for user_id in parts]}).encode()
    assert type(outcomes_of(Response(200, body))) is Garbled


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"answers": {}}', b'{"answers": [{"ok": {}}, ', b"\xff", b'{"answers": null}']
)
def test_a_malformed_envelope_garbles_all_without_being_quoted(body: bytes) -> None:
    outcome = outcomes_of(Response(200, body))
    assert type(outcome) is Garbled
    assert "ok" not in outcome.detail


@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, Garbled), (400, Garbled), (413, Garbled), (429, Overloaded), (503, Overloaded), (500, Unreachable)],
)
def test_the_status_of_the_call_applies_to_all_keys_and_its_404_is_garbled(
    status: int, kind: type[SourceError]
) -> None:
    body = json.dumps({"answers": [balances("u_1"), balances("u_2")]}).encode()
    outcome = outcomes_of(Response(status, body, 2.0))
    assert type(outcome) is kind
    assert not isinstance(outcome, Overloaded) or outcome.retry_after_s == 2.0


def test_an_error_of_the_call_applies_to_all_keys() -> None:
    lost = Unreachable("lost")
    assert outcomes_of(lost) is lost


class ForeignBalances:
    """An adapter with a bug that one user triggers."""

    statuses = (200, 404, 410)

    def request(self, asked: Any) -> Request:
        return Request("/")

    def parameters(self, asked: Any) -> dict[str, Any]:
        return {"uid": asked["user_id"]}

    def parse(self, response: Response, asked: Any) -> Any:
        if response.status != 200:
            return None
        if asked["user_id"] == "u_1":
            raise RuntimeError("a bug")
        return {"user_id": response.json()["uid"], "accounts": []}


class WithoutParameters:
    def request(self, asked: Any) -> Request:
        return Request("/")

    def parse(self, response: Response, asked: Any) -> Any: ...


def adapted(adapter: Any) -> AdapterBatchUpstream:
    return AdapterBatchUpstream(Adapter("foreign", adapter, BALANCE, ("user_id",)), ScriptedTransport(), "/batch")


def test_an_adapter_makes_the_parameters_and_parses_each_part() -> None:
    upstream = adapted(ForeignBalances())
    received: list[Any] = []
    upstream.call_many([U_1, U_2, U_2, U_2], CALL_HEADERS, 100, received.append)
    transport = upstream._send.__self__  # type: ignore[attr-defined]  # a bound method
    assert json.loads(transport.requests[0].body)["requests"][:2] == [{"uid": "u_1"}, {"uid": "u_2"}]
    parts = [{"ok": {}}, {"ok": {"uid": "u_2"}}, {"error": {"status": 410}}, {"ok": {"uid": "u_1"}}]
    transport.callbacks[0](Response(200, json.dumps({"answers": parts}).encode()))
    ((bug, good, none, other),) = received
    assert type(bug[0]) is Garbled
    assert "foreign: parse() raised RuntimeError" in bug[0].detail
    assert good == (Balances("u_2", ()), False, b'{"user_id":"u_2","accounts":[]}')
    assert none == (Balances("u_2", ()), True, b"")
    assert type(other[0]) is WrongIdentity
    assert upstream.parse_stored(False, good[2], U_2) == good[0]
    assert upstream.parse_stored(True, none[2], U_2) == none[0]
    assert isinstance(upstream.parse_stored(False, good[2], U_1), WrongIdentity)


async def test_parameters_that_raise_cost_one_key() -> None:
    class Failing(ForeignBalances):
        def parameters(self, asked: Any) -> Any:
            return {"uid": asked["user_id"]} if asked["user_id"] == "u_2" else object()

    upstream = adapted(Failing())
    batch = Batch(upstream, BatchSettings(path="/batch"))
    received: dict[str, Any] = {}
    for known in (U_1, U_2):
        batch.call(
            known, CALL_HEADERS, 100, lambda *outcome, user=known["user_id"]: received.__setitem__(user, outcome)
        )
    for _ in range(3):
        await asyncio.sleep(0)
    assert "parameters is an object instead of a mapping" in received["u_1"][0].detail
    transport = upstream._send.__self__  # type: ignore[attr-defined]  # a bound method
    transport.callbacks[0](Response(200, b'{"answers":[{"ok":{"uid":"u_2"}}]}'))
    assert received["u_2"][0] == Balances("u_2", ())


def test_a_source_without_parameters_is_a_configuration_fault() -> None:
    with pytest.raises(ValueError, match=r"no function parameters\(asked\)"):
        adapted(WithoutParameters())
    with pytest.raises(ValueError, match=r"no function parameters\(asked\)"):
        BatchWireUpstream(CHANNEL, ScriptedTransport(), "/batch")


@pytest.mark.parametrize(
    "wrong", [{}, {"path": "batch"}, {"path": "/a b"}, {"path": "/b", "max": 0}, {"path": "/b", "wait": 1}]
)
def test_invalid_settings_are_refused(wrong: dict[str, Any]) -> None:
    assert msgspec.convert({"path": "/batch/cards", "max": 20}, BatchSettings).wait_ms == 7
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(wrong, BatchSettings)


# Over real sockets, against the sandbox, which shares no code with the package


async def outcomes_of_calls(call: Callable[..., Any], keys: list[dict[str, Any]]) -> list[Any]:
    """The outcomes of calls made in one loop turn."""
    loop = asyncio.get_running_loop()
    futures: list[asyncio.Future[Any]] = [loop.create_future() for _ in keys]
    for key, future in zip(keys, futures, strict=True):

        def on_answer(
            outcome: Any, not_found: bool = False, body: bytes | None = None, future: asyncio.Future[Any] = future
        ) -> None:
            future.set_result((outcome, not_found))

        call(key, CALL_HEADERS, 5_000, on_answer)
    return await asyncio.gather(*futures)


def test_the_sandbox_has_a_batch_form_of_each_source_with_parameters() -> None:
    assert set(PATHS) == {name for name, source in SOURCES.items() if source.parameters is not None}


@pytest.mark.parametrize("name", PATHS)
async def test_a_batch_over_sockets_gives_the_outcomes_of_single_calls(name: str) -> None:
    ids = [
        ("o_1001", "u_1", "m_1"),
        ("o_404", "u_404", "m_404"),
        ("o_100002", "u_100002", "m_2"),
        ("o_1001", "u_1", "m_1"),
    ]
    amount = Money("CNY", 12_800)
    keys = [
        {
            "order_id": order,
            "user_id": user,
            "merchant_id": merchant,
            "amount": amount,
            "currency": "CNY",
            "country": "CN",
        }
        for order, user, merchant in ids
    ]
    async with serve(port=0, world=World(), weather=weather_named("still")) as port:
        transport = Http1Client([f"http://127.0.0.1:{port}"], Http1Settings(**PATIENT))
        batch = Batch(BatchWireUpstream(SOURCES[name], transport, PATHS[name]), BatchSettings(path=PATHS[name]))
        batched = await outcomes_of_calls(batch.call, keys)
        single = await outcomes_of_calls(WireUpstream(SOURCES[name], transport).call, keys)
        await transport.close()
    assert (batch.calls.value, batch.asks.value) == (1, 4)
    assert batched == single
    assert batched[1][1], "the second key is unknown"
    assert not any(isinstance(outcome, SourceError) for outcome, _ in batched)

"""Every source with the answers of the sandbox, and with answers that must be refused."""

from __future__ import annotations

import json
import typing
from typing import Any

import pytest

from cashier.conformance.subject import EXAMPLES
from cashier.consultation.source_table import SOURCE_NAMES, SOURCE_SPECS
from cashier.domain.facts import Balances, Cards, Channels, Facts, Marketing, Quotas
from cashier.sandbox import SOURCES as SIMULATED_SOURCES
from cashier.sandbox import LocalUpstreams, World, weather_named
from cashier.source_errors import Garbled, Missing, MissingCause, Overloaded, SourceError, Unreachable, WrongIdentity
from cashier.sources.source import Source, parse_response
from cashier.wire.transport import Response

INPUTS = EXAMPLES
# The types of each fact, `Missing` among them where it may be.
FACTS = typing.get_type_hints(Facts)
SOURCES = {spec.source.name: spec.source for spec in SOURCE_SPECS}
# By source: the field of an answer that names its subject.
IDENTITIES = {name: identity for name in SOURCE_NAMES if (identity := SIMULATED_SOURCES[name].identity) is not None}


async def answer_of(name: str) -> dict[str, Any]:
    """The answer of the sandbox, which shares no code with the sources."""
    needs = next(spec.needs for spec in SOURCE_SPECS if spec.source.name == name)
    upstreams = LocalUpstreams(World(), weather_named("still"))
    answer = await upstreams[name](**{need: INPUTS[need] for need in needs})
    copy: dict[str, Any] = json.loads(json.dumps(answer))
    return copy


def parsed(source: Source, answer: object) -> Any:
    return parse_response(source, Response(200, json.dumps(answer).encode()), INPUTS)


@pytest.mark.parametrize("name", SOURCE_NAMES)
async def test_the_sandboxs_answer_becomes_a_fact(name: str) -> None:
    fact = parsed(SOURCES[name], await answer_of(name))
    assert not isinstance(fact, Missing)
    assert isinstance(fact, FACTS[name])


@pytest.mark.parametrize("name", SOURCE_NAMES)
async def test_a_python_object_becomes_the_same_fact_as_its_json(name: str) -> None:
    answer = await answer_of(name)
    assert SOURCES[name].convert(answer, INPUTS) == parsed(SOURCES[name], answer)


@pytest.mark.parametrize("name", SOURCE_NAMES)
async def test_unknown_fields_are_ignored(name: str) -> None:
    answer = await answer_of(name)
    assert parsed(SOURCES[name], {**answer, "new_field": [1, {"a": None}]}) == parsed(SOURCES[name], answer)


@pytest.mark.parametrize(("name", "identity"), IDENTITIES.items())
async def test_an_answer_about_another_identity_is_discarded(name: str, identity: str) -> None:
    answer = await answer_of(name)
    assert isinstance(parsed(SOURCES[name], {**answer, identity: "another"}), WrongIdentity)


@pytest.mark.parametrize("name", SOURCE_NAMES)
async def test_each_missing_field_garbles_the_whole_answer(name: str) -> None:
    answer = await answer_of(name)
    required = {field.encode_name for field in fields_of(SOURCES[name]) if field.required}
    for field in required:
        without = {key: value for key, value in answer.items() if key != field}
        assert isinstance(parsed(SOURCES[name], without), Garbled), field


@pytest.mark.parametrize("name", SOURCE_NAMES)
async def test_each_ill_typed_field_garbles_the_whole_answer(name: str) -> None:
    answer = await answer_of(name)
    for field in {field.encode_name for field in fields_of(SOURCES[name])}:
        outcome = parsed(SOURCES[name], {**answer, field: 3.5})
        assert isinstance(outcome, Garbled), field
        assert "3.5" not in outcome.detail


def fields_of(source: Source) -> Any:
    import msgspec

    return msgspec.inspect.type_info(source.answer_type).fields  # type: ignore[attr-defined]  # of a struct


@pytest.mark.parametrize("name", ["order", "merchant", "member"])
def test_an_unknown_order_merchant_or_member_is_none(name: str) -> None:
    assert parse_response(SOURCES[name], Response(404, b"{}"), INPUTS) is None


def test_an_unknown_user_has_no_cards_accounts_promotions_or_limits() -> None:
    nothing = Response(404, b'{"code": "NOT_FOUND"}')
    assert parse_response(SOURCES["card"], nothing, INPUTS) == Cards("u_1", (), ())
    assert parse_response(SOURCES["balance"], nothing, INPUTS) == Balances("u_1", ())
    assert parse_response(SOURCES["marketing"], nothing, INPUTS) == Marketing("u_1", (), ())
    assert parse_response(SOURCES["quota"], nothing, INPUTS) == Quotas({})
    assert parse_response(SOURCES["channel"], nothing, INPUTS) == Channels({}, {})


NOT_FOUND_BODIES = [
    b"",
    b" \n",
    b"{}",
    b'{"code": "NOT_FOUND"}',
    b'{"code": "USER_UNKNOWN"}',
    b'{"code": "CARD_NOT_FOUND"}',
    b'{"code": 404}',
    b'{"a": 1}',
]
FOREIGN_BODIES = [
    b"<html>404 Not Found</html>",
    b"404 page not outcome",
    b"[]",
    b'"NOT_FOUND"',
    b'{"code": "NO_SUCH_PATH"}',
    b"{",
    b"\xff",
]


@pytest.mark.parametrize("body", NOT_FOUND_BODIES)
def test_a_404_of_the_service_means_that_there_is_none(body: bytes) -> None:
    assert parse_response(SOURCES["quota"], Response(404, body), INPUTS) == Quotas({})


@pytest.mark.parametrize("body", FOREIGN_BODIES)
@pytest.mark.parametrize("name", sorted(SOURCES))
def test_a_foreign_404_is_garbled(name: str, body: bytes) -> None:
    assert type(parse_response(SOURCES[name], Response(404, body), INPUTS)) is Garbled


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (429, Overloaded),
        (503, Overloaded),
        (500, Unreachable),
        (502, Unreachable),
        (302, Garbled),
        (400, Garbled),
        (204, Garbled),
    ],
)
def test_any_other_status_is_an_error(status: int, error: type[SourceError]) -> None:
    assert type(parse_response(SOURCES["card"], Response(status, b"{}", 2.0), INPUTS)) is error


def test_an_overload_keeps_the_retry_after() -> None:
    outcome = parse_response(SOURCES["card"], Response(503, b"", 7.0), INPUTS)
    assert isinstance(outcome, Overloaded)
    assert outcome.retry_after_s == 7.0


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"{}" * 2, b'{"user_id":"u_1"' + b"[" * 100_000]
)
def test_malformed_json_is_garbled(body: bytes) -> None:
    assert isinstance(parse_response(SOURCES["card"], Response(200, body), INPUTS), Garbled)


async def test_duplicate_ids_are_garbled_because_a_method_would_be_ambiguous() -> None:
    for name, field in (
        ("card", "cards"),
        ("card", "agreements"),
        ("balance", "accounts"),
        ("marketing", "promotions"),
        ("channel", "channels"),
    ):
        answer = await answer_of(name)
        assert isinstance(parsed(SOURCES[name], {**answer, field: [*answer[field], answer[field][0]]}), Garbled), field


async def test_unknown_kinds_products_and_terminals_are_passed_over() -> None:
    """A kind, product or terminal known only upstream must not close the checkout."""
    merchant, member, channel, quota = [await answer_of(name) for name in ("merchant", "member", "channel", "quota")]
    assert "CRYPTO" in parsed(SOURCES["merchant"], {**merchant, "products": [*merchant["products"], "CRYPTO"]}).products
    assert parsed(SOURCES["member"], {**member, "usage": [{"kind": "CRYPTO", "count": 1}]}).usage
    unknown = {**channel["channels"][0], "channel_id": "new", "kind": "CRYPTO", "terminals": ["WATCH"]}
    assert parsed(SOURCES["channel"], {"channels": [*channel["channels"], unknown]}).by_id.keys() >= {"new"}
    (unclear,) = parsed(SOURCES["quota"], {**quota, "quotas": [{"scope": {"kind": "CRYPTO"}}]}).unclear
    assert unclear.scope.kind == "CRYPTO"


async def test_an_unknown_state_is_garbled() -> None:
    for name in ("order", "merchant", "member"):
        assert isinstance(parsed(SOURCES[name], {**await answer_of(name), "status": "ASLEEP"}), Garbled), name


async def test_a_quota_in_another_currency_is_garbled() -> None:
    answer = await answer_of("quota")
    single = {"scope": {"kind": "QUICK_PAY"}, "single": {"currency": "JPY", "value": 1}}
    assert isinstance(parsed(SOURCES["quota"], {**answer, "quotas": [single]}), Garbled)


def test_a_negative_or_fractional_amount_is_garbled() -> None:
    for value in ("-1", "1.5", "1e3", "9007199254740992", '"1"', "true"):
        account = (
            b'{"account_id":"a","type":"BALANCE","status":"ACTIVE","available":{"currency":"CNY","value":%s}}'
            % value.encode()
        )
        assert isinstance(
            parse_response(SOURCES["balance"], Response(200, b'{"user_id":"u_1","accounts":[%s]}' % account), INPUTS),
            Garbled,
        ), value


@pytest.mark.parametrize(
    "fault",
    [KeyError("x"), TypeError("x"), ValueError("x"), AttributeError("x"), IndexError("x"), ZeroDivisionError("x")],
)
def test_an_exception_of_an_adapter_means_garbled(fault: Exception) -> None:
    class FailingAdapter:
        def request(self, inputs: Any) -> Any: ...

        def parse(self, status: int, body: bytes, inputs: Any) -> Any:
            raise fault

    assert isinstance(parse_response(FailingAdapter(), Response(200, b"{}"), INPUTS), Garbled)


def test_an_error_of_the_transport_passes_through_and_becomes_missing() -> None:
    error = Unreachable("127.0.0.1:1: refused")
    assert parse_response(SOURCES["card"], error, INPUTS) is error
    assert error.missing("card") == Missing("card", MissingCause.UNREACHABLE)


async def test_the_requests_are_those_of_the_contract() -> None:
    targets = {name: source.request(INPUTS).target for name, source in SOURCES.items()}
    assert targets == {
        "order": "/orders/o_1001",
        "merchant": "/merchants/m_1",
        "member": "/members/u_1",
        "card": "/members/u_1/cards",
        "balance": "/members/u_1/balances",
        "channel": "/channels?currency=CNY&country=CN",
        "quota": "/members/u_1/quotas?currency=CNY",
        "marketing": "/members/u_1/promotions?merchant_id=m_1&currency=CNY&value=12800",
    }

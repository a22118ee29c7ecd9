"""Every source against the sandbox's own answers, and against answers that must not be believed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cashier.consultation.plan import SOURCE_NAMES, SOURCE_SPECS
from cashier.domain.facts import Balances, Cards, Channels, Marketing, Member, Merchant, Quotas
from cashier.domain.money import Money
from cashier.domain.order import Order
from cashier.sandbox import LocalUpstreams, World, weather_named
from cashier.source_errors import Garbled, Missing, MissingCause, Overloaded, SourceError, Unreachable, WrongIdentity
from cashier.sources.source import Source, parse_response
from cashier.wire.transport import Response

ASKED: dict[str, Any] = {
    "order_id": "o_1001",
    "user_id": "u_1",
    "merchant_id": "m_1",
    "amount": Money("CNY", 12_800),
    "currency": "CNY",
    "country": "CN",
}
FACTS = {
    "order": Order,
    "merchant": Merchant,
    "member": Member,
    "card": Cards,
    "balance": Balances,
    "channel": Channels,
    "quota": Quotas,
    "marketing": Marketing,
}
SOURCES = {question.source.name: question.source for question in SOURCE_SPECS}
PERSONAL = [name for name in SOURCE_NAMES if name != "channel"]


async def answer_of(name: str) -> dict[str, Any]:
    """What the sandbox, which shares no code with the sources, answers to the question."""
    needs = next(question.needs for question in SOURCE_SPECS if question.source.name == name)
    upstreams = LocalUpstreams(World(), weather_named("still"))
    found = await upstreams[name](**{need: ASKED[need] for need in needs})
    copy: dict[str, Any] = json.loads(json.dumps(found))
    return copy


def parsed(source: Source, answer: object) -> Any:
    return parse_response(source, Response(200, json.dumps(answer).encode()), ASKED)


@pytest.mark.parametrize("name", SOURCE_NAMES)
async def test_the_sandboxs_answer_becomes_a_fact(name: str) -> None:
    assert isinstance(parsed(SOURCES[name], await answer_of(name)), FACTS[name])


@pytest.mark.parametrize("name", SOURCE_NAMES)
async def test_an_answer_of_the_process_is_read_as_one_of_the_wire(name: str) -> None:
    answer = await answer_of(name)
    assert SOURCES[name].convert(answer, ASKED) == parsed(SOURCES[name], answer)


@pytest.mark.parametrize("name", SOURCE_NAMES)
async def test_unknown_fields_are_ignored(name: str) -> None:
    answer = await answer_of(name)
    assert parsed(SOURCES[name], {**answer, "new_field": [1, {"a": None}]}) == parsed(SOURCES[name], answer)


@pytest.mark.parametrize("name", PERSONAL)
async def test_an_answer_about_somebody_else_is_thrown_away(name: str) -> None:
    answer = await answer_of(name)
    identity = {"order": "order_id", "merchant": "merchant_id"}.get(name, "user_id")
    assert isinstance(parsed(SOURCES[name], {**answer, identity: "somebody_else"}), WrongIdentity)


@pytest.mark.parametrize("name", SOURCE_NAMES)
async def test_each_missing_field_garbles_the_whole_answer(name: str) -> None:
    answer = await answer_of(name)
    optional = {"user_id", "last_used"} if name == "order" else {"last_used"}
    for field in answer.keys() - optional - {"seed"}:
        if field in {each.encode_name for each in fields_of(SOURCES[name])}:
            assert isinstance(
                parsed(SOURCES[name], {key: value for key, value in answer.items() if key != field}), Garbled
            ), field


@pytest.mark.parametrize("name", SOURCE_NAMES)
async def test_each_ill_typed_field_garbles_the_whole_answer(name: str) -> None:
    answer = await answer_of(name)
    for field in {each.encode_name for each in fields_of(SOURCES[name])}:
        found = parsed(SOURCES[name], {**answer, field: 3.5})
        assert isinstance(found, Garbled), field
        assert "3.5" not in found.detail


def fields_of(source: Source) -> Any:
    import msgspec

    return msgspec.inspect.type_info(source.answer_type).fields  # type: ignore[attr-defined]  # of a struct, which every answer is


@pytest.mark.parametrize("name", ["order", "merchant", "member"])
def test_who_is_not_there_is_nobody(name: str) -> None:
    assert parse_response(SOURCES[name], Response(404, b"{}"), ASKED) is None


def test_an_unknown_user_has_no_cards_accounts_promotions_or_limits() -> None:
    nothing = Response(404, b'{"code": "NOT_FOUND"}')
    assert parse_response(SOURCES["card"], nothing, ASKED) == Cards("u_1", (), ())
    assert parse_response(SOURCES["balance"], nothing, ASKED) == Balances("u_1", ())
    assert parse_response(SOURCES["marketing"], nothing, ASKED) == Marketing("u_1", (), ())
    assert parse_response(SOURCES["quota"], nothing, ASKED) == Quotas({})
    assert parse_response(SOURCES["channel"], nothing, ASKED) == Channels({}, {})


NONE_HERE = [
    b"",
    b" \n",
    b"{}",
    b'{"code": "NOT_FOUND"}',
    b'{"code": "USER_UNKNOWN"}',
    b'{"code": "CARD_NOT_FOUND"}',
    b'{"code": 404}',
    b'{"a": 1}',
]
NOBODY_HERE = [
    b"<html>404 Not Found</html>",
    b"404 page not found",
    b"[]",
    b'"NOT_FOUND"',
    b'{"code": "NO_SUCH_PATH"}',
    b"{",
    b"\xff",
]


@pytest.mark.parametrize("body", NONE_HERE)
def test_a_404_of_the_service_says_that_there_is_none(body: bytes) -> None:
    assert parse_response(SOURCES["quota"], Response(404, body), ASKED) == Quotas({})


@pytest.mark.parametrize("body", NOBODY_HERE)
@pytest.mark.parametrize("name", sorted(SOURCES))
def test_a_404_of_somebody_else_says_nothing(name: str, body: bytes) -> None:
    assert type(parse_response(SOURCES[name], Response(404, body), ASKED)) is Garbled


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
def test_a_status_that_is_no_answer_is_an_error(status: int, error: type[SourceError]) -> None:
    assert type(parse_response(SOURCES["card"], Response(status, b"{}", 2.0), ASKED)) is error


def test_an_overload_keeps_what_the_upstream_asked_for() -> None:
    found = parse_response(SOURCES["card"], Response(503, b"", 7.0), ASKED)
    assert isinstance(found, Overloaded)
    assert found.retry_after_s == 7.0


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"{}" * 2, b'{"user_id":"u_1"' + b"[" * 100_000]
)
def test_what_is_not_the_agreed_json_is_garbled(body: bytes) -> None:
    assert isinstance(parse_response(SOURCES["card"], Response(200, body), ASKED), Garbled)


async def test_twins_are_garbled_because_a_way_to_pay_would_have_two_meanings() -> None:
    for name, field in (
        ("card", "cards"),
        ("card", "agreements"),
        ("balance", "accounts"),
        ("marketing", "promotions"),
        ("channel", "channels"),
    ):
        answer = await answer_of(name)
        assert isinstance(parsed(SOURCES[name], {**answer, field: [*answer[field], answer[field][0]]}), Garbled), field


async def test_what_an_upstream_knows_and_we_do_not_is_passed_over() -> None:
    """A new kind, product or terminal over there is nothing to offer here, and no reason to close the checkout."""
    merchant, member, channel, quota = [await answer_of(name) for name in ("merchant", "member", "channel", "quota")]
    assert "CRYPTO" in parsed(SOURCES["merchant"], {**merchant, "products": [*merchant["products"], "CRYPTO"]}).products
    assert parsed(SOURCES["member"], {**member, "usage": [{"kind": "CRYPTO", "count": 1}]}).usage
    strange = {**channel["channels"][0], "channel_id": "new", "kind": "CRYPTO", "terminals": ["WATCH"]}
    assert parsed(SOURCES["channel"], {"channels": [*channel["channels"], strange]}).by_id.keys() >= {"new"}
    assert parsed(SOURCES["quota"], {**quota, "quotas": [{"scope": {"kind": "CRYPTO"}}]}).by_kind.keys() == {"CRYPTO"}


async def test_a_state_that_we_do_not_know_is_garbled_because_it_may_mean_anything() -> None:
    for name in ("order", "merchant", "member"):
        assert isinstance(parsed(SOURCES[name], {**await answer_of(name), "status": "ASLEEP"}), Garbled), name


async def test_a_quota_in_another_currency_is_no_answer() -> None:
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
            parse_response(SOURCES["balance"], Response(200, b'{"user_id":"u_1","accounts":[%s]}' % account), ASKED),
            Garbled,
        ), value


@pytest.mark.parametrize(
    "fault",
    [KeyError("x"), TypeError("x"), ValueError("x"), AttributeError("x"), IndexError("x"), ZeroDivisionError("x")],
)
def test_an_adapter_that_stumbles_over_an_answer_makes_it_garbled(fault: Exception) -> None:
    class Stumbling:
        def request(self, asked: Any) -> Any: ...

        def parse(self, status: int, body: bytes, asked: Any) -> Any:
            raise fault

    assert isinstance(parse_response(Stumbling(), Response(200, b"{}"), ASKED), Garbled)


def test_an_error_of_the_wire_passes_through_and_becomes_a_gap() -> None:
    error = Unreachable("127.0.0.1:1: refused")
    assert parse_response(SOURCES["card"], error, ASKED) is error
    assert error.missing("card") == Missing("card", MissingCause.UNREACHABLE)


async def test_what_is_asked_is_what_the_contract_says() -> None:
    targets = {name: source.request(ASKED).target for name, source in SOURCES.items()}
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

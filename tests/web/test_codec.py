"""Decoding: malformed and invalid bodies, every invalid field reported, no value repeated."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from cashier.consultation.answer import Consultation
from cashier.domain.order import ConsultRequest, Product
from cashier.fanout.ask import Importance, SourceReport, SourceStatus
from cashier.web.codec import decode_request, encode_consultation, server_timing
from cashier.web.problem import Problem, RequestRefused
from tests.web.fake_service import BODY, consultation

GOOD: dict[str, Any] = json.loads(BODY)
CARD_NUMBER = "4111111111111111"


def refusal(body: bytes) -> Problem:
    with pytest.raises(RequestRefused) as caught:
        decode_request(body)
    return caught.value.problem


def error_codes(**changes: Any) -> dict[str, str]:
    problem = refusal(json.dumps(GOOD | changes).encode())
    assert (problem.status, problem.code) == (422, "INVALID")
    return {error.field: error.code for error in problem.errors}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" \n",
        b"{",
        BODY[:-1],
        BODY + b"x",
        BODY + BODY,
        b"\xef\xbb\xbf" + BODY,
        BODY.decode().encode("utf-16"),
        BODY.decode().encode("utf-16-le"),
        BODY.decode().encode("utf-32"),
        BODY.replace(b"o_1001", b"\xff"),
        BODY[:-1] + b', "note": "\xc3"}',
        BODY.replace(b"12800", b"NaN"),
        BODY.replace(b"12800", b"Infinity"),
        BODY.replace(b"12800", b"012"),
        BODY.replace(b"o_1001", b"\\ud800"),
        BODY.replace(b'"', b"'"),
        BODY[:-1] + b', "order_id": 7,}',
        b"[" * 30_000,
        b'{"x":' * 20_000 + b"1" + b"}" * 20_000,
        BODY[:-1] + b', "x": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
        b'{"order_id": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
        BODY.replace(b"12800", b"9" * 6_000),
    ],
)
def test_a_body_that_is_not_json_is_malformed(body: bytes) -> None:
    problem = refusal(body)
    assert (problem.status, problem.code, problem.errors) == (400, "MALFORMED", ())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"order_id": 7}, {"order_id": "WRONG_TYPE"}),
        ({"order_id": None}, {"order_id": "WRONG_TYPE"}),
        ({"order_id": ""}, {"order_id": "BAD_FORMAT"}),
        ({"order_id": "o_1001\n"}, {"order_id": "BAD_FORMAT"}),
        ({"user_id": "x" * 65}, {"user_id": "BAD_FORMAT"}),
        ({"user_id": "../etc"}, {"user_id": "BAD_FORMAT"}),
        ({"product": "SCANNER"}, {"product": "UNKNOWN_VALUE"}),
        ({"terminal": ["APP"]}, {"terminal": "WRONG_TYPE"}),
        ({"amount": 12800}, {"amount": "WRONG_TYPE"}),
        ({"amount": {}}, {"amount.currency": "MISSING", "amount.value": "MISSING"}),
        (
            {"amount": {"currency": "XTS", "value": -1}},
            {"amount.currency": "UNKNOWN_VALUE", "amount.value": "OUT_OF_RANGE"},
        ),
        ({"amount": {"currency": "CNY", "value": 128.0}}, {"amount.value": "WRONG_TYPE"}),
        ({"amount": {"currency": "CNY", "value": True}}, {"amount.value": "WRONG_TYPE"}),
        ({"amount": {"currency": "CNY", "value": "128"}}, {"amount.value": "WRONG_TYPE"}),
        ({"amount": {"currency": "CNY", "value": 2**53}}, {"amount.value": "OUT_OF_RANGE"}),
        ({"amount": {"currency": "CNY", "value": 10**30}}, {"amount.value": "OUT_OF_RANGE"}),
        ({"country": "cn"}, {"country": "BAD_FORMAT"}),
        ({"locale": "中文"}, {"locale": "BAD_FORMAT"}),
        ({"deadline_ms": 0}, {"deadline_ms": "OUT_OF_RANGE"}),
        ({"deadline_ms": 60_001}, {"deadline_ms": "OUT_OF_RANGE"}),
        (
            {"order_id": 1, "user_id": 2, "country": 3},
            {"order_id": "WRONG_TYPE", "user_id": "WRONG_TYPE", "country": "WRONG_TYPE"},
        ),
    ],
)
def test_every_invalid_field_is_reported(changes: dict[str, Any], expected: dict[str, str]) -> None:
    assert error_codes(**changes) == expected


@pytest.mark.parametrize("body", [b"[]", b"null", b"7", b'"x"', b"true"])
def test_json_other_than_an_object_is_an_error_of_the_body(body: bytes) -> None:
    problem = refusal(body)
    assert [(error.field, error.code) for error in problem.errors] == [("", "WRONG_TYPE")]


def test_all_missing_fields_are_reported_at_once() -> None:
    problem = refusal(b"{}")
    assert [error.field for error in problem.errors] == ["order_id", "user_id", "merchant_id", "product", "terminal"]
    assert {error.code for error in problem.errors} == {"MISSING"}


@pytest.mark.parametrize("user_id", [{}, {"user_id": None}], ids=["absent", "null"])
def test_only_scan_may_leave_the_user_out(user_id: dict[str, Any]) -> None:
    body = {name: value for name, value in GOOD.items() if name != "user_id"} | user_id
    for product in Product:
        data = json.dumps(body | {"product": product}).encode()
        if product is Product.SCAN:
            assert decode_request(data).user_id is None
        else:
            [error] = refusal(data).errors
            assert (error.field, error.code, error.message) == (
                "user_id",
                "MISSING",
                "is required unless product is SCAN",
            )
    with_other_faults = refusal(json.dumps(body | {"product": "SCAN", "terminal": "TILL"}).encode())
    assert [error.field for error in with_other_faults.errors] == ["terminal"]
    empty = refusal(json.dumps(body | {"product": "SCAN", "user_id": ""}).encode())
    assert [(error.field, error.code) for error in empty.errors] == [("user_id", "BAD_FORMAT")]


def test_a_number_beyond_float_range_is_an_error_of_its_field() -> None:
    problem = refusal(BODY.replace(b"150}", b"1e400}"))
    assert [(error.field, error.code) for error in problem.errors] == [("deadline_ms", "WRONG_TYPE")]


@pytest.mark.parametrize(
    ("field", "value", "nearest"),
    [
        ("product", "standard-cashier", "STANDARD_CASHIER"),
        ("product", "STANDART_CASHIER", "STANDARD_CASHIER"),
        ("terminal", "Mini Program", "MINI_PROGRAM"),
    ],
)
def test_a_misspelled_value_gets_the_nearest_one_suggested(field: str, value: str, nearest: str) -> None:
    problem = refusal(json.dumps(GOOD | {field: value}).encode())
    assert problem.errors[0].message.endswith(f"did you mean {nearest}?")


def test_a_lower_case_currency_gets_its_code_suggested() -> None:
    problem = refusal(json.dumps(GOOD | {"amount": {"currency": "jpy", "value": 1}}).encode())
    assert problem.errors[0].message.endswith("did you mean JPY?")


@pytest.mark.parametrize(
    "field",
    ["order_id", "user_id", "product", "terminal", "country", "locale", "amount", "deadline_ms", "amount.currency"],
)
def test_a_problem_never_repeats_a_sent_value(field: str) -> None:
    changes = (
        {"amount": {"currency": CARD_NUMBER, "value": 1}} if field == "amount.currency" else {field: CARD_NUMBER + " !"}
    )
    assert CARD_NUMBER.encode() not in msgspec.json.encode(refusal(json.dumps(GOOD | changes).encode()))


def test_the_last_of_duplicate_keys_counts() -> None:
    assert decode_request(BODY[:-1] + b', "order_id": "o_2"}').order_id == "o_2"


def test_unknown_fields_are_ignored() -> None:
    assert decode_request(BODY[:-1] + b', "colour": {"deep": [1, 2.5, null]}}') == decode_request(BODY)


# A few characters of each class: preparing all of Unicode takes seconds.
TEXTS = st.text('aZ09_-.:@~ \n"\\/\x00é中😀', max_size=8)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
NEAR_MISSES = st.dictionaries(
    st.sampled_from([*GOOD, "colour"]),
    JSON_VALUES | st.sampled_from(["CNY", "APP", "SCAN", "o_1", "CN", 1, 60_000, {"currency": "CNY", "value": 5}]),
)


def decode(body: bytes) -> ConsultRequest | Problem:
    try:
        return decode_request(body)
    except RequestRefused as refused:
        return refused.problem


@given(NEAR_MISSES)
def test_every_refused_body_has_a_specific_field_error(changes: dict[str, Any]) -> None:
    problem = decode(json.dumps(GOOD | changes).encode())
    if isinstance(problem, Problem):
        assert problem.status == 422
        assert problem.errors
        assert "INVALID" not in {error.code for error in problem.errors}, (
            "`_field_problems` found less than the decoder"
        )


@given(st.binary(max_size=200) | TEXTS.map(str.encode) | JSON_VALUES.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_decoded_or_refused(body: bytes) -> None:
    problem = decode(body)
    assert isinstance(problem, ConsultRequest) or problem.status in (400, 422)


def test_an_encoded_consultation_decodes_to_an_equal_one() -> None:
    assert msgspec.json.decode(encode_consultation(consultation(), bytearray()), type=Consultation) == consultation()


def test_answers_of_any_size_after_each_other_are_encoded_each_for_itself() -> None:
    """In one buffer, also after one that cannot be encoded."""
    buffer, one, failing = bytearray(), consultation(), structs.replace(consultation(), order=object())
    sized = [structs.replace(one, methods=one.methods * count) for count in (1, 40, 0, 1, 2, 0)]
    encoded = []
    for each in sized:
        encoded.append(encode_consultation(each, buffer))
        with pytest.raises(TypeError):
            encode_consultation(failing, buffer)
    assert encoded == [msgspec.json.encode(each) for each in sized]


def test_an_unusual_source_name_becomes_a_legal_header_token() -> None:
    odd = SourceReport('a b;"ü', Importance.GATING, SourceStatus.FRESH, 0.0, 1.26, 0)
    assert server_timing(2.0, (odd,)) == b'total;dur=2.0, a_b___;dur=1.3;desc="FRESH"'

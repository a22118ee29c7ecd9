"""The routes of payments, called as a server would call them: what they take, what they refuse, and in which words they tell it."""

from __future__ import annotations

import asyncio
import io
import json
import sys
import time
from typing import Any, get_args

import jwt
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from cashier.consultation.flow import OrderUnknown
from cashier.domain.offer_diff import Change, ChangeType
from cashier.domain.payment_state import FINAL, PaymentStatus
from cashier.logs import configure_logs
from cashier.payments.errors import (
    AcceptError,
    CheckUnavailable,
    ConsultChanged,
    EngineUnavailable,
    FieldFault,
    InFlight,
    Invalid,
    KeyReused,
    OrderBusy,
    RiskRejected,
    TooManyPayments,
)
from cashier.tokens.jws import TokenCode, TokenRefused
from cashier.web import CashierApp, app, owning_app
from cashier.web.auth import AuthSettings, BearerAuth
from cashier.web.payment_problems import refusal_for
from cashier.web.payment_requests import Cancellation, ChallengeAnswer
from tests.web.calling import JSON, Got, Wire, call, request, scope
from tests.web.offers import SOURCES, FakeEngine, cny, consultation, opener
from tests.web.payments import BODY, ID, LIVE, ONE, PAID, SUBMIT, TOKEN, FakePayments

KEYED = JSON | {"idempotency-key": "k-1"}
HELD = {"x-payment-token": TOKEN}
VISA = "4111111111111111"
SECRET = "s" * 32
DOORKEEPER = BearerAuth(AuthSettings(mode="jwt", issuer="i", audience="a", secret=SECRET))
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

# Every operation, with what it takes.
OPERATIONS: dict[str, dict[str, Any]] = {
    "submit": {"path": "/v1/payments", "body": BODY, "headers": KEYED},
    "answer": {
        "path": f"{ONE}/challenge",
        "body": json.dumps({"payment_token": TOKEN, "value": "246810"}).encode(),
        "headers": JSON,
    },
    "cancel": {"path": f"{ONE}/cancel", "body": b"", "headers": HELD},
    "look": {"path": ONE, "body": b"", "headers": HELD, "method": "GET"},
    "follow": {"path": f"{ONE}/events", "body": b"", "headers": HELD, "method": "GET"},
}
EACH = pytest.mark.parametrize("operation", list(OPERATIONS.values()), ids=list(OPERATIONS))


@pytest.fixture
def payments() -> FakePayments:
    return FakePayments()


@pytest.fixture
def door(payments: FakePayments) -> CashierApp:
    payments.show(PAID, None)  # for who follows
    return app(FakeEngine(payments), body_limit_bytes=4000, body_timeout_s=2.0)


async def ask(door: CashierApp, operation: dict[str, Any], **more: Any) -> Got:
    told = operation | more
    return await call(door, told.pop("body"), **told)


async def submit(door: CashierApp, changes: dict[str, Any] | None = None, **headers: str) -> Got:
    body = json.dumps(SUBMIT | (changes or {})).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await call(door, body, path="/v1/payments", headers=KEYED | named)


def faults(got: Got) -> list[tuple[str, str]]:
    assert got.problem() == (422, "INVALID")
    return [(fault["field"], fault["code"]) for fault in got.json["errors"]]


async def test_a_submit_is_handed_on_whole_with_its_key_and_trace(door: CashierApp, payments: FakePayments) -> None:
    got = await submit(door, x_request_id="r-1", traceparent=TRACE)
    assert got.status == 202
    assert got.json["payment_id"] == ID
    assert got.json["next_action"] == {"type": "REDIRECT", "method": "GET", "url": "https://bank.example/pay"}
    (asked,) = payments.asked
    assert (asked.what, asked.args[1], asked.request_id, asked.traceparent) == ("submit", "k-1", "r-1", TRACE)
    assert asked.args[0].method_id == "QUICK_PAY:c_2"
    assert asked.args[0].expected_payable == cny(11800)


async def test_the_other_operations_are_handed_on_with_the_token(door: CashierApp, payments: FakePayments) -> None:
    assert (await ask(door, OPERATIONS["answer"])).status == 202
    assert (await ask(door, OPERATIONS["cancel"])).status == 202
    assert (await ask(door, OPERATIONS["look"], query=b"wait_ms=30000")).status == 202
    assert (await ask(door, OPERATIONS["follow"])).status == 200
    assert [(asked.what, asked.args) for asked in payments.asked] == [
        ("answer", (ID, TOKEN, "246810")),
        ("cancel", (ID, TOKEN)),
        ("look", (ID, TOKEN, 30000)),
        ("follow", (ID, TOKEN)),
    ]


@pytest.mark.parametrize("status", list(PaymentStatus))
async def test_a_final_payment_is_200_and_one_that_goes_on_202(
    door: CashierApp, payments: FakePayments, status: PaymentStatus
) -> None:
    payments.told = type(LIVE)(**{name: getattr(LIVE, name) for name in LIVE.__struct_fields__} | {"status": status})
    for name in ("submit", "answer", "cancel", "look"):
        assert (await ask(door, OPERATIONS[name])).status == (200 if status in FINAL else 202)


@EACH
async def test_every_answer_has_the_headers_of_every_answer(door: CashierApp, operation: dict[str, Any]) -> None:
    headers = operation["headers"] | {"x-request-id": "r-1"}
    good = await ask(door, operation, headers=headers)
    other = await ask(door, operation, headers=headers, method="PATCH")
    bare = await ask(door, operation, headers={"x-request-id": "r-1"}, body=b"{}")
    assert good.status in (200, 202)
    assert other.problem() == (405, "METHOD_NOT_ALLOWED")
    assert other.headers["allow"] == operation.get("method", "POST")
    for got in (good, other, bare):
        assert got.headers["x-request-id"] == "r-1"
        assert got.headers["server-timing"].startswith("total;dur=")
        assert got.headers["cache-control"] == "no-store"
    assert bare.status in (202, 422)


@EACH
async def test_who_only_consults_takes_no_payments(operation: dict[str, Any]) -> None:
    assert (await ask(app(FakeEngine()), operation)).problem() == (501, "PAYMENTS_NOT_CONFIGURED")


@EACH
async def test_an_engine_that_is_not_open_takes_no_payments_yet(operation: dict[str, Any]) -> None:
    engine = FakeEngine(FakePayments())
    engine.ready = False
    for door in (app(engine), owning_app(opener(engine, []))):
        got = await ask(door, operation)
        assert got.problem() == (503, "NOT_READY")
        assert got.headers["retry-after"] == "1"


@EACH
@pytest.mark.parametrize(
    "name", ["pay_", "o_1001", ID + "a", ID[:-1], ID[:-1] + "1", ID.upper(), ID[:-1] + "%0A", "pay_" + "é" * 26]
)
async def test_what_is_no_payment_id_is_not_found(
    door: CashierApp, payments: FakePayments, operation: dict[str, Any], name: str
) -> None:
    if ID in operation["path"]:
        got = await ask(door, operation, path=operation["path"].replace(ID, name))
        assert got.problem() == (404, "NOT_FOUND")
        assert payments.asked == []


@pytest.mark.parametrize("key", ["k 1", "k" * 65, "k,k", "k\n", "ключ".encode().decode("latin-1"), ""])
async def test_a_key_that_is_none_is_refused(door: CashierApp, payments: FakePayments, key: str) -> None:
    assert faults(await submit(door, idempotency_key=key)) == [("Idempotency-Key", "BAD_FORMAT")]
    assert payments.asked == []


async def test_a_submit_needs_one_key_and_no_more(door: CashierApp, payments: FakePayments) -> None:
    assert faults(await ask(door, OPERATIONS["submit"], headers=JSON)) == [("Idempotency-Key", "MISSING")]
    for second in ("k-2", "k-1"):
        assert faults(await ask(door, OPERATIONS["submit"], twice=("Idempotency-Key", second))) == [
            ("Idempotency-Key", "ONE_TOO_MANY")
        ]
    assert payments.asked == []
    assert (await submit(door, idempotency_key="k" * 64)).status == 202


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"order_id": "o 1"}, [("order_id", "BAD_FORMAT")]),
        ({"expected_payable": {"currency": "CNY", "value": 1.0}}, [("expected_payable.value", "WRONG_TYPE")]),
        ({"expected_payable": None}, [("expected_payable", "WRONG_TYPE")]),
        ({"promotion_ids": ["p"] * 17}, [("promotion_ids", "TOO_LONG")]),
        ({"promotion_ids": ["p", 7, "\n"]}, [("promotion_ids[1]", "WRONG_TYPE"), ("promotion_ids[2]", "BAD_FORMAT")]),
        ({"promotion_ids": "p"}, [("promotion_ids", "WRONG_TYPE")]),
        ({"consult_token": ""}, [("consult_token", "TOO_SHORT")]),
        ({"device": {"ip": "1" * 65 + "x"}}, [("device.ip", "TOO_LONG")]),
        ({"return_url": "javascript:alert(1)"}, [("return_url", "BAD_FORMAT")]),
        ({"card_token": "t" * 257}, [("card_token", "BAD_FORMAT")]),
    ],
)
async def test_every_fault_of_a_submit_is_named(
    door: CashierApp, changes: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    assert faults(await submit(door, changes)) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, [("payment_token", "MISSING"), ("value", "MISSING")]),
        ({"payment_token": TOKEN, "value": ""}, [("value", "TOO_SHORT")]),
        ({"payment_token": TOKEN, "value": "x" * 2049}, [("value", "TOO_LONG")]),
        ({"payment_token": TOKEN, "value": 246810}, [("value", "WRONG_TYPE")]),
    ],
)
async def test_an_answer_to_a_challenge_has_up_to_2048_characters(
    door: CashierApp, body: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    got = await ask(door, OPERATIONS["answer"], body=json.dumps(body).encode())
    assert faults(got) == expected
    assert (
        await ask(door, OPERATIONS["answer"], body=json.dumps({"payment_token": TOKEN, "value": "密" * 256}).encode())
    ).status == 202


def test_what_holds_a_secret_does_not_show_it() -> None:
    for holder in (ChallengeAnswer("tok", "246810"), Cancellation("tok")):
        assert "tok" not in repr(holder) + str(holder) + str(holder.__rich_repr__())
        assert "246810" not in repr(holder)


@pytest.mark.parametrize(
    "changes",
    [
        {"card_token": VISA},
        {"card_token": "tok-4111 1111 1111 1111"},
        {"card_number": VISA},
        {"card": {"number": int(VISA)}},
        {"card": {"number": float(VISA)}},
        {"notes": [{"deep": "my card is ４１１１ １１１１ １１１１ １１１１"}]},
        {VISA: "x"},
        {"order_id": VISA},
        {"promotion_ids": [VISA]},
        {"return_url": f"https://shop.example/?pan={VISA}"},
        {"device": {"user_agent": f"x {VISA}"}},
        {"device": {"auth_code": VISA}},
        {"auth_code": {"number": VISA}},
    ],
)
async def test_a_card_number_anywhere_is_refused_and_never_repeated(
    door: CashierApp, payments: FakePayments, changes: dict[str, Any]
) -> None:
    with capture_logs() as logs:
        got = await submit(door, changes)
    assert {code for _, code in faults(got)} == {"LOOKS_LIKE_PAN"}
    assert VISA.encode() not in got.body
    assert "1111" not in repr(logs)
    assert payments.asked == []


@pytest.mark.parametrize("name", ["answer", "cancel"])
async def test_the_other_bodies_are_looked_through_too(door: CashierApp, payments: FakePayments, name: str) -> None:
    body = json.dumps({"payment_token": TOKEN, "value": "4111-1111-1111-1111", VISA: 1}).encode()
    assert faults(await ask(door, OPERATIONS[name], body=body)) == [
        ("?", "LOOKS_LIKE_PAN"),
        ("value", "LOOKS_LIKE_PAN"),
    ]
    assert payments.asked == []


async def test_a_card_number_is_no_key_and_no_request_id(door: CashierApp, payments: FakePayments) -> None:
    got = await submit(door, idempotency_key=VISA)
    assert faults(got) == [("Idempotency-Key", "LOOKS_LIKE_PAN")]
    got = await submit(door, x_request_id=VISA)
    assert got.status == 202
    assert payments.asked[0].request_id == got.headers["x-request-id"] != VISA


async def test_what_only_looks_like_one_by_its_nature_is_let_be(door: CashierApp) -> None:
    assert (await submit(door, {"auth_code": "6222021234567894", "consult_token": f"x.{VISA}.y"})).status == 202
    assert (await submit(door, {"order_id": "2026050112000000007"}, idempotency_key="1746100800000")).status == 202


async def test_however_many_card_numbers_there_are_the_answer_stays_short(door: CashierApp) -> None:
    got = await submit(door, {"x" * 1000: [VISA] * 100})
    assert len(faults(got)) == 16
    assert len(got.body) < 8000


@pytest.mark.parametrize("name", ["submit", "answer", "cancel"])
async def test_the_bounds_of_the_door_hold_for_bodies(door: CashierApp, payments: FakePayments, name: str) -> None:
    operation = OPERATIONS[name]
    headers = operation["headers"]
    assert (await ask(door, operation, body=b" " * 4001)).problem() == (413, "TOO_LARGE")
    assert (await ask(door, operation, headers=headers | {"content-length": "4001"})).problem() == (413, "TOO_LARGE")
    for named in ({"content-type": "text/plain"}, {"content-encoding": "gzip"}):
        assert (await ask(door, operation, body=b"{}", headers=headers | named)).problem() == (
            415,
            "UNSUPPORTED_MEDIA_TYPE",
        )
    for body in (b"{", b"\xff", b"[" * 3000, b"null]"):
        assert (await ask(door, operation, body=body)).problem() in ((400, "MALFORMED"), (422, "INVALID"))
    assert payments.asked == []


@pytest.mark.looptime
@EACH
async def test_a_body_that_takes_too_long_is_given_up(door: CashierApp, operation: dict[str, Any]) -> None:
    got = Got()
    wire = Wire([request(b"{", more=True)])
    await asyncio.wait_for(
        door(scope(operation.get("method", "POST"), operation["path"], operation["headers"]), wire.receive, got.send),
        30,
    )
    assert got.problem() == (408, "BODY_TIMEOUT")
    assert got.headers["connection"] == "close"


@pytest.mark.parametrize(
    "query",
    [b"wait_ms=", b"wait_ms=-1", b"wait_ms=30001", b"wait_ms=1.0", b"wait_ms=" + b"9" * 500, "wait_ms=٣".encode()],
)
async def test_nobody_waits_for_longer_than_half_a_minute_or_for_what_is_no_number(
    door: CashierApp, payments: FakePayments, query: bytes
) -> None:
    assert faults(await ask(door, OPERATIONS["look"], query=query))[0][0] == "wait_ms"
    assert faults(await ask(door, OPERATIONS["look"], query=b"wait_ms=1&wait_ms=1")) == [("wait_ms", "ONE_TOO_MANY")]
    assert payments.asked == []


@pytest.mark.parametrize("name", ["cancel", "look", "follow"])
async def test_the_token_is_in_its_header_or_where_nobody_has_to_say_who_he_is_in_authorization(
    door: CashierApp, payments: FakePayments, name: str
) -> None:
    operation = OPERATIONS[name]
    for headers in (HELD, {"authorization": f"bearer {TOKEN}"}, HELD | {"authorization": "Bearer of.another.one"}):
        payments.show(PAID, None)
        assert (await ask(door, operation, headers=headers)).status in (200, 202)
    assert {asked.args[1] for asked in payments.asked} == {TOKEN}
    asked = len(payments.asked)
    for headers in ({}, {"x-payment-token": ""}, {"authorization": "Bearer "}, {"authorization": f"Basic {TOKEN}"}):
        assert faults(await ask(door, operation, headers=headers)) == [("X-Payment-Token", "MISSING")]
    assert faults(await ask(door, operation, headers={}, query=f"payment_token={TOKEN}".encode())) == [
        ("X-Payment-Token", "MISSING")
    ]
    assert faults(await ask(door, operation, twice=("X-Payment-Token", "x.y.z"))) == [
        ("X-Payment-Token", "ONE_TOO_MANY")
    ]
    assert len(payments.asked) == asked


async def test_a_cancellation_without_a_body_may_call_it_octets(door: CashierApp, payments: FakePayments) -> None:
    octets = HELD | {"content-type": "application/octet-stream"}
    assert (await ask(door, OPERATIONS["cancel"], headers=octets)).status == 202
    assert (await ask(door, OPERATIONS["cancel"], headers=octets, body=b"{}")).status == 415


async def test_a_cancellation_may_have_its_token_in_its_body(door: CashierApp, payments: FakePayments) -> None:
    body = json.dumps({"payment_token": TOKEN}).encode()
    assert (await ask(door, OPERATIONS["cancel"], body=body, headers=JSON)).status == 202
    # A gateway between us may send an Authorization of its own.
    assert (await ask(door, OPERATIONS["cancel"], body=body, headers={"authorization": "Bearer x.y.z"})).status == 202
    assert (await ask(door, OPERATIONS["cancel"], body=b'{"payment_token": "x.y.z"}')).status == 202
    assert [asked.args[1] for asked in payments.asked] == [TOKEN] * 3


@EACH
async def test_with_a_doorkeeper_authorization_says_who_asks_and_the_token_has_its_own_header(
    payments: FakePayments, operation: dict[str, Any]
) -> None:
    payments.show(PAID, None)
    door = app(FakeEngine(payments), bearer_auth=DOORKEEPER)
    bearer = {
        "authorization": "Bearer "
        + jwt.encode({"iss": "i", "aud": "a", "exp": time.time() + 60}, SECRET, algorithm="HS256")
    }
    headers = operation["headers"]
    assert (await ask(door, operation)).problem() == (401, "UNAUTHENTICATED")
    assert (await ask(door, operation, headers=headers | {"authorization": f"Bearer {TOKEN}"})).problem() == (
        401,
        "UNAUTHENTICATED",
    )
    assert payments.asked == []
    if "x-payment-token" in headers:
        assert faults(await ask(door, operation, headers=bearer)) == [("X-Payment-Token", "MISSING")]
    assert (await ask(door, operation, headers=headers | bearer)).status in (200, 202)
    assert payments.asked[-1].what == next(name for name, each in OPERATIONS.items() if each is operation)


CHANGED = ConsultChanged((Change(what=ChangeType.PRICE_CHANGED, before=cny(1), after=cny(2)),), consultation())
ERRORS: list[tuple[Exception, int, str]] = [
    *((TokenRefused(code), 403, code) for code in get_args(TokenCode)),
    (Invalid((FieldFault("card_token", "MISSING", "is required"),)), 422, "INVALID"),
    (OrderUnknown("o_1001"), 404, "ORDER_UNKNOWN"),
    (RiskRejected("BLACKLISTED"), 402, "RISK_REJECTED"),
    (CHANGED, 409, "CONSULT_CHANGED"),
    (OrderBusy(ID), 409, "ORDER_BUSY"),
    (InFlight(), 409, "IN_FLIGHT"),
    (KeyReused(), 422, "KEY_REUSED"),
    (CheckUnavailable(("risk", "quota"), SOURCES), 503, "CHECK_UNAVAILABLE"),
    (EngineUnavailable(), 503, "ENGINE_UNAVAILABLE"),
    (TooManyPayments(), 503, "OVERLOADED"),
    (ZeroDivisionError("the secret is 4711"), 500, "INTERNAL"),
]


@EACH
@pytest.mark.parametrize(("error", "status", "code"), ERRORS)
async def test_each_error_of_the_flow_has_its_problem(
    operation: dict[str, Any], error: Exception, status: int, code: str
) -> None:
    payments = FakePayments(error)
    payments.show(error)
    with capture_logs():
        got = await ask(app(FakeEngine(payments)), operation)
    assert got.problem() == (status, code)
    assert ("retry-after" in got.headers) == (
        code in ("IN_FLIGHT", "CHECK_UNAVAILABLE", "ENGINE_UNAVAILABLE", "OVERLOADED")
    )
    assert b"o_1001" not in json.dumps(got.json["detail"]).encode()
    assert b"4711" not in got.body
    assert b"BLACKLISTED" not in got.body


def test_every_error_that_the_flow_has_is_in_the_table() -> None:
    told = {type(error) for error, _, _ in ERRORS}
    assert set(AcceptError.__subclasses__()) <= told
    assert refusal_for(ZeroDivisionError()) is None


async def test_what_a_caller_needs_to_go_on_is_told_with_the_problem(door: CashierApp, payments: FakePayments) -> None:
    payments.told = CHANGED
    got = await submit(door)
    unit = {"currency": "CNY"}
    assert got.json["changes"] == [
        {
            "what": "PRICE_CHANGED",
            "from": unit | {"value": 1},
            "to": unit | {"value": 2},
            "subject": None,
            "reason": None,
        }
    ]
    assert got.json["consultation"]["order"]["order_id"] == "o_1001"
    assert len(got.json["consultation"]["methods"]) == len(consultation().methods)
    payments.told = OrderBusy(ID)
    assert (await submit(door)).json["payment_id"] == ID
    payments.told = CheckUnavailable(("risk", "quota"), SOURCES)
    got = await submit(door)
    assert "risk, quota" in got.json["detail"]
    assert {"name": "quota", "class": "GATING", "status": "TIMEOUT", "elapsed_ms": 7.4, "age_ms": 0}.items() <= {
        source["name"]: source for source in got.json["sources"]
    }["quota"].items()
    assert 'quota;dur=7.4;desc="TIMEOUT"' in got.headers["server-timing"]
    payments.told = Invalid((FieldFault("card_token", "MISSING", "is required"),))
    assert faults(await submit(door)) == [("card_token", "MISSING")]


async def test_our_own_bug_is_logged_under_the_request_id_and_not_told(
    door: CashierApp, payments: FakePayments
) -> None:
    payments.told = ZeroDivisionError("the secret is 4711")
    with capture_logs() as logs:
        got = await submit(door, x_request_id="r-1")
    assert got.problem() == (500, "INTERNAL")
    assert [(log["log_level"], log["request_id"]) for log in logs] == [("error", "r-1")]


@pytest.mark.parametrize("person", [False, True])
async def test_as_a_service_logs_nothing_that_a_caller_sent_is_in_it(
    door: CashierApp, payments: FakePayments, monkeypatch: pytest.MonkeyPatch, person: bool
) -> None:
    written = io.StringIO()
    monkeypatch.setattr(written, "isatty", lambda: person)
    monkeypatch.setattr(sys, "stderr", written)
    secret = "s3cr3t"
    payments.told = ZeroDivisionError()
    before = structlog.get_config()
    configure_logs()
    try:
        await submit(
            door,
            {"card_token": secret, "consult_token": secret, "return_url": f"https://{secret}"},
            idempotency_key=secret,
        )
        await ask(door, OPERATIONS["answer"], body=json.dumps({"payment_token": secret, "value": secret}).encode())
        await ask(door, OPERATIONS["cancel"], headers={"x-payment-token": secret})
        await ask(door, OPERATIONS["look"], headers={"x-payment-token": secret}, query=f"token={secret}".encode())
    finally:
        structlog.configure(**before)
    assert written.getvalue().count("payment request failed") == 4
    assert secret not in written.getvalue()


@pytest.mark.parametrize("name", ["submit", "answer", "cancel"])
@pytest.mark.looptime
async def test_what_moves_money_goes_on_though_its_client_leaves(
    door: CashierApp, payments: FakePayments, name: str
) -> None:
    operation = OPERATIONS[name]
    payments.open.clear()
    wire, got = Wire([request(operation["body"])]), Got()
    task = asyncio.create_task(door(scope("POST", operation["path"], operation["headers"]), wire.receive, got.send))
    await payments.entered.wait()
    wire.hang_up()
    await asyncio.sleep(5)
    assert not task.done()
    payments.open.set()
    await task
    assert payments.cancelled == []


@pytest.mark.looptime
async def test_a_long_poll_ends_with_its_client_and_leaves_nothing(door: CashierApp, payments: FakePayments) -> None:
    payments.open.clear()
    wire, got = Wire([request(b"")]), Got()
    task = asyncio.create_task(door(scope("GET", ONE, HELD, query=b"wait_ms=30000"), wire.receive, got.send))
    await payments.entered.wait()
    await asyncio.sleep(1)
    wire.hang_up()
    await asyncio.wait_for(task, 0.2)
    assert payments.cancelled == ["look"]
    assert got.status is None
    await asyncio.sleep(0.1)
    assert repr(door).count("requests=0 sweeping=False") == 2
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.looptime
async def test_a_long_poll_that_the_server_breaks_off_is_broken_off(door: CashierApp, payments: FakePayments) -> None:
    payments.open.clear()
    wire, got = Wire([request(b"")]), Got()
    task = asyncio.create_task(door(scope("GET", ONE, HELD, query=b"wait_ms=30000"), wire.receive, got.send))
    await payments.entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just(VISA),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*SUBMIT, "value", "payment_token", VISA]) | st.text(max_size=5), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(value=JSON_VALUES, name=st.sampled_from(["submit", "answer", "cancel"]), merged=st.booleans())
async def test_whatever_json_comes_it_is_taken_or_refused_in_words(value: Any, name: str, merged: bool) -> None:
    payments = FakePayments()
    door = app(FakeEngine(payments))
    operation = OPERATIONS[name]
    if merged and isinstance(value, dict):
        value = json.loads(operation["body"] or b"{}") | value
    got = await ask(door, operation, body=json.dumps(value).encode())
    assert got.status in (202, 400, 422)
    assert (got.status == 202) == bool(payments.asked)
    assert VISA.encode() not in got.body


@given(
    headers=st.dictionaries(
        st.sampled_from(["authorization", "x-payment-token", "idempotency-key", "content-type", "x-request-id"]),
        st.binary(max_size=60),
    )
)
async def test_whatever_is_in_its_headers_a_look_is_taken_or_refused_in_words(headers: dict[str, bytes]) -> None:
    payments = FakePayments()
    got = await ask(
        app(FakeEngine(payments)),
        OPERATIONS["look"],
        headers={name: value.decode("latin-1") for name, value in headers.items()},
    )
    assert got.status in (202, 422)
    assert (got.status == 202) == bool(payments.asked)

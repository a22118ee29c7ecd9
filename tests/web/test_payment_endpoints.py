"""The payment endpoints over ASGI: requests, refusals, problems, disconnects."""

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

from cashier.consultation.answer import OrderUnknown
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
    NoSuchAttempt,
    NotResendable,
    NotResumable,
    OrderBusy,
    ResendUnconfirmed,
    RiskRejected,
    StatusUnavailable,
    TooManyPayments,
)
from cashier.tokens.jws import TokenCode, TokenRefused
from cashier.web import CashierApp, app, owning_app
from cashier.web.auth import AuthSettings, BearerAuth
from cashier.web.payment_problems import refusal_for
from cashier.web.payment_requests import Cancellation, ChallengeAnswer
from tests.web.asgi_client import JSON, CapturedResponse, PendingRequest, call, scope
from tests.web.fake_payments import ATTEMPT, BODY, ID, LIVE, PAID, PAYMENT_PATH, SUBMIT, TOKEN, FakePayments
from tests.web.fake_service import SOURCES, FakeService, cny, consultation, opener

KEY_HEADERS = JSON | {"idempotency-key": "k-1"}
TOKEN_HEADER = {"x-payment-token": TOKEN}
LONG_POLL = scope("GET", PAYMENT_PATH, TOKEN_HEADER, query=b"wait_ms=30000")
VISA = "4111111111111111"
SECRET = "s" * 32
BEARER_AUTH = BearerAuth(AuthSettings(mode="jwt", issuer="i", audience="a", secret=SECRET))
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

# A valid request of every operation.
OPERATIONS: dict[str, dict[str, Any]] = {
    "submit": {"path": "/v1/payments", "body": BODY, "headers": KEY_HEADERS},
    "answer": {
        "path": f"{PAYMENT_PATH}/challenge",
        "body": json.dumps({"payment_token": TOKEN, "value": "246810"}).encode(),
        "headers": JSON,
    },
    "resend": {"path": f"{PAYMENT_PATH}/challenge/resend", "body": b"", "headers": TOKEN_HEADER},
    "cancel": {"path": f"{PAYMENT_PATH}/cancel", "body": b"", "headers": TOKEN_HEADER},
    "look": {"path": PAYMENT_PATH, "body": b"", "headers": TOKEN_HEADER, "method": "GET"},
    "follow": {"path": f"{PAYMENT_PATH}/events", "body": b"", "headers": TOKEN_HEADER, "method": "GET"},
    "issue_stream_ticket": {"path": f"{PAYMENT_PATH}/stream-ticket", "body": b"", "headers": TOKEN_HEADER},
}
# For payers only: by what authenticates them, without a payment token.
FOR_PAYERS: dict[str, dict[str, Any]] = {
    "find": {
        "path": "/v1/orders/o_1001/payment",
        "body": b"",
        "headers": {},
        "method": "GET",
        "query": b"merchant_id=m_1&user_id=u_1",
    },
    "resume": {"path": f"{PAYMENT_PATH}/resume", "body": json.dumps(ATTEMPT).encode(), "headers": JSON},
    "replace": {"path": f"{PAYMENT_PATH}/replace", "body": json.dumps(ATTEMPT).encode(), "headers": JSON},
}
ALL_OPERATIONS = OPERATIONS | FOR_PAYERS
EACH_OPERATION = pytest.mark.parametrize("operation", list(ALL_OPERATIONS.values()), ids=list(ALL_OPERATIONS))
BY_TOKEN = pytest.mark.parametrize("operation", list(OPERATIONS.values()), ids=list(OPERATIONS))


@pytest.fixture
def payments() -> FakePayments:
    return FakePayments()


@pytest.fixture
def application(payments: FakePayments) -> CashierApp:
    payments.publish(PAID, None)
    return app(FakeService(payments), body_limit_bytes=4000, body_timeout_s=2.0, trusts_named_payers=True)


async def send(application: CashierApp, operation: dict[str, Any], **overrides: Any) -> CapturedResponse:
    arguments = operation | overrides
    return await call(application, arguments.pop("body"), **arguments)


async def submit(application: CashierApp, changes: dict[str, Any] | None = None, **headers: str) -> CapturedResponse:
    body = json.dumps(SUBMIT | (changes or {})).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await call(application, body, path="/v1/payments", headers=KEY_HEADERS | named)


def error_codes(response: CapturedResponse) -> list[tuple[str, str]]:
    assert response.problem() == (422, "INVALID")
    return [(error["field"], error["code"]) for error in response.json["errors"]]


async def test_a_submit_passes_on_its_body_key_and_trace(application: CashierApp, payments: FakePayments) -> None:
    response = await submit(application, x_request_id="r-1", traceparent=TRACE)
    assert response.status == 202
    assert response.json["payment_id"] == ID
    assert response.json["next_action"] == {"type": "REDIRECT", "method": "GET", "url": "https://bank.example/pay"}
    (recorded,) = payments.calls
    assert (recorded.operation, recorded.args[1], recorded.request_id, recorded.traceparent) == (
        "submit",
        "k-1",
        "r-1",
        TRACE,
    )
    assert recorded.args[0].method_id == "QUICK_PAY:c_2"
    assert recorded.args[0].expected_payable == cny(11800)


async def test_the_other_operations_pass_on_the_token(application: CashierApp, payments: FakePayments) -> None:
    assert (await send(application, OPERATIONS["answer"])).status == 202
    assert (await send(application, OPERATIONS["cancel"])).status == 202
    assert (await send(application, OPERATIONS["look"], query=b"wait_ms=30000")).status == 202
    assert (await send(application, OPERATIONS["follow"])).status == 200
    assert [(recorded.operation, recorded.args) for recorded in payments.calls] == [
        ("answer", (ID, TOKEN, "246810")),
        ("cancel", (ID, TOKEN)),
        ("look", (ID, TOKEN, 30000)),
        ("follow", (ID, TOKEN)),
    ]


@pytest.mark.parametrize("status", list(PaymentStatus))
async def test_a_final_payment_is_200_and_a_live_one_202(
    application: CashierApp, payments: FakePayments, status: PaymentStatus
) -> None:
    payments.outcome = type(LIVE)(**{name: getattr(LIVE, name) for name in LIVE.__struct_fields__} | {"status": status})
    for name in ("submit", "answer", "cancel", "look"):
        assert (await send(application, OPERATIONS[name])).status == (200 if status in FINAL else 202)


@EACH_OPERATION
async def test_every_response_has_the_common_headers(application: CashierApp, operation: dict[str, Any]) -> None:
    headers = operation["headers"] | {"x-request-id": "r-1"}
    good = await send(application, operation, headers=headers)
    wrong_method = await send(application, operation, headers=headers, method="PATCH")
    bare = await send(application, operation, headers={"x-request-id": "r-1"}, body=b"{}")
    assert good.status in (200, 202)
    assert wrong_method.problem() == (405, "METHOD_NOT_ALLOWED")
    assert wrong_method.headers["allow"] == operation.get("method", "POST")
    for response in (good, wrong_method, bare):
        assert response.headers["x-request-id"] == "r-1"
        assert response.headers["server-timing"].startswith("total;dur=")
        assert response.headers["cache-control"] == "no-store"
    assert bare.status in (200, 202, 422)


@EACH_OPERATION
async def test_a_service_without_payments_answers_501(operation: dict[str, Any]) -> None:
    assert (await send(app(FakeService()), operation)).problem() == (501, "PAYMENTS_NOT_CONFIGURED")


@EACH_OPERATION
async def test_a_service_that_is_not_open_takes_no_payments(operation: dict[str, Any]) -> None:
    service = FakeService(FakePayments())
    service.ready = False
    for application in (app(service), owning_app(opener(service, []))):
        response = await send(application, operation)
        assert response.problem() == (503, "NOT_READY")
        assert response.headers["retry-after"] == "1"


@EACH_OPERATION
@pytest.mark.parametrize(
    "name", ["pay_", "o_1001", ID + "a", ID[:-1], ID[:-1] + "1", ID.upper(), ID[:-1] + "%0A", "pay_" + "é" * 26]
)
async def test_an_invalid_payment_id_is_not_found(
    application: CashierApp, payments: FakePayments, operation: dict[str, Any], name: str
) -> None:
    if ID in operation["path"]:
        response = await send(application, operation, path=operation["path"].replace(ID, name))
        assert response.problem() == (404, "NOT_FOUND")
        assert payments.calls == []


@pytest.mark.parametrize("key", ["k 1", "k" * 65, "k,k", "k\n", "ключ".encode().decode("latin-1"), ""])
async def test_an_invalid_idempotency_key_is_refused(application: CashierApp, payments: FakePayments, key: str) -> None:
    assert error_codes(await submit(application, idempotency_key=key)) == [("Idempotency-Key", "BAD_FORMAT")]
    assert payments.calls == []


async def test_a_submit_needs_exactly_one_idempotency_key(application: CashierApp, payments: FakePayments) -> None:
    assert error_codes(await send(application, OPERATIONS["submit"], headers=JSON)) == [("Idempotency-Key", "MISSING")]
    for second in ("k-2", "k-1"):
        assert error_codes(await send(application, OPERATIONS["submit"], extra_header=("Idempotency-Key", second))) == [
            ("Idempotency-Key", "ONE_TOO_MANY")
        ]
    assert payments.calls == []
    assert (await submit(application, idempotency_key="k" * 64)).status == 202


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
async def test_every_invalid_field_of_a_submit_is_reported(
    application: CashierApp, changes: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    assert error_codes(await submit(application, changes)) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, [("payment_token", "MISSING"), ("value", "MISSING")]),
        ({"payment_token": TOKEN, "value": ""}, [("value", "TOO_SHORT")]),
        ({"payment_token": TOKEN, "value": "x" * 2049}, [("value", "TOO_LONG")]),
        ({"payment_token": TOKEN, "value": 246810}, [("value", "WRONG_TYPE")]),
    ],
)
async def test_a_challenge_answer_has_up_to_2048_characters(
    application: CashierApp, body: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    response = await send(application, OPERATIONS["answer"], body=json.dumps(body).encode())
    assert error_codes(response) == expected
    assert (
        await send(
            application, OPERATIONS["answer"], body=json.dumps({"payment_token": TOKEN, "value": "密" * 256}).encode()
        )
    ).status == 202


def test_structs_with_secrets_do_not_show_them() -> None:
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
async def test_a_card_number_in_any_field_is_refused_and_never_repeated(
    application: CashierApp, payments: FakePayments, changes: dict[str, Any]
) -> None:
    with capture_logs() as logs:
        response = await submit(application, changes)
    assert {code for _, code in error_codes(response)} == {"LOOKS_LIKE_PAN"}
    assert VISA.encode() not in response.body
    assert "1111" not in repr(logs)
    assert payments.calls == []


@pytest.mark.parametrize("name", ["answer", "cancel"])
async def test_the_other_bodies_are_searched_for_card_numbers_too(
    application: CashierApp, payments: FakePayments, name: str
) -> None:
    body = json.dumps({"payment_token": TOKEN, "value": "4111-1111-1111-1111", VISA: 1}).encode()
    assert error_codes(await send(application, OPERATIONS[name], body=body)) == [
        ("?", "LOOKS_LIKE_PAN"),
        ("value", "LOOKS_LIKE_PAN"),
    ]
    assert payments.calls == []


async def test_a_card_number_is_refused_as_key_and_replaced_as_request_id(
    application: CashierApp, payments: FakePayments
) -> None:
    response = await submit(application, idempotency_key=VISA)
    assert error_codes(response) == [("Idempotency-Key", "LOOKS_LIKE_PAN")]
    response = await submit(application, x_request_id=VISA)
    assert response.status == 202
    assert payments.calls[0].request_id == response.headers["x-request-id"] != VISA


async def test_fields_that_may_look_like_a_card_number_are_accepted(application: CashierApp) -> None:
    assert (await submit(application, {"auth_code": "6222021234567894", "consult_token": f"x.{VISA}.y"})).status == 202
    assert (
        await submit(application, {"order_id": "2026050112000000007"}, idempotency_key="1746100800000")
    ).status == 202


async def test_many_card_numbers_get_a_short_response(application: CashierApp) -> None:
    response = await submit(application, {"x" * 1000: [VISA] * 100})
    assert len(error_codes(response)) == 16
    assert len(response.body) < 8000


@pytest.mark.parametrize("name", ["submit", "answer", "cancel"])
async def test_the_request_limits_apply_to_bodies(application: CashierApp, payments: FakePayments, name: str) -> None:
    operation = OPERATIONS[name]
    headers = operation["headers"]
    assert (await send(application, operation, body=b" " * 4001)).problem() == (413, "TOO_LARGE")
    assert (await send(application, operation, headers=headers | {"content-length": "4001"})).problem() == (
        413,
        "TOO_LARGE",
    )
    for named in ({"content-type": "text/plain"}, {"content-encoding": "gzip"}):
        assert (await send(application, operation, body=b"{}", headers=headers | named)).problem() == (
            415,
            "UNSUPPORTED_MEDIA_TYPE",
        )
    for body in (b"{", b"\xff", b"[" * 3000, b"null]"):
        assert (await send(application, operation, body=body)).problem() in ((400, "MALFORMED"), (422, "INVALID"))
    assert payments.calls == []


@pytest.mark.looptime
@EACH_OPERATION
async def test_an_overdue_body_is_refused(application: CashierApp, operation: dict[str, Any]) -> None:
    method, query = operation.get("method", "POST"), operation.get("query", b"")
    request_scope = scope(method, operation["path"], operation["headers"], query=query)
    pending = PendingRequest(application, request_scope, b"{", more=True)
    await pending.finished()
    assert pending.response.problem() == (408, "BODY_TIMEOUT")
    assert pending.response.headers["connection"] == "close"


@pytest.mark.parametrize(
    "query",
    [b"wait_ms=", b"wait_ms=-1", b"wait_ms=30001", b"wait_ms=1.0", b"wait_ms=" + b"9" * 500, "wait_ms=٣".encode()],
)
async def test_an_invalid_or_too_long_wait_ms_is_refused(
    application: CashierApp, payments: FakePayments, query: bytes
) -> None:
    assert error_codes(await send(application, OPERATIONS["look"], query=query))[0][0] == "wait_ms"
    assert error_codes(await send(application, OPERATIONS["look"], query=b"wait_ms=1&wait_ms=1")) == [
        ("wait_ms", "ONE_TOO_MANY")
    ]
    assert payments.calls == []


@pytest.mark.parametrize("name", ["cancel", "look", "follow"])
async def test_the_token_is_read_from_its_header_or_without_authentication_from_authorization(
    application: CashierApp, payments: FakePayments, name: str
) -> None:
    operation = OPERATIONS[name]
    for headers in (
        TOKEN_HEADER,
        {"authorization": f"bearer {TOKEN}"},
        TOKEN_HEADER | {"authorization": "Bearer of.another.one"},
    ):
        payments.publish(PAID, None)
        assert (await send(application, operation, headers=headers)).status in (200, 202)
    assert {recorded.args[1] for recorded in payments.calls} == {TOKEN}
    calls = len(payments.calls)
    for headers in ({}, {"x-payment-token": ""}, {"authorization": "Bearer "}, {"authorization": f"Basic {TOKEN}"}):
        assert error_codes(await send(application, operation, headers=headers)) == [("X-Payment-Token", "MISSING")]
    assert error_codes(await send(application, operation, headers={}, query=f"payment_token={TOKEN}".encode())) == [
        ("X-Payment-Token", "MISSING")
    ]
    assert error_codes(await send(application, operation, extra_header=("X-Payment-Token", "x.y.z"))) == [
        ("X-Payment-Token", "ONE_TOO_MANY")
    ]
    assert len(payments.calls) == calls


async def test_a_cancellation_without_a_body_may_have_another_content_type(
    application: CashierApp, payments: FakePayments
) -> None:
    octets = TOKEN_HEADER | {"content-type": "application/octet-stream"}
    assert (await send(application, OPERATIONS["cancel"], headers=octets)).status == 202
    assert (await send(application, OPERATIONS["cancel"], headers=octets, body=b"{}")).status == 415


async def test_a_cancellation_may_carry_its_token_in_the_body(application: CashierApp, payments: FakePayments) -> None:
    body = json.dumps({"payment_token": TOKEN}).encode()
    assert (await send(application, OPERATIONS["cancel"], body=body, headers=JSON)).status == 202
    # A gateway may send an Authorization of its own.
    assert (
        await send(application, OPERATIONS["cancel"], body=body, headers={"authorization": "Bearer x.y.z"})
    ).status == 202
    assert (await send(application, OPERATIONS["cancel"], body=b'{"payment_token": "x.y.z"}')).status == 202
    assert [recorded.args[1] for recorded in payments.calls] == [TOKEN] * 3


@BY_TOKEN
async def test_with_authentication_the_payment_token_needs_its_own_header(
    payments: FakePayments, operation: dict[str, Any]
) -> None:
    payments.publish(PAID, None)
    application = app(FakeService(payments), bearer_auth=BEARER_AUTH)
    bearer = {
        "authorization": "Bearer "
        + jwt.encode({"iss": "i", "aud": "a", "exp": time.time() + 60, "scope": "pay"}, SECRET, algorithm="HS256")
    }
    headers = operation["headers"]
    assert (await send(application, operation)).problem() == (401, "UNAUTHENTICATED")
    assert (await send(application, operation, headers=headers | {"authorization": f"Bearer {TOKEN}"})).problem() == (
        401,
        "UNAUTHENTICATED",
    )
    assert payments.calls == []
    if "x-payment-token" in headers:
        assert error_codes(await send(application, operation, headers=bearer)) == [("X-Payment-Token", "MISSING")]
    assert (await send(application, operation, headers=headers | bearer)).status in (200, 202)
    assert payments.calls[-1].operation == next(name for name, known in OPERATIONS.items() if known is operation)


CHANGED = ConsultChanged((Change(what=ChangeType.PRICE_CHANGED, before=cny(1), after=cny(2)),), consultation())
ERRORS: list[tuple[Exception, int, str]] = [
    *((TokenRefused(code), 403, code) for code in get_args(TokenCode)),
    (Invalid((FieldFault("card_token", "MISSING", "is required"),)), 422, "INVALID"),
    (OrderUnknown("o_1001"), 404, "ORDER_UNKNOWN"),
    (RiskRejected("BLACKLISTED"), 402, "RISK_REJECTED"),
    (CHANGED, 409, "CONSULT_CHANGED"),
    (OrderBusy(ID), 409, "ORDER_BUSY"),
    (NoSuchAttempt(), 404, "NOT_FOUND"),
    (NotResumable(), 409, "NOT_RESUMABLE"),
    (NotResumable("user_id"), 409, "NOT_RESUMABLE"),
    (NotResendable("it was sent too many times"), 409, "NOT_RESENDABLE"),
    (ResendUnconfirmed(), 503, "CHECK_UNAVAILABLE"),
    (StatusUnavailable(("engine",)), 503, "STATUS_UNAVAILABLE"),
    (InFlight(), 409, "IN_FLIGHT"),
    (KeyReused(), 422, "KEY_REUSED"),
    (CheckUnavailable(("risk", "quota"), SOURCES), 503, "CHECK_UNAVAILABLE"),
    (EngineUnavailable(), 503, "ENGINE_UNAVAILABLE"),
    (TooManyPayments(), 503, "OVERLOADED"),
    (ZeroDivisionError("the secret is 4711"), 500, "INTERNAL"),
]


@EACH_OPERATION
@pytest.mark.parametrize(("error", "status", "code"), ERRORS)
async def test_each_payment_error_has_its_problem(
    operation: dict[str, Any], error: Exception, status: int, code: str
) -> None:
    payments = FakePayments(error)
    payments.publish(error)
    with capture_logs():
        response = await send(app(FakeService(payments), trusts_named_payers=True), operation)
    assert response.problem() == (status, code)
    assert ("retry-after" in response.headers) == (
        code in ("IN_FLIGHT", "CHECK_UNAVAILABLE", "STATUS_UNAVAILABLE", "ENGINE_UNAVAILABLE", "OVERLOADED")
    )
    assert b"o_1001" not in json.dumps(response.json["detail"]).encode()
    assert b"4711" not in response.body
    assert b"BLACKLISTED" not in response.body


def test_the_table_contains_every_payment_error() -> None:
    covered = {type(error) for error, _, _ in ERRORS}
    assert set(AcceptError.__subclasses__()) <= covered
    assert refusal_for(ZeroDivisionError()) is None


async def test_a_problem_carries_the_data_that_the_caller_needs(
    application: CashierApp, payments: FakePayments
) -> None:
    payments.outcome = CHANGED
    response = await submit(application)
    unit = {"currency": "CNY"}
    assert response.json["changes"] == [
        {
            "what": "PRICE_CHANGED",
            "from": unit | {"value": 1},
            "to": unit | {"value": 2},
            "subject": None,
            "reason": None,
            "message": None,
        }
    ]
    assert response.json["consultation"]["order"]["order_id"] == "o_1001"
    assert len(response.json["consultation"]["methods"]) == len(consultation().methods)
    payments.outcome = OrderBusy(ID)
    assert (await submit(application)).json["payment_id"] == ID
    payments.outcome = OrderBusy(ID, LIVE.next_action, LIVE.expires_at)
    own = (await submit(application)).json
    assert (own["next_action"]["type"], "expires_at" in own) == ("REDIRECT", True)
    payments.outcome = CheckUnavailable(("risk", "quota"), SOURCES)
    response = await submit(application)
    assert "risk, quota" in response.json["detail"]
    assert {"name": "quota", "class": "GATING", "status": "TIMEOUT", "elapsed_ms": 7.4, "age_ms": 0}.items() <= {
        source["name"]: source for source in response.json["sources"]
    }["quota"].items()
    assert 'quota;dur=7.4;desc="TIMEOUT"' in response.headers["server-timing"]
    payments.outcome = Invalid((FieldFault("card_token", "MISSING", "is required"),))
    assert error_codes(await submit(application)) == [("card_token", "MISSING")]


async def test_a_bug_is_logged_under_the_request_id_and_not_disclosed(
    application: CashierApp, payments: FakePayments
) -> None:
    payments.outcome = ZeroDivisionError("the secret is 4711")
    with capture_logs() as logs:
        response = await submit(application, x_request_id="r-1")
    assert response.problem() == (500, "INTERNAL")
    assert [(log["log_level"], log["request_id"]) for log in logs] == [("error", "r-1")]


@pytest.mark.parametrize("is_tty", [False, True])
async def test_service_logs_contain_nothing_that_a_caller_sent(
    application: CashierApp, payments: FakePayments, monkeypatch: pytest.MonkeyPatch, is_tty: bool
) -> None:
    written = io.StringIO()
    monkeypatch.setattr(written, "isatty", lambda: is_tty)
    monkeypatch.setattr(sys, "stderr", written)
    secret = "s3cr3t"
    payments.outcome = ZeroDivisionError()
    before = structlog.get_config()
    configure_logs()
    try:
        await submit(
            application,
            {"card_token": secret, "consult_token": secret, "return_url": f"https://{secret}"},
            idempotency_key=secret,
        )
        await send(
            application, OPERATIONS["answer"], body=json.dumps({"payment_token": secret, "value": secret}).encode()
        )
        await send(application, OPERATIONS["cancel"], headers={"x-payment-token": secret})
        await send(
            application, OPERATIONS["look"], headers={"x-payment-token": secret}, query=f"token={secret}".encode()
        )
    finally:
        structlog.configure(**before)
    assert written.getvalue().count("payment request failed") == 4
    assert secret not in written.getvalue()


@pytest.mark.parametrize("name", ["submit", "answer", "cancel"])
@pytest.mark.looptime
async def test_operations_that_move_money_continue_after_a_disconnect(
    application: CashierApp, payments: FakePayments, name: str
) -> None:
    operation = OPERATIONS[name]
    payments.open.clear()
    pending = PendingRequest(application, scope("POST", operation["path"], operation["headers"]), operation["body"])
    await payments.entered.wait()
    pending.incoming.disconnect()
    await asyncio.sleep(5)
    assert not pending.task.done()
    payments.open.set()
    await pending.task
    assert payments.cancelled == []


@pytest.mark.looptime
async def test_a_disconnect_ends_a_long_poll_and_leaves_nothing_behind(
    application: CashierApp, payments: FakePayments
) -> None:
    payments.open.clear()
    pending = PendingRequest(application, LONG_POLL, b"")
    await payments.entered.wait()
    await asyncio.sleep(1)
    pending.incoming.disconnect()
    await asyncio.wait_for(pending.task, 0.2)
    assert payments.cancelled == ["look"]
    assert (pending.response.status, pending.response.body) == (499, b"")
    await asyncio.sleep(0.1)
    assert repr(application).count("requests=0 sweeping=False") == 2
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.looptime
async def test_a_long_poll_can_be_cancelled_by_the_server(application: CashierApp, payments: FakePayments) -> None:
    payments.open.clear()
    pending = PendingRequest(application, LONG_POLL, b"")
    await payments.entered.wait()
    pending.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pending.task


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
async def test_any_json_body_is_accepted_or_refused_with_a_problem(value: Any, name: str, merged: bool) -> None:
    payments = FakePayments()
    application = app(FakeService(payments))
    operation = OPERATIONS[name]
    if merged and isinstance(value, dict):
        value = json.loads(operation["body"] or b"{}") | value
    response = await send(application, operation, body=json.dumps(value).encode())
    assert response.status in (202, 400, 422)
    assert (response.status == 202) == bool(payments.calls)
    assert VISA.encode() not in response.body


@given(
    headers=st.dictionaries(
        st.sampled_from(["authorization", "x-payment-token", "idempotency-key", "content-type", "x-request-id"]),
        st.binary(max_size=60),
    )
)
async def test_any_headers_of_a_query_are_accepted_or_refused_with_a_problem(headers: dict[str, bytes]) -> None:
    payments = FakePayments()
    response = await send(
        app(FakeService(payments)),
        OPERATIONS["look"],
        headers={name: value.decode("latin-1") for name, value in headers.items()},
    )
    assert response.status in (202, 422)
    assert (response.status == 202) == bool(payments.calls)

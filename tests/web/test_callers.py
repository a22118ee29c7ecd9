"""Every endpoint with every kind of caller: the README's table is the oracle."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any, NamedTuple

import jwt
import pytest

from cashier import web
from cashier.web import app
from cashier.web.auth import AuthSettings, BearerAuth
from cashier.web.caller import PAYER_SCOPES, TokenScope
from cashier.web.cross_origin import AllowedOrigins, MerchantSettings
from cashier.web.endpoint_path import CONSULT_PATH
from tests.web.asgi_client import JSON, CapturedResponse, call
from tests.web.fake_pages import FakePages
from tests.web.fake_payments import ATTEMPT, ID, PAID, TICKET, TOKEN, FakePayments
from tests.web.fake_payments import BODY as SUBMIT
from tests.web.fake_service import BODY as CONSULT
from tests.web.fake_service import FakeService
from tests.web.test_openapi import fetch_document
from tests.web.virtual_client import VirtualServer, in_bytes

SECRET = "s" * 32
SETTINGS = AuthSettings(
    mode="jwt",
    issuer="i",
    audience="a",
    secret=SECRET,
    user_claim="sub",
    order_claim="order",
    merchant_claim="merchant",
)
BEARER_AUTH = BearerAuth(SETTINGS)
EXP = time.time() + 3600
PAYMENT_TOKEN = {"x-payment-token": TOKEN}


class Row(NamedTuple):
    method: str
    path: str
    service: str
    payer: str
    beside: str


def table() -> list[Row]:
    readme = (Path(web.__file__).parent / "README.md").read_text("utf-8")
    rows = re.findall(r"^\| `(GET|POST) (\S+)` \| `?(\w+)`? \| (\w+) \| (.+) \|$", readme, re.MULTILINE)
    return [Row(*cells) for cells in rows]


ROWS = table()
EACH_ENDPOINT = pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.method} {row.path}")


def bearer(**claims: Any) -> dict[str, str]:
    payload = {"iss": "i", "aud": "a", "exp": EXP} | claims
    return {"authorization": f"Bearer {jwt.encode(payload, SECRET, algorithm='HS256')}"}


async def request(row: Row, headers: dict[str, str], query: bytes = b"", *, token: bool = True) -> CapturedResponse:
    """A valid request of u_1 for o_1001 of m_1. `token`: with its payment token."""
    payments = FakePayments()
    payments.publish(PAID, None)
    application = app(FakeService(payments), bearer_auth=BEARER_AUTH, pages=FakePages())
    body = {
        "/v1/consult": CONSULT,
        "/v1/payments": SUBMIT,
        "/v1/payments/{payment_id}/resume": json.dumps(ATTEMPT).encode(),
        "/v1/payments/{payment_id}/replace": json.dumps(ATTEMPT).encode(),
        "/v1/payments/{payment_id}/challenge": json.dumps({"payment_token": TOKEN, "value": "1"}).encode(),
        "/v1/invalidate": b'{"source": "card", "key": "u_1"}',
        "/v1/cashier-sessions": b'{"order_id": "o_1001", "user_id": "u_1", "merchant_id": "m_1", "terminal": "H5"}',
        "/v1/till-sessions": b'{"merchant_id": "m_1", "terminal_id": "t_1", "currency": "CNY"}',
        "/v1/why": b'{"order_id": "o_1001", "user_id": "u_1", "merchant_id": "m_1"}',
    }.get(row.path, b"")
    if not token and row.path.endswith("challenge"):
        body = b'{"value": "1"}'
    headers = JSON | {"idempotency-key": "k-1"} | (PAYMENT_TOKEN if token else {}) | headers
    path = row.path.replace("{payment_id}", ID).replace("{order_id}", "o_1001")
    query = b"&".join(filter(None, (query, b"merchant_id=m_1&user_id=u_1" if "{order_id}" in row.path else b"")))
    response = await call(application, body, headers=headers, method=row.method, path=path, query=query)
    if response.status in (401, 403):
        assert payments.calls == [], "a refused caller reaches no payment"
    return response


def outcome(response: CapturedResponse) -> str:
    return "allowed" if response.status in (200, 202) else response.problem()[1]


def expected_of_payer(row: Row, scopes: frozenset[TokenScope]) -> str:
    if row.service == "public":
        return "allowed"
    return "allowed" if row.payer == "own" and row.service in scopes else "FORBIDDEN"


async def test_the_table_has_every_endpoint_with_the_scope_of_its_document() -> None:
    paths = (await fetch_document(BEARER_AUTH))["paths"]
    documented = {
        (method.upper(), path): operation["security"]
        for path, operations in paths.items()
        for method, operation in operations.items()
    }
    assert {(row.method, row.path): row.service for row in ROWS} == {
        endpoint: security[0]["bearer"][0] if security else "public" for endpoint, security in documented.items()
    }
    assert [(row.method, row.path) for row in ROWS if "ticket alone" in row.beside] == [
        endpoint for endpoint, security in documented.items() if security[1:] == [{}]
    ]
    assert ROWS[0].path == CONSULT_PATH


@EACH_ENDPOINT
async def test_without_a_bearer_token_only_public_endpoints_answer(row: Row) -> None:
    expected = "allowed" if row.service == "public" else "UNAUTHENTICATED"
    for headers in ({}, {"authorization": f"Bearer {TOKEN}"}, {"authorization": f"Bearer {TICKET}"}):
        assert outcome(await request(row, headers)) == expected


@EACH_ENDPOINT
async def test_a_service_needs_the_scope_of_the_endpoint(row: Row) -> None:
    admitted = "PAYER_REQUIRED" if row.beside == "payers only" else "allowed"
    for scope in TokenScope:
        expected = admitted if row.service in ("public", scope) else "FORBIDDEN"
        assert outcome(await request(row, bearer(scope=scope))) == expected
        others = " ".join(other for other in TokenScope if other is not scope)
        lacks = row.service == scope
        assert outcome(await request(row, bearer(scope=others))) == ("FORBIDDEN" if lacks else admitted)
    for claims in ({}, {"scope": ""}, {"scope": "read"}, {"sub": "shop", "client_id": "shop"}):
        expected = "allowed" if row.service == "public" else "FORBIDDEN"
        assert outcome(await request(row, bearer(**claims))) == expected


@EACH_ENDPOINT
async def test_a_service_acts_for_every_user_but_is_no_payer(row: Row) -> None:
    if row.service != "public":
        expected = "PAYER_REQUIRED" if row.beside == "payers only" else "allowed"
        assert outcome(await request(row, bearer(scope=row.service, sub="shop", client_id="shop"))) == expected


@EACH_ENDPOINT
async def test_a_payer_acts_for_itself_and_for_no_one_else(row: Row) -> None:
    expected = expected_of_payer(row, PAYER_SCOPES)
    assert outcome(await request(row, bearer(sub="u_1"))) == expected
    assert outcome(await request(row, bearer(sub="u_1", order="o_1001", merchant="m_1"))) == expected
    other = "CALLER_MISMATCH" if row.payer == "own" else expected
    for user in ("u_2", "U_1", "u_1 ", "u_10", "u_1\x00", "*", "ｕ_1"):
        assert outcome(await request(row, bearer(sub=user))) == other
        # Neither a scope nor a foreign client id makes a payer a service.
        if row.payer == "own":
            claims = {"sub": user, "scope": row.service, "client_id": "shop"}
            assert outcome(await request(row, bearer(**claims))) == other


@pytest.mark.parametrize(("path", "body"), [("/v1/consult", CONSULT), ("/v1/payments", SUBMIT)])
async def test_only_a_service_acts_for_a_walk_in(path: str, body: bytes) -> None:
    fields = {name: value for name, value in json.loads(body).items() if name != "user_id"} | {"product": "SCAN"}
    application = app(FakeService(FakePayments()), bearer_auth=BEARER_AUTH)
    for claims, expected in (
        ({"sub": "u_1"}, "CALLER_MISMATCH"),
        ({"sub": "u_1", "scope": "consult pay", "client_id": "shop"}, "CALLER_MISMATCH"),
        ({"scope": "consult pay", "order": "o_1002"}, "CALLER_MISMATCH"),
        ({"scope": "consult pay"}, "allowed"),
        ({"scope": "consult pay", "order": "o_1001", "merchant": "m_1"}, "allowed"),
    ):
        headers = JSON | {"idempotency-key": "k-1"} | bearer(**claims)
        assert outcome(await call(application, json.dumps(fields).encode(), headers=headers, path=path)) == expected


@EACH_ENDPOINT
@pytest.mark.parametrize(("claim", "value"), [("order", "o_1002"), ("merchant", "m_2")])
async def test_a_token_of_another_order_or_merchant_is_refused(row: Row, claim: str, value: str) -> None:
    other = "CALLER_MISMATCH" if row.payer == "own" else expected_of_payer(row, PAYER_SCOPES)
    assert outcome(await request(row, bearer(sub="u_1", **{claim: value}))) == other
    if row.payer == "own":
        of_service = "PAYER_REQUIRED" if row.beside == "payers only" else other
        assert outcome(await request(row, bearer(scope=row.service, **{claim: value}))) == of_service


@EACH_ENDPOINT
@pytest.mark.parametrize("scope", list(TokenScope))
async def test_scopes_narrow_a_payer(row: Row, scope: TokenScope) -> None:
    assert outcome(await request(row, bearer(sub="u_1", scope=scope))) == expected_of_payer(row, frozenset((scope,)))


@EACH_ENDPOINT
async def test_a_payment_token_is_needed_beside_the_bearer_token(row: Row) -> None:
    needed = row.beside.startswith("payment token")
    for claims in ({"scope": " ".join(TokenScope)}, {"sub": "u_1"}):
        if claims.get("sub") and row.payer == "no":
            continue
        admitted = "PAYER_REQUIRED" if row.beside == "payers only" and "sub" not in claims else "allowed"
        response = await request(row, bearer(**claims), token=False)
        assert outcome(response) == ("INVALID" if needed else admitted)


@EACH_ENDPOINT
async def test_a_ticket_alone_is_accepted_only_where_the_table_says_so(row: Row) -> None:
    query = b"ticket=" + TICKET.encode()
    by_ticket = "ticket alone" in row.beside
    expected = "allowed" if by_ticket or row.service == "public" else "UNAUTHENTICATED"
    assert outcome(await request(row, {}, query, token=False)) == expected
    assert outcome(await request(row, {}, query)) == expected
    if by_ticket:
        # A payment token is no ticket.
        assert outcome(await request(row, {}, b"ticket=" + TOKEN.encode())) == "TOKEN_MALFORMED"
        assert outcome(await request(row, {}, b"ticket=")) == "TOKEN_MALFORMED"
        assert outcome(await request(row, {}, query + b"&" + query)) == "INVALID"


@pytest.mark.parametrize("split", [False, True], ids=["in one segment", "byte by byte"])
async def test_the_bytes_of_a_request_make_no_difference_however_they_arrive(split: bool) -> None:
    origins = AllowedOrigins({"m_1": MerchantSettings(("https://shop.example",))})
    service = FakeService()
    client = VirtualServer(service, application=app(service, bearer_auth=BEARER_AUTH, origins=origins)).connect()
    for headers, status, code in (
        ({}, 401, "UNAUTHENTICATED"),
        (bearer(scope="pay"), 403, "FORBIDDEN"),
        (bearer(sub="u_2"), 403, "CALLER_MISMATCH"),
        (bearer(sub="u_1") | {"origin": "https://other.example"}, 403, "ORIGIN_NOT_ALLOWED"),
        (bearer(sub="u_1") | {"origin": "https://shop.example"}, 200, None),
        (bearer(sub="u_1"), 200, None),
        (bearer(scope="consult"), 200, None),
    ):
        lines = [f"{name}: {value}" for name, value in headers.items()]
        head = ["POST /v1/consult HTTP/1.1", "Host: pay", f"Content-Length: {len(CONSULT)}", *lines]
        data = "\r\n".join([*head, "", ""]).encode() + CONSULT
        answer = await client.exchange(*(in_bytes(data) if split else (data,)))
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert code is None or f'"code":"{code}"'.encode() in answer
    assert len(service.calls) == 3

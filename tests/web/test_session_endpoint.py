"""`POST /v1/cashier-sessions`, over fake pages."""

from __future__ import annotations

import json
import time
from typing import Any

import jwt
import pytest

from cashier.domain.order import Product
from cashier.domain.page_session import SessionRequest, TillRequest
from cashier.web import app
from cashier.web.auth import AuthSettings, BearerAuth
from cashier.web.cross_origin import AllowedOrigins, MerchantSettings
from tests.web.asgi_client import JSON, CapturedResponse, call
from tests.web.fake_pages import SESSION, FakePages
from tests.web.fake_payments import FakePayments
from tests.web.fake_service import FakeService

PATH = "/v1/cashier-sessions"
WANTED = {"order_id": "o_1001", "user_id": "u_1", "merchant_id": "m_1", "terminal": "H5"}
TILL: dict[str, Any] = {
    "path": "/v1/till-sessions",
    "wanted": {"merchant_id": "m_1", "terminal_id": "t_1", "currency": "CNY"},
}
SECRET = "s" * 32


async def ask(
    pages: FakePages | None,
    *,
    bearer: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
    path: str = PATH,
    wanted: dict[str, str] = WANTED,
    **fields: Any,
) -> CapturedResponse:
    auth = AuthSettings(
        mode="jwt",
        issuer="i",
        audience="a",
        secret=SECRET,
        merchant_claim="merchant",
        user_claim="sub",
        order_claim="order",
    )
    application = app(
        FakeService(FakePayments()),
        bearer_auth=None if bearer is None else BearerAuth(auth),
        origins=AllowedOrigins({"m_1": MerchantSettings(("https://shop.example",))}),
        pages=pages,
    )
    claims = {"iss": "i", "aud": "a", "exp": time.time() + 60} | (bearer or {})
    token = {"authorization": f"Bearer {jwt.encode(claims, SECRET, algorithm='HS256')}"} if bearer is not None else {}
    body = {name: value for name, value in (wanted | fields).items() if value is not None}
    return await call(application, json.dumps(body).encode(), headers=JSON | token | (headers or {}), path=path)


async def test_a_shop_gets_a_link_and_its_end() -> None:
    pages = FakePages()
    response = await ask(pages, bearer={"scope": "sessions"}, return_url="https://shop.example/back")
    assert response.status == 200
    assert response.json == {"url": SESSION.url, "expires_at": "2026-05-01T12:10:00Z"}
    assert response.headers["cache-control"] == "no-store"
    (wanted,) = pages.wanted
    assert isinstance(wanted, SessionRequest)
    assert (wanted.product, wanted.return_url) == (Product.STANDARD_CASHIER, "https://shop.example/back")


@pytest.mark.parametrize(
    ("bearer", "code"),
    [
        ({"scope": "consult pay"}, "FORBIDDEN"),
        ({"scope": "sessions", "sub": "u_1"}, "FORBIDDEN"),
        ({"scope": "sessions", "merchant": "m_2"}, "CALLER_MISMATCH"),
    ],
)
async def test_no_other_caller_gets_one(bearer: dict[str, Any], code: str) -> None:
    pages = FakePages()
    assert (await ask(pages, bearer=bearer)).problem() == (403, code)
    assert pages.wanted == []


@pytest.mark.parametrize("origin", ["https://shop.example", "https://evil.example", "null"])
async def test_no_page_of_another_origin_gets_one(origin: str) -> None:
    response = await ask(FakePages(), headers={"origin": origin, "sec-fetch-site": "cross-site"})
    assert response.problem() == (403, "ORIGIN_NOT_ALLOWED")


async def test_without_pages_there_are_no_links() -> None:
    assert (await ask(None)).problem() == (501, "PAGES_NOT_CONFIGURED")


@pytest.mark.parametrize(
    ("field", "value"), [("terminal", None), ("user_id", None), ("return_url", "javascript:alert(1)"), ("locale", "x")]
)
async def test_a_faulty_request_names_its_field(field: str, value: str | None) -> None:
    fields: dict[str, Any] = {field: value}
    response = await ask(FakePages(), **fields)
    assert response.problem() == (422, "INVALID")
    assert [error["field"] for error in response.json["errors"]] == [field]


async def test_the_pages_are_served_beside_the_api_under_any_mount_point() -> None:
    application = app(FakeService(), pages=FakePages())
    response = await call(application, b"", method="GET", path="/cashier/o_1", headers={})
    assert (response.status, response.body) == (200, b"/cashier/o_1")
    assert (await call(application, b"", method="GET", path="/healthz", headers={})).status == 200
    without = await call(app(FakeService()), b"", method="GET", path="/cashier/o_1", headers={})
    assert without.problem() == (404, "NOT_FOUND")


async def test_a_merchant_gets_the_link_of_a_till() -> None:
    pages = FakePages()
    response = await ask(pages, bearer={"scope": "sessions", "merchant": "m_1"}, **TILL, locale="zh-CN")
    assert (response.status, response.json["url"]) == (200, SESSION.url)
    assert pages.wanted == [TillRequest(merchant_id="m_1", terminal_id="t_1", currency="CNY", locale="zh-CN")]


@pytest.mark.parametrize(
    ("bearer", "code"),
    [
        ({"scope": "consult pay"}, "FORBIDDEN"),
        ({"scope": "sessions", "sub": "u_1"}, "FORBIDDEN"),
        ({"scope": "sessions", "merchant": "m_2"}, "CALLER_MISMATCH"),
        ({"scope": "sessions", "order": "o_1001"}, "CALLER_MISMATCH"),
    ],
)
async def test_no_other_caller_gets_the_link_of_a_till(bearer: dict[str, Any], code: str) -> None:
    pages = FakePages()
    assert (await ask(pages, bearer=bearer, **TILL)).problem() == (403, code)
    assert pages.wanted == []


@pytest.mark.parametrize(("field", "value"), [("terminal_id", None), ("terminal_id", "a/b"), ("currency", "XXQ")])
async def test_a_faulty_till_names_its_field(field: str, value: str | None) -> None:
    fields: dict[str, Any] = {field: value}
    response = await ask(FakePages(), **TILL, **fields)
    assert [error["field"] for error in response.json["errors"]] == [field]

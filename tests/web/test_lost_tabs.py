"""The endpoints for payers whose tab is lost: who is one, and what their requests may hold."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest

from cashier.asgi import configured_app
from cashier.web import CashierApp, app
from cashier.web.auth import AuthSettings, BearerAuth
from cashier.web.cross_origin import AllowedOrigins, MerchantSettings
from tests.web.asgi_client import JSON, CapturedResponse, call
from tests.web.fake_payments import ATTEMPT, ID, LIVE, PAID, PAYMENT_PATH, FakePayments
from tests.web.fake_service import FakeService

SECRET = "s" * 32
SETTINGS = AuthSettings(mode="jwt", issuer="i", audience="a", secret=SECRET, user_claim="sub")
FIND = "/v1/orders/o_1001/payment"
VISA = "4111111111111111"
SHOP = {"origin": "https://shop.example"}


def bearer(**claims: Any) -> dict[str, str]:
    payload = {"iss": "i", "aud": "a", "exp": time.time() + 60} | claims
    return {"authorization": f"Bearer {jwt.encode(payload, SECRET, algorithm='HS256')}"}


async def each(application: CashierApp, headers: dict[str, str], user_id: str | None) -> list[CapturedResponse]:
    """Find, resume and replace; with the user named, if not None."""
    body = {name: value for name, value in ATTEMPT.items() if name != "user_id"}
    query = b"merchant_id=m_1"
    if user_id is not None:
        body["user_id"] = user_id
        query += f"&user_id={user_id}".encode()
    content = json.dumps(body).encode()
    found = await call(application, b"", method="GET", path=FIND, query=query, headers=headers)
    posts = [
        await call(application, content, path=f"{PAYMENT_PATH}/{name}", headers=JSON | headers)
        for name in ("resume", "replace")
    ]
    return [found, *posts]


def problems(responses: list[CapturedResponse]) -> set[tuple[int | None, str]]:
    return {response.problem() for response in responses}


@pytest.mark.parametrize("user_id", [None, "u_1"])
async def test_a_payers_token_says_who_the_payer_is(user_id: str | None) -> None:
    payments = FakePayments()
    application = app(FakeService(payments), bearer_auth=BearerAuth(SETTINGS))
    assert [response.status for response in await each(application, bearer(sub="u_1"), user_id)] == [200, 202, 200]
    find, resume, replace = payments.calls
    assert find.args == ("o_1001", "m_1", "u_1", None)
    for recorded in (resume, replace):
        assert recorded.args[0] == ID
        assert (recorded.args[1].user_id, recorded.args[1].order_id) == ("u_1", "o_1001")


async def test_no_one_else_is_the_payer() -> None:
    payments = FakePayments()
    service = FakeService(payments)
    secured = app(service, bearer_auth=BearerAuth(SETTINGS), trusts_named_payers=True)
    assert problems(await each(secured, bearer(sub="u_2"), "u_1")) == {(403, "CALLER_MISMATCH")}
    for claims in ({"scope": "pay"}, {"scope": "pay", "sub": "shop", "client_id": "shop"}):
        for user_id in ("u_1", "shop", None):
            assert problems(await each(secured, bearer(**claims), user_id)) == {(403, "PAYER_REQUIRED")}
    assert problems(await each(secured, {}, "u_1")) == {(401, "UNAUTHENTICATED")}
    assert problems(await each(secured, bearer(sub="u_1", scope="consult"), "u_1")) == {(403, "FORBIDDEN")}
    for user_id in ("u_1", None):
        assert problems(await each(app(service), {}, user_id)) == {(403, "PAYER_REQUIRED")}
    assert payments.calls == []


async def test_where_named_payers_are_trusted_the_user_is_required() -> None:
    payments = FakePayments()
    application = app(FakeService(payments), trusts_named_payers=True)
    assert [response.status for response in await each(application, {}, "u_1")] == [200, 202, 200]
    payments.calls.clear()
    for response in await each(application, {}, None):
        assert response.problem() == (422, "INVALID")
        assert [error["field"] for error in response.json["errors"]] == ["user_id"]
    assert payments.calls == []


async def test_the_responses_have_their_status_and_find_has_no_token() -> None:
    payments = FakePayments()
    application = app(FakeService(payments), trusts_named_payers=True)
    for payments.outcome, status in ((LIVE, 202), (PAID, 200)):
        found, resumed, replaced = await each(application, {}, "u_1")
        assert (found.status, resumed.status, replaced.status) == (200, status, 200)
        assert "token" not in found.body.decode()
        assert found.headers["cache-control"] == "no-store"
        assert resumed.json["payment_token"]
        assert replaced.json["consultation"]["consult_token"]
        assert {"challenge", "next_action", "poll_after_ms"} <= set(replaced.json)


@pytest.mark.parametrize(
    ("query", "field", "code"),
    [
        (b"user_id=u_1", "merchant_id", "MISSING"),
        (b"merchant_id=m%201&user_id=u_1", "merchant_id", "BAD_FORMAT"),
        (b"merchant_id=m_1&user_id=", "user_id", "BAD_FORMAT"),
        (b"merchant_id=m_1&user_id=u_1&user_id=u_2", "query", "ONE_TOO_MANY"),
        (b"merchant_id=m_1&merchant_id=m_1&user_id=u_1", "query", "ONE_TOO_MANY"),
        (b"merchant_id=m_1&user_id=u_1&locale=1", "locale", "BAD_FORMAT"),
        (b"merchant_id=m_1&user_id=" + VISA.encode(), "user_id", "LOOKS_LIKE_PAN"),
    ],
)
async def test_a_wrong_query_names_its_field(query: bytes, field: str, code: str) -> None:
    payments = FakePayments()
    application = app(FakeService(payments), trusts_named_payers=True)
    response = await call(application, b"", method="GET", path=FIND, query=query, headers={})
    assert response.problem() == (422, "INVALID")
    assert [(error["field"], error["code"]) for error in response.json["errors"]] == [(field, code)]
    assert VISA.encode() not in response.body
    assert payments.calls == []


@pytest.mark.parametrize(
    "changes", [{"order_id": "o 1"}, {"merchant_id": None}, {"product": "TV"}, {"terminal": 1}, {"note": VISA}]
)
async def test_a_wrong_body_reaches_no_payment(changes: dict[str, Any]) -> None:
    payments = FakePayments()
    application = app(FakeService(payments), trusts_named_payers=True)
    for name in ("resume", "replace"):
        body = json.dumps(ATTEMPT | changes).encode()
        response = await call(application, body, path=f"{PAYMENT_PATH}/{name}", headers=JSON)
        assert response.problem() == (422, "INVALID")
    assert payments.calls == []


async def test_a_page_acts_for_its_own_merchant_only() -> None:
    payments = FakePayments()
    for trusted, auth, headers in ((True, None, {}), (False, BearerAuth(SETTINGS), bearer(sub="u_1"))):
        for merchant_id, status in (("m_1", {200, 202}), ("m_2", {403})):
            origins = AllowedOrigins({merchant_id: MerchantSettings((SHOP["origin"],))})
            service = FakeService(payments)
            application = app(service, bearer_auth=auth, origins=origins, trusts_named_payers=trusted)
            responses = await each(application, headers | SHOP, "u_1")
            assert {response.status for response in responses} == status
            assert all(response.headers["access-control-allow-origin"] == SHOP["origin"] for response in responses)
            if status == {403}:
                assert problems(responses) == {(403, "ORIGIN_NOT_ALLOWED")}


@pytest.mark.parametrize(
    ("host", "auth", "trusted"),
    [
        ("127.0.0.1", "", True),
        ("localhost", "", True),
        ("0.0.0.0", "insecure = true", False),
        ("10.0.0.7", "insecure = true", False),
        ("127.0.0.1", f'mode = "jwt"\nissuer = "i"\naudience = "a"\nsecret = "{SECRET}"', False),
    ],
)
async def test_a_configured_service_trusts_named_payers_on_loopback_only(
    tmp_path: Path, host: str, auth: str, trusted: bool
) -> None:
    sources = "".join(
        f'[sources.{name}]\nurl = "http://127.0.0.1:1"\n'
        for name in ("order", "merchant", "member", "card", "balance", "channel", "quota")
    )
    path = tmp_path / "cashier.toml"
    path.write_text(f'[server]\nhost = "{host}"\n[auth]\n{auth}\n{sources}', "utf-8")
    application = configured_app(str(path))
    application._service = FakeService(FakePayments())
    headers = bearer(scope="pay") if "jwt" in auth else {}
    statuses = [response.status for response in await each(application, headers, "u_1")]
    assert statuses == ([200, 202, 200] if trusted else [403, 403, 403])

"""`POST /v1/why`: operators only, bounded, and no more than its own to a bound caller."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import jwt
import pytest

from cashier.consultation.answer import NotOpen
from cashier.domain.explanation.evidence import WhyRequest
from cashier.web import CashierApp, app
from cashier.web.auth import AuthSettings, BearerAuth
from cashier.web.why_endpoint import MOST_AT_ONCE, MOST_PER_S
from tests.web.asgi_client import JSON, CapturedResponse, call
from tests.web.fake_service import FakeService
from tests.web.test_openapi import check_response, fetch_document

SECRET = "s" * 32
QUESTION = {"order_id": "o_1", "user_id": "u_1", "merchant_id": "m_1"}


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def application(service: FakeService) -> CashierApp:
    return app(service, trusts_named_payers=True)


@pytest.fixture
def secured(service: FakeService) -> CashierApp:
    settings = AuthSettings(
        mode="jwt", issuer="i", audience="a", secret=SECRET, user_claim="sub", merchant_claim="merchant"
    )
    return app(service, bearer_auth=BearerAuth(settings))


async def why(application: CashierApp, body: object = QUESTION, **headers: str) -> CapturedResponse:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await call(application, raw, headers=JSON | headers, path="/v1/why")


def bearer(**claims: Any) -> dict[str, str]:
    token = jwt.encode({"iss": "i", "aud": "a", "exp": time.time() + 60, **claims}, SECRET, "HS256")
    return {"authorization": f"Bearer {token}"}


async def test_the_explanation_is_answered_as_documented(application: CashierApp, service: FakeService) -> None:
    response = await why(application)
    assert response.status == 200
    assert response.headers["cache-control"] == "no-store"
    assert response.json["outcome"] == "ANSWERED"
    assert service.questions == [(WhyRequest(order_id="o_1", user_id="u_1", merchant_id="m_1"), True)]
    check_response(await fetch_document(), response, "/v1/why")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"order_id": "o_1"}, "merchant_id"),
        ({**QUESTION, "order_id": "../x"}, "order_id"),
        ({**QUESTION, "terminal": "FAX"}, "terminal"),
        ({**QUESTION, "fresh": 1}, "fresh"),
        ({**QUESTION, "user_id": None, "product": "STANDARD_CASHIER"}, "user_id"),
    ],
)
async def test_an_invalid_field_is_named(application: CashierApp, body: object, field: str) -> None:
    response = await why(application, body)
    assert response.problem() == (422, "INVALID")
    assert [error["field"] for error in response.json["errors"]] == [field]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[" * 60_000, b'{"order_id": ' + b'{"a": ' * 5_000, b"\xff\xfe", b'{"order_id": "\\ud800"}',
        b'{"order_id": 1e400}', b'{"order_id": "' + b"x" * 100_000 + b'"}', b'{"order_id": "\\u001b[2J"}',
    ],
    ids=lambda body: repr(body[:24]),
)  # fmt: skip
async def test_a_hostile_question_is_refused_unasked(
    application: CashierApp, service: FakeService, body: bytes
) -> None:
    response = await why(application, body)
    assert response.status in (400, 413, 422)
    assert len(response.body) < 1_000
    assert service.questions == []


async def test_a_walk_in_needs_no_product(application: CashierApp, service: FakeService) -> None:
    assert (await why(application, {"order_id": "o_1", "merchant_id": "m_1"})).status == 200
    [(question, _)] = service.questions
    assert question.consult_request(None).product == "SCAN"


async def test_without_authentication_it_is_served_on_loopback_only(service: FakeService) -> None:
    assert (await why(app(service))).problem() == (403, "FORBIDDEN")
    assert service.questions == []


async def test_a_token_needs_the_scope_operations(secured: CashierApp, service: FakeService) -> None:
    assert (await why(secured)).problem() == (401, "UNAUTHENTICATED")
    assert (await why(secured, **bearer(scope="consult pay invalidate"))).problem() == (403, "FORBIDDEN")
    payer = bearer(sub="u_1", scope="operations consult")
    assert (await why(secured, **payer)).problem() == (403, "FORBIDDEN")
    assert service.questions == []
    assert (await why(secured, **bearer(scope="operations"))).status == 200
    assert service.questions[0][1] is True


async def test_a_token_of_one_merchant_explains_its_own_without_internals(
    secured: CashierApp, service: FakeService
) -> None:
    bound = bearer(scope="operations", merchant="m_2")
    assert (await why(secured, **bound)).problem() == (403, "CALLER_MISMATCH")
    assert service.questions == []
    assert (await why(secured, {**QUESTION, "merchant_id": "m_2"}, **bound)).status == 200
    assert [internals for _, internals in service.questions] == [False]


async def test_a_worker_makes_a_bounded_number_of_explanations(application: CashierApp, service: FakeService) -> None:
    service.open.clear()
    under_way = [asyncio.create_task(why(application)) for _ in range(MOST_AT_ONCE)]
    for _ in range(100):  # turns of the loop, in which all of them arrive
        await asyncio.sleep(0)
    assert len(service.questions) == MOST_AT_ONCE
    refused = await why(application)
    assert refused.problem() == (503, "OVERLOADED")
    assert refused.headers["retry-after"] == "1"
    service.open.set()
    assert {response.status for response in await asyncio.gather(*under_way)} == {200}
    for _ in range(MOST_PER_S):
        await why(application)
    assert (await why(application)).problem() == (503, "OVERLOADED")


async def test_a_cancelled_or_failed_explanation_makes_room(application: CashierApp, service: FakeService) -> None:
    service.raises = NotOpen("closed")
    for _ in range(MOST_AT_ONCE):
        assert (await why(application)).status == 503
    service.raises = None
    assert (await why(application)).status == 200


async def test_no_page_reaches_it_without_a_token(application: CashierApp, service: FakeService) -> None:
    """A page of another host may have rebound its name to this address: it is same-origin then."""
    response = await why(application, origin="http://rebound.example:8080", host="rebound.example:8080")
    assert response.problem() == (403, "ORIGIN_NOT_ALLOWED")
    assert service.questions == []

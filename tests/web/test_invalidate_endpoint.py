"""`POST /v1/invalidate`."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import jwt
import pytest

from cashier.fanout.l2.interface import SourceUnknown
from cashier.web import CashierApp, app
from cashier.web.auth import AuthSettings, BearerAuth
from tests.web.asgi_client import JSON, CapturedResponse, IncomingMessages, PendingRequest, call, request, scope
from tests.web.fake_service import FakeService
from tests.web.test_openapi import check, fetch_document

PATH = "/v1/invalidate"
SECRET = "s" * 32
BEARER_AUTH = BearerAuth(AuthSettings(mode="jwt", issuer="i", audience="a", secret=SECRET))


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def application(service: FakeService) -> CashierApp:
    return app(service, body_limit_bytes=1000, body_timeout_s=2.0)


async def invalidate(application: CashierApp, body: object, **headers: str) -> CapturedResponse:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await call(
        application, raw, headers=JSON | {name.replace("_", "-"): value for name, value in headers.items()}, path=PATH
    )


async def test_a_key_or_a_prefix_is_dropped_and_the_reach_reported(
    application: CashierApp, service: FakeService
) -> None:
    response = await invalidate(application, {"source": "card", "key": "u_1"})
    assert response.status == 200
    assert response.json == {"source": "card", "dropped": 3, "reach": "THIS_WORKER"}
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    assert (await invalidate(application, {"source": "card", "prefix": "u_"})).status == 200
    assert (await invalidate(application, {"source": "card", "prefix": ""})).status == 200
    assert service.invalidated == [("card", "u_1", None), ("card", None, "u_"), ("card", None, "")]


async def test_the_response_has_the_request_id(application: CashierApp) -> None:
    assert (await invalidate(application, {"source": "card", "key": "u_1"}, x_request_id="r-1")).headers[
        "x-request-id"
    ] == "r-1"
    assert (await invalidate(application, {}, x_request_id="r-1")).headers["x-request-id"] == "r-1"


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        ({}, [("source", "MISSING")]),
        ([], [("", "WRONG_TYPE")]),
        ({"source": "card"}, [("key", "MISSING")]),
        ({"source": "card", "key": "u_1", "prefix": "u_"}, [("prefix", "ONE_TOO_MANY")]),
        ({"source": "card", "key": ""}, [("key", "BAD_FORMAT")]),
        ({"source": "card", "key": "u_1\n"}, [("key", "BAD_FORMAT")]),
        ({"source": "card", "key": "u" * 257}, [("key", "BAD_FORMAT")]),
        ({"source": "card", "key": None}, [("key", "WRONG_TYPE")]),  # null is not absence
        ({"source": "card:u_1", "prefix": 7}, [("source", "BAD_FORMAT"), ("prefix", "WRONG_TYPE")]),
    ],
)
async def test_invalid_fields_are_reported(
    application: CashierApp, service: FakeService, body: Any, errors: list[tuple[str, str]]
) -> None:
    response = await invalidate(application, body)
    assert response.problem() == (422, "INVALID")
    assert [(error["field"], error["code"]) for error in response.json["errors"]] == errors
    assert service.invalidated == []


async def test_an_unknown_source_is_an_error_of_its_field(application: CashierApp, service: FakeService) -> None:
    service.raises = SourceUnknown("crad", ("card", "member"))
    response = await invalidate(application, {"source": "crad", "key": "u_1"})
    assert response.problem() == (422, "INVALID")
    assert response.json["errors"] == [
        {"field": "source", "code": "UNKNOWN_VALUE", "message": "must be one of card, member"}
    ]


@pytest.mark.parametrize("body", [b"", b"{", b'{"source": "\xff", "key": "u_1"}', b"[" * 900])
async def test_an_unreadable_body_is_malformed(application: CashierApp, body: bytes) -> None:
    assert (await invalidate(application, body)).problem() == (400, "MALFORMED")


async def test_the_request_limits_apply(application: CashierApp) -> None:
    assert (await invalidate(application, b" " * 1001)).problem() == (413, "TOO_LARGE")
    assert (await invalidate(application, b"{}", content_length="1001")).problem() == (413, "TOO_LARGE")
    assert (await invalidate(application, b"{}", content_type="text/plain")).problem() == (
        415,
        "UNSUPPORTED_MEDIA_TYPE",
    )
    assert (await invalidate(application, b"{}", content_encoding="gzip")).problem() == (415, "UNSUPPORTED_MEDIA_TYPE")
    response = await call(application, b"", method="GET", path=PATH)
    assert response.problem() == (405, "METHOD_NOT_ALLOWED")
    assert response.headers["allow"] == "POST"


@pytest.mark.looptime
async def test_an_overdue_body_is_refused(application: CashierApp) -> None:
    began = asyncio.get_running_loop().time()
    pending = PendingRequest(application, scope("POST", PATH, JSON), b'{"source"', more=True)
    await pending.finished()
    assert pending.response.problem() == (408, "BODY_TIMEOUT")
    assert pending.response.headers["connection"] == "close"
    assert asyncio.get_running_loop().time() - began == pytest.approx(2.0)


async def test_a_disconnect_during_the_body_is_not_an_internal_error(
    application: CashierApp, service: FakeService
) -> None:
    incoming = IncomingMessages([request(b'{"source"', more=True)])
    incoming.disconnect()
    response = CapturedResponse()
    await application(scope("POST", PATH, JSON), incoming.receive, response.send)
    assert response.status == 408
    assert service.invalidated == []


async def test_invalidation_needs_the_bearer_token_too(service: FakeService) -> None:
    application = app(service, bearer_auth=BEARER_AUTH)
    response = await invalidate(application, {"source": "card", "key": "u_1"})
    assert response.problem() == (401, "UNAUTHENTICATED")
    assert response.headers["www-authenticate"].startswith("Bearer")
    assert service.invalidated == []
    token = jwt.encode(
        {"iss": "i", "aud": "a", "exp": time.time() + 60, "scope": "invalidate"}, SECRET, algorithm="HS256"
    )
    assert (
        await invalidate(application, {"source": "card", "key": "u_1"}, authorization=f"Bearer {token}")
    ).status == 200


async def test_a_service_that_is_not_open_is_not_ready(application: CashierApp, service: FakeService) -> None:
    service.ready = False
    response = await invalidate(application, {"source": "card", "key": "u_1"})
    assert response.problem() == (503, "NOT_READY")
    assert response.headers["retry-after"] == "1"


async def test_a_bug_is_not_disclosed(application: CashierApp, service: FakeService) -> None:
    service.raises = ZeroDivisionError("u_1")
    incoming, response = IncomingMessages([request(b'{"source": "card", "key": "u_1"}')]), CapturedResponse()
    with pytest.raises(ZeroDivisionError):  # Starlette raises it again after the response
        await application(scope("POST", PATH, JSON), incoming.receive, response.send)
    assert response.problem() == (500, "INTERNAL")
    assert b"u_1" not in response.body


@pytest.mark.parametrize("bearer_auth", [None, BEARER_AUTH])
async def test_the_document_matches_the_endpoint(service: FakeService, bearer_auth: BearerAuth | None) -> None:
    document = await fetch_document(bearer_auth)
    operation = document["paths"][PATH]["post"]
    content = operation["requestBody"]["content"]["application/json"]
    check(document, content["schema"], content["example"])
    assert (await invalidate(app(service), content["example"])).status == 200
    assert ("401" in operation["responses"]) == ("security" in operation) == (bearer_auth is not None)
    for status, entry in operation["responses"].items():
        for part in entry["content"].values():
            for example in (
                [part["example"]] if "example" in part else [named["value"] for named in part["examples"].values()]
            ):
                check(document, part["schema"], example)
                assert status == "200" or example["status"] == int(status)
    for body in (b"{}", b"{", b" " * 1001, b'{"source": "card", "key": "u_1"}'):
        response = await invalidate(app(service, body_limit_bytes=1000), body)
        entry = operation["responses"][str(response.status)]
        check(document, entry["content"][response.headers["content-type"]]["schema"], response.json)
        assert set(entry["headers"]) <= set(response.headers)

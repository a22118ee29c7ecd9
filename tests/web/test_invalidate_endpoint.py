"""Saying that something changed."""

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
from tests.web.calling import JSON, Got, Wire, call, request, scope
from tests.web.offers import FakeEngine
from tests.web.test_openapi import check, described

PATH = "/v1/invalidate"
SECRET = "s" * 32
DOORKEEPER = BearerAuth(AuthSettings(mode="jwt", issuer="i", audience="a", secret=SECRET))


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def door(engine: FakeEngine) -> CashierApp:
    return app(engine, body_limit_bytes=1000, body_timeout_s=2.0)


async def tell(door: CashierApp, body: object, **headers: str) -> Got:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await call(
        door, raw, headers=JSON | {name.replace("_", "-"): value for name, value in headers.items()}, path=PATH
    )


async def test_a_key_or_a_prefix_is_dropped_and_the_answer_says_how_far_that_reaches(
    door: CashierApp, engine: FakeEngine
) -> None:
    got = await tell(door, {"source": "card", "key": "u_1"})
    assert got.status == 200
    assert got.json == {"source": "card", "dropped": 3, "reach": "THIS_WORKER"}
    assert got.headers["content-type"] == "application/json"
    assert got.headers["cache-control"] == "no-store"
    assert (await tell(door, {"source": "card", "prefix": "u_"})).status == 200
    assert (await tell(door, {"source": "card", "prefix": ""})).status == 200
    assert engine.invalidated == [("card", "u_1", None), ("card", None, "u_"), ("card", None, "")]


async def test_the_answer_carries_the_request_id(door: CashierApp) -> None:
    assert (await tell(door, {"source": "card", "key": "u_1"}, x_request_id="r-1")).headers["x-request-id"] == "r-1"
    assert (await tell(door, {}, x_request_id="r-1")).headers["x-request-id"] == "r-1"


@pytest.mark.parametrize(
    ("body", "faults"),
    [
        ({}, [("source", "MISSING")]),
        ([], [("", "WRONG_TYPE")]),
        ({"source": "card"}, [("key", "MISSING")]),
        ({"source": "card", "key": "u_1", "prefix": "u_"}, [("prefix", "ONE_TOO_MANY")]),
        ({"source": "card", "key": ""}, [("key", "BAD_FORMAT")]),
        ({"source": "card", "key": "u_1\n"}, [("key", "BAD_FORMAT")]),
        ({"source": "card", "key": "u" * 257}, [("key", "BAD_FORMAT")]),
        ({"source": "card", "key": None}, [("key", "WRONG_TYPE")]),  # a null is no absence
        ({"source": "card:u_1", "prefix": 7}, [("source", "BAD_FORMAT"), ("prefix", "WRONG_TYPE")]),
    ],
)
async def test_what_breaks_the_contract_is_refused_by_the_names_of_its_fields(
    door: CashierApp, engine: FakeEngine, body: Any, faults: list[tuple[str, str]]
) -> None:
    got = await tell(door, body)
    assert got.problem() == (422, "INVALID")
    assert [(fault["field"], fault["code"]) for fault in got.json["errors"]] == faults
    assert engine.invalidated == []


async def test_a_source_that_there_is_not_is_a_fault_of_its_field(door: CashierApp, engine: FakeEngine) -> None:
    engine.raises = SourceUnknown("crad", ("card", "member"))
    got = await tell(door, {"source": "crad", "key": "u_1"})
    assert got.problem() == (422, "INVALID")
    assert got.json["errors"] == [
        {"field": "source", "code": "UNKNOWN_VALUE", "message": "must be one of card, member"}
    ]


@pytest.mark.parametrize("body", [b"", b"{", b'{"source": "\xff", "key": "u_1"}', b"[" * 900])
async def test_what_cannot_be_read_is_said_to_be_malformed(door: CashierApp, body: bytes) -> None:
    assert (await tell(door, body)).problem() == (400, "MALFORMED")


async def test_the_bounds_of_the_door_hold_here_too(door: CashierApp) -> None:
    assert (await tell(door, b" " * 1001)).problem() == (413, "TOO_LARGE")
    assert (await tell(door, b"{}", content_length="1001")).problem() == (413, "TOO_LARGE")
    assert (await tell(door, b"{}", content_type="text/plain")).problem() == (415, "UNSUPPORTED_MEDIA_TYPE")
    assert (await tell(door, b"{}", content_encoding="gzip")).problem() == (415, "UNSUPPORTED_MEDIA_TYPE")
    got = await call(door, b"", method="GET", path=PATH)
    assert got.problem() == (405, "METHOD_NOT_ALLOWED")
    assert got.headers["allow"] == "POST"


@pytest.mark.looptime
async def test_a_body_that_takes_too_long_is_given_up(door: CashierApp) -> None:
    got = Got()
    began = asyncio.get_running_loop().time()
    await asyncio.wait_for(
        door(scope("POST", PATH, JSON), Wire([request(b'{"source"', more=True)]).receive, got.send), 30
    )
    assert got.problem() == (408, "BODY_TIMEOUT")
    assert got.headers["connection"] == "close"
    assert asyncio.get_running_loop().time() - began == pytest.approx(2.0)


async def test_a_client_that_leaves_in_the_middle_is_no_failure_of_ours(door: CashierApp, engine: FakeEngine) -> None:
    wire = Wire([request(b'{"source"', more=True)])
    wire.hang_up()
    got = Got()
    await door(scope("POST", PATH, JSON), wire.receive, got.send)
    assert got.status == 408
    assert engine.invalidated == []


async def test_who_may_not_consult_may_not_invalidate(engine: FakeEngine) -> None:
    door = app(engine, bearer_auth=DOORKEEPER)
    got = await tell(door, {"source": "card", "key": "u_1"})
    assert got.problem() == (401, "UNAUTHENTICATED")
    assert got.headers["www-authenticate"].startswith("Bearer")
    assert engine.invalidated == []
    token = jwt.encode({"iss": "i", "aud": "a", "exp": time.time() + 60}, SECRET, algorithm="HS256")
    assert (await tell(door, {"source": "card", "key": "u_1"}, authorization=f"Bearer {token}")).status == 200


async def test_an_engine_that_is_not_open_has_nothing_to_drop(door: CashierApp, engine: FakeEngine) -> None:
    engine.ready = False
    got = await tell(door, {"source": "card", "key": "u_1"})
    assert got.problem() == (503, "NOT_READY")
    assert got.headers["retry-after"] == "1"


async def test_our_own_bug_is_not_told(door: CashierApp, engine: FakeEngine) -> None:
    engine.raises = ZeroDivisionError("u_1")
    wire, got = Wire([request(b'{"source": "card", "key": "u_1"}')]), Got()
    with pytest.raises(ZeroDivisionError):  # Starlette hands it on to the server, after it has answered
        await door(scope("POST", PATH, JSON), wire.receive, got.send)
    assert got.problem() == (500, "INTERNAL")
    assert b"u_1" not in got.body


@pytest.mark.parametrize("doorkeeper", [None, DOORKEEPER])
async def test_the_document_describes_it(engine: FakeEngine, doorkeeper: BearerAuth | None) -> None:
    document = await described(doorkeeper)
    operation = document["paths"][PATH]["post"]
    content = operation["requestBody"]["content"]["application/json"]
    check(document, content["schema"], content["example"])
    assert (await tell(app(engine), content["example"])).status == 200
    assert ("401" in operation["responses"]) == ("security" in operation) == (doorkeeper is not None)
    for status, entry in operation["responses"].items():
        for part in entry["content"].values():
            for example in (
                [part["example"]] if "example" in part else [each["value"] for each in part["examples"].values()]
            ):
                check(document, part["schema"], example)
                assert status == "200" or example["status"] == int(status)
    for body in (b"{}", b"{", b" " * 1001, b'{"source": "card", "key": "u_1"}'):
        got = await tell(app(engine, body_limit_bytes=1000), body)
        entry = operation["responses"][str(got.status)]
        check(document, entry["content"][got.headers["content-type"]]["schema"], got.json)
        assert set(entry["headers"]) <= set(got.headers)

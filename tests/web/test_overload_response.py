"""Refusals under overload: priorities, order and texts of responses."""

from __future__ import annotations

import asyncio
import json

import pytest
from msgspec.structs import replace

from cashier.fanout.load_shedding import HIGHEST, LOWEST, DegradationLadder
from cashier.web import app
from cashier.web.auth import BearerAuth
from cashier.web.caller import TokenScope
from cashier.web.cross_origin import AllowedOrigins
from cashier.web.overload_response import (
    CRITICAL,
    HIGH,
    LOW,
    NORMAL,
    RefusalTexts,
    encode_refusal,
    request_priority,
    resolve_priority,
)
from cashier.web.request_parser import parse_head
from tests.domain.builders import CATALOG
from tests.web.asgi_client import JSON, call
from tests.web.fake_service import BODY, FakeService
from tests.web.server_process import GET, consult_request
from tests.web.test_auth import BY_SECRET, NOW_S, bearer
from tests.web.virtual_client import VirtualServer

LINE = b"POST /v1/consult HTTP/1.1\r\n"
REQUEST = consult_request()
ABOVE_HIGHEST = HIGHEST + 1


class RecordingLadder(DegradationLadder):
    """Refuses priorities below `least` and records every check."""

    def __init__(self, least: int) -> None:
        super().__init__()
        self.refusing = True
        self.least = least
        self.calls: list[int] = []

    def admits(self, priority: int, now_ns: int) -> bool:
        self.calls.append(priority)
        return priority >= self.least


def with_header(line: bytes, body: bytes = BODY) -> bytes:
    return LINE + b"Host: shop\r\n" + line + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def for_product(product: bytes) -> bytes:
    return with_header(b"Accept: */*", BODY.replace(b"STANDARD_CASHIER", product))


def always_verified(_: bytes) -> bool:
    return True


def never_verified(_: bytes) -> bool:
    return False


async def test_a_refusal_is_a_problem_with_retry_after() -> None:
    server = VirtualServer(ladder=RecordingLadder(ABOVE_HIGHEST))
    received = await server.connect().send(with_header(b"X-Request-Id: till-7"))
    head, _, body = received.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ") for line in lines)
    assert status == "HTTP/1.1 503 Service Unavailable"
    assert (headers["retry-after"], headers["x-request-id"]) == ("1", "till-7")
    assert headers["content-type"] == "application/problem+json"
    assert int(headers["content-length"]) == len(body)
    assert (json.loads(body)["code"], json.loads(body)["status"]) == ("OVERLOADED", 503)
    assert server.service.calls == []


async def test_a_connection_survives_refusals() -> None:
    ladder = RecordingLadder(ABOVE_HIGHEST)
    client = VirtualServer(ladder=ladder).connect()
    await client.send(REQUEST, REQUEST[:9], REQUEST[9:], REQUEST)
    ladder.refusing = False
    await client.send(REQUEST)
    ladder.refusing = True
    await client.send(REQUEST)
    assert client.statuses == [503, 503, 503, 200, 503]


@pytest.mark.parametrize("split", [len(REQUEST), 100])
async def test_an_admitted_consultation_is_checked_once_and_counted_when_answered(split: int) -> None:
    ladder = RecordingLadder(LOWEST)
    client = VirtualServer(ladder=ladder).connect()
    await client.send(REQUEST[:split], *([REQUEST[split:]] if REQUEST[split:] else []))
    assert client.statuses == [200]
    assert ladder.calls == [NORMAL]
    assert ladder.answered == 1


async def test_admission_is_checked_again_for_the_next_request_of_a_connection() -> None:
    ladder = RecordingLadder(LOWEST)
    client = VirtualServer(ladder=ladder).connect()
    await client.send(REQUEST)
    ladder.least = ABOVE_HIGHEST
    await client.send(REQUEST)
    assert client.statuses == [200, 503]
    assert len(ladder.calls) == 2


@pytest.mark.parametrize("pieces", [1, 2, 1000])
async def test_the_product_counts_however_the_request_is_split(pieces: int) -> None:
    ladder = RecordingLadder(HIGH)
    client = VirtualServer(ladder=ladder).connect()
    data = for_product(b"SCAN") + for_product(b"EMBEDDED_CASHIER")
    size = -(-len(data) // pieces)
    await client.send(*(data[at : at + size] for at in range(0, len(data), size)))
    assert client.statuses == [200, 503]
    assert ladder.calls == [HIGH, LOW]


async def test_pipelined_requests_are_refused_one_by_one_in_order() -> None:
    ladder = RecordingLadder(ABOVE_HIGHEST)
    client = VirtualServer(ladder=ladder).connect()
    await client.send(REQUEST * 2 + GET % b"/healthz")
    assert client.statuses == [503, 503, 200]
    assert len(ladder.calls) == 2


@pytest.mark.parametrize("close", [b"Connection: close", b"connection: x ,CLOSE"])
async def test_a_refused_request_that_closes_is_the_last(close: bytes) -> None:
    client = VirtualServer(ladder=RecordingLadder(ABOVE_HIGHEST)).connect()
    received = await client.send(with_header(close) + REQUEST)
    assert client.statuses == [503]
    assert b"connection: close\r\n" in received
    assert client.is_closed


async def test_a_refusal_does_not_overtake_a_response_in_progress() -> None:
    ladder = RecordingLadder(NORMAL)
    server = VirtualServer(ladder=ladder)
    server.service.open.clear()
    client = server.connect()
    await client.send(REQUEST)
    ladder.least = ABOVE_HIGHEST
    assert await client.send(REQUEST) == b""
    server.service.open.set()
    await client.settle()
    assert client.statuses == [200, 503]


@pytest.mark.parametrize("path", [b"/healthz", b"/readyz", b"/openapi.json"])
async def test_only_consultations_are_refused(path: bytes) -> None:
    ladder = RecordingLadder(ABOVE_HIGHEST)
    client = VirtualServer(ladder=ladder).connect()
    await client.send(GET % path, REQUEST.replace(b"/v1/consult", b"/v1/payments"))
    assert client.statuses == [200, 422]
    assert ladder.calls == []


@pytest.mark.looptime
async def test_refused_requests_keep_their_connection_alive() -> None:
    client = VirtualServer(ladder=RecordingLadder(ABOVE_HIGHEST)).connect()
    for _ in range(4):
        await client.send(REQUEST)
        await asyncio.sleep(60)
    assert not client.is_closed
    await asyncio.sleep(16)
    assert client.is_closed


async def test_on_another_server_the_application_refuses_before_reading_the_body() -> None:
    service, ladder = FakeService(), RecordingLadder(HIGH)
    application = app(service, ladder=ladder)
    refused = await call(application)
    assert refused.problem() == (503, "OVERLOADED")
    assert refused.headers["retry-after"] == "1"
    assert (await call(application, headers=JSON | {"X-Priority": "high"})).status == 200
    assert len(service.calls) == 1
    assert ladder.calls == [NORMAL, HIGH]
    assert ladder.answered == 1


@pytest.mark.parametrize(
    ("product", "priority"), [(b"SCAN", HIGH), (b"STANDARD_CASHIER", NORMAL), (b"EMBEDDED_CASHIER", LOW)]
)
def test_the_product_sets_the_default_priority(product: bytes, priority: int) -> None:
    assert request_priority({}, BODY.replace(b"STANDARD_CASHIER", product), never_verified) == priority


@pytest.mark.parametrize(
    ("value", "priority"),
    [(b"critical", CRITICAL), (b"High", HIGH), (b"normal", NORMAL), (b"low", LOW), (b"now!", NORMAL), (b"", NORMAL)],
)
def test_x_priority_sets_the_priority_and_an_unknown_value_is_ignored(value: bytes, priority: int) -> None:
    parsed = parse_head(with_header(b"x-priority: \t" + value + b" "), 0, 0)
    assert parsed is not None
    assert request_priority(parsed[0].fields, BODY, always_verified) == priority


def test_an_unverified_caller_may_lower_but_not_raise_its_priority() -> None:
    assert resolve_priority(b"critical", None, NORMAL, never_verified) == NORMAL
    assert resolve_priority(b"low", None, HIGH, never_verified) == LOW


def test_a_bearer_token_counts_as_verified_from_its_first_admission_to_its_expiry() -> None:
    bearer_auth = BearerAuth(BY_SECRET)
    token = bearer(exp=NOW_S + 60)
    assert not bearer_auth.is_verified(token, NOW_S)
    bearer_auth.admit(token, TokenScope.CONSULT, NOW_S)
    assert bearer_auth.is_verified(token, NOW_S)
    assert not bearer_auth.is_verified(token, NOW_S + 61)
    assert not bearer_auth.is_verified(b"", NOW_S)


def test_a_refusal_does_not_repeat_an_invalid_request_id() -> None:
    texts = RefusalTexts(FakeService)
    assert b"a b" not in encode_refusal({b"x-request-id": b"a b"}, AllowedOrigins({}), texts, closes=False)


@pytest.mark.parametrize(
    ("accepted", "language", "title"),
    [(None, "en", "Overloaded"), (b"zh-SG,zh;q=0.9", "zh-CN", "支付人数较多"), (b"fr", "en", "Overloaded")],
)
def test_a_refusal_is_in_the_language_that_its_caller_accepts(
    accepted: bytes | None, language: str, title: str
) -> None:
    headers = {} if accepted is None else {b"accept-language": accepted}
    head, _, body = encode_refusal(headers, AllowedOrigins({}), RefusalTexts(FakeService), closes=False).partition(
        b"\r\n\r\n"
    )
    assert json.loads(body)["title"] == title
    assert b"content-length: %d\r\n" % len(body) in head
    assert f"content-language: {language}".encode() in head


def test_refusals_follow_a_reload_and_stay_bounded() -> None:
    service = FakeService()
    texts = RefusalTexts(lambda: service)
    english, _ = texts.for_caller({})
    wording = replace(CATALOG.texts["en"], problems=CATALOG.texts["ja"].problems)
    service.catalog = replace(CATALOG, texts={**CATALOG.texts, "en": wording})
    assert texts.for_caller({})[0] != english
    for number in range(1_000):
        texts.for_caller({b"accept-language": b"x%d" % number})
    kept = int(repr(texts).rpartition("=")[2].rstrip(">"))
    assert 0 < kept <= 256


def test_a_refusal_before_the_start_is_in_english_without_a_message() -> None:
    body, language = RefusalTexts(lambda: None).for_caller({b"accept-language": b"zh"})
    assert (json.loads(body)["title"], language) == ("Overloaded", ())

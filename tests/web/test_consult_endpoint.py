"""`POST /v1/consult` over ASGI."""

from __future__ import annotations

import asyncio
import json
import re

import pytest
from structlog.testing import capture_logs

from cashier.caller_trace import tracestate_of
from cashier.consultation.answer import OrderUnknown, RequiredSourceUnavailable
from cashier.web import CashierApp, app
from tests.web.asgi_client import JSON, CapturedResponse, IncomingMessages, PendingRequest, call, request, scope
from tests.web.fake_service import BODY, SOURCES, FakeService


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def application(service: FakeService) -> CashierApp:
    return app(service, body_limit_bytes=1000, body_timeout_s=2.0)


def pending_request(application: CashierApp, body: bytes = BODY, *, more: bool = False) -> PendingRequest:
    return PendingRequest(application, scope("POST", "/v1/consult", JSON), body, more=more)


async def test_the_response_is_the_consultation_as_json(application: CashierApp, service: FakeService) -> None:
    response = await call(application)
    assert response.status == 200
    assert response.headers["content-type"] == "application/json"
    assert response.headers["content-length"] == str(len(response.body))
    assert response.headers["cache-control"] == "no-store"
    assert response.json["methods"][0]["amount"]["payable"] == {"currency": "CNY", "value": 11800}
    assert response.json["sources"][0]["class"] == "REQUIRED"
    assert service.calls[0][0].deadline_ms == 150


async def test_server_timing_has_the_total_and_every_source(application: CashierApp) -> None:
    parts = (await call(application)).headers["server-timing"].split(", ")
    assert re.fullmatch(r"total;dur=\d+\.\d", parts[0])
    assert parts[1:] == [f'{source.name};dur=7.4;desc="{source.status.value}"' for source in SOURCES]


@pytest.mark.parametrize(
    "claimed", ["a", "A-1_b.c:d", "x" * 64, "1745678901234567890", "550e8400-e29b-41d4-a716-446655440000"]
)
async def test_a_valid_request_id_is_used(application: CashierApp, service: FakeService, claimed: str) -> None:
    response = await call(application, headers=JSON | {"X-Request-Id": claimed})
    assert response.headers["x-request-id"] == service.calls[0][1] == claimed


CARD_NUMBERS = [
    "4111111111111111",
    "4111-1111-1111-1111",
    "4111.1111.1111.1111",
    "r-378282246310005",
    "_6222021234567894",
]


@pytest.mark.parametrize("claimed", ["", "x" * 65, "a b", "a\nb", "ä", "<script>", *CARD_NUMBERS])
async def test_any_other_request_id_is_replaced(application: CashierApp, service: FakeService, claimed: str) -> None:
    made = {
        (await call(application, headers=JSON | {"X-Request-Id": claimed})).headers["x-request-id"] for _ in range(3)
    }
    assert len(made) == 3
    assert claimed not in made
    assert all(re.fullmatch(r"[0-9a-f]{24}", request_id) for request_id in made)


async def test_a_traceparent_is_handed_to_the_service_which_judges_it(
    application: CashierApp, service: FakeService
) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    await call(application, headers=JSON)
    for claimed in (trace, "\xe4"):
        await call(application, headers=JSON | {"traceparent": claimed})
    assert [recorded[2] for recorded in service.calls] == [None, trace, "\xe4"]


async def test_a_tracestate_comes_with_its_traceparent(application: CashierApp, service: FakeService) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    await call(application, headers=JSON | {"traceparent": trace, "tracestate": "rojo=1, congo=2"})
    await call(application, headers=JSON | {"tracestate": "rojo=1"})
    with_state, without_parent = (recorded[2] for recorded in service.calls)
    assert (with_state, tracestate_of(with_state or "")) == (trace, "rojo=1,congo=2")
    assert without_parent is None


@pytest.mark.parametrize(
    ("header", "in_body", "expected"),
    [
        ("80", 150, 80),
        ("200", 150, 150),
        ("80", None, 80),
        (None, None, None),
        ("7200000", None, 60_000),
        ("9" * 5000, None, 60_000),
    ],
)
async def test_the_shortest_timeout_is_the_deadline(
    application: CashierApp, service: FakeService, header: str | None, in_body: int | None, expected: int | None
) -> None:
    body = json.loads(BODY) | {"deadline_ms": in_body}
    response = await call(
        application, json.dumps(body).encode(), headers=JSON | ({"X-Request-Timeout-Ms": header} if header else {})
    )
    assert response.status == 200
    assert service.calls[0][0].deadline_ms == expected


@pytest.mark.parametrize(
    ("header", "code"),
    [("0", "OUT_OF_RANGE"), ("-1", "BAD_FORMAT"), ("1.5", "BAD_FORMAT"), ("", "BAD_FORMAT"), ("²", "BAD_FORMAT")],
)
async def test_an_invalid_timeout_is_an_error_of_its_header(
    application: CashierApp, service: FakeService, header: str, code: str
) -> None:
    response = await call(application, headers=JSON | {"X-Request-Timeout-Ms": header})
    assert response.problem() == (422, "INVALID")
    assert [(error["field"], error["code"]) for error in response.json["errors"]] == [("X-Request-Timeout-Ms", code)]
    assert not service.calls


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "BREW"])
async def test_a_consultation_allows_post_only(application: CashierApp, method: str) -> None:
    response = await call(application, method=method)
    assert response.problem() == (405, "METHOD_NOT_ALLOWED")
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonx",
        "",
        "json",
        "application/xml; q=application/json",
    ],
)
async def test_a_body_of_another_content_type_is_refused(application: CashierApp, content_type: str) -> None:
    assert (await call(application, headers={"content-type": content_type})).problem() == (
        415,
        "UNSUPPORTED_MEDIA_TYPE",
    )


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/json; charset=utf-8", "Application/JSON", "application/vnd.shop+json"],
)
async def test_other_json_content_types_are_accepted(application: CashierApp, content_type: str) -> None:
    assert (await call(application, headers={"content-type": content_type})).status == 200


async def test_a_body_without_content_type_is_accepted(application: CashierApp) -> None:
    assert (await call(application, headers={})).status == 200


async def test_a_compressed_body_is_refused(application: CashierApp) -> None:
    assert (await call(application, headers=JSON | {"content-encoding": "gzip"})).problem() == (
        415,
        "UNSUPPORTED_MEDIA_TYPE",
    )


@pytest.mark.parametrize("declared", ["1001", "9" * 30])
async def test_a_body_that_is_declared_too_large_is_refused_unread(application: CashierApp, declared: str) -> None:
    incoming, response = IncomingMessages([request(BODY)]), CapturedResponse()
    await application(
        scope("POST", "/v1/consult", JSON | {"content-length": declared}), incoming.receive, response.send
    )
    assert response.problem() == (413, "TOO_LARGE")
    assert incoming.received == 0


async def test_a_body_that_exceeds_the_limit_is_refused_as_soon_as_it_does(
    application: CashierApp, service: FakeService
) -> None:
    incoming, response = IncomingMessages([request(b" " * 400, more=True) for _ in range(100)]), CapturedResponse()
    await application(scope("POST", "/v1/consult", JSON), incoming.receive, response.send)
    assert response.problem() == (413, "TOO_LARGE")
    assert incoming.received == 3
    assert not service.calls


@pytest.mark.parametrize("zeros", [1, 18, 5000])
async def test_leading_zeros_make_no_body_too_large(application: CashierApp, zeros: int) -> None:
    declared = "0" * zeros + str(len(BODY))
    assert (await call(application, headers=JSON | {"content-length": declared})).status == 200


@pytest.mark.parametrize(("padding", "status"), [(0, 200), (1, 413)])
async def test_a_body_of_exactly_the_limit_is_accepted(application: CashierApp, padding: int, status: int) -> None:
    assert (await call(application, BODY + b" " * (1000 - len(BODY) + padding))).status == status
    pieces = [request(BODY, more=True), request(b" " * (1000 - len(BODY) + padding))]
    response = CapturedResponse()
    await application(scope("POST", "/v1/consult", JSON), IncomingMessages(pieces).receive, response.send)
    assert response.status == status


async def test_a_body_in_several_messages_is_joined(application: CashierApp) -> None:
    incoming, response = (
        IncomingMessages([request(BODY[at : at + 7], more=True) for at in range(0, len(BODY), 7)] + [request(b"")]),
        CapturedResponse(),
    )
    await application(scope("POST", "/v1/consult", JSON), incoming.receive, response.send)
    assert response.status == 200


async def test_a_client_that_disconnects_during_its_body_gets_nothing(
    application: CashierApp, service: FakeService
) -> None:
    for messages in ([{"type": "http.disconnect"}], [request(BODY[:9], more=True), {"type": "http.disconnect"}]):
        response = CapturedResponse()
        await application(scope("POST", "/v1/consult", JSON), IncomingMessages(messages).receive, response.send)
        assert (response.status, response.body) == (499, b"")
    assert not service.calls


async def test_an_unknown_order_is_a_problem(application: CashierApp, service: FakeService) -> None:
    service.raises = OrderUnknown("o_1001")
    assert (await call(application)).problem() == (404, "ORDER_UNKNOWN")


async def test_a_silent_required_source_is_reported_with_all_sources(
    application: CashierApp, service: FakeService
) -> None:
    service.raises = RequiredSourceUnavailable(SOURCES, ("order",))
    response = await call(application)
    assert response.problem() == (503, "REQUIRED_SOURCE_UNAVAILABLE")
    assert response.headers["retry-after"] == "1"
    assert [source["name"] for source in response.json["sources"]] == [source.name for source in SOURCES]
    assert 'quota;dur=7.4;desc="TIMEOUT"' in response.headers["server-timing"]


async def test_a_bug_is_logged_with_the_request_id_and_not_disclosed(
    application: CashierApp, service: FakeService
) -> None:
    service.raises = ZeroDivisionError("the secret is 4711")
    with capture_logs() as logs:
        response = await call(application, headers=JSON | {"X-Request-Id": "r-1"})
    assert response.problem() == (500, "INTERNAL")
    assert b"4711" not in response.body
    assert b"ZeroDivision" not in response.body
    assert [(log["log_level"], log["request_id"]) for log in logs] == [("error", "r-1")]


async def test_every_problem_has_request_id_and_server_timing(application: CashierApp) -> None:
    response = await call(application, b"{", headers=JSON | {"X-Request-Id": "r-1"})
    assert response.problem() == (400, "MALFORMED")
    assert response.headers["x-request-id"] == "r-1"
    assert response.headers["server-timing"].startswith("total;dur=")
    assert response.headers["cache-control"] == "no-store"


@pytest.mark.looptime
async def test_a_disconnect_cancels_a_slow_consultation(application: CashierApp, service: FakeService) -> None:
    service.open.clear()
    pending = pending_request(application)
    await service.entered.wait()
    pending.incoming.disconnect()
    await pending.finished()
    assert service.cancelled.is_set()
    assert (pending.response.status, pending.response.body) == (499, b"")


@pytest.mark.looptime
async def test_a_slow_consultation_is_answered(application: CashierApp, service: FakeService) -> None:
    service.open.clear()
    pending = pending_request(application)
    await service.entered.wait()
    await asyncio.sleep(0.5)
    service.open.set()
    await pending.finished()
    assert pending.response.status == 200
    assert len(asyncio.all_tasks()) == 1


async def test_a_fast_consultation_is_not_watched(application: CashierApp) -> None:
    incoming, response = IncomingMessages([request(BODY)]), CapturedResponse()
    await application(scope("POST", "/v1/consult", JSON), incoming.receive, response.send)
    assert incoming.received == 1
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.looptime
async def test_an_overdue_body_is_refused(application: CashierApp, service: FakeService) -> None:
    pending = pending_request(application, BODY[:20], more=True)
    began = asyncio.get_running_loop().time()
    await pending.finished()
    assert asyncio.get_running_loop().time() - began == pytest.approx(2.0, abs=0.11)
    assert pending.response.problem() == (408, "BODY_TIMEOUT")
    assert pending.response.headers["connection"] == "close"
    assert not service.calls


@pytest.mark.looptime
async def test_a_cancellation_by_the_server_is_not_taken_for_a_disconnect(
    application: CashierApp, service: FakeService
) -> None:
    service.open.clear()
    pending = pending_request(application)
    await service.entered.wait()
    pending.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pending.finished()


@pytest.mark.looptime
async def test_the_disconnect_watch_stops_without_requests(application: CashierApp) -> None:
    await call(application)
    await asyncio.sleep(1)
    assert "requests=0 sweeping=False" in repr(application)

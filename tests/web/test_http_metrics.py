"""What the server counts about requests: each answer once, whoever writes it."""

from __future__ import annotations

import asyncio

import pytest
from starlette.responses import HTMLResponse

from cashier.consultation.answer import OrderUnknown
from cashier.web import app
from cashier.web.endpoint_path import API_PATHS, ENDPOINT_PATHS
from cashier.web.problem import ProblemCode
from tests.web.fake_payments import PAYMENT_PATH, TOKEN, FakePayments
from tests.web.fake_service import FakeService, consultation
from tests.web.server_process import GET, consult_request
from tests.web.test_consultation_stream import ScriptedStream
from tests.web.test_overload_response import ABOVE_HIGHEST, RecordingLadder
from tests.web.virtual_client import VirtualServer

REQUESTS, PROBLEMS, CONNECTIONS = (
    "cashier_http_requests_total",
    "cashier_http_problems_total",
    "cashier_http_connections",
)
CONSULT = consult_request()
STREAM = CONSULT.replace(b"Host: ", b"Accept: text/event-stream\r\nHost: ")
LOOK = f"GET {PAYMENT_PATH} HTTP/1.1\r\nHost: shop\r\nX-Payment-Token: {TOKEN}\r\n\r\n".encode()
CHUNKED = b"POST /v1/consult HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\nX\r\n"


def moved(server: VirtualServer) -> dict[str, dict[tuple[str, ...], object]]:
    """The counters that have moved."""
    counters = {name: server.service.metrics.snapshot().get(name, {}) for name in (REQUESTS, PROBLEMS)}
    return {name: {labels: count for labels, count in children.items() if count} for name, children in counters.items()}


@pytest.mark.moves("cashier_http_requests_total", "cashier_http_problems_total")
@pytest.mark.parametrize(
    ("request_", "path", "status", "problem"),
    [
        (CONSULT, "/v1/consult", "2xx", None),
        (STREAM, "/v1/consult", "2xx", None),
        (GET % b"/v1/consult", "/v1/consult", "4xx", "METHOD_NOT_ALLOWED"),
        (consult_request(b"{"), "/v1/consult", "4xx", "MALFORMED"),
        (CHUNKED, "/v1/consult", "4xx", "MALFORMED"),
        (LOOK, "/v1/payments/{payment_id}", "2xx", None),
        (GET % PAYMENT_PATH.encode(), "/v1/payments/{payment_id}", "4xx", "INVALID"),
        (GET % b"/healthz?x=1", "/healthz", "2xx", None),
        (GET % b"/v1/nothing/4111111111111111", "other", "4xx", "NOT_FOUND"),
        (b"\x16\x03\x01 what is this\r\n\r\n", "other", "4xx", "MALFORMED"),
    ],
)
async def test_an_answer_counts_once_by_path_status_and_problem(
    request_: bytes, path: str, status: str, problem: str | None
) -> None:
    server = VirtualServer()
    client = server.connect()
    assert moved(server) == {REQUESTS: {}, PROBLEMS: {}}
    await client.send(request_)
    assert [f"{code // 100}xx" for code in client.statuses] == [status]
    assert moved(server) == {REQUESTS: {(path, status): 1}, PROBLEMS: {(problem,): 1} if problem else {}}


@pytest.mark.moves("cashier_http_requests_total", "cashier_http_problems_total")
@pytest.mark.parametrize("request_", [CONSULT, CONSULT.replace(b"Host", b"Accept: */*\r\nExpect: x\r\nHost")])
async def test_a_caller_who_is_refused_for_overload_counts(request_: bytes) -> None:
    """Before parsing, and after it."""
    server = VirtualServer(ladder=RecordingLadder(ABOVE_HIGHEST))
    client = server.connect()
    await client.send(request_, request_)
    assert client.statuses == [503, 503]
    assert moved(server) == {REQUESTS: {("/v1/consult", "5xx"): 2}, PROBLEMS: {("OVERLOADED",): 2}}


async def test_a_caller_who_leaves_first_counts_as_unanswered() -> None:
    service = FakeService()
    service.open.clear()
    server = VirtualServer(service)
    client = server.connect()
    await client.send(CONSULT)
    assert moved(server)[REQUESTS] == {}
    client.reset()
    await asyncio.wait(server.state.tasks)
    assert moved(server) == {REQUESTS: {("/v1/consult", "none"): 1}, PROBLEMS: {}}


async def test_a_stream_that_ends_with_a_problem_counts_it() -> None:
    server = VirtualServer(ScriptedStream(consultation(), OrderUnknown("o_1")))
    client = server.connect()
    await client.send(STREAM)
    await client.settle()
    assert b"event: error" in client.received
    assert moved(server) == {REQUESTS: {("/v1/consult", "2xx"): 1}, PROBLEMS: {("INTERNAL",): 1}}


@pytest.mark.parametrize(("status", "problems"), [(500, {("INTERNAL",): 1}), (503, {})])
async def test_a_page_that_says_500_counts_as_a_bug(
    monkeypatch: pytest.MonkeyPatch, status: int, problems: dict[tuple[str, ...], int]
) -> None:
    """It has no problem document. Other statuses of pages are no bugs."""
    server = VirtualServer()
    page = HTMLResponse("<p>Please try again.</p>", status)
    monkeypatch.setattr(type(server.config.loaded_app), "__call__", lambda _, *asgi: page(*asgi))
    await server.connect().send(GET % b"/cashier/o_1")
    assert moved(server) == {REQUESTS: {("/cashier/{order_id}", "5xx"): 1}, PROBLEMS: problems}


@pytest.mark.looptime
async def test_a_body_that_does_not_come_counts_with_its_path() -> None:
    server = VirtualServer()
    client = server.connect()
    await client.send(CONSULT[:-10])
    await asyncio.sleep(60)
    assert client.statuses == [408]
    assert moved(server) == {REQUESTS: {("/v1/consult", "4xx"): 1}, PROBLEMS: {("BODY_TIMEOUT",): 1}}


@pytest.mark.moves("cashier_http_connections")
async def test_open_connections_are_counted_and_refused_ones_are_not() -> None:
    server = VirtualServer(max_connections=2)
    gauge = server.service.metrics.gauge(CONNECTIONS)
    clients = [server.connect(), server.connect()]
    assert gauge.value == 2
    server.service.open.clear()
    for client in clients:
        await client.send(CONSULT)  # so that none is idle and makes room
    refused = server.connect()
    await refused.settle()
    assert (gauge.value, refused.statuses) == (2, [503])
    assert moved(server) == {REQUESTS: {("other", "5xx"): 1}, PROBLEMS: {("OVERLOADED",): 1}}
    clients[0].reset()
    await clients[1].settle()
    assert gauge.value == 1
    server.service.open.set()
    await clients[1].settle()


def test_every_endpoint_and_every_problem_has_a_counter() -> None:
    service = FakeService(FakePayments())
    routes = app(service)._other_endpoints.routes
    assert sorted(API_PATHS) == sorted(["/v1/consult", *(getattr(route, "path", "") for route in routes)])
    counters = service.metrics.snapshot()
    statuses = ("none", "2xx", "3xx", "4xx", "5xx")
    assert set(counters[REQUESTS]) == {(path, status) for path in (*ENDPOINT_PATHS, "other") for status in statuses}
    assert set(counters[PROBLEMS]) == {(code.value,) for code in ProblemCode}

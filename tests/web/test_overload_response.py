"""Refusals under overload: priorities, order of responses, and the test for a plain request."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st
from uvicorn import Config
from uvicorn.lifespan.off import LifespanOff

from cashier.fanout.load_shedding import HIGHEST, LOWEST, DegradationLadder
from cashier.web import app
from cashier.web.auth import BearerAuth
from cashier.web.caller import TokenScope
from cashier.web.connection import ClientConnection, StoppableState
from cashier.web.cross_origin import AllowedOrigins
from cashier.web.fast_path_parser import parse_plain_request
from cashier.web.overload_response import (
    CRITICAL,
    HIGH,
    LOW,
    NORMAL,
    encode_refusal,
    plain_request_priority,
    resolve_priority,
)
from tests.web.asgi_client import JSON, call
from tests.web.fake_service import BODY, FakeService
from tests.web.server_process import GET, consult_request
from tests.web.test_auth import BY_SECRET, NOW_S, bearer

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


@asynccontextmanager
async def connected(
    ladder: DegradationLadder, service: FakeService | None = None
) -> AsyncIterator[tuple[ClientConnection, socket.socket]]:
    """The connection's protocol on the server side, and the client's raw socket."""
    application = app(service or FakeService(), ladder=ladder)
    config = Config(
        application,
        ws="none",
        interface="asgi3",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
    )
    config.load()
    server_socket, client_socket = socket.socketpair()
    loop = asyncio.get_running_loop()
    server_socket.setblocking(False)
    client_socket.setblocking(False)
    _, protocol = await loop.connect_accepted_socket(
        lambda: ClientConnection(config, StoppableState(), LifespanOff(config).state, loop), server_socket
    )
    assert protocol._application is application
    try:
        yield protocol, client_socket
    finally:
        protocol.transport.abort()
        client_socket.close()
        await asyncio.sleep(0)


async def receive_from(client_socket: socket.socket) -> bytes:
    return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client_socket, 65_536), 30)


def with_header(line: bytes, body: bytes = BODY) -> bytes:
    return LINE + b"Host: shop\r\n" + line + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def for_product(product: bytes) -> bytes:
    return with_header(b"Accept: */*", BODY.replace(b"STANDARD_CASHIER", product))


def always_verified(_: bytes) -> bool:
    return True


def never_verified(_: bytes) -> bool:
    return False


async def test_a_refusal_is_a_problem_with_retry_after() -> None:
    service = FakeService()
    async with connected(RecordingLadder(ABOVE_HIGHEST), service) as (_, client_socket):
        client_socket.send(with_header(b"X-Request-Id: till-7"))
        head, _, body = (await receive_from(client_socket)).partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        headers = dict(line.split(": ") for line in lines)
        assert status == "HTTP/1.1 503 Service Unavailable"
        assert (headers["retry-after"], headers["x-request-id"]) == ("1", "till-7")
        assert headers["content-type"] == "application/problem+json"
        assert int(headers["content-length"]) == len(body)
        assert (json.loads(body)["code"], json.loads(body)["status"]) == ("OVERLOADED", 503)
    assert service.calls == []


async def test_a_connection_survives_refusals() -> None:
    ladder = RecordingLadder(ABOVE_HIGHEST)
    async with connected(ladder) as (_, client_socket):
        for _ in range(3):
            client_socket.send(REQUEST)
            assert b"OVERLOADED" in await receive_from(client_socket)
        ladder.refusing = False
        client_socket.send(REQUEST)
        assert (await receive_from(client_socket)).startswith(b"HTTP/1.1 200 ")
        ladder.refusing = True
        client_socket.send(REQUEST)
        assert b"OVERLOADED" in await receive_from(client_socket)


async def test_an_admitted_consultation_is_checked_once_and_counted_when_answered() -> None:
    ladder = RecordingLadder(LOWEST)
    async with connected(ladder) as (_, client_socket):
        client_socket.send(REQUEST)
        assert (await receive_from(client_socket)).startswith(b"HTTP/1.1 200 ")
    assert ladder.calls == [NORMAL]
    assert ladder.answered == 1


async def test_admission_is_checked_again_for_the_next_request_of_a_connection() -> None:
    ladder = RecordingLadder(LOWEST)
    async with connected(ladder) as (protocol, client_socket):
        client_socket.send(REQUEST)
        await receive_from(client_socket)
        ladder.least = ABOVE_HIGHEST
        protocol.data_received(REQUEST[:100])  # in two pieces, so the parser reads it
        client_socket.send(REQUEST[100:])
        assert b"OVERLOADED" in await receive_from(client_socket)
    assert len(ladder.calls) == 2


async def test_pipelined_requests_are_refused_one_by_one_in_order() -> None:
    ladder = RecordingLadder(ABOVE_HIGHEST)
    async with connected(ladder) as (_, client_socket):
        client_socket.send(REQUEST * 2 + GET % b"/healthz")
        received = b""
        while b"HTTP/1.1 200 " not in received:
            received += await receive_from(client_socket)
        assert received.count(b'"OVERLOADED"') == 2
        assert received.rindex(b'"OVERLOADED"') < received.index(b"HTTP/1.1 200 ")
    assert len(ladder.calls) == 2


async def test_a_refusal_does_not_overtake_a_response_in_progress() -> None:
    service, ladder = FakeService(), RecordingLadder(NORMAL)
    service.open.clear()
    async with connected(ladder, service) as (protocol, client_socket):
        client_socket.send(REQUEST)
        await asyncio.wait_for(service.entered.wait(), 30)
        ladder.least = ABOVE_HIGHEST
        protocol.data_received(REQUEST)
        service.open.set()
        received = b""
        while b'"OVERLOADED"' not in received:
            received += await receive_from(client_socket)
        assert received.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("path", [b"/healthz", b"/readyz", b"/openapi.json"])
async def test_only_consultations_are_refused(path: bytes) -> None:
    ladder = RecordingLadder(ABOVE_HIGHEST)
    async with connected(ladder) as (_, client_socket):
        client_socket.send(GET % path)
        received = await receive_from(client_socket)
        assert received.startswith(b"HTTP/1.1 200 ")
        head, _, body = received.partition(b"\r\n\r\n")
        left = int(head.split(b"content-length: ")[1].split(b"\r\n")[0]) - len(body)
        while left > 0:
            left -= len(await receive_from(client_socket))
        client_socket.send(REQUEST.replace(b"/v1/consult", b"/v1/payments"))
        assert b"OVERLOADED" not in await receive_from(client_socket)
    assert ladder.calls == []


async def test_a_refused_request_restarts_the_keep_alive_time_once() -> None:
    async with connected(RecordingLadder(ABOVE_HIGHEST)) as (protocol, client_socket):
        client_socket.send(REQUEST)
        await receive_from(client_socket)
        assert protocol.timeout_keep_alive_task is not None
        client_socket.send(REQUEST)
        await receive_from(client_socket)
        protocol.timeout_keep_alive_handler()
        assert not protocol.transport.is_closing()
        protocol.timeout_keep_alive_handler()
        assert protocol.transport.is_closing()


async def test_a_refused_request_stops_the_head_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cashier.web.connection.HEAD_TIMEOUT_S", 0.05)
    async with connected(RecordingLadder(ABOVE_HIGHEST)) as (_, client_socket):
        client_socket.send(REQUEST)
        await receive_from(client_socket)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client_socket, 1), 0.15)


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
    plain = parse_plain_request(for_product(product))
    assert plain is not None
    assert plain_request_priority(plain, never_verified) == priority


@pytest.mark.parametrize(
    ("value", "priority"),
    [(b"critical", CRITICAL), (b"High", HIGH), (b"normal", NORMAL), (b"low", LOW), (b"now!", NORMAL), (b"", NORMAL)],
)
def test_x_priority_sets_the_priority_and_an_unknown_value_is_ignored(value: bytes, priority: int) -> None:
    plain = parse_plain_request(with_header(b"x-priority: \t" + value + b" "))
    assert plain is not None
    assert plain_request_priority(plain, always_verified) == priority


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


@pytest.mark.parametrize(
    "data",
    [
        REQUEST[:-1],
        REQUEST + b" ",
        REQUEST * 2,
        REQUEST[:40],
        REQUEST.replace(b"POST", b"PUT"),
        REQUEST.replace(b"HTTP/1.1", b"HTTP/1.0"),
        REQUEST.replace(b"/v1/consult", b"/v1/consult?x=1"),
        REQUEST.replace(b"Content-Length: ", b"Content-Length: +"),
        REQUEST.replace(b"\r\nContent-Length", b"\nContent-Length"),
        with_header(b"Transfer-Encoding: chunked"),
        with_header(b"Content-Length: 5"),
        REQUEST.replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\n"),
        with_header(b"Expect: 100-continue"),
        with_header(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c"),
        with_header(b"Connection: Close"),
    ],
)
def test_an_unusual_request_is_not_plain(data: bytes) -> None:
    assert parse_plain_request(data) is None


class ParsedRequest:
    def __init__(self) -> None:
        self.body = b""
        self.messages = 0

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.messages += 1


_LINES = (
    b"Host: a",
    b"Content-Length: 2",
    b"content-length:1",
    b"Transfer-Encoding: chunked",
    b"Connection: keep-alive",
    b"X-Priority: high",
)
_BREAKS = (b"\r\n", b"\n", b"\r\n\r\n", b"\r\n ", b"{}", b"0\r\n\r\n", b"POST /v1/consult HTTP/1.1")
_PIECES = st.lists(st.sampled_from((*_LINES, *_BREAKS)), max_size=8)


@given(_PIECES, st.booleans())
def test_a_plain_request_is_one_complete_request_to_the_parser_too(pieces: list[bytes], with_head: bool) -> None:
    """Otherwise a proxy's clients could be confused (request smuggling)."""
    data = LINE + (b"\r\nA: b\r\n".join(pieces) + b"\r\nContent-Length: 2\r\n\r\n{}" if with_head else b"".join(pieces))
    plain = parse_plain_request(data)
    if plain is None:
        return
    parsed = ParsedRequest()
    try:
        httptools.HttpRequestParser(parsed).feed_data(data)
    except httptools.HttpParserError:
        return  # a malformed request is refused either way
    assert parsed.messages == 1
    assert parsed.body == data[plain.body :]


def test_a_refusal_does_not_repeat_an_invalid_request_id() -> None:
    plain = parse_plain_request(with_header(b"X-Request-Id: a b"))
    assert plain is not None
    assert b"a b" not in encode_refusal(plain, AllowedOrigins({}))

"""One connection in virtual time: its deadlines, its bounds, and the order of its answers."""

from __future__ import annotations

import asyncio
import gc
import json

import pytest

from cashier.consultation.answer import OrderUnknown, RequiredSourceUnavailable
from cashier.web.connection import (
    DISCARD_BYTES,
    DISCARD_S,
    HEAD_TIMEOUT_S,
    READ_AHEAD_BYTES,
    WRITE_STALL_BYTES,
    WRITE_STALL_S,
)
from cashier.web.request_parser import HEAD_LIMIT_BYTES
from tests.web.fake_payments import BODY as SUBMIT_BODY
from tests.web.fake_payments import PAYMENT_PATH, TOKEN, FakePayments
from tests.web.fake_service import BODY, SOURCES, FakeService
from tests.web.server_process import GET, consult_request
from tests.web.virtual_client import HIGH_WATER_BYTES, VirtualClient, VirtualServer, in_bytes, without_random

pytestmark = pytest.mark.looptime

REQUEST = consult_request()
STREAM = REQUEST.replace(b"Host", b"Accept: text/event-stream\r\nHost")
CHUNKED = b"POST /v1/consult HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n"
SUBMIT = (
    b"POST /v1/payments HTTP/1.1\r\nHost: shop\r\nContent-Type: application/json\r\nIdempotency-Key: k-1\r\n"
    b"Content-Length: %d\r\n\r\n" % len(SUBMIT_BODY) + SUBMIT_BODY
)
LOOK = f"GET {PAYMENT_PATH}?wait_ms=30000 HTTP/1.1\r\nHost: shop\r\nX-Payment-Token: {TOKEN}\r\n\r\n".encode()
KEEP_ALIVE_S = 75


def blocked_server() -> VirtualServer:
    """A server whose consultations and payments are answered once `open` is set."""
    payments = FakePayments()
    payments.open.clear()
    service = FakeService(payments)
    service.open.clear()
    return VirtualServer(service)


async def seconds_until_closed(client: VirtualClient) -> float:
    loop = asyncio.get_running_loop()
    began = loop.time()
    while not client.is_closed:
        await asyncio.sleep(0.05)
        assert loop.time() - began < 1000, "held for ever"
    return loop.time() - began


# Time


@pytest.mark.parametrize("blank", [b"", b"\r\n", b"\r\n\r", b"\r"])
@pytest.mark.parametrize(("before", "bound_s"), [(b"", HEAD_TIMEOUT_S), (REQUEST, KEEP_ALIVE_S)])
async def test_only_a_message_that_begins_ends_the_wait_for_one(blank: bytes, before: bytes, bound_s: float) -> None:
    client = VirtualServer().connect()
    await client.send(before) if before else None
    await asyncio.sleep(1)
    await client.send(blank) if blank else None
    assert await seconds_until_closed(client) == pytest.approx(bound_s - 1, abs=0.2)
    assert client.statuses == ([200] if before else [])


@pytest.mark.parametrize("before", [b"", REQUEST])
async def test_a_head_has_a_time_limit_however_slowly_it_comes(before: bytes) -> None:
    client = VirtualServer().connect()
    await client.send(before) if before else None
    began = asyncio.get_running_loop().time()
    for byte in in_bytes(REQUEST):
        await client.send(byte)
        await asyncio.sleep(0.5)
        if client.is_closed:
            break
    assert asyncio.get_running_loop().time() - began == pytest.approx(HEAD_TIMEOUT_S, abs=1)


@pytest.mark.parametrize("before", [b"", REQUEST, GET % b"/healthz"])
@pytest.mark.parametrize("slow", [REQUEST[:-5], CHUNKED + b"5\r\nhel", CHUNKED + b"0\r\nX-A: b\r\n"])
async def test_a_slow_body_gets_408_after_the_answers_before_it(before: bytes, slow: bytes) -> None:
    client = VirtualServer().connect()
    await client.send(before + slow)
    assert await seconds_until_closed(client) == pytest.approx(10, abs=0.2)
    assert client.statuses == [200, 408][not before :]
    assert b"BODY_TIMEOUT" in client.received
    assert client.received.lower().count(b"connection: close") == 1


async def test_the_time_of_a_body_begins_after_the_answer_before_it() -> None:
    server = blocked_server()
    client = server.connect()
    await client.send(REQUEST + REQUEST[:-5])
    await asyncio.sleep(60)
    server.service.open.set()
    await client.settle()
    assert client.statuses == [200]
    await client.send(REQUEST[-5:])
    assert client.statuses == [200, 200]


@pytest.mark.parametrize(("unread_bytes", "closes"), [(3 * HIGH_WATER_BYTES, False), (100, True), (100, False)])
async def test_a_client_that_never_reads_is_dropped(unread_bytes: int, closes: bool) -> None:
    request = REQUEST.replace(b"Host", b"Connection: close\r\nHost") if closes else REQUEST
    client = VirtualServer().connect()
    client.transport.is_read = False
    while len(client.transport.sent) < unread_bytes and client.transport.reading:
        await client.send(request)
    began = asyncio.get_running_loop().time()
    while not client.transport.aborted:  # noqa: ASYNC110 - in virtual time
        await asyncio.sleep(1)
    bound_s = WRITE_STALL_S if closes or unread_bytes > HIGH_WATER_BYTES else KEEP_ALIVE_S + WRITE_STALL_S
    assert asyncio.get_running_loop().time() - began == pytest.approx(bound_s, abs=2)


async def test_a_slow_reader_that_makes_progress_is_served() -> None:
    client = VirtualServer().connect()
    client.transport.is_read = False
    await client.send(REQUEST * 10)
    while client.transport.sent:
        await asyncio.sleep(WRITE_STALL_S - 1)
        client.transport.read(2 * WRITE_STALL_BYTES)
        await client.settle()
    assert client.statuses == [200] * 10
    assert not client.transport.aborted


async def test_the_rest_of_an_answered_body_is_discarded_for_a_limited_time() -> None:
    client = VirtualServer().connect()
    head = b"POST /v1/consult HTTP/1.1\r\nHost: shop\r\nContent-Length: 10000000\r\n\r\n"
    await client.send(head + b"x" * 5_000_000)
    assert client.statuses == [413]
    await client.send(b"x" * 5_000_000 + REQUEST)
    assert client.statuses == [413, 200]
    await client.send(head)
    assert await seconds_until_closed(client) == pytest.approx(DISCARD_S, abs=0.2)


async def test_input_after_an_error_is_discarded_within_bounds() -> None:
    client = VirtualServer().connect()
    await client.send(b"\x00")
    assert client.statuses == [400]
    assert client.transport.eof_written
    assert not client.transport.closing, "a close would reset the connection before the answer is read"
    await client.send(*[b"x" * 65_536] * (DISCARD_BYTES // 65_536 + 1))
    assert client.transport.aborted
    other = VirtualServer().connect()
    await other.send(b"\x00")
    await asyncio.sleep(DISCARD_S + 0.1)
    assert other.transport.aborted


# Bounds


async def test_pipelined_requests_wait_in_the_kernel() -> None:
    server = blocked_server()
    client = server.connect()
    await client.send(LOOK)
    sent = 0
    while client.transport.reading:
        await client.send(REQUEST)
        sent += 1
    assert sent * len(REQUEST) <= READ_AHEAD_BYTES + len(REQUEST)
    assert len(server.state.tasks) == 1
    server.service.payments.open.set()  # type: ignore[union-attr] # a FakePayments
    server.service.open.set()
    for _ in range(sent):
        await client.settle()
    assert client.statuses == [202] + [200] * sent
    assert client.transport.reading


async def test_no_request_starts_while_its_client_does_not_read() -> None:
    server = VirtualServer()
    client = server.connect()
    client.transport.is_read = False
    await client.send(REQUEST * 1000)
    assert len(client.transport.sent) < HIGH_WATER_BYTES + 40_000
    started = len(server.service.calls)
    assert started < 10
    client.transport.is_read = True
    client.transport.read(1 << 20)
    for _ in range(100):
        await client.settle()
    assert len(server.service.calls) == 1000


@pytest.mark.parametrize(
    "flood",
    [
        (b"", b"\r\n"),
        (b"", b"G"),
        (b"GET / HTTP/1.1\r\n", b"X-A: y\r\n"),
        (CHUNKED, b"1;" + b"e" * 99 + b"\r\nx\r\n"),
        (CHUNKED + b"0\r\n", b"X-A: y\r\n"),
        (CHUNKED + b"0\r\n", b"X"),
    ],
)
async def test_everything_but_the_body_counts_against_the_limit(flood: tuple[bytes, bytes]) -> None:
    begin, piece = flood
    client = VirtualServer().connect()
    await client.send(REQUEST)
    await client.send(begin) if begin else None
    sent = len(begin)
    many = piece * (997 // len(piece))
    while not client.is_closed:
        await client.send(many)
        sent += len(many)
    assert client.statuses == [200, 431]
    assert HEAD_LIMIT_BYTES < sent <= HEAD_LIMIT_BYTES + 2000


async def test_at_the_connection_limit_the_longest_idle_one_is_closed() -> None:
    server = VirtualServer(blocked_server().service, max_connections=3)
    busy, first, second = server.connect(), server.connect(), server.connect()
    await busy.send(REQUEST)
    await first.send(GET % b"/healthz")
    await second.send(GET % b"/healthz")
    await first.send(GET % b"/healthz")
    third = server.connect()
    await third.send(GET % b"/healthz")
    assert second.is_closed
    assert [client.is_closed for client in (busy, first)] == [False, False]
    assert third.statuses == [200]
    for client in (first, third):
        await client.send(REQUEST[:10])
    refused = server.connect()
    assert refused.statuses == [503]
    assert refused.is_closed
    assert len(server.state.connections) == 3
    in_use = (busy, first, third)
    assert not any(client.is_closed for client in in_use), "a connection in use is never closed for it"


@pytest.mark.parametrize("before", [b"", GET % b"/healthz"])
@pytest.mark.parametrize("blank", [b"", b"\r", b"\r\n", b"\r\n\r"])
async def test_a_connection_that_is_closed_for_another_holds_nothing(before: bytes, blank: bytes) -> None:
    server = VirtualServer(max_connections=1)
    idle = server.connect()
    for data in (before, blank):
        await idle.send(data) if data else None
    server.connect()
    assert idle.transport.closing, "else blank bytes keep the sockets of any number of connections beyond the limit"


# The end


@pytest.mark.parametrize(
    ("data", "statuses"),
    [
        (REQUEST, [200]),
        (SUBMIT, [202]),
        (GET % b"/healthz", [200]),
        (REQUEST * 3, [200, 200, 200]),
        (REQUEST + SUBMIT[:40], [200]),
    ],
)
async def test_a_half_closed_connection_gets_its_answers(data: bytes, statuses: list[int]) -> None:
    client = VirtualServer().connect()
    client.connection.data_received(data)
    await client.end()
    assert client.statuses == statuses
    assert client.is_closed


@pytest.mark.parametrize("data", [b"", REQUEST[:40], REQUEST[:-1], CHUNKED + b"5\r\nhel", CHUNKED + b"0\r\n"])
async def test_a_request_that_ends_early_gets_no_answer(data: bytes) -> None:
    server = VirtualServer()
    client = server.connect()
    await client.send(data) if data else None
    await client.end()
    assert client.transport.closing
    assert client.received == b""
    assert server.service.calls == []


async def test_work_for_a_client_that_has_gone_ends() -> None:
    server = blocked_server()
    client = server.connect()
    await client.send(REQUEST + REQUEST * 5)
    client.reset()
    await asyncio.wait_for(server.service.cancelled.wait(), 5)
    await client.settle()
    assert len(server.service.calls) == 1
    assert [*server.state.tasks, *server.state.connections, *server.state.idle] == []


async def test_a_half_closed_client_gets_few_interim_responses_during_a_long_wait() -> None:
    server = blocked_server()
    client = server.connect()
    await client.send(LOOK)
    await client.end()
    await asyncio.sleep(25)
    assert client.received == b"HTTP/1.1 100 Continue\r\n\r\n" * 4
    server.service.payments.open.set()  # type: ignore[union-attr]
    await client.settle()
    assert client.statuses == [202]
    assert client.is_closed


async def test_an_http_1_0_client_gets_no_interim_response_and_no_chunks() -> None:
    server = blocked_server()
    client = server.connect()
    expecting = REQUEST.replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"Host", b"Expect: 100-continue\r\nHost")
    await client.send(expecting)
    await client.end()
    await asyncio.sleep(5)
    assert client.received == b""
    server.service.open.set()
    await client.settle()
    stream = VirtualServer().connect()
    await stream.send(expecting.replace(b"Host", b"Accept: text/event-stream\r\nHost"))
    assert client.statuses == stream.statuses == [200]
    assert client.is_closed
    assert stream.is_closed
    assert b"chunked" not in stream.received
    assert stream.received.endswith(b"\n\n")


async def test_during_a_stop_only_the_last_pipelined_response_closes_the_connection() -> None:
    server = VirtualServer()
    client = server.connect()
    server.state.draining = True
    received = await client.send(REQUEST * 3)
    assert client.statuses == [200] * 3
    assert received.count(b"connection: close") == 1
    assert client.is_closed


@pytest.mark.parametrize("first", [REQUEST, STREAM, GET % b"/livez", GET % b"/unknown"])
@pytest.mark.parametrize("nth_write", range(4))
async def test_a_stop_that_begins_during_a_response_still_answers_the_next_request(
    first: bytes, nth_write: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal is handled between any two steps, also within a response."""
    server = VirtualServer()
    client = server.connect()
    write, writes = client.transport.write, 0

    def interrupted_write(data: bytes) -> None:
        nonlocal writes
        write(data)
        server.state.draining |= writes == nth_write
        writes += 1

    monkeypatch.setattr(client.transport, "write", interrupted_write)
    await client.send(first)
    while b"connection: close" not in client.received:
        assert not client.is_closed, "the client was not told"
        await client.send(REQUEST)
    assert client.is_closed
    assert len(client.statuses) <= nth_write + 2


async def test_a_stop_ends_a_connection_after_its_response_or_without_one_soon() -> None:
    server = blocked_server()
    busy, idle = server.connect(), server.connect()
    await busy.send(REQUEST)
    server.state.draining = True
    for connection in list(server.state.connections):
        connection.shutdown()
    assert await seconds_until_closed(idle) < 1
    assert not busy.is_closed
    server.service.open.set()
    await busy.settle()
    assert busy.received.count(b"connection: close") == 1
    assert busy.is_closed


# Answers


@pytest.mark.parametrize(
    "broken",
    [
        b"\x00",
        b"GET / HTTP/1.1\r\n\r\n",
        CHUNKED + b"ZZ\r\n",
        CHUNKED.replace(b"consult", b"payments") + b"ZZ\r\n",
        CHUNKED + b"5\r\nhello!\r\n",
        CHUNKED + b"0\r\nno trailer\r\n",
    ],
)
@pytest.mark.parametrize("before", [SUBMIT, REQUEST, LOOK])
async def test_an_error_behind_a_request_leaves_its_answer_whole(broken: bytes, before: bytes) -> None:
    server = blocked_server()
    client = server.connect()
    assert await client.send(before + broken) == b""
    server.service.payments.open.set()  # type: ignore[union-attr]
    server.service.open.set()
    await client.settle()
    alone = await VirtualServer().connect().send(before)
    assert without_random(client.received).startswith(without_random(alone))
    assert client.statuses[1:] == [400]
    assert client.is_closed


async def test_no_bytes_enter_a_running_stream() -> None:
    server = blocked_server()
    client = server.connect()
    events = LOOK.replace(b"?wait_ms=30000", b"/events")
    await client.send(events + b"\x00garbage")
    await asyncio.sleep(1)
    assert b" 400 " not in client.received
    client.reset()
    await client.settle()


@pytest.mark.parametrize("place", [b"0\r\nX-Request-Id: trailer\r\n\r\n", b"0\r\nX-Request-Timeout-Ms: x\r\n\r\n"])
async def test_trailers_are_never_headers(place: bytes) -> None:
    chunks = b"%x\r\n%b\r\n" % (len(BODY), BODY) + place
    for data in ([CHUNKED + chunks], [CHUNKED, chunks], list(in_bytes(CHUNKED + chunks))):
        client = VirtualServer().connect()
        await client.send(*data)
        assert client.statuses == [200]
        assert b"trailer" not in client.received


async def test_100_continue_is_sent_when_the_application_reads_the_body() -> None:
    expecting = REQUEST.replace(b"Host", b"Expect: 100-continue\r\nHost")
    client = VirtualServer().connect()
    await client.send(expecting[: -len(BODY)])
    assert client.received == b"HTTP/1.1 100 Continue\r\n\r\n"
    await client.send(BODY)
    assert client.statuses == [200]
    refused = VirtualServer().connect()
    await refused.send(expecting.replace(b"application/json", b"text/plain"))
    assert b"100 Continue" not in refused.received
    assert refused.statuses == [415]


@pytest.mark.parametrize(
    "raises", [None, OrderUnknown("o_1001"), RequiredSourceUnavailable(SOURCES, ("order",)), KeyError()]
)
@pytest.mark.parametrize(
    "change",
    [
        (b"", b""),
        (b'"APP"', b'"FAX"'),
        (b"application/json", b"text/plain"),
        (b"Host", b"X-Request-Timeout-Ms: soon\r\nHost"),
        (b"Host", b"X-Request-Id: r-1\r\nHost"),
        (b"Host", b"Content-Encoding: gzip\r\nHost"),
    ],
)
async def test_consultations_are_answered_as_over_asgi(raises: Exception | None, change: tuple[bytes, bytes]) -> None:
    request = REQUEST.replace(*change) if change[0] else REQUEST
    direct, over_asgi = FakeService(), FakeService()
    direct.raises = over_asgi.raises = raises
    answers = [
        await VirtualServer(direct).connect().send(request),
        # A query, which means nothing here, takes the way through the application.
        await VirtualServer(over_asgi).connect().send(request.replace(b"consult ", b"consult?x ")),
    ]
    assert answers[0].startswith(b"HTTP/1.1 ")
    assert without_random(answers[0]) == without_random(answers[1])


async def test_a_bug_in_the_application_is_answered_and_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    server = VirtualServer()

    async def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(type(server.config.loaded_app), "__call__", broken)
    client = server.connect()
    received = await client.send(GET % b"/healthz")
    assert client.statuses == [500]
    assert json.loads(received.partition(b"\r\n\r\n")[2])["code"] == "INTERNAL"
    assert client.is_closed


@pytest.mark.parametrize(
    "data",
    [
        REQUEST * 5,
        (GET % b"/healthz") * 5,
        SUBMIT,
        CHUNKED + b"ZZ\r\n",
        REQUEST[:-5],
        b"\x00",
        STREAM,
    ],
)
async def test_a_connection_leaves_no_reference_cycles(data: bytes) -> None:
    """The server collects garbage rarely, so what one client leaves there would pile up."""

    async def session(server: VirtualServer) -> None:
        client = server.connect()
        await client.send(data)
        client.reset()
        await client.settle()
        # The test's own transport and client refer to each other.
        del client.transport.protocol

    server = VirtualServer()
    await session(server)
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            await session(server)
        assert gc.collect() == 0
    finally:
        gc.enable()

"""The fast path gives the same responses and the same connection behaviour as the parser."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st
from uvicorn import Config
from uvicorn.lifespan.off import LifespanOff

from cashier.consultation.flow import OrderUnknown, RequiredSourceUnavailable
from cashier.web import app
from cashier.web.connection import ClientConnection, StoppableState
from cashier.web.fast_path import FastPath
from cashier.web.fast_path_parser import parse_plain_request
from tests.web.fake_service import BODY, SOURCES, FakeService
from tests.web.server_process import consult_request

LINE = b"POST /v1/consult HTTP/1.1\r\n"


@asynccontextmanager
async def connected(service: FakeService) -> AsyncIterator[tuple[ClientConnection, socket.socket]]:
    """The connection's protocol on the server side, and the client's raw socket."""
    config = Config(
        app(service),
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
    state = StoppableState()
    state.default_headers = [(b"date", b"Mon, 04 May 2026 10:00:00 GMT")]
    _, protocol = await loop.connect_accepted_socket(
        lambda: ClientConnection(config, state, LifespanOff(config).state, loop), server_socket
    )
    try:
        yield protocol, client_socket
    finally:
        protocol.transport.abort()
        client_socket.close()
        await asyncio.sleep(0)


class ResponseReader:
    """Reads the responses on a socket one by one, however they are split."""

    def __init__(self, client_socket: socket.socket) -> None:
        self._client_socket = client_socket
        self._buffer = b""

    async def next(self) -> bytes:
        """One complete response; empty if the connection has ended."""
        while True:
            head, end, _ = self._buffer.partition(b"\r\n\r\n")
            if end:
                length = re.search(rb"content-length: (\d+)", head)
                assert length is not None, head
                size = len(head) + len(end) + int(length[1])
                if len(self._buffer) >= size:
                    answer, self._buffer = self._buffer[:size], self._buffer[size:]
                    return answer
            piece = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self._client_socket, 65_536), 30)
            if not piece:
                assert not self._buffer
                return b""
            self._buffer += piece


def with_headers(*lines: bytes, body: bytes = BODY) -> bytes:
    head = b"".join(line + b"\r\n" for line in (b"Host: shop", b"X-Request-Id: r-1", *lines))
    return LINE + head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def without_times(answer: bytes) -> bytes:
    return re.sub(rb"total;dur=[0-9.]+", b"total;dur=0", answer)


def takes_fast_path(protocol: ClientConnection) -> bool:
    cycle: object = protocol.cycle
    return isinstance(cycle, FastPath)


JSON = b"Content-Type: application/json"


@pytest.mark.parametrize(
    ("request_", "raises"),
    [
        (with_headers(JSON), None),
        (
            with_headers(
                JSON, b"X-Request-Timeout-Ms: 70", b"traceparent: 00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"
            ),
            None,
        ),
        (with_headers(b"content-type:application/json\t", b"Accept: text/html,  */*"), None),
        (with_headers(JSON, b"X-Request-Id: r-2"), None),
        (with_headers(JSON, body=BODY.replace(b"APP", b"FAX")), None),
        (with_headers(JSON, body=b"{"), None),
        (with_headers(JSON, body=b""), None),
        (with_headers(JSON, body=BODY + b" " * 65_536), None),
        (with_headers(b"Content-Type: text/plain"), None),
        (with_headers(JSON, b"Content-Encoding: gzip"), None),
        (with_headers(JSON, b"X-Request-Timeout-Ms: soon"), None),
        (with_headers(JSON), OrderUnknown("o_1001")),
        (with_headers(JSON), RequiredSourceUnavailable(SOURCES, ("order",))),
        (with_headers(JSON), ZeroDivisionError()),
    ],
)
async def test_the_fast_path_and_the_parser_give_the_same_response(request_: bytes, raises: Exception | None) -> None:
    service = FakeService()
    service.raises = raises
    async with connected(service) as (protocol, client_socket):
        responses = ResponseReader(client_socket)
        protocol.data_received(request_)
        assert takes_fast_path(protocol)
        at_once = await responses.next()
        protocol.data_received(request_[:-1])
        protocol.data_received(request_[-1:])
        assert not takes_fast_path(protocol)
        in_pieces = await responses.next()
    assert at_once.startswith(b"HTTP/1.1 ")
    assert without_times(at_once) == without_times(in_pieces)


@pytest.mark.parametrize(
    "line",
    [
        b"Accept: text/event-stream",
        b"no colon",
        b" folded: x",
        b"a b: c",
        b": nameless",
        b"x: \x00",
        b"x: a\rb",
        b"Connection: close",
    ],
)
async def test_a_stream_or_an_unusual_request_goes_to_the_parser(line: bytes) -> None:
    async with connected(FakeService()) as (protocol, _):
        protocol.data_received(with_headers(JSON, line))
        assert not takes_fast_path(protocol)


def blocked_service() -> FakeService:
    """A service that answers once `open` is set."""
    service = FakeService()
    service.open.clear()
    return service


async def test_a_pipelined_request_is_answered_after_the_fast_path() -> None:
    service = blocked_service()
    async with connected(service) as (protocol, client_socket):
        responses = ResponseReader(client_socket)
        protocol.data_received(with_headers(JSON))
        protocol.data_received(with_headers(JSON).replace(b"r-1", b"r-2"))
        service.open.set()
        assert b"x-request-id: r-1" in await responses.next()
        assert b"x-request-id: r-2" in await responses.next()
        protocol.data_received(with_headers(JSON).replace(b"r-1", b"r-3"))
        assert takes_fast_path(protocol)
        assert b"x-request-id: r-3" in await responses.next()


async def test_a_stop_during_the_fast_path_closes_the_connection_after_the_response() -> None:
    service = blocked_service()
    async with connected(service) as (protocol, client_socket):
        responses = ResponseReader(client_socket)
        protocol.data_received(with_headers(JSON))
        await asyncio.sleep(0)
        protocol.server_state.draining = True
        protocol.shutdown()
        service.open.set()
        answer = await responses.next()
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.count(b"connection: close") == 1
        assert await responses.next() == b""


async def test_a_disconnect_on_the_fast_path_cancels_the_consultation() -> None:
    service = blocked_service()
    async with connected(service) as (protocol, client_socket):
        protocol.data_received(with_headers(JSON))
        tasks = set(protocol.tasks)
        client_socket.close()
        await asyncio.wait_for(asyncio.gather(*tasks), 30)
        assert service.cancelled.is_set()


async def test_a_client_that_does_not_read_leaves_the_fast_path() -> None:
    async with connected(FakeService()) as (protocol, client_socket):
        responses = ResponseReader(client_socket)
        protocol.flow.pause_writing()
        protocol.data_received(consult_request())
        assert not takes_fast_path(protocol)
        protocol.flow.resume_writing()
        assert (await responses.next()).startswith(b"HTTP/1.1 200 ")


class ParsedRequest:
    def __init__(self) -> None:
        self.headers: dict[bytes, bytes] = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value


@given(
    st.lists(
        st.tuples(st.sampled_from((b"Accept", b"X-A", b"x-a", b"Authorization", b"X Y", b"")), st.binary(max_size=8)),
        max_size=5,
    )
)
def test_the_headers_equal_those_of_a_parser(fields: list[tuple[bytes, bytes]]) -> None:
    data = with_headers(*(name + b":" + value for name, value in fields))
    plain = parse_plain_request(data)
    headers = None if plain is None else plain.headers()
    if headers is None:
        return
    parsed = ParsedRequest()
    httptools.HttpRequestParser(parsed).feed_data(data)
    assert headers == {name: value.strip(b" \t") for name, value in parsed.headers.items()}

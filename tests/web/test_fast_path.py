"""A request that comes in one piece is answered by a shorter way: with the same answer, and on a connection that behaves the same."""

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
from cashier.web.plain_request import parse_plain_request
from tests.web.offers import BODY, SOURCES, FakeEngine
from tests.web.process import asking

LINE = b"POST /v1/consult HTTP/1.1\r\n"


@asynccontextmanager
async def connected(engine: FakeEngine) -> AsyncIterator[tuple[ClientConnection, socket.socket]]:
    """The server's side as an object, the client's as a socket that nobody reads for us."""
    config = Config(
        app(engine),
        ws="none",
        interface="asgi3",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
    )
    config.load()
    ours, theirs = socket.socketpair()
    loop = asyncio.get_running_loop()
    ours.setblocking(False)
    theirs.setblocking(False)
    state = StoppableState()
    state.default_headers = [(b"date", b"Mon, 04 May 2026 10:00:00 GMT")]
    _, made = await loop.connect_accepted_socket(
        lambda: ClientConnection(config, state, LifespanOff(config).state, loop), ours
    )
    try:
        yield made, theirs
    finally:
        made.transport.abort()
        theirs.close()
        await asyncio.sleep(0)


class Answers:
    """The answers on a socket, one after the other, however they come."""

    def __init__(self, theirs: socket.socket) -> None:
        self._theirs = theirs
        self._come = b""

    async def next(self) -> bytes:
        """A whole one; nothing, where the connection has ended."""
        while True:
            head, end, _ = self._come.partition(b"\r\n\r\n")
            if end:
                length = re.search(rb"content-length: (\d+)", head)
                assert length is not None, head
                size = len(head) + len(end) + int(length[1])
                if len(self._come) >= size:
                    answer, self._come = self._come[:size], self._come[size:]
                    return answer
            piece = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self._theirs, 65_536), 30)
            if not piece:
                assert not self._come
                return b""
            self._come += piece


def with_headers(*lines: bytes, body: bytes = BODY) -> bytes:
    head = b"".join(line + b"\r\n" for line in (b"Host: shop", b"X-Request-Id: r-1", *lines))
    return LINE + head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def without_times(answer: bytes) -> bytes:
    return re.sub(rb"total;dur=[0-9.]+", b"total;dur=0", answer)


def taken_whole(ours: ClientConnection) -> bool:
    cycle: object = ours.cycle
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
async def test_in_one_piece_or_in_two_the_answer_is_the_same(request_: bytes, raises: Exception | None) -> None:
    engine = FakeEngine()
    engine.raises = raises
    async with connected(engine) as (ours, theirs):
        answers = Answers(theirs)
        ours.data_received(request_)
        assert taken_whole(ours)
        at_once = await answers.next()
        ours.data_received(request_[:-1])
        ours.data_received(request_[-1:])
        assert not taken_whole(ours)
        in_pieces = await answers.next()
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
async def test_what_is_a_stream_or_no_plain_request_is_left_to_the_parser(line: bytes) -> None:
    async with connected(FakeEngine()) as (ours, _):
        ours.data_received(with_headers(JSON, line))
        assert not taken_whole(ours)


def busy() -> FakeEngine:
    """Answers when `open` is set."""
    engine = FakeEngine()
    engine.open.clear()
    return engine


async def test_a_request_that_comes_meanwhile_is_answered_after_it() -> None:
    engine = busy()
    async with connected(engine) as (ours, theirs):
        answers = Answers(theirs)
        ours.data_received(with_headers(JSON))
        ours.data_received(with_headers(JSON).replace(b"r-1", b"r-2"))
        engine.open.set()
        assert b"x-request-id: r-1" in await answers.next()
        assert b"x-request-id: r-2" in await answers.next()
        ours.data_received(with_headers(JSON).replace(b"r-1", b"r-3"))
        assert taken_whole(ours)
        assert b"x-request-id: r-3" in await answers.next()


async def test_when_the_server_stops_meanwhile_it_is_answered_and_is_the_last() -> None:
    engine = busy()
    async with connected(engine) as (ours, theirs):
        answers = Answers(theirs)
        ours.data_received(with_headers(JSON))
        await asyncio.sleep(0)
        ours.server_state.draining = True
        ours.shutdown()
        engine.open.set()
        answer = await answers.next()
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.count(b"connection: close") == 1
        assert await answers.next() == b""


async def test_a_client_that_goes_away_ends_the_consultation() -> None:
    engine = busy()
    async with connected(engine) as (ours, theirs):
        ours.data_received(with_headers(JSON))
        tasks = set(ours.tasks)
        theirs.close()
        await asyncio.wait_for(asyncio.gather(*tasks), 30)
        assert engine.cancelled.is_set()


async def test_who_does_not_read_holds_up_only_his_own_answers() -> None:
    async with connected(FakeEngine()) as (ours, theirs):
        answers = Answers(theirs)
        ours.flow.pause_writing()
        ours.data_received(asking())
        assert not taken_whole(ours)
        ours.flow.resume_writing()
        assert (await answers.next()).startswith(b"HTTP/1.1 200 ")


class Parsed:
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
def test_its_headers_are_those_that_a_parser_finds(fields: list[tuple[bytes, bytes]]) -> None:
    data = with_headers(*(name + b":" + value for name, value in fields))
    found = parse_plain_request(data)
    headers = None if found is None else found.headers()
    if headers is None:
        return
    parsed = Parsed()
    httptools.HttpRequestParser(parsed).feed_data(data)
    assert headers == {name: value.strip(b" \t") for name, value in parsed.headers.items()}

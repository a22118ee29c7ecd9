"""Who is refused while there is too much to do, and that it is done before anything is read and without hurting anybody else."""

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
from cashier.web.connection import ClientConnection, StoppableState
from cashier.web.overload_response import (
    CRITICAL,
    HIGH,
    LOW,
    NORMAL,
    encode_refusal,
    plain_request_priority,
    resolve_priority,
)
from cashier.web.plain_request import parse_plain_request
from tests.web.calling import JSON, call
from tests.web.offers import BODY, FakeEngine
from tests.web.process import GET, asking
from tests.web.test_auth import BY_SECRET, NOW_S, bearer

LINE = b"POST /v1/consult HTTP/1.1\r\n"
REQUEST = asking()
NOBODY = HIGHEST + 1


class Picky(DegradationLadder):
    """Refuses whoever matters less than `least`, and remembers whom it was asked about."""

    def __init__(self, least: int) -> None:
        super().__init__()
        self.refusing = True
        self.least = least
        self.asked: list[int] = []

    def admits(self, resolve_priority: int, now_ns: int) -> bool:
        self.asked.append(resolve_priority)
        return resolve_priority >= self.least


@asynccontextmanager
async def connected(
    ladder: DegradationLadder, engine: FakeEngine | None = None
) -> AsyncIterator[tuple[ClientConnection, socket.socket]]:
    """The server's side as an object, the client's as a socket that nobody reads for us."""
    door = app(engine or FakeEngine(), ladder=ladder)
    config = Config(
        door, ws="none", interface="asgi3", lifespan="off", log_config=None, access_log=False, proxy_headers=False
    )
    config.load()
    ours, theirs = socket.socketpair()
    loop = asyncio.get_running_loop()
    ours.setblocking(False)
    theirs.setblocking(False)
    _, made = await loop.connect_accepted_socket(
        lambda: ClientConnection(config, StoppableState(), LifespanOff(config).state, loop), ours
    )
    assert made._application is door
    try:
        yield made, theirs
    finally:
        made.transport.abort()
        theirs.close()
        await asyncio.sleep(0)


async def said_to(theirs: socket.socket) -> bytes:
    return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(theirs, 65_536), 30)


def with_header(line: bytes, body: bytes = BODY) -> bytes:
    return LINE + b"Host: shop\r\n" + line + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def for_product(product: bytes) -> bytes:
    return with_header(b"Accept: */*", BODY.replace(b"STANDARD_CASHIER", product))


def everybody(_: bytes) -> bool:
    return True


def no_one(_: bytes) -> bool:
    return False


async def test_a_refusal_is_a_problem_that_says_when_to_come_again() -> None:
    engine = FakeEngine()
    async with connected(Picky(NOBODY), engine) as (_, theirs):
        theirs.send(with_header(b"X-Request-Id: till-7"))
        head, _, body = (await said_to(theirs)).partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        headers = dict(line.split(": ") for line in lines)
        assert status == "HTTP/1.1 503 Service Unavailable"
        assert (headers["retry-after"], headers["x-request-id"]) == ("1", "till-7")
        assert headers["content-type"] == "application/problem+json"
        assert int(headers["content-length"]) == len(body)
        assert (json.loads(body)["code"], json.loads(body)["status"]) == ("OVERLOADED", 503)
    assert engine.asked == []


async def test_a_connection_outlives_its_refusals() -> None:
    ladder = Picky(NOBODY)
    async with connected(ladder) as (_, theirs):
        for _ in range(3):
            theirs.send(REQUEST)
            assert b"OVERLOADED" in await said_to(theirs)
        ladder.refusing = False
        theirs.send(REQUEST)
        assert (await said_to(theirs)).startswith(b"HTTP/1.1 200 ")
        ladder.refusing = True
        theirs.send(REQUEST)
        assert b"OVERLOADED" in await said_to(theirs)


async def test_whoever_is_let_in_is_asked_about_once_and_counted_when_answered() -> None:
    ladder = Picky(LOWEST)
    async with connected(ladder) as (_, theirs):
        theirs.send(REQUEST)
        assert (await said_to(theirs)).startswith(b"HTTP/1.1 200 ")
    assert ladder.asked == [NORMAL]
    assert ladder.answered == 1


async def test_who_was_let_in_on_a_connection_is_asked_about_again_with_the_next_request() -> None:
    ladder = Picky(LOWEST)
    async with connected(ladder) as (ours, theirs):
        theirs.send(REQUEST)
        await said_to(theirs)
        ladder.least = NOBODY
        ours.data_received(REQUEST[:100])  # in two pieces, so not refused unread
        theirs.send(REQUEST[100:])
        assert b"OVERLOADED" in await said_to(theirs)
    assert len(ladder.asked) == 2


async def test_requests_in_one_go_are_each_refused_in_their_order() -> None:
    ladder = Picky(NOBODY)
    async with connected(ladder) as (_, theirs):
        theirs.send(REQUEST * 2 + GET % b"/healthz")
        said = b""
        while b"HTTP/1.1 200 " not in said:
            said += await said_to(theirs)
        assert said.count(b'"OVERLOADED"') == 2
        assert said.rindex(b'"OVERLOADED"') < said.index(b"HTTP/1.1 200 ")
    assert len(ladder.asked) == 2


async def test_no_refusal_overtakes_an_answer_that_is_being_made() -> None:
    engine, ladder = FakeEngine(), Picky(NORMAL)
    engine.open.clear()
    async with connected(ladder, engine) as (ours, theirs):
        theirs.send(REQUEST)
        await asyncio.wait_for(engine.entered.wait(), 30)
        ladder.least = NOBODY
        ours.data_received(REQUEST)
        engine.open.set()
        said = b""
        while b'"OVERLOADED"' not in said:
            said += await said_to(theirs)
        assert said.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("path", [b"/healthz", b"/readyz", b"/openapi.json"])
async def test_only_consultations_are_refused(path: bytes) -> None:
    ladder = Picky(NOBODY)
    async with connected(ladder) as (_, theirs):
        theirs.send(GET % path)
        said = await said_to(theirs)
        assert said.startswith(b"HTTP/1.1 200 ")
        head, _, body = said.partition(b"\r\n\r\n")
        left = int(head.split(b"content-length: ")[1].split(b"\r\n")[0]) - len(body)
        while left > 0:
            left -= len(await said_to(theirs))
        theirs.send(REQUEST.replace(b"/v1/consult", b"/v1/payments"))
        assert b"OVERLOADED" not in await said_to(theirs)
    assert ladder.asked == []


async def test_a_connection_that_is_refused_is_not_quiet_and_one_that_says_nothing_more_is() -> None:
    async with connected(Picky(NOBODY)) as (ours, theirs):
        theirs.send(REQUEST)
        await said_to(theirs)
        assert ours.timeout_keep_alive_task is not None
        theirs.send(REQUEST)
        await said_to(theirs)
        ours.timeout_keep_alive_handler()
        assert not ours.transport.is_closing()
        ours.timeout_keep_alive_handler()
        assert ours.transport.is_closing()


async def test_a_refused_request_is_a_head_that_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cashier.web.connection.HEAD_TIMEOUT_S", 0.05)
    async with connected(Picky(NOBODY)) as (_, theirs):
        theirs.send(REQUEST)
        await said_to(theirs)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.get_running_loop().sock_recv(theirs, 1), 0.15)


async def test_a_door_without_our_connection_refuses_too_before_the_body_is_read() -> None:
    engine, ladder = FakeEngine(), Picky(HIGH)
    door = app(engine, ladder=ladder)
    refused = await call(door)
    assert refused.problem() == (503, "OVERLOADED")
    assert refused.headers["retry-after"] == "1"
    assert (await call(door, headers=JSON | {"X-Priority": "high"})).status == 200
    assert len(engine.asked) == 1
    assert ladder.asked == [NORMAL, HIGH]
    assert ladder.answered == 1


@pytest.mark.parametrize(
    ("product", "comes"), [(b"SCAN", HIGH), (b"STANDARD_CASHIER", NORMAL), (b"EMBEDDED_CASHIER", LOW)]
)
def test_a_payer_at_a_till_comes_before_a_page_and_a_page_before_a_part_of_one(product: bytes, comes: int) -> None:
    found = parse_plain_request(for_product(product))
    assert found is not None
    assert plain_request_priority(found, no_one) == comes


@pytest.mark.parametrize(
    ("word", "comes"),
    [(b"critical", CRITICAL), (b"High", HIGH), (b"normal", NORMAL), (b"low", LOW), (b"now!", NORMAL), (b"", NORMAL)],
)
def test_a_word_says_who_comes_first_and_an_unknown_word_says_nothing(word: bytes, comes: int) -> None:
    found = parse_plain_request(with_header(b"x-priority: \t" + word + b" "))
    assert found is not None
    assert plain_request_priority(found, everybody) == comes


def test_whoever_is_not_known_may_ask_for_less_but_not_for_more() -> None:
    assert resolve_priority(b"critical", None, NORMAL, no_one) == NORMAL
    assert resolve_priority(b"low", None, HIGH, no_one) == LOW


def test_a_bearer_is_known_from_the_first_time_its_token_was_verified_until_it_ends() -> None:
    doorkeeper = BearerAuth(BY_SECRET)
    token = bearer(exp=NOW_S + 60)
    assert not doorkeeper.is_verified(token, NOW_S)
    doorkeeper.admit(token, NOW_S)
    assert doorkeeper.is_verified(token, NOW_S)
    assert not doorkeeper.is_verified(token, NOW_S + 61)
    assert not doorkeeper.is_verified(b"", NOW_S)


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
def test_what_is_in_the_least_unusual_is_left_to_the_parser(data: bytes) -> None:
    assert parse_plain_request(data) is None


class Parsed:
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
def test_whatever_is_taken_for_one_whole_request_is_one_to_the_parser_too(pieces: list[bytes], whole: bool) -> None:
    """Otherwise who sits behind a proxy could be answered for a part of somebody else's request."""
    data = LINE + (b"\r\nA: b\r\n".join(pieces) + b"\r\nContent-Length: 2\r\n\r\n{}" if whole else b"".join(pieces))
    found = parse_plain_request(data)
    if found is None:
        return
    parsed = Parsed()
    try:
        httptools.HttpRequestParser(parsed).feed_data(data)
    except httptools.HttpParserError:
        return  # who sends this is refused either way
    assert parsed.messages == 1
    assert parsed.body == data[found.body :]


def test_a_bad_request_id_is_not_repeated() -> None:
    found = parse_plain_request(with_header(b"X-Request-Id: a b"))
    assert found is not None
    assert b"a b" not in encode_refusal(found)

"""Regular and hostile answers, and the outcome of each: one table for both clients.

Every row ends with one more request, which must get its own answer: on the same connection if the
row says that it is reused, else on a new one. Where aiohttp differs, the row says how and why.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass

import pytest

from cashier.source_errors import Garbled, SourceError, Unreachable
from cashier.wire.transport import Response
from tests.wire.client_side import OK, answer, send

from .conftest import BOUNDS, Wired

CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
HELLO = Response(200, b"hello")


@dataclass(frozen=True)
class Row:
    """`reused`: the connection serves the next request. `then`: the upstream's next step."""

    name: str
    data: bytes
    outcome: Response | type[SourceError]
    reused: bool = False
    then: str = "wait"
    # The outcome with aiohttp, and in `because` why it is acceptable.
    aiohttp: Response | type[SourceError] | None = None
    aiohttp_reused: bool | None = None
    because: str = ""

    def expected(self, client: str) -> tuple[Response | type[SourceError], bool]:
        if client == "http1":
            return self.outcome, self.reused
        outcome = self.outcome if self.aiohttp is None else self.aiohttp
        return outcome, self.reused if self.aiohttp_reused is None else self.aiohttp_reused


# Why aiohttp differs where it does.
LENIENT = "its parser is lenient outside of debug mode, and the body is delimited all the same"
UNBOUNDED = "it neither bounds nor stores this: the caller's deadline ends it"
RELEASED = "the complete answer arrived at once and well framed, so the connection was already back in its pool"
AS_ONE = "it refuses all data that arrived at once: no answer, but no wrong one either"


def headers(count: int) -> bytes:
    return b"".join(b"X-%d: y\r\n" % number for number in range(count))


MAX_HEADERS = BOUNDS["max_headers"] - 1
LARGEST_BODY = b"x" * BOUNDS["max_body_bytes"]

COMPLETE = [
    Row("a body of the announced length", answer(b"hello"), HELLO, reused=True),
    Row("an empty body", answer(b""), Response(200, b""), reused=True),
    Row("the largest body", answer(LARGEST_BODY), Response(200, LARGEST_BODY), reused=True),
    Row(
        "the largest number of headers",
        OK + headers(MAX_HEADERS) + b"Content-Length: 5\r\n\r\nhello",
        HELLO,
        reused=True,
    ),
    Row("chunks", CHUNKED + b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", HELLO, reused=True),
    Row(
        "chunks of one byte",
        CHUNKED + b"".join(b"1\r\n%c\r\n" % byte for byte in b"hello" * 200) + b"0\r\n\r\n",
        Response(200, b"hello" * 200),
        reused=True,
    ),
    Row(
        "chunks with extensions and trailers",
        CHUNKED + b'5;a=b;c="d"\r\nhello\r\n0;e\r\nX-Sum: 1\r\nRetry-After: 9\r\n\r\n',
        HELLO,
        reused=True,
    ),
    Row("an interim 100", b"HTTP/1.1 100 Continue\r\n\r\n" + answer(b"hello"), HELLO, reused=True),
    Row(
        "two early hints", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 2 + answer(b"hello"), HELLO, reused=True
    ),
    Row(
        "early hints that announce a body",
        b"HTTP/1.1 103 Early Hints\r\nContent-Length: 9\r\n\r\n" + answer(b"hello"),
        HELLO,
        reused=True,
    ),
    Row("an answer with Connection: close", OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello", HELLO),
    Row(
        "an answer with Connection: close, and a closed connection",
        OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello",
        HELLO,
        then="close",
    ),
    Row("HTTP/1.0", b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", HELLO),
    Row(
        "HTTP/1.0 with keep-alive",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello",
        HELLO,
        reused=True,
    ),
    Row("no content", b"HTTP/1.1 204 No Content\r\n\r\n", Response(204, b""), reused=True),
    Row("not modified", b"HTTP/1.1 304 Not Modified\r\n\r\n", Response(304, b""), reused=True),
    Row(
        "not modified, with the length of the omitted body",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        Response(304, b""),
        aiohttp_reused=True,
        because="it expects no body and trusts the upstream to send none",
    ),
    Row(
        "a redirect",
        b"HTTP/1.1 302 Found\r\nLocation: /else\r\nContent-Length: 0\r\n\r\n",
        Response(302, b""),
        reused=True,
    ),
    Row("a 404", b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nhello", Response(404, b"hello"), reused=True),
    Row(
        "a 503",
        b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n",
        Response(503, b"", 7.0),
        reused=True,
    ),
    Row(
        "a 503 with a date",
        b"HTTP/1.1 503 Busy\r\nRetry-After: Mon, 02 Nov 2026 10:00:00 GMT\r\nContent-Length: 0\r\n\r\n",
        Response(503, b""),
        reused=True,
    ),
    Row(
        "a 503 with minus one second",
        b"HTTP/1.1 503 Busy\r\nRetry-After: -1\r\nContent-Length: 0\r\n\r\n",
        Response(503, b""),
        reused=True,
    ),
    Row(
        "content encoding identity",
        OK + b"Content-Encoding: Identity\r\nContent-Length: 5\r\n\r\nhello",
        HELLO,
        reused=True,
    ),
    Row(
        "an offered upgrade",
        OK + b"Upgrade: h2c\r\nConnection: upgrade\r\nContent-Length: 5\r\n\r\nhello",
        HELLO,
        reused=True,
    ),
]

# The answer stands, and data after it is never read as another answer.
SURPLUS = [
    Row("two answers at once", answer(b"hello") + answer(b"WRONG"), HELLO),
    Row(
        "half an answer too many",
        answer(b"hello") + OK,
        HELLO,
        aiohttp_reused=True,
        because="it reads the next answer with a fresh parser",
    ),
    Row("one byte too much", answer(b"hello") + b"!", HELLO, aiohttp=Garbled, because=AS_ONE),
    Row(
        "garbage after an answer with Connection: close",
        OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello, world",
        HELLO,
        aiohttp=Garbled,
        because=AS_ONE,
    ),
    Row("a second answer after the chunks", CHUNKED + b"5\r\nhello\r\n0\r\n\r\n" + answer(b"WRONG"), HELLO),
    Row(
        "a body after a 204",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello",
        Response(204, b""),
        aiohttp=Garbled,
        because=AS_ONE,
    ),
]

BROKEN = [
    Row("closed before any byte", b"", Unreachable, then="close"),
    Row("reset before any byte", b"", Unreachable, then="reset"),
    Row("closed within the status line", b"HTTP/1.1 20", Unreachable, then="close"),
    Row("closed within a header", OK + b"Content-Le", Unreachable, then="close"),
    Row("closed after the head", OK + b"Content-Length: 5\r\n\r\n", Unreachable, then="close"),
    Row("closed within the body", OK + b"Content-Length: 5\r\n\r\nhel", Unreachable, then="close"),
    Row("reset within the body", OK + b"Content-Length: 5\r\n\r\nhel", Unreachable, then="reset"),
    Row("closed within a chunk", CHUNKED + b"5\r\nhel", Unreachable, then="close"),
    Row("closed before the last chunk", CHUNKED + b"5\r\nhello\r\n", Unreachable, then="close"),
    Row("closed within the trailers", CHUNKED + b"5\r\nhello\r\n0\r\nX: 1\r\n", Unreachable, then="close"),
    Row("closed after an interim response", b"HTTP/1.1 103 Early Hints\r\n\r\n", Unreachable, then="close"),
]

GARBLED = [
    Row("garbage", b"\x16\x03\x01 no http at all\r\n\r\n", Garbled),
    Row("an invalid status", b"HTTP/1.1 2x0 OK\r\nContent-Length: 5\r\n\r\nhello", Garbled),
    Row(
        "a status below 100",
        b"HTTP/1.1 099 Low\r\nContent-Length: 5\r\n\r\nhello",
        Garbled,
        aiohttp_reused=True,
        because=RELEASED,
    ),
    Row("an unknown version", b"HTTP/7.3 200 OK\r\nContent-Length: 5\r\n\r\nhello", Garbled),
    Row("a body that ends with the connection", OK + b"\r\nhello", Garbled, then="close"),
    Row(
        "switching protocols",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\nhello",
        Garbled,
    ),
    Row(
        "switching protocols without Upgrade",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        Garbled,
        aiohttp_reused=True,
        because=RELEASED,
    ),
    Row(
        "a length and chunks",
        OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        Garbled,
    ),
    Row(
        "chunks and a length",
        OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        Garbled,
    ),
    Row("two lengths that differ", OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", Garbled),
    Row("two lengths in one header", OK + b"Content-Length: 5, 5\r\n\r\nhello", Garbled),
    Row("a negative length", OK + b"Content-Length: -5\r\n\r\nhello", Garbled),
    Row("a length with a sign", OK + b"Content-Length: +5\r\n\r\nhello", Garbled),
    Row("an overflowing length", OK + b"Content-Length: 99999999999999999999999\r\n\r\nhello", Garbled),
    Row("an invalid chunk size", CHUNKED + b"xyz\r\nhello\r\n0\r\n\r\n", Garbled),
    Row("a negative chunk size", CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n", Garbled),
    Row("an overflowing chunk size", CHUNKED + b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n", Garbled),
    Row("a chunk longer than its size", CHUNKED + b"2\r\nhello\r\n0\r\n\r\n", Garbled),
    Row(
        "a transfer encoding over chunks",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        Garbled,
        aiohttp_reused=True,
        because=RELEASED,
    ),
    Row("a transfer encoding without chunks", OK + b"Transfer-Encoding: gzip\r\n\r\nhello", Garbled),
    Row(
        "chunked encoding twice",
        OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        Garbled,
        aiohttp_reused=True,
        because=RELEASED,
    ),
    Row(
        "unrequested gzip",
        OK + b"Content-Encoding: gzip\r\nContent-Length: 25\r\n\r\n" + gzip.compress(b"hello"),
        Garbled,
        aiohttp_reused=True,
        because=RELEASED,
    ),
    Row("NUL in a header", OK + b"X: a\x00b\r\nContent-Length: 5\r\n\r\nhello", Garbled),
    Row("NUL in a header's name", OK + b"X\x00: a\r\nContent-Length: 5\r\n\r\nhello", Garbled),
    Row(
        "a space before the colon",
        OK + b"Content-Length : 5\r\n\r\nhello",
        Garbled,
        aiohttp_reused=True,
        because=RELEASED,
    ),
    Row(
        "a folded header",
        OK + b"X: a\r\n b\r\nContent-Length: 5\r\n\r\nhello",
        Garbled,
        aiohttp=HELLO,
        aiohttp_reused=True,
        because=LENIENT,
    ),
    Row(
        "bare line feeds as line ends",
        b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
        Garbled,
        aiohttp=HELLO,
        aiohttp_reused=True,
        because=LENIENT,
    ),
    Row("a body larger than allowed, announced", OK + b"Content-Length: 4097\r\n\r\n", Garbled),
    Row(
        "a body larger than allowed, in chunks",
        CHUNKED + b"1001\r\n" + LARGEST_BODY + b"x\r\n0\r\n\r\n",
        Garbled,
        aiohttp_reused=True,
        because=RELEASED,
    ),
    Row("one header too many", OK + headers(MAX_HEADERS + 1) + b"Content-Length: 5\r\n\r\nhello", Garbled),
    Row("one oversized header", OK + b"X: " + b"y" * 2048 + b"\r\nContent-Length: 5\r\n\r\nhello", Garbled),
    Row(
        "headers oversized together",
        OK + b"".join(b"X: " + b"y" * 200 + b"\r\n" for _ in range(15)) + b"Content-Length: 5\r\n\r\nhello",
        Garbled,
        aiohttp_reused=True,
        because=RELEASED,
    ),
    Row("oversized trailers", CHUNKED + b"5\r\nhello\r\n0\r\n" + b"X: " + b"y" * 2048 + b"\r\n\r\n", Garbled),
    Row(
        "too many trailers",
        CHUNKED + b"5\r\nhello\r\n0\r\n" + headers(MAX_HEADERS + 1) + b"\r\n",
        Garbled,
        aiohttp=HELLO,
        aiohttp_reused=True,
        because=UNBOUNDED,
    ),
    Row(
        "an oversized chunk extension",
        CHUNKED + b"5;a=" + b"y" * 2048 + b"\r\nhello\r\n0\r\n\r\n",
        Garbled,
        aiohttp=HELLO,
        aiohttp_reused=True,
        because=UNBOUNDED,
    ),
    Row(
        "nine interim responses",
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 9 + answer(b"hello"),
        Garbled,
        aiohttp=HELLO,
        aiohttp_reused=True,
        because=UNBOUNDED,
    ),
]

ROWS = COMPLETE + SURPLUS + BROKEN + GARBLED


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_an_answer_is_accepted_or_refused_and_the_next_request_gets_its_own(wired: Wired, row: Row) -> None:
    transport, upstream, client = wired
    expected, reused = row.expected(client)
    first = send(transport, "/first")
    peer = await upstream.peer()
    await peer.read_request()
    peer.write(row.data)
    if row.then == "close":
        peer.close()
    elif row.then == "reset":
        peer.reset()

    outcome = await first.outcome()
    if isinstance(expected, Response):
        assert outcome == expected
    else:
        assert type(outcome) is expected or (type(outcome).__bases__ == (expected,)), outcome
        assert isinstance(outcome, SourceError)
        detail = outcome.detail.removeprefix(transport.addresses[0])  # of a socket file with a random name
        assert not any(text in detail for text in ("hello", "yyy", "xxx")), "a detail quotes the answer"

    second = send(transport, "/second")
    if not reused:
        if row.then == "wait":
            await peer.wait_closed()
        peer = await upstream.peer()
    assert (await peer.read_request()).line == "GET /second HTTP/1.1"
    peer.write(answer(b"second"))
    assert await second.outcome() == Response(200, b"second")
    assert upstream.untaken == 0

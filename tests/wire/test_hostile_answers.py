"""What an upstream may say, and what becomes of it: one table for both transports.

Every row ends in one more question, which must get its own answer: on the same connection where the row says that it is kept, on a fresh
one otherwise. Where aiohttp differs, the row says how and why.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass

import pytest

from cashier.source_errors import Garbled, SourceError, Unreachable
from cashier.wire.transport import Response

from .asking import OK, answer, ask
from .conftest import BOUNDS, Wired

CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
HELLO = Response(200, b"hello")


@dataclass(frozen=True)
class Row:
    """`kept`: the connection serves the next question. `then`: what the upstream does after speaking."""

    name: str
    said: bytes
    outcome: Response | type[SourceError]
    kept: bool = False
    then: str = "wait"
    # What aiohttp makes of it, and in `because` why that is good enough.
    aiohttp: Response | type[SourceError] | None = None
    aiohttp_kept: bool | None = None
    because: str = ""

    def expected(self, client: str) -> tuple[Response | type[SourceError], bool]:
        if client == "http1":
            return self.outcome, self.kept
        outcome = self.outcome if self.aiohttp is None else self.aiohttp
        return outcome, self.kept if self.aiohttp_kept is None else self.aiohttp_kept


# Why aiohttp differs where it does.
LENIENT = "its parser is lenient outside of debug mode, and the body ends where we say it does"
UNBOUNDED = "it does not bound this, nor keep it: the caller's deadline ends it"
RELEASED = "the whole answer came at once, so the connection was back in its pool before we looked; it was well framed"
AS_ONE = "it refuses all that came at once: no answer, but no wrong one either"


def headers(count: int) -> bytes:
    return b"".join(b"X-%d: y\r\n" % number for number in range(count))


MOST_HEADERS = BOUNDS["max_headers"] - 1
MOST_BODY = b"x" * BOUNDS["max_body_bytes"]

GOOD = [
    Row("a length and as much body", answer(b"hello"), HELLO, kept=True),
    Row("an empty body", answer(b""), Response(200, b""), kept=True),
    Row("the largest body", answer(MOST_BODY), Response(200, MOST_BODY), kept=True),
    Row("the most headers", OK + headers(MOST_HEADERS) + b"Content-Length: 5\r\n\r\nhello", HELLO, kept=True),
    Row("chunks", CHUNKED + b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", HELLO, kept=True),
    Row(
        "chunks of one byte",
        CHUNKED + b"".join(b"1\r\n%c\r\n" % byte for byte in b"hello" * 200) + b"0\r\n\r\n",
        Response(200, b"hello" * 200),
        kept=True,
    ),
    Row(
        "chunks with extensions and trailers",
        CHUNKED + b'5;a=b;c="d"\r\nhello\r\n0;e\r\nX-Sum: 1\r\nRetry-After: 9\r\n\r\n',
        HELLO,
        kept=True,
    ),
    Row("an early 100", b"HTTP/1.1 100 Continue\r\n\r\n" + answer(b"hello"), HELLO, kept=True),
    Row(
        "early hints, twice", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 2 + answer(b"hello"), HELLO, kept=True
    ),
    Row(
        "early hints that announce a body",
        b"HTTP/1.1 103 Early Hints\r\nContent-Length: 9\r\n\r\n" + answer(b"hello"),
        HELLO,
        kept=True,
    ),
    Row("an answer that is the last", OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello", HELLO),
    Row(
        "an answer that is the last, and a closed connection",
        OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello",
        HELLO,
        then="hang up",
    ),
    Row("HTTP/1.0", b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", HELLO),
    Row(
        "HTTP/1.0 that keeps",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello",
        HELLO,
        kept=True,
    ),
    Row("no content", b"HTTP/1.1 204 No Content\r\n\r\n", Response(204, b""), kept=True),
    Row("not modified", b"HTTP/1.1 304 Not Modified\r\n\r\n", Response(304, b""), kept=True),
    Row(
        "not modified, with the length of what was not sent",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        Response(304, b""),
        aiohttp_kept=True,
        because="it knows that there is no body and trusts the upstream to know it too",
    ),
    Row(
        "a redirect",
        b"HTTP/1.1 302 Found\r\nLocation: /else\r\nContent-Length: 0\r\n\r\n",
        Response(302, b""),
        kept=True,
    ),
    Row("a refusal", b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nhello", Response(404, b"hello"), kept=True),
    Row(
        "an overload",
        b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n",
        Response(503, b"", 7.0),
        kept=True,
    ),
    Row(
        "an overload until a date",
        b"HTTP/1.1 503 Busy\r\nRetry-After: Mon, 02 Nov 2026 10:00:00 GMT\r\nContent-Length: 0\r\n\r\n",
        Response(503, b""),
        kept=True,
    ),
    Row(
        "an overload for minus one second",
        b"HTTP/1.1 503 Busy\r\nRetry-After: -1\r\nContent-Length: 0\r\n\r\n",
        Response(503, b""),
        kept=True,
    ),
    Row(
        "identity named as an encoding",
        OK + b"Content-Encoding: Identity\r\nContent-Length: 5\r\n\r\nhello",
        HELLO,
        kept=True,
    ),
    Row(
        "an upgrade that is only offered",
        OK + b"Upgrade: h2c\r\nConnection: upgrade\r\nContent-Length: 5\r\n\r\nhello",
        HELLO,
        kept=True,
    ),
]

# The answer stands, nothing that came after it is ever read as another.
TOO_MUCH = [
    Row("two answers at once", answer(b"hello") + answer(b"WRONG"), HELLO),
    Row(
        "half an answer too much",
        answer(b"hello") + OK,
        HELLO,
        aiohttp_kept=True,
        because="it reads the next answer with a fresh parser",
    ),
    Row("one byte too much", answer(b"hello") + b"!", HELLO, aiohttp=Garbled, because=AS_ONE),
    Row(
        "garbage after the last answer",
        OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello, world",
        HELLO,
        aiohttp=Garbled,
        because=AS_ONE,
    ),
    Row("a second answer after the chunks", CHUNKED + b"5\r\nhello\r\n0\r\n\r\n" + answer(b"WRONG"), HELLO),
    Row(
        "a body where there is none",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello",
        Response(204, b""),
        aiohttp=Garbled,
        because=AS_ONE,
    ),
]

BROKEN = [
    Row("hung up before a word", b"", Unreachable, then="hang up"),
    Row("reset before a word", b"", Unreachable, then="reset"),
    Row("hung up within the status line", b"HTTP/1.1 20", Unreachable, then="hang up"),
    Row("hung up within a header", OK + b"Content-Le", Unreachable, then="hang up"),
    Row("hung up after the head", OK + b"Content-Length: 5\r\n\r\n", Unreachable, then="hang up"),
    Row("a body that is too short", OK + b"Content-Length: 5\r\n\r\nhel", Unreachable, then="hang up"),
    Row("reset within the body", OK + b"Content-Length: 5\r\n\r\nhel", Unreachable, then="reset"),
    Row("hung up within a chunk", CHUNKED + b"5\r\nhel", Unreachable, then="hang up"),
    Row("hung up before the last chunk", CHUNKED + b"5\r\nhello\r\n", Unreachable, then="hang up"),
    Row("hung up within the trailers", CHUNKED + b"5\r\nhello\r\n0\r\nX: 1\r\n", Unreachable, then="hang up"),
    Row("hung up after an early answer", b"HTTP/1.1 103 Early Hints\r\n\r\n", Unreachable, then="hang up"),
]

GARBLED = [
    Row("garbage", b"\x16\x03\x01 no http at all\r\n\r\n", Garbled),
    Row("a status that is none", b"HTTP/1.1 2x0 OK\r\nContent-Length: 5\r\n\r\nhello", Garbled),
    Row(
        "a status below the first",
        b"HTTP/1.1 099 Low\r\nContent-Length: 5\r\n\r\nhello",
        Garbled,
        aiohttp_kept=True,
        because=RELEASED,
    ),
    Row("an unknown version", b"HTTP/7.3 200 OK\r\nContent-Length: 5\r\n\r\nhello", Garbled),
    Row("a body without an announced end", OK + b"\r\nhello", Garbled, then="hang up"),
    Row(
        "switching protocols",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\nhello",
        Garbled,
    ),
    Row(
        "switching protocols without saying to what",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        Garbled,
        aiohttp_kept=True,
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
    Row("two lengths in one line", OK + b"Content-Length: 5, 5\r\n\r\nhello", Garbled),
    Row("a negative length", OK + b"Content-Length: -5\r\n\r\nhello", Garbled),
    Row("a length with a sign", OK + b"Content-Length: +5\r\n\r\nhello", Garbled),
    Row("a length beyond all numbers", OK + b"Content-Length: 99999999999999999999999\r\n\r\nhello", Garbled),
    Row("a chunk size that is none", CHUNKED + b"xyz\r\nhello\r\n0\r\n\r\n", Garbled),
    Row("a negative chunk size", CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n", Garbled),
    Row("a chunk size beyond all numbers", CHUNKED + b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n", Garbled),
    Row("a chunk longer than it says", CHUNKED + b"2\r\nhello\r\n0\r\n\r\n", Garbled),
    Row(
        "a transfer encoding over chunks",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        Garbled,
        aiohttp_kept=True,
        because=RELEASED,
    ),
    Row("a transfer encoding without chunks", OK + b"Transfer-Encoding: gzip\r\n\r\nhello", Garbled),
    Row(
        "chunked twice",
        OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        Garbled,
        aiohttp_kept=True,
        because=RELEASED,
    ),
    Row(
        "gzip, which was not accepted",
        OK + b"Content-Encoding: gzip\r\nContent-Length: 25\r\n\r\n" + gzip.compress(b"hello"),
        Garbled,
        aiohttp_kept=True,
        because=RELEASED,
    ),
    Row("NUL in a header", OK + b"X: a\x00b\r\nContent-Length: 5\r\n\r\nhello", Garbled),
    Row("NUL in a header's name", OK + b"X\x00: a\r\nContent-Length: 5\r\n\r\nhello", Garbled),
    Row(
        "a space before the colon",
        OK + b"Content-Length : 5\r\n\r\nhello",
        Garbled,
        aiohttp_kept=True,
        because=RELEASED,
    ),
    Row(
        "a folded header",
        OK + b"X: a\r\n b\r\nContent-Length: 5\r\n\r\nhello",
        Garbled,
        aiohttp=HELLO,
        aiohttp_kept=True,
        because=LENIENT,
    ),
    Row(
        "lines that end in a bare line feed",
        b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
        Garbled,
        aiohttp=HELLO,
        aiohttp_kept=True,
        because=LENIENT,
    ),
    Row("a body larger than allowed, announced", OK + b"Content-Length: 4097\r\n\r\n", Garbled),
    Row(
        "a body larger than allowed, in chunks",
        CHUNKED + b"1001\r\n" + MOST_BODY + b"x\r\n0\r\n\r\n",
        Garbled,
        aiohttp_kept=True,
        because=RELEASED,
    ),
    Row("one header too many", OK + headers(MOST_HEADERS + 1) + b"Content-Length: 5\r\n\r\nhello", Garbled),
    Row("one header too large", OK + b"X: " + b"y" * 2048 + b"\r\nContent-Length: 5\r\n\r\nhello", Garbled),
    Row(
        "headers too large together",
        OK + b"".join(b"X: " + b"y" * 200 + b"\r\n" for _ in range(15)) + b"Content-Length: 5\r\n\r\nhello",
        Garbled,
        aiohttp_kept=True,
        because=RELEASED,
    ),
    Row("trailers too large", CHUNKED + b"5\r\nhello\r\n0\r\n" + b"X: " + b"y" * 2048 + b"\r\n\r\n", Garbled),
    Row(
        "too many trailers",
        CHUNKED + b"5\r\nhello\r\n0\r\n" + headers(MOST_HEADERS + 1) + b"\r\n",
        Garbled,
        aiohttp=HELLO,
        aiohttp_kept=True,
        because=UNBOUNDED,
    ),
    Row(
        "a chunk extension too large",
        CHUNKED + b"5;a=" + b"y" * 2048 + b"\r\nhello\r\n0\r\n\r\n",
        Garbled,
        aiohttp=HELLO,
        aiohttp_kept=True,
        because=UNBOUNDED,
    ),
    Row(
        "nine early answers",
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 9 + answer(b"hello"),
        Garbled,
        aiohttp=HELLO,
        aiohttp_kept=True,
        because=UNBOUNDED,
    ),
]

ROWS = GOOD + TOO_MUCH + BROKEN + GARBLED


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_an_answer_is_believed_or_refused_and_the_next_question_gets_its_own(wired: Wired, row: Row) -> None:
    wire, upstream, client = wired
    expected, kept = row.expected(client)
    first = ask(wire, "/first")
    peer = await upstream.peer()
    await peer.question()
    peer.say(row.said)
    if row.then == "hang up":
        peer.hang_up()
    elif row.then == "reset":
        peer.reset()

    outcome = await first.outcome()
    if isinstance(expected, Response):
        assert outcome == expected
    else:
        assert type(outcome) is expected or (type(outcome).__bases__ == (expected,)), outcome
        assert isinstance(outcome, SourceError)
        assert not any(word in outcome.detail for word in ("hello", "yyy", "xxx")), "a detail quotes what came"

    second = ask(wire, "/second")
    if not kept:
        if row.then == "wait":
            await peer.gone()
        peer = await upstream.peer()
    assert (await peer.question()).line == "GET /second HTTP/1.1"
    peer.say(answer(b"second"))
    assert await second.outcome() == Response(200, b"second")
    assert upstream.unseen == 0

"""Answers without an end of their own: bounded by the wire, or at least by the patience of who asked."""

from __future__ import annotations

import pytest

from cashier.source_errors import Garbled, SourceError

from .asking import OK, arrival, ask
from .conftest import Wired


@pytest.mark.parametrize(
    ("opening", "flood"),
    [
        (OK, b"X: y\r\n" * 10),
        (OK + b"X: ", b"y" * 500),
        (b"HTTP/1.1 200 ", b"O" * 500),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"3e8\r\n" + b"x" * 1000 + b"\r\n"),
    ],
    ids=["headers", "one header", "a reason", "chunks"],
)
async def test_a_flood_without_an_end_is_cut_off(wired: Wired, opening: bytes, flood: bytes) -> None:
    asked = ask(wired.wire)
    peer = await wired.upstream.peer()
    await peer.question()
    peer.say(opening)
    await peer.flood(flood)
    assert isinstance(await asked.outcome(), Garbled)


@pytest.mark.parametrize(
    ("opening", "flood"),
    [
        (b"", b"\r\n" * 500),
        (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5;", b"x" * 500),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n" * 10),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: ", b"y" * 500),
    ],
    ids=["blank lines", "early answers", "a chunk extension", "trailers", "one trailer"],
)
async def test_a_flood_around_the_body_is_cut_off_or_ends_with_the_callers_patience(
    wired: Wired, opening: bytes, flood: bytes
) -> None:
    asked = ask(wired.wire)
    peer = await wired.upstream.peer()
    await peer.question()
    peer.say(opening)
    if wired.client == "http1":
        await peer.flood(flood)
        assert isinstance(await asked.outcome(), Garbled)
        return
    # aiohttp bounds trailers only and keeps none of the others: it reads until the asker's deadline abandons the call.
    await peer.flood(flood, times=20)
    asked.exchange.abandon()
    await peer.flood(flood)
    assert asked.outcomes == [] or isinstance(asked.outcomes[0], SourceError)


@pytest.mark.parametrize("bad", [b"zz\r\n", b"2\r\nhello\r\n"], ids=["size", "length"])
async def test_a_chunk_that_breaks_the_protocol_after_the_head_was_read_is_no_hang(wired: Wired, bad: bytes) -> None:
    asked = ask(wired.wire)
    peer = await wired.upstream.peer()
    await peer.question()
    await peer.say_slowly(OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
    await arrival()
    peer.say(bad)
    assert isinstance(await asked.outcome(), Garbled)
    await peer.gone()

"""Endless answers: bounded by the transport, or at least by the caller's deadline."""

from __future__ import annotations

import pytest

from cashier.source_errors import Garbled, SourceError
from tests.wire.client_side import OK, send, settle

from .conftest import Wired


@pytest.mark.parametrize(
    ("opening", "flood"),
    [
        (OK, b"X: y\r\n" * 10),
        (OK + b"X: ", b"y" * 500),
        (b"HTTP/1.1 200 ", b"O" * 500),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"3e8\r\n" + b"x" * 1000 + b"\r\n"),
    ],
    ids=["headers", "one header", "reason phrase", "chunks"],
)
async def test_a_flood_without_an_end_is_cut_off(wired: Wired, opening: bytes, flood: bytes) -> None:
    call = send(wired.transport)
    peer = await wired.upstream.peer()
    await peer.read_request()
    peer.write(opening)
    await peer.flood(flood)
    assert isinstance(await call.outcome(), Garbled)


@pytest.mark.parametrize(
    ("opening", "flood"),
    [
        (b"", b"\r\n" * 500),
        (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5;", b"x" * 500),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n" * 10),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: ", b"y" * 500),
    ],
    ids=["blank lines", "interim responses", "chunk extension", "trailers", "one trailer"],
)
async def test_a_flood_outside_the_body_is_cut_off_or_ends_when_the_caller_abandons(
    wired: Wired, opening: bytes, flood: bytes
) -> None:
    call = send(wired.transport)
    peer = await wired.upstream.peer()
    await peer.read_request()
    peer.write(opening)
    if wired.client == "http1":
        await peer.flood(flood)
        assert isinstance(await call.outcome(), Garbled)
        return
    # aiohttp bounds trailers only and stores none of the rest: it reads until the caller abandons.
    await peer.flood(flood, times=20)
    call.abandon()
    await peer.flood(flood)
    assert call.outcomes == [] or isinstance(call.outcomes[0], SourceError)


@pytest.mark.parametrize("bad", [b"zz\r\n", b"2\r\nhello\r\n"], ids=["size", "length"])
async def test_a_broken_chunk_after_the_head_does_not_hang(wired: Wired, bad: bytes) -> None:
    call = send(wired.transport)
    peer = await wired.upstream.peer()
    await peer.read_request()
    await peer.write_slowly(OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
    await settle()
    peer.write(bad)
    assert isinstance(await call.outcome(), Garbled)
    await peer.wait_closed()

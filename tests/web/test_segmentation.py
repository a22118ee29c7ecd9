"""Differential fuzz: the answers to a stream of bytes do not depend on how it was split.

Streams are pipelines of well-formed, unusual and broken messages. `--proof=N` draws more, and fresh
ones: `python -m pytest -n 0 --proof=40 tests/web/test_segmentation.py` searches for about an hour.
"""

from __future__ import annotations

import asyncio
from itertools import pairwise

import looptime
from hypothesis import given
from hypothesis import strategies as st

from tests.web.fake_payments import BODY as SUBMIT_BODY
from tests.web.fake_service import BODY
from tests.web.virtual_client import VirtualServer, in_bytes, without_random

LINES = st.sampled_from(
    (
        b"GET /healthz HTTP/1.1", b"HEAD /healthz HTTP/1.1", b"POST /v1/consult HTTP/1.1",
        b"POST /v1/consult?x HTTP/1.1",
        b"POST /v1/payments HTTP/1.1", b"GET /nowhere HTTP/1.1", b"GET /v1/consult HTTP/1.0",
        b"POST /v1/consult HTTP/1.0",
        b"OPTIONS * HTTP/1.1", b"GET http://a/readyz HTTP/1.1", b"CONNECT a:1 HTTP/1.1", b"GET /a#b HTTP/1.1", b"GET /",
        b"BREW /pot HTTP/1.1", b"PRI * HTTP/2.0",
    )
)  # fmt: skip
HEADERS = st.lists(
    st.sampled_from(
        (
            b"X-Request-Timeout-Ms: 400 ", b"X-Request-Timeout-Ms:\t400", b"X-Request-Id: r-1", b"x-request-id:r-2 ",
            b"Content-Type: application/json", b"Content-Type: text/plain", b"Accept: text/event-stream",
            b"Idempotency-Key: k-1", b"Expect: 100-continue", b"Connection: close", b"Connection: close, Upgrade",
            b"Connection: Upgrade", b"Upgrade: h2c", b"Connection: keep-alive", b"X-A : b", b" folded", b"X: a\rb",
            b"Host: b", b"Content-Length: 5", b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip", b"no colon",
            b"X-Priority: low", b"X-Many: " + b"y" * 300, b"\xff: x", b"X: \x01",
        )
    ),
    max_size=4,
)  # fmt: skip
HOSTS = st.sampled_from((b"Host: shop\r\n",) * 8 + (b"", b"Host: a/b\r\n", b"Host:\r\n"))
BODIES = st.sampled_from((b"", b"{}", BODY, SUBMIT_BODY, b"x" * 300))
TRAILERS = st.sampled_from(
    (b"",) * 4 + (b"X-Request-Id: trailer\r\n", b"X: " + b"t" * 99 + b"\r\n", b"bad\r\n", b" x\r\n")
)
SIZES = st.sampled_from((b"%x\r\n",) * 8 + (b"%X;a=b\r\n", b"0%x \t;x\r\n", b"%x \r\n", b"ZZ%x\r\n", b"%x\n"))
BETWEEN = st.sampled_from((b"",) * 6 + (b"\r\n", b"\r\n\r\n", b"\r", b"\n", b"\x00", b"\x16\x03\x01"))


@st.composite
def chunked(draw: st.DrawFn) -> bytes:
    body, size = draw(BODIES), draw(st.integers(1, 400))
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    chunks: bytes = b"".join(draw(SIZES) % len(piece) + piece + b"\r\n" for piece in pieces)
    trailers: bytes = draw(TRAILERS)
    return b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n" + trailers + b"\r\n"


@st.composite
def with_length(draw: st.DrawFn) -> bytes:
    body: bytes = draw(BODIES)
    difference = draw(st.sampled_from((0, 0, 0, 0, 0, 1, -1, 70_000)))
    return b"Content-Length: %d\r\n\r\n" % max(0, len(body) + difference) + body


@st.composite
def message(draw: st.DrawFn) -> bytes:
    head: bytes = draw(LINES) + b"\r\n" + draw(HOSTS) + b"".join(line + b"\r\n" for line in draw(HEADERS))
    rest: bytes = draw(st.one_of(st.just(b"\r\n"), with_length(), chunked()))
    return head + rest


CONSULTATION = b"POST /v1/consult HTTP/1.1\r\nHost: shop\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
FLOODS = st.sampled_from(
    (
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 66_000 + b"\r\n\r\n",
        b"\r\n" * 33_000,
        b"POST /v1/consult HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * 12_000,
        b"POST /v1/consult HTTP/1.1\r\nHost: a\r\nContent-Length: 70000\r\n\r\n" + b" " * 70_000,
    )
)
STREAMS = st.lists(
    st.one_of(message(), message(), st.just(CONSULTATION), BETWEEN, st.binary(max_size=6)), min_size=1, max_size=5
).map(b"".join)


async def answers(segments: list[bytes], *, ends: bool) -> tuple[bytes, bool]:
    """Everything that the server answers, and whether it closes its side."""
    client = VirtualServer().connect()
    await client.send(*segments)
    if ends:
        await client.end()
    result = without_random(client.received), client.is_closed
    client.reset()
    await client.settle()
    return result


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted({cut % len(data) for cut in cuts} - {0}), len(data)]
    return [data[begin:end] for begin, end in pairwise(places)]


def run(segments: list[bytes], *, ends: bool) -> tuple[bytes, bool]:
    with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
        return runner.run(answers(segments, ends=ends))


@given(STREAMS.filter(bool), st.lists(st.integers(0, 5000), max_size=6), st.booleans())
def test_a_stream_gets_the_same_answers_however_it_is_split(data: bytes, cuts: list[int], ends: bool) -> None:
    whole = run([data], ends=ends)
    assert run(split(data, cuts), ends=ends) == whole
    assert run(list(in_bytes(data)), ends=ends) == whole


@given(STREAMS, FLOODS, st.lists(st.integers(0, 70_000), max_size=4), st.booleans())
def test_a_flood_gets_the_same_answers_however_it_is_split(
    before: bytes, flood: bytes, cuts: list[int], ends: bool
) -> None:
    data = before + flood + CONSULTATION
    whole = run([data], ends=ends)
    assert run(split(data, cuts), ends=ends) == whole
    assert run(split(data, list(range(0, len(data), 999))), ends=ends) == whole
